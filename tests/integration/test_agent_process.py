"""The agent as a process of its own, against the gateway double with its real Redis: what happens to it in a year."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import ROOT
from tests.doubles.gateway.harness import GatewayHarness


def until(true, seconds=20):
    """Wait until true() is, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = true()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("did not come to be within %d s" % seconds)


class Process:
    """A running agent. env_file and token_file may be changed while it runs."""

    def __init__(self, folder, gateway, token):
        self.folder, self.gateway = folder, gateway
        self.env_file, self.token_file, self.state_file = folder / "agent.env", folder / "machine_token", folder / "state.json"
        self.journal = folder / "journal"
        self.process = None
        self.token_file.write_text(token)
        self.settings(machine_id="0000000a")

    def settings(self, **changes):
        values = {"gateway_host": "127.0.0.1", "gateway_port": self.gateway.port, "pool_name": "gpu", "private_ip": "10.0.0.7"}
        values.update({"keepalive_interval": "0.5", "log_format": "json", "token_file": self.token_file})
        values.update({"state_file": self.state_file, "metrics_file": self.folder / "agent.prom"}, **changes)
        self.env_file.write_text("# test\n" + "".join("BETA9_%s=%s\n" % (name.upper(), value) for name, value in values.items()))

    def start(self):
        env = {name: value for name, value in os.environ.items() if not name.startswith("BETA9_")}
        command = [sys.executable, "-m", "beta9_agent", "--env-file", str(self.env_file)]
        with open(self.journal, "ab") as journal:
            self.process = subprocess.Popen(command, env=dict(env, PYTHONPATH=str(ROOT / "agent_src")), stderr=journal)
        return self

    def command(self, *words):
        return subprocess.run(
            [sys.executable, "-m", "beta9_agent", *words], env=dict(os.environ, PYTHONPATH=str(ROOT / "agent_src")), capture_output=True, text=True, check=False
        )

    def state(self):
        try:
            return json.loads(self.state_file.read_text())
        except (OSError, ValueError):
            return {}

    def status(self, wanted, seconds=20):
        return until(lambda: self.state() if self.state().get("status") == wanted else None, seconds)

    def problem(self, code):
        return until(lambda: (self.state().get("problem") or {}).get("code") == code)

    def events(self):
        return [json.loads(line) for line in self.journal.read_text().splitlines()]

    def told(self, *names):
        """Wait until these events, and no others but registrations, are in the journal: the state file is written before the line."""
        until(lambda: [event["event"] for event in self.events() if event["event"] != "registered"] == list(names), 5)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(timeout=20)


@pytest.fixture
def agent(tmp_path, gateway):
    process = Process(tmp_path, gateway, gateway.token())
    yield process
    process.stop()
    assert "canary-" not in process.journal.read_text() + process.state_file.read_text()


def test_ready_and_told_everywhere(agent, gateway):
    state = agent.start().status("ready")
    assert gateway.state("0000000a")["status"] == "ready"
    assert state["sent"]["register"]["token"] == "(not shown)" and state["sent"]["keepalive"]["metrics"]["total_cpu_available"] >= 1000
    shown = agent.command("status", "--state-file", str(agent.state_file))
    assert shown.returncode == 0 and "status       ready" in shown.stdout
    agent.told("starting", "ready")
    assert agent.events()[1]["event"] == "registered"
    text = (agent.folder / "agent.prom").read_text()
    assert 'beta9_agent_status{status="ready"} 1' in text and re.search(r"beta9_agent_keepalives_total [1-9]", text)
    assert agent.stop() == 0 and agent.events()[-1]["event"] == "stopped"
    stale = agent.command("status", "--state-file", str(agent.state_file))
    assert stale.returncode == 1 and "does not run any more" in stale.stdout


