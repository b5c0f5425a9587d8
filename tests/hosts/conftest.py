"""The marks of the tests whose helpers are used here."""

from tests.e2e import conftest


def pytest_configure(config):
    conftest.pytest_configure(config)
