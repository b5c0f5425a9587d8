"""The marks of the tests whose helpers are used here."""

from tests.e2e.conftest import pytest_configure

__all__ = ["pytest_configure"]
