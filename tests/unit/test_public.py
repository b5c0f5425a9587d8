"""What is for users and what is not: said in the first sentence of each plugin's documentation, and the same wherever it counts."""

from __future__ import annotations

import pathlib
import re
import sys

import pytest
import yaml

from ansible_collections.beta9.workers.plugins.doc_fragments import gateway as fragment
from ansible_collections.beta9.workers.plugins.module_utils.gateway import api
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import docs

PUBLIC = {
    "modules": {
        "machine",
        "machine_drain",
        "machine_info",
        "machine_keepalive",
        "machine_register",
        "pool_info",
        "worker_health",
    },
    "inventory": {"machines"},
}
KINDS = ("modules", "inventory", "filter", "lookup")
PLUGINS = [path for kind in KINDS for path in sorted((ROOT / "plugins" / kind).glob("*.py"))]


def documentation(path: pathlib.Path) -> dict:
    """Return the documentation of a plugin."""
    return yaml.safe_load(re.search(r'(?ms)^DOCUMENTATION = r?"""(.*?)^"""', path.read_text()).group(1))


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_first_sentence_says_what_is_internal(path):
    first = documentation(path)["description"][0]
    assert first.startswith("Internal to ") == (path.stem not in PUBLIC.get(path.parent.name, ()))
    assert docs.is_internal(documentation(path)) == first.startswith("Internal to ")


def test_action_group_is_what_shares_the_documentation_of_the_gateway():
    shared = {
        path.stem
        for path in (ROOT / "plugins/modules").glob("*.py")
        if "beta9.workers.gateway" in documentation(path).get("extends_documentation_fragment", ())
    }
    groups = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]
    assert groups == {"gateway": sorted(shared)} and PUBLIC["modules"] - {"worker_health"} <= shared


def test_documentation_of_the_gateway_is_what_modules_take():
    documented = yaml.safe_load(fragment.ModuleDocFragment.DOCUMENTATION)["options"]
    shown = {
        name: {key: option[key] for key in ("type", "default") if key in option} for name, option in documented.items()
    }
    taken = {
        name: {key: option[key] for key in ("type", "default") if key in option}
        for name, option in api.GATEWAY_ARGUMENT_SPEC.items()
    }
    assert shown == taken
    for name, option in api.GATEWAY_ARGUMENT_SPEC.items():
        if "fallback" in option:
            assert option["fallback"][1] == ["BETA9_" + name.upper()] and "BETA9_" + name.upper() in str(
                documented[name]["description"]
            )


INDEX = """
Modules
~~~~~~~

* :ansplugin:`host_files module <beta9.workers.host_files#module>` -- Ensure several small text files on a host in one call
* :ansplugin:`machine module <beta9.workers.machine#module>` -- Create or delete a machine of a gateway

.. toctree::
    :hidden:

    host_files_module
    machine_module

Filter Plugins
~~~~~~~~~~~~~~

* :ansplugin:`valid filter <beta9.workers.valid#filter>` -- A value that may be written into a file

.. toctree::
    :hidden:

    valid_filter
"""


def test_site_lists_what_is_internal_last():
    first, last = docs.sorted_index(INDEX).split("Internal\n--------\n")
    assert "machine module" in first and "    machine_module\n    host_files_module\n" in first
    assert (
        "host_files module" not in first
        and "valid filter" not in first
        and "~\n\nOnly internal ones, see below.\n\n.. toctree" in first
    )
    assert "host_files module" in last and "valid filter" in last and "machine module" not in last


def test_folders_of_module_utils_show_what_each_file_is_about():
    """At the top is only what several folders build on; a folder's __init__.py imports nothing, so that a module takes to a host what it uses."""
    room = ROOT / "plugins/module_utils"
    assert {path.stem for path in room.glob("*.py")} == {"connections", "exchange", "grammar"}
    for folder in {path.parent for path in room.rglob("*.py")} - {room}:
        assert (folder / "__init__.py").read_text() == ""
    imported = re.compile(r"^from ansible_collections\.beta9\.workers\.plugins\.module_utils\.(\w+)", re.M)
    for path in (room / "host").glob("*.py"):
        assert set(imported.findall(path.read_text())) <= {"host", "agent"}, f"{path.name}: any host has these files, with or without a gateway"
