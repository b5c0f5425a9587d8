# Copyright: beta9.workers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""No message, remedy or page names a variable that does not exist."""

from __future__ import annotations

import ast
import pathlib
import re
import subprocess

import pytest
import yaml


class Loader(yaml.SafeLoader):
    """Reads Ansible's own tags as the values that they mark."""


Loader.add_constructor("!unsafe", lambda loader, node: loader.construct_scalar(node))
ROOT = pathlib.Path(__file__).parents[2]
PREFIXES = "beta9|autossh|nvidia|tailscale|preflight|health_check|gateway_host|k3s|awx"
NAME = re.compile(rf"(?<![\w./-])((?:{PREFIXES})_[a-z0-9_]*[a-z0-9])(?![\w(*-]|\.(?!\s|$))")
# the agent's Python package, what AWX itself or an inventory calls so, and the mistake that a page shows
FOREIGN = {"beta9_agent", "awx_job_id", "beta9_gateway", "beta9_machines", "awx_job_launch", "awx_job_template", "beta9_pol"}


def options(table: dict) -> set[str]:
    """Names of the options of a role's entry, nested ones too."""
    found = set(table)
    for option in table.values():
        found |= options(option.get("options") or {})
    return found


def assigned(node: object) -> set[str]:
    """Names that a YAML document gives a value to: variables, registered results, facts."""
    found: set[str] = set()
    if isinstance(node, dict):
        for key, value in node.items():
            found |= {str(key)} | assigned(value)
            if key == "register":
                found.add(str(value))
    elif isinstance(node, list):
        for item in node:
            found |= assigned(item)
    return found


@pytest.fixture(scope="module")
def existing() -> set[str]:
    found = set(FOREIGN)
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            found |= options(entry.get("options") or {})
    for folder in ("roles", "playbooks", "awx"):
        for path in (ROOT / folder).rglob("*.yml"):
            for document in yaml.load_all(path.read_text(), Loader):
                found |= assigned(document)
    found |= {path.stem for path in (ROOT / "plugins").rglob("*.py")}
    for path in (ROOT / "plugins/modules").glob("*.py"):  # options and results of modules, as documented
        found |= set(re.findall(r"(?m)^ +([a-z0-9_]+):$", path.read_text()))
    found |= set(re.findall(r'"([a-z0-9_]+)"', "\n".join(path.read_text() for path in (ROOT / "plugins/module_utils/health/checks").glob("*.py"))))
    return found


def sentences(path: pathlib.Path) -> list[str]:
    """Strings of a program that are more than a name: what people may read."""
    tree = ast.parse(path.read_text())
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value]


def unknown(text: str, existing: set[str]) -> list[str]:
    groups = re.compile(r"beta9_(pool|status|gpu)_\w+")
    return sorted({name for name in NAME.findall(text) if name not in existing and not groups.fullmatch(name)})


def test_messages_name_variables_that_exist(existing):
    found = {
        str(path.relative_to(ROOT)): names for path in sorted((ROOT / "plugins").rglob("*.py")) if (names := unknown("\n".join(sentences(path)), existing))
    }
    assert found == {}


def test_pages_name_variables_that_exist(existing):
    pages = [
        ROOT / "README.md",
        *sorted((ROOT / "docs").glob("guides/*.md")),
        *sorted((ROOT / "docs").glob("checks/*.md")),
    ]
    assert {page.name: names for page in pages if (names := unknown(page.read_text(), existing))} == {}


@pytest.mark.parametrize("wrong", ["autossh_local_port", "gateway_host_network", "beta9_hostnam"])
def test_a_name_that_does_not_exist_is_found(existing, wrong):
    assert unknown(f"The port is taken. Set {wrong}, and run again.", existing) == [wrong]


FOREIGN_WORDS = re.compile(r"\b(wish(es|ed)?|mend(ed|ing)?|anew)\b|\bin the way\b|\bon the way\b|\b_?look\(")


def test_words_are_those_of_the_field():
    """Identifiers, comments, messages and pages speak as the field does: desired, remediate, again, prevents."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    read = [
        name
        for name in tracked
        if name.startswith(("plugins/", "roles/", "playbooks/", "agent_src/", "docs/", "README")) and name.endswith((".py", ".yml", ".j2", ".md"))
    ]
    found = {name: [found.group() for found in FOREIGN_WORDS.finditer((ROOT / name).read_text())] for name in read if (ROOT / name).is_file()}
    assert {name: words for name, words in found.items() if words} == {}


def test_unit_tests_lie_in_the_folders_of_their_rooms():
    rooms = {path.name for path in (ROOT / "plugins/module_utils").iterdir() if path.is_dir()} | {"agent_src"}
    folders = {path.parent.name for path in (ROOT / "tests/unit").glob("*/test_*.py")}
    assert folders and folders <= rooms
