"""No module without a test that names it: as an import, or as what a test runs."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

TESTS = "\n".join(
    path.read_text() for folder in ("unit", "integration") for path in sorted((ROOT / "tests" / folder).rglob("test_*.py"))
)


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py")))
def test_module_is_named_in_a_test(name):
    used = rf'\b{name}\.(?!py)\w|\(\s*"{name}"|"beta9\.workers\.{name}"'
    assert re.search(used, TESTS), f"{name}: no unit or integration test imports or runs it"
