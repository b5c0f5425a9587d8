"""The machine's probes: which state of unit, process, files and answers is which finding; nothing that is over is one."""

from __future__ import annotations

import email.utils
import hashlib
import hmac
import os
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils import gateway, host
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import machine, tunnel

from tests.unit.health.hosts import Host, code, unit

RUNNING = ["/opt/beta9-agent/current/bin/python", "-I", "-m", "beta9_agent", "--env-file", "/etc/beta9/agent.env"]


@pytest.fixture
def ready(monkeypatch):
    """Return a function that makes a host whose agent is ready, but for what is changed."""

    def make(state=None, **changed):
        now = time.time()
        context = Host(monkeypatch, **changed)
        context.processes = [(486, 1, RUNNING)]
        context.files["/proc/486/stat"] = "486 (python) S 1 486"
        told = {"pid": 486, "status": "ready", "next_epoch": now + 30, "last_keepalive_epoch": now - 20, "keepalive_interval_seconds": 60}
        context._shared["agent state"] = (dict(dict(told, registration_epochs=[now - 9000]), **(state or {})), None)
        context._shared["proof"] = (None, None)
        return context

    return make


def restarts(context, count):
    """Let systemd's journal tell of so many restarts."""
    context.answers["journalctl"] = (0, "".join("x: Scheduled restart job, restart counter is at %d.\n" % number for number in range(count, 0, -1)))


def test_a_ready_agent_is_well(ready):
    assert [code(probe, ready()) for probe in (machine.process, machine.restarts, machine.interval, machine.log, machine.flapping)] == ["ok"] * 5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"load": "masked", "active": "inactive", "main_pid": 0}, "masked"),
        ({"load": "not-found", "active": "inactive", "main_pid": 0}, "not_installed"),
        ({"active": "inactive", "main_pid": 0}, "stopped"),
        ({"active": "failed", "main_pid": 0, "result": "exit-code"}, "stopped"),
        ({"active": "activating", "sub": "auto-restart", "main_pid": 0, "exit_status": 1}, "failing"),
        ({"active": "activating", "sub": "auto-restart", "main_pid": 0, "exit_status": 203}, "program"),
        ({"active": "activating", "main_pid": 486, "restarts": 1}, "ok"),  # old enough: it waits for the gateway
    ],
)
def test_the_units_state_decides(ready, changes, expected):
    assert code(machine.process, ready(beta9_agent=unit(**changes))) == expected


def test_an_agent_between_two_crashes_is_not_well(ready):
    assert code(machine.process, ready(beta9_agent=unit(seconds=15, main_pid=486, active="activating", restarts=1))) == "failing"
    looping = ready(beta9_agent=unit(seconds=15, main_pid=486, restarts=3))
    restarts(looping, 3)
    assert code(machine.process, looping) == "failing"


@pytest.mark.parametrize(("seconds", "counter", "told"), [(61, 9, 9), (15, 2, 2), (15, 53, 1), (15, 0, 0)])
def test_crashes_that_are_over_make_no_loop(ready, seconds, counter, told):
    context = ready(beta9_agent=unit(seconds=seconds, main_pid=486, restarts=counter))
    restarts(context, told)
    assert code(machine.process, context) == "ok"


def test_without_a_journal_systemds_counter_tells_of_a_loop(ready):
    context = ready(beta9_agent=unit(seconds=15, main_pid=486, restarts=53), systemd_journald=unit(active="inactive"))
    assert code(machine.process, context) == "failing" and code(machine.restarts, context) == "no_journal"


def test_an_agent_that_says_nothing(ready):
    assert code(machine.process, ready({"pid": 1}, beta9_agent=unit(seconds=5, main_pid=486))).startswith("unknown")
    assert code(machine.process, ready({"pid": 1}, beta9_agent=unit(seconds=15, main_pid=486))) == "frozen"


def test_an_agent_that_stands_still(ready):
    stopped = ready(beta9_agent=unit(main_pid=486))
    stopped.files["/proc/486/stat"] = "486 (python) T 1 486"
    assert code(machine.process, stopped) == "frozen"
    late = ready({"next_epoch": time.time() - 61})
    assert code(machine.process, late) == "frozen"
    assert code(machine.process, ready({"next_epoch": time.time() - 55})) == "ok"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["python", "-m", "beta9_agent"], "duplicate"),
        (["python", "-m", "beta9_agent", "--machine-id", "1a2b3c4d"], "duplicate"),
        (["python", "-m", "beta9_agent", "--machine-id", "00000000"], "ok"),
        (["python", "-m", "beta9_agent", "--dry-run"], "ok"),
        (["python", "-m", "beta9_agent", "status"], "ok"),
    ],
)
def test_a_second_agent(ready, words, expected):
    context = ready()
    context.processes.append((900, 1, words))
    assert code(machine.process, context) == expected


