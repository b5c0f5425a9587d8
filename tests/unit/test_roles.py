"""Every role's defaults are its documented defaults."""

from __future__ import annotations

import pytest
import yaml

from tests.conftest import ROOT

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())


@pytest.mark.parametrize("role", ROLES)
def test_defaults_equal_argument_specs(role):
    folder = ROOT / "roles" / role
    defaults_file = folder / "defaults" / "main.yml"
    defaults = yaml.safe_load(defaults_file.read_text()) or {} if defaults_file.exists() else {}
    specs = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text())["argument_specs"]
    documented = {name: option["default"] for name, option in specs["main"].get("options", {}).items() if "default" in option}
    assert documented == defaults
    assert all(name.startswith(role + "_") for name in defaults)


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "playbooks").glob("*.yml")))
def test_every_playbook_can_be_named_from_the_checkout(name):
    assert (ROOT / name).exists(), "a bare checkout has no %s" % name
