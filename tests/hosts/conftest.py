"""The marks of the tests whose helpers are used here, and what is written down of them."""

from tests import seen
from tests.e2e import conftest


def pytest_configure(config):
    conftest.pytest_configure(config)
    seen.register(config)