@pytest.mark.parametrize(("seconds", "counter", "told", "expected"), [(100, 4, 4, ""), (100, 3, 3, "ok"), (400, 9, 9, "ok"), (100, 53, 2, "ok")])
def test_restarts_within_the_hour_count_where_they_are_not_over(ready, seconds, counter, told, expected):
    context = ready(beta9_agent=unit(seconds=seconds, main_pid=486, restarts=counter))
    restarts(context, told)
    assert code(machine.restarts, context) == expected


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"keepalive_interval_seconds": 240}, ""),
        ({"keepalive_interval_seconds": 239}, "ok"),
        ({"last_keepalive_epoch": 0}, "ok"),
        ({"keepalive_interval_seconds": None}, "unknown: the agent tells no interval"),
    ],
)
def test_interval(ready, state, expected):
    assert code(machine.interval, ready(state)) == expected


@pytest.mark.parametrize(("age", "expected"), [(164, "ok"), (170, "late")])
def test_a_keepalive_is_late_after_two_and_a_half_intervals(ready, age, expected):
    assert code(machine.interval, ready({"last_keepalive_epoch": time.time() - age})) == expected


def test_a_problem_of_the_agent_is_a_failure_unless_it_is_ready(ready):
    problem = {"code": "pool_unknown", "cause": "c", "remedy": "r"}
    assert machine.log(ready({"problem": problem, "status": "degraded"}))["outcome"] == "bad"
    assert machine.log(ready({"problem": problem}))["outcome"] == "warn"


@pytest.mark.parametrize(("ages", "expected"), [([10, 100, 1000], ""), ([400, 500, 600], "ok"), ([10, 100], "ok"), ([10, 100, 1900], "ok")])
def test_registrations_count_where_they_are_not_over(ready, ages, expected):
    assert code(machine.flapping, ready({"registration_epochs": [time.time() - age for age in ages]})) == expected


# -- the token --


class Client:
    def __init__(self, answer):
        self.answer = answer

    def list_ready(self, pool, provider):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    keepalive = list_ready


def refused(status, body=""):
    return gateway.GatewayError(gateway.protocol.classify(status, body), "GET", "http://x")


def asked(monkeypatch, context, answer, token="canary-token-0123456789"):
    context.files[machine.TOKEN_FILE] = token
    monkeypatch.setattr(tunnel, "client_of", lambda context, timeout=4, token=None: Client(answer))
    return context


LISTED = [{"id": "1a2b3c4d", "last_keepalive": "1", "gpu_count": 2, "hostname": "h"}]


def test_token(monkeypatch):
    assert code(machine.token, asked(monkeypatch, Host(monkeypatch), LISTED)) == "ok"
    assert code(machine.token, asked(monkeypatch, Host(monkeypatch), LISTED, " \n")) == "missing"
    assert code(machine.token, asked(monkeypatch, Host(monkeypatch), refused(401, '{"message": "Unauthorized"}'))) == "token_unknown"
    assert code(machine.token, asked(monkeypatch, Host(monkeypatch), refused(403, '{"message": "Invalid token"}'))) == "token_wrong_type"
    assert code(machine.token, asked(monkeypatch, Host(monkeypatch), refused(503))).startswith("unknown")


def test_token_is_a_secret_and_its_owner_a_keyed_hash(monkeypatch):
    context = asked(monkeypatch, Host(monkeypatch, {"nonce": "n"}), LISTED)
    owner = hmac.new(b"n", b"canary-token-0123456789", hashlib.sha256).hexdigest()
    assert machine.token(context)["data"]["owner"] == owner and context.secrets == ["canary-token-0123456789"]


def test_listed(monkeypatch):
    assert machine.listed(asked(monkeypatch, Host(monkeypatch), LISTED))["data"] == {"gpu_count": 2, "hostname": "h"}
    assert code(machine.listed, asked(monkeypatch, Host(monkeypatch), [dict(LISTED[0], id="00000000")])) == ""
    assert code(machine.listed, asked(monkeypatch, Host(monkeypatch), refused(500))).startswith("unknown")
    assert code(machine.listed, asked(monkeypatch, Host(monkeypatch), LISTED, "")).startswith("unknown")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (refused(400, '{"message": "machine_id and pool_name are required"}'), "ok"),
        (refused(500), "ok"),
        (refused(503), "unknown"),
        (refused(401), "unknown"),
    ],
)
def test_keepalive_route(monkeypatch, answer, expected):
    context = asked(monkeypatch, Host(monkeypatch), answer)
    monkeypatch.setattr(Client, "keepalive", lambda self, body: self.list_ready(0, 0))
    assert code(machine.keepalive_route, context).startswith(expected)
    missing = gateway.GatewayError(gateway.protocol.classify(404, "", "/api/v1/machine/keepalive"), "POST", "http://x")
    assert code(machine.keepalive_route, asked(monkeypatch, Host(monkeypatch), missing)) == ""