def test_gateway_that_takes_its_time_to_register_is_waited_for(tmp_path):
    """Outside direct mode and without a tailnet it takes five seconds."""
    other = GatewayHarness(tmp_path, hostname_mode="tailnet").start()
    process = Process(tmp_path, other, other.token()).start()
    try:
        process.status("ready")
        process.told("starting", "ready")
    finally:
        process.stop()
        other.stop()


def test_gateway_that_goes_away_and_comes_back(agent, gateway):
    agent.start().status("ready")
    gateway.process.kill()
    gateway.process.wait()
    agent.problem("connection_refused")
    until(lambda: agent.state().get("failures", 0) > 1)
    gateway.start_gateway()
    start = time.monotonic()
    agent.status("ready")
    assert time.monotonic() - start < 6
    agent.told("starting", "ready", "degraded", "ready")
    assert len(gateway.requests()) and agent.state()["recent_problems"][0]["code"] == "connection_refused"


def test_forgotten_machine_is_back_at_the_next_keepalive(agent, gateway):
    agent.start().status("ready")
    gateway.db.delete("provider:machine:generic:gpu:0000000a")
    until(lambda: gateway.state("0000000a").get("status") == "ready")
    assert agent.state()["registrations"] == 2
    agent.told("starting", "ready", "registering", "ready")
    assert [event["event"] for event in agent.events() if event["level"] not in ("info", "INFO")] == ["registering"]


def test_refused_token_is_said_once_and_a_new_one_on_disk_is_used_at_once(agent, gateway):
    good = agent.token_file.read_text()
    agent.token_file.write_text("canary-unknown-0123456789")
    agent.start().problem("token_unknown")
    until(lambda: agent.state()["recent_problems"][0]["count"] > 2)
    loud = [event for event in agent.events() if event["level"] == "error"]
    assert len(loud) == 1 and loud[0]["code"] == "token_unknown" and loud[0]["remedy"] and len(gateway.requests()) > 2
    before = agent.state()["recent_problems"][0]["count"]
    agent.settings(machine_id="0000000a", keepalive_interval="60")
    agent.process.send_signal(signal.SIGHUP)  # from here on it tries once in half a minute, after a try at once
    until(lambda: agent.state()["reloads"] == 1 and agent.state()["recent_problems"][0]["count"] > before)
    agent.token_file.write_text(good)
    agent.status("ready", seconds=5)
    assert agent.process.poll() is None and "credential_changed" in [event["event"] for event in agent.events()]


def test_reload_takes_another_machine_and_token_without_a_restart(agent, gateway):
    agent.start().status("ready")
    agent.token_file.write_text(gateway.token())
    agent.settings(machine_id="0000000b", log_format="json")
    agent.process.send_signal(signal.SIGHUP)
    state = until(lambda: agent.state() if agent.state()["machine_id"] == "0000000b" and agent.state()["status"] == "ready" else None)
    assert state["pid"] == agent.process.pid and state["reloads"] == 1 and gateway.state("0000000b")["status"] == "ready"


def test_reload_with_bad_settings_leaves_the_old_ones_in_force(agent, gateway):
    agent.start().status("ready")
    agent.settings(machine_id="nonsense")
    agent.process.send_signal(signal.SIGHUP)
    state = until(lambda: agent.state() if agent.state()["reload_error"] else None)
    assert "machine_id" in state["reload_error"] and state["machine_id"] == "0000000a"
    before = state["keepalives"]
    until(lambda: agent.state()["keepalives"] > before + 1)
    assert agent.state()["status"] == "ready"


