"""What the health check's last tasks say, run as a playbook runs them."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest
from ansible_collections.beta9.workers.plugins.action import health_report
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, control, diagnose
from ansible_collections.beta9.workers.plugins.plugin_utils import health_remedies

BIN = pathlib.Path(sys.executable).parent
REMEDIES = health_remedies.Remedies({"hostvars": {"gpu-1": {}}}, "gate")


def health(message="", **seen):
    """Return a host's entry of health_report: everything ok but what is named."""
    observations = [{"id": check.id, "outcome": seen.get(check.id, "ok"), "found": "as found"} for check in catalog.CHECKS]
    verdicts = diagnose.clean(diagnose.diagnose(observations))
    REMEDIES.complete(verdicts, "gpu-1")
    return {"outcome": diagnose.outcome(verdicts), "message": message, "verdicts": verdicts}


def run(module, **arguments):
    """Run one action on localhost; return what it said."""
    command = [
        str(BIN / "ansible"),
        "localhost",
        "-i",
        "localhost,",
        "-c",
        "local",
        "-m",
        "beta9.workers." + module,
        "-a",
        json.dumps(arguments),
    ]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        ({}, ["SUCCESS", "healthy"]),
        ({"T01": "bad", "T02": "bad"}, ["FAILED", "1 root cause (T01), "]),
        ({"K02": "bad", "T01": "bad"}, ["FAILED", "2 root causes (T01, K02), "]),
        # what fails comes from a warning: that is the root cause
        ({"U08": "warn", "P02": "bad", "M06": "bad", "K03": "bad"}, ["FAILED", "root causes ("]),
    ],
)
def test_gate(seen, words):
    output = run("check_verdict", health=health(**seen))
    assert all(word in output for word in words), output
    assert "0 root causes" not in output


def test_gate_that_could_not_tell_names_why():
    output = run("check_verdict", health={"outcome": "unreachable", "message": "No route to host", "verdicts": []})
    assert "UNREACHABLE" in output and "could not tell: No route to host" in output


def test_verdict_names_the_remedy():
    output = run("check_verdict", id="T01", health=health(T01="bad"))
    assert "FAILED" in output and "Do: on gpu-1: systemctl restart beta9-tunnel" in output and "root cause: " in output


def test_what_the_keyword_timeout_ends_is_failed_and_never_unreachable(tmp_path):
    """Why plugin_utils/health_observe.py has a limit of its own: the host leaves the play whatever the task says."""
    task = {"ansible.builtin.command": "sleep 5", "timeout": 1, "failed_when": False, "ignore_unreachable": True}
    play = {"hosts": "all", "gather_facts": False, "tasks": [task, {"ansible.builtin.debug": {"msg": "still here"}}]}
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    variables = json.dumps({"ansible_connection": "local", "ansible_python_interpreter": sys.executable})
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), "-i", "gpu-1,", "-e", variables, str(tmp_path / "play.yml")],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "failed=1" in done.stdout and "unreachable=0" in done.stdout, done.stdout
    assert "still here" not in done.stdout


@pytest.mark.parametrize(("kind", "words"), [("admin", ""), ("workspace", "not a cluster admin's"), ("machine", "not a cluster admin's")])
def test_a_token_that_may_not_list_machines_is_not_told_that_there_are_none(gateway, admin, created, kind, words):
    """The gateway answers it with an empty list, as if the machine were gone."""
    token = {"admin": admin["token"], "machine": created["token"]}.get(kind) or gateway.token(kind)
    listed = health_report.list_all(dict(admin, token=token, token_file=None))
    identity = {"machine_id": created["machine_id"], "pool": "gpu", "provider": "generic"}
    settings = {"connection": "direct", "pool": "gpu", "list_error": listed["why"]}
    (seen,) = [entry for entry in control.observe(settings, identity, listed.get("machines")) if entry["id"] == "C02"]
    assert (seen["outcome"], seen["code"]) == (("bad", "pending") if kind == "admin" else ("unknown", "")), seen
    assert words in seen["found"] and token not in str(listed)