# -- the agent's Python and settings --


def looked(context, output, status=0):
    context.answers["env"] = (status, output)
    return context


@pytest.fixture
def installed(ready, tmp_path, monkeypatch):
    """Return a function that makes a host with an agent's environment in a folder."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib/python3.11").mkdir(parents=True)
    (tmp_path / "bin/python").write_text("x")
    monkeypatch.setattr(machine, "PYTHON", str(tmp_path / "bin/python"))
    monkeypatch.setattr(machine, "SETTINGS", str(tmp_path / "agent.env"))
    monkeypatch.setattr(machine, "HIDDEN", ("/home/",))
    return lambda output="python 3.11\npackages\n", status=0: looked(ready(), output, status)


def test_python(installed, tmp_path, monkeypatch):
    assert code(machine.python, installed()) == "ok"
    assert code(machine.python, installed("python 3.9\npackages\n")) == "old"
    assert code(machine.python, installed("python 3.13\n")) == "replaced"
    assert code(machine.python, installed("Killed", 137)) == ""
    monkeypatch.setattr(machine, "HIDDEN", (str(tmp_path),))
    assert code(machine.python, installed()) == "home"
    (tmp_path / "bin/python").unlink()
    assert code(machine.python, installed()) == "missing" and code(machine.packages, installed()).startswith("unknown")
    (tmp_path / "bin/python").symlink_to("/usr/bin/python3.2")
    assert code(machine.python, installed()) == "replaced"


def test_packages(installed):
    assert code(machine.packages, installed()) == "ok"
    broken = machine.packages(installed("python 3.11\nModuleNotFoundError: No module named 'psutil'\n", 1))
    assert broken["outcome"] == "bad" and "psutil" in broken["found"]


def test_settings(installed, tmp_path):
    assert code(machine.settings, installed()) == "ok"
    assert code(machine.settings, installed("python 3.11\npackages\nbeta9-agent: pool: expected a name, found nothing\n", 2)) == ""
    assert code(machine.settings, installed("python 3.11\npackages\n", 3)).startswith("unknown")
    for name, value in (("MACHINE_ID", "1a2b3c4d"), ("POOL_NAME", "gpu"), ("PROVIDER_NAME", "generic")):
        (tmp_path / "agent.env").write_text("BETA9_%s=%s\n" % (name, value))
        assert code(machine.settings, installed()) == "ok"
        (tmp_path / "agent.env").write_text("BETA9_%s=x%s\n" % (name, value))
        assert code(machine.settings, installed()) == "identity"


# -- files --


def test_credentials(tmp_path, monkeypatch):
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    for path in (tmp_path / "agent.env", folder / "machine_token", folder / "tunnel_key"):
        path.write_text("x")
        path.chmod(0o600 if path.parent == folder else 0o644)
    tmp_path.chmod(0o755)
    monkeypatch.setattr(machine, "CONFIGURATION", str(tmp_path))
    monkeypatch.setattr(machine, "TOKEN_FILE", str(folder / "machine_token"))
    monkeypatch.setattr(host, "CREDENTIALS_DIR", str(folder))
    real = os.lstat
    owners = {}

    def as_root(path):
        seen = real(path)
        return os.stat_result(list(seen)[:4] + [owners.get(os.path.basename(path), 0)] + list(seen)[5:])

    monkeypatch.setattr(machine.os, "lstat", as_root)
    context = Host(monkeypatch)
    assert code(machine.credentials, context) == "ok"
    for path, mode in ((folder / "machine_token", 0o640), (folder, 0o755), (tmp_path / "agent.env", 0o664)):
        kept = path.stat().st_mode & 0o7777
        path.chmod(mode)
        assert code(machine.credentials, context) == "mode", path
        path.chmod(kept)
    owners["agent.env"] = 65534
    assert code(machine.credentials, context) == "owner"
    owners.clear()
    (folder / "machine_token").write_text("")  # A01 tells
    assert code(machine.credentials, context) == "ok"
    (folder / "tunnel_key").write_text("")
    assert code(machine.credentials, context) == "empty"


# -- the clock --


@pytest.mark.parametrize(("offset", "expected"), [(0, "ok"), (28, "ok"), (-28, "ok"), (33, ""), (-33, "")])
def test_clock(monkeypatch, offset, expected):
    context = Host(monkeypatch)
    monkeypatch.setattr(tunnel, "knock", lambda context, timeout=2.0, padding=0: email.utils.formatdate(time.time() + offset, usegmt=True))
    assert code(tunnel.clock, context) == expected


def test_clock_without_a_date(monkeypatch):
    context = Host(monkeypatch)
    assert code(tunnel.clock, context).startswith("unknown")
    context.knocks = [OSError("x")]
    assert code(tunnel.clock, context).startswith("unknown")
    assert isinstance(engine.Missing("x"), engine.Unknown)
