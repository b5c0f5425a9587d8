"""Every role's defaults are its documented defaults."""

from __future__ import annotations

import re
import subprocess

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


def test_offboarding_stops_the_agent_before_its_machine_is_deleted():
    """An agent that runs on would bring the machine back at the gateway."""
    [play] = [play for play in yaml.safe_load((ROOT / "playbooks/offboard_worker.yml").read_text()) if "tasks" in play]
    files = [tuple(task.get("ansible.builtin.include_role", {}).values())[:2] for task in play["tasks"]]
    agent, machine = (files.index((f"beta9.workers.{role}", "remove.yml")) for role in ("agent", "machine"))
    assert agent < machine


@pytest.mark.parametrize("role", ROLES)
def test_a_role_has_the_templates_that_it_names_and_no_others(role):
    folder = ROOT / "roles" / role
    text = "".join(path.read_text() for path in folder.rglob("*") if path.suffix in (".yml", ".j2"))
    named = set(re.findall(r"[\w.-]+\.j2", text))
    assert named == {path.name for path in folder.glob("templates/*")}


def test_beta9_agent_on_the_path_runs_the_current_agent(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    text = (ROOT / "roles/agent/templates/beta9-agent.sh.j2").read_text().replace("{{ _agent_python }}", str(python))
    for given, expected in ((["status", "--json"], "status --json"), ([], "--help")):  # never another agent beside the running one
        done = subprocess.run(["sh", "-c", text, "beta9-agent", *given], capture_output=True, text=True, check=True)
        assert done.stdout == f"-I -m beta9_agent {expected}\n"


@pytest.mark.parametrize("folder", ["playbooks", *(f"roles/{role}" for role in ROLES)])
def test_nothing_reads_what_another_role_keeps_to_itself(folder):
    others = "|".join(role for role in ROLES if folder != f"roles/{role}")
    texts = {path: path.read_text() for path in (ROOT / folder).rglob("*") if path.suffix in (".yml", ".j2")}
    found = {path.name: names for path, text in texts.items() if (names := re.findall(rf"(?<!\w)_+(?:{others})_\w+", text))}
    assert found == {}


def test_playbooks_fall_back_on_what_is_documented():
    """Defaults that stand in playbooks: those of preflight's specification, which is the reference of all variables."""
    options = yaml.safe_load((ROOT / "roles/preflight/meta/argument_specs.yml").read_text())["argument_specs"]
    known = {name: option for entry in options.values() for name, option in entry["options"].items()}
    text = "".join(path.read_text() for path in [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")])
    found = re.findall(r"\b((?:beta9|heal)_\w+) \| default\((true|false|\d+|'[^']*')(?:, true)?\)", text)
    wrong = {
        (name, value)
        for name, value in found
        if "default" in known.get(name, {}) and yaml.safe_load(value) not in (known[name]["default"], "")
    }
    assert len(set(found)) > 15 and not wrong
