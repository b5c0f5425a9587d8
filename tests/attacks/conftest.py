"""The hosts of the end-to-end tests, to attack."""

from tests.e2e.conftest import pytest_configure, testbed  # noqa: F401