def test_reload_command_hands_over_and_waits(agent, gateway, tmp_path):
    """What ExecReload= runs, with this directory as the service's runtime directory."""
    agent.start().status("ready")
    (tmp_path / "credentials").mkdir()
    source = tmp_path / "source"
    source.write_text("canary-handed-over-0123456789")
    words = ["reload", "--pid", str(agent.process.pid), "--runtime-directory", str(tmp_path), "--credential", "machine_token:%s" % source]
    words += ["--credential", "k3s_token:/nowhere/at/all"]
    done = agent.command(*words)
    assert done.returncode == 0 and agent.state()["reloads"] == 1, done.stderr
    copy = tmp_path / "credentials" / "machine_token"
    assert copy.read_text() == source.read_text() and copy.stat().st_mode & 0o777 == 0o400
    assert (tmp_path / "credentials" / "k3s_token").read_text() == "-"
    agent.settings(machine_id="nonsense")
    refused = agent.command(*words)
    assert refused.returncode == 1 and "machine_id: expected" in refused.stderr


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"mode": "answer", "status": 500, "body": "{}"}, "internal_error"),
        ({"mode": "answer", "status": 200, "body": "{}"}, "not_gateway"),
        ({"mode": "garbage"}, "not_gateway"),
        ({"mode": "empty"}, "empty_reply"),
        ({"mode": "huge", "bytes": 104857600}, "not_gateway"),
        ({"mode": "answer", "status": 403, "body": '{"message": "Invalid token"}'}, "token_wrong_type"),
        ({"mode": "answer", "status": 500, "body": '{"message": "Invalid pool name"}'}, "pool_unknown"),
        ({"mode": "no_keepalive_route"}, "route_missing"),
    ],
    ids=str,
)
def test_every_fault_is_told_and_outlived(agent, gateway, fault, code):
    agent.start().status("ready")
    rss = rss_kib(agent)
    gateway.fault(dict(fault, route="keepalive"))
    agent.problem(code)
    assert agent.command("status", "--state-file", str(agent.state_file)).returncode == 1
    gateway.fault()
    agent.status("ready")
    assert agent.process.poll() is None and rss_kib(agent) < rss + 4096


def rss_kib(agent):
    with open("/proc/%d/status" % agent.process.pid, encoding="ascii") as stream:
        return next(int(line.split()[1]) for line in stream if line.startswith("VmRSS"))


def test_stop_is_bounded_while_the_gateway_is_slow(agent, gateway):
    agent.start().status("ready")
    gateway.fault({"route": "keepalive", "mode": "drip", "seconds": 60})
    before = agent.state()["keepalives"]
    until(lambda: time.time() > agent.state()["next_epoch"] + 0.3)  # what is due is under way, and not answered
    assert agent.state()["keepalives"] <= before + 2
    start = time.monotonic()
    assert agent.stop() == 0 and time.monotonic() - start < 12


def test_frozen_agent_goes_on_where_it_was(agent, gateway):
    agent.start().status("ready")
    agent.process.send_signal(signal.SIGSTOP)
    until(lambda: time.time() > agent.state()["next_epoch"] + 1.5)
    agent.process.send_signal(signal.SIGCONT)
    before = agent.state()["keepalives"]
    until(lambda: agent.state()["keepalives"] > before)
    assert "behind_schedule" in [event["event"] for event in agent.events()]


def test_restart_does_not_register_again(agent, gateway):
    agent.settings(machine_id="0000000a", registration_file=agent.folder / "registration")
    agent.start().status("ready")
    agent.process.kill()
    agent.process.wait()
    agent.state_file.unlink()
    agent.start().status("ready")
    assert agent.state()["registrations"] == 0 and [line["path"] for line in gateway.requests()].count("/api/v1/machine/register") == 1


def test_doctor_tells_what_is_wrong(agent):
    agent.journal.touch()
    agent.process = subprocess.Popen(["true"])
    agent.state_file.write_text("{}")
    fine = agent.command("doctor", "--json", "--env-file", str(agent.env_file), "--gpu-ids", "none")
    found = json.loads(fine.stdout)
    assert fine.returncode == 0 and found["wrong"] == [] and found["register"]["cpu"].endswith("m") and "canary-" not in fine.stdout
    agent.settings(machine_id="0000000a", pool_name="a:b")
    bad = agent.command("doctor", "--env-file", str(agent.env_file))
    assert bad.returncode == 1 and "pool_name: expected" in bad.stdout
