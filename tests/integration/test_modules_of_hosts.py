"""Modules of hosts as processes of their own: what only looks looks at this machine; what would change it gets stand-ins for its programs."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
import time

import pytest

from tests.doubles.commands import Commands

STAMPS = ("ExecMainStart", "StateChange", "ActiveEnter")
SHOW = "LoadState=%s\nActiveState=%s\nUnitFileState=%s\nNeedDaemonReload=no\nFragmentPath=\n"
SHOW += "".join(f"{name}TimestampMonotonic=1\n" for name in STAMPS)


@pytest.fixture
def commands(tmp_path):
    return Commands(tmp_path / "bin")


def verbs(commands):
    """Return what systemctl was told to do, but for questions."""
    return [" ".join(words[1:]) for words in commands.calls("systemctl") if words[1] not in ("show", "is-active")]


def test_host_unit_starts_and_forgets(run_module, commands, tmp_path):
    commands.add("systemctl", ("show", 0, SHOW % ("not-found", "inactive", "")))
    checked = run_module("host_unit", check=True, env=commands.environment(), name="x.service")
    assert checked["changed"] and verbs(commands) == [] and checked["actions"] == ["daemon-reload", "enable", "start"]
    run_module("host_unit", env=commands.environment(), name="x.service")
    assert verbs(commands) == ["daemon-reload", "enable x.service", "--no-block start x.service"]
    commands.log.unlink()
    commands.add("systemctl", ("show", 0, SHOW % ("loaded", "active", "enabled")))
    assert not run_module("host_unit", env=commands.environment(), name="x.service")["changed"] and verbs(commands) == []
    (tmp_path / "file").write_text("")
    again = run_module("host_unit", env=commands.environment(), name="x.service", files=[str(tmp_path / "file")])
    assert again["changed"] and "%s is newer" % (tmp_path / "file") in again["reason"] and verbs(commands) == ["--no-block restart x.service"]
    commands.log.unlink()
    assert run_module("host_unit", env=commands.environment(), name="x.service", state="absent")["changed"]
    assert verbs(commands) == ["disable --now x.service", "reset-failed x.service"]


@pytest.mark.skipif(os.path.exists("/opt/beta9-agent"), reason="this machine has an agent")
def test_agent_switch_needs_an_agent(run_module, commands):
    absent = run_module("agent_switch", env=commands.environment(), version="0.2.0-def")
    assert absent["failed"] and absent["code"] == "agent_absent" and verbs(commands) == []


def test_agent_status_of_no_agent_says_what_to_do(run_module, commands):
    commands.add("systemctl", ("show", 0, SHOW % ("not-found", "inactive", "")))
    result = run_module("agent_status", env=commands.environment(), wait_seconds=0)
    assert result["failed"] and result["cause"] and result["remedy"] and result["status"] != "ready"
    assert not run_module("agent_status", env=commands.environment(), check=True).get("failed")


def test_tunnel_sshd_needs_a_running_sshd(run_module, commands, tmp_path):
    commands.add("systemctl", ("show", 0, "Id=ssh.service\nLoadState=loaded\nActiveState=inactive\n"))
    assert "found none of them active" in run_module("tunnel_sshd", env=commands.environment())["msg"]
    service = "Id=ssh.service\nLoadState=loaded\nActiveState=active\nExecMainStartTimestampMonotonic=1\nStateChangeTimestampMonotonic=1\n"
    commands.add("systemctl", ("show", 0, service), ("is-active", 3, ""))
    (tmp_path / "conf").write_text("")
    failed = run_module("tunnel_sshd", env=commands.environment(), state="absent", files=[str(tmp_path / "conf")])
    assert failed["failed"] and "found it stopped" in failed["msg"] and verbs(commands) == ["reload ssh.service"]


def test_modules_that_only_look(run_module, tmp_path):
    facts = run_module("host_preflight", settings={"pool": "gpu"}, resolve=["localhost"], min_memory_mib=10**9)
    assert facts["facts"]["architecture"] == platform.machine() and facts["facts"]["resolved"]["localhost"] and not facts["changed"]
    assert any("memory" in problem["what"] for problem in facts["problems"])
    gpus = run_module("nvidia_host")
    assert not gpus["changed"] and isinstance(gpus["facts"]["gpus"], list)
    tailnet = run_module("tailscale_info", env={"PATH": str(tmp_path)})
    assert not tailnet["changed"] and tailnet["system"]["id"] and tailnet["node"]["state"] and tailnet["joined_by_us"] in (True, False)
    k3s = run_module("k3s_preflight", version="v1.36.2+k3s1", min_disk_mib=10**9)
    assert not k3s["changed"] and any(problem["what"] == "disk" for problem in k3s["problems"]) and k3s["files"]["binary"].startswith("k3s")
    assert "k3s_version" in str(run_module("k3s_preflight", version="latest")["problems"])


def test_files_that_settings_name(run_module, tmp_path):
    """Of a worker's certificate and key: what is missing, and a key that others can read, is told; what is in them is not."""
    shut, wide, plain = (tmp_path / name for name in ("shut.key", "wide.key", "cert.pem"))
    for path, what, mode in ((shut, "PRIVATE KEY", 0o600), (wide, "PRIVATE KEY", 0o640), (plain, "CERTIFICATE", 0o644)):
        path.write_text(f"-----BEGIN {what}-----\ncanary-{what[:7]}\n")
        path.chmod(mode)
    files = {"cert": plain, "shut": shut, "wide": wide, "none": tmp_path / "none", "folder": tmp_path}
    result = run_module("host_preflight", settings={"files": {name: str(path) for name, path in files.items()}})
    assert {entry["what"]: entry["found"] for entry in result["problems"] if entry["what"] in files} == {
        "wide": f"{wide} of mode 0640",
        "none": f"none at {tmp_path / 'none'}",
        "folder": f"none at {tmp_path}",
    }
    assert "canary" not in str(result)


def test_check_mode_of_what_needs_other_things_first(run_module, tmp_path):
    env = {"PATH": str(tmp_path)}
    assert run_module("host_initramfs", check=True, env=env, files=["/no/such"])["reason"]
    if not os.path.exists("/usr/bin/nvidia-ctk"):
        assert run_module("nvidia_cdi", check=True, env=env)["changed"] and "toolkit" in run_module("nvidia_cdi", env=env)["msg"]
    peer = run_module("tunnel_peer", check=True, name="gpu-1", path=str(tmp_path / "none/keys"), public_key="x")
    assert peer["changed"] and "prepare_gateway" in peer["msg"]
    assert "prepare_gateway" in run_module("tunnel_peer", name="gpu-1", path=str(tmp_path / "none/keys"), public_key="x")["msg"]
    assert not run_module("tunnel_peer", name="gpu-1", path=str(tmp_path / "none/keys"), state="absent")["changed"]
    if not os.path.exists("/usr/local/bin/k3s"):
        assert run_module("k3s_token", check=True)["changed"]
        desired = run_module("k3s_install", check=True, version="v1.36.2+k3s1", artifact_url="https://h")
        assert desired["changed"] and desired["previous"] == ""


def test_gateway_that_does_not_answer_here(run_module):
    start = time.monotonic()
    result = run_module("gateway_reachable", url="http://127.0.0.1:9", wait_seconds=1)
    assert result["failed"] and result["code"] == "connection_refused" and result["remedy"] and time.monotonic() - start < 30
    assert run_module("gateway_reachable", url="http://127.0.0.1:9", check=True)["reachable"] is False


def test_host_step_runs_only_what_roles_need_and_returns_little(tmp_path):
    """As a playbook runs it: an action of its own around a module of ansible.builtin."""

    def step(module, **arguments):
        words = [
            "localhost",
            "-i",
            "localhost,",
            "-c",
            "local",
            "-e",
            "ansible_python_interpreter=" + sys.executable,
            "-m",
            "beta9.workers.host_step",
            "-a",
            json.dumps({"module": module, "arguments": arguments}),
        ]
        program = os.path.join(os.path.dirname(sys.executable), "ansible")
        return subprocess.run([program, *words], check=False, capture_output=True, text=True).stdout

    output = step("command", argv=["echo", "words"])
    assert "CHANGED" in output and re.search('"?stdout"?: "?words', output) and "delta" not in output
    assert "FAILED" in step("setup") and "value of module must be one of" in step("setup")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(tmp_path / "new")
    assert "CHANGED" in step("file", path=str(tmp_path / "new"), state="touch") and (tmp_path / "new").exists()
