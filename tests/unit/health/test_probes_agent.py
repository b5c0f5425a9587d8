"""The machine and its agent: token, gateway's answers, unit, state file, credentials, as recorded."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sys
import time
import types

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, units
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import agent, api as api_probes, evidence, files as file_probes, tunnel

from tests.unit.health.recorded import Context, told

TOKEN = {agent.TOKEN_FILE: "machine-t0ken-0123456789\n"}
UNIT = """Id=beta9-agent.service
LoadState=%(load)s
UnitFileState=%(boot)s
ActiveState=%(active)s
MainPID=%(pid)d
NRestarts=%(restarts)d
Result=%(result)s
ExecMainStatus=%(status)d
ExecMainStartTimestampMonotonic=%(started)d

Id=beta9-tunnel.service
LoadState=loaded
UnitFileState=%(tunnel)s

Id=systemd-journald.service
LoadState=%(journald_load)s
ActiveState=%(journald)s
"""


def unit(age=600.0, **changes):
    fields = {
        "load": "loaded",
        "boot": "enabled",
        "tunnel": "enabled",
        "active": "active",
        "pid": 900,
        "restarts": 0,
        "result": "success",
        "status": 0,
        "journald": "active",
        "journald_load": "loaded",
    }
    return {"systemctl show": UNIT % dict(fields, started=units.monotonic_us() - age * 1e6, **changes)}


def context(answers=None, files=None, state=None, **config):
    told_files = dict(TOKEN, **(files or {}))
    if state is not None:
        told_files[agent.STATE_FILE] = json.dumps(state)
    defaults = {
        "machine_id": "1165a9b6",
        "pool": "gpu",
        "provider": "generic",
        "nonce": "n0nce",
        "gateway_url": "http://127.0.0.1:1994",
        "probes": {},
    }
    return Context(answers, told_files, **dict(defaults, **config))


ANSWERS = (
    (401, '{"message":"Unauthorized"}'),
    (403, '{"message":"Invalid token"}'),
    (404, ""),
    (400, '{"message":"machine_id and pool_name are required"}'),
    (400, '{"message":"Invalid payload"}'),
    (500, '{"message":"Internal Server Error"}'),
    (502, ""),
    (500, '{"message":"Failed to update keepalive: machine not found"}'),
    (500, '{"message":"Invalid pool name"}'),
)


def refusal(code):
    """Return the error that a gateway's answer with this code becomes."""
    problem = next(found for found in (protocol.classify(status, body) for status, body in ANSWERS) if found.code == code)
    return api.GatewayError(problem, "GET", "http://127.0.0.1:1994")


class Client:
    """Answers of the gateway's machine API; what is an exception is raised."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def _answer(self, name, *words):
        self.asked.append((name, *words))
        if isinstance(self.answers[name], Exception):
            raise self.answers[name]
        return self.answers[name]

    def list_ready(self, pool, provider):
        return self._answer("list_ready", pool, provider)

    def keepalive(self, body):
        return self._answer("keepalive", body)

    def register(self, fields):
        return self._answer("register", fields)


@pytest.fixture
def client(monkeypatch):
    found = Client()

    def client_of(_context, timeout=4, token=None):
        found.token = token
        return found

    monkeypatch.setattr(tunnel, "client_of", client_of)
    return found


MINE = {"id": "1165a9b6", "last_keepalive": "now", "gpu_count": 2, "hostname": "127.77.9.8"}


# A01, A02, M01


def test_token(client):
    client.answers["list_ready"] = []
    seen = api_probes.token(context())
    owner = hmac.new(b"n0nce", b"machine-t0ken-0123456789", hashlib.sha256).hexdigest()
    assert told(seen) == ("ok", "") and seen["data"] == {"owner": owner} and client.token == "machine-t0ken-0123456789"
    assert client.asked == [("list_ready", "gpu", "generic")]
    assert api_probes.owner_of(context(nonce=None)) is None


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_token_that_is_not_there(client, text):
    seen = api_probes.token(context(files={agent.TOKEN_FILE: text}))
    assert told(seen) == ("bad", "missing") and not client.asked


@pytest.mark.parametrize(
    ("code", "expected"),
    [("token_unknown", "token_unknown"), ("token_wrong_type", "token_wrong_type"), ("gateway_unavailable", None)],
)
def test_token_that_is_refused(client, code, expected):
    client.answers["list_ready"] = refusal(code)
    if expected:
        seen = api_probes.token(context())
        assert told(seen) == ("bad", expected) and seen["data"]["owner"]
    else:
        with pytest.raises(engine.Unknown, match="did not judge"):
            api_probes.token(context())


def test_token_is_a_secret_from_the_first_check():
    asked = context()
    agent.token_of(asked)
    assert asked.redact("machine-t0ken-0123456789") == "********"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("route_missing", "bad"),
        ("field_missing", "ok"),
        ("payload_invalid", "ok"),
        ("internal_error", "ok"),
        ("gateway_unavailable", None),
        ("", "ok"),
    ],
)
def test_keepalive_route(client, answer, expected):
    client.answers["keepalive"] = refusal(answer) if answer else protocol
    if expected:
        assert api_probes.keepalive_route(context())["outcome"] == expected and client.asked == [("keepalive", {})]
    else:
        with pytest.raises(engine.Unknown, match="could not tell"):
            api_probes.keepalive_route(context())


def test_without_a_token_nothing_is_asked(client):
    for probe in (api_probes.keepalive_route, api_probes.listed):
        with pytest.raises(engine.Unknown, match="token is not on this host"):
            probe(context(files={agent.TOKEN_FILE: None}))
    assert not client.asked


def test_listed(client):
    client.answers["list_ready"] = [dict(MINE, id="ffffffff", gpu_count=9), MINE]
    seen = api_probes.listed(context())
    assert told(seen) == ("ok", "") and seen["data"] == {"gpu_count": 2, "hostname": "127.77.9.8"}
    client.answers["list_ready"] = [dict(MINE, id="ffffffff")]
    seen = api_probes.listed(context())
    assert told(seen) == ("bad", "") and "not among the 1 ready ones of pool gpu" in seen["found"]
    client.answers["list_ready"] = refusal("token_unknown")
    with pytest.raises(engine.Unknown, match="gave no list"):
        api_probes.listed(context())


def test_the_list_is_asked_for_once(client):
    client.answers["list_ready"] = [MINE]
    asked = context()
    api_probes.token(asked), api_probes.listed(asked)
    assert len(client.asked) == 1


# A03, A04, A05, P03, P04, P07: another start of the agent

REGISTER = {"machine_id": "1165a9b6", "hostname": "127.77.9.8", "pool_name": "gpu", "provider_name": "generic", "cpu": "8000m", "memory": "16Gi",
            "gpu_count": "2", "private_ip": "10.0.0.2"}  # fmt: skip
DRY_RUN = json.dumps({"gateway": "http://127.0.0.1:1994", "register": dict(REGISTER, token="(not shown)"), "keepalive": {}})
INSPECTED = "python 3.11\npackages\n" + DRY_RUN


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """An environment of Python 3.11, which no running agent speaks for."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib/python3.11").mkdir(parents=True)
    (tmp_path / "bin/python").symlink_to(sys.executable)
    monkeypatch.setattr(agent, "PYTHON", str(tmp_path / "bin/python"))
    monkeypatch.setattr(agent, "HIDDEN", ("/no/such/home/",))
    monkeypatch.setattr(agent, "proof", lambda asked: None)
    return tmp_path


def inspected(output=INSPECTED, status=0, files=None, **more):
    return context(dict({"env": (status, output)}, **more), files)


def test_python(installed):
    assert told(agent.python(inspected())) == ("ok", "")
    assert told(agent.python(inspected("Segmentation fault\n", -11))) == ("bad", "")
    seen = agent.python(inspected("python 3.12\npackages\n"))
    assert told(seen) == ("bad", "replaced") and "3.12" in seen["found"]
    (installed / "lib/python3.9").mkdir()
    assert told(agent.python(inspected("python 3.9\npackages\n"))) == ("bad", "old")
    (installed / "lib/python3.10").mkdir()
    assert told(agent.python(inspected("python 3.10\npackages\n"))) == ("ok", "")


def test_python_that_is_gone(installed, monkeypatch):
    (installed / "bin/python").unlink()
    assert told(agent.python(inspected())) == ("bad", "missing")
    (installed / "bin/python").symlink_to("/usr/bin/python9.99")
    seen = agent.python(inspected())
    assert told(seen) == ("bad", "replaced") and "/usr/bin/python9.99" in seen["found"]
    with pytest.raises(engine.Unknown, match="not installed"):
        agent.packages(inspected())


def test_python_in_a_home_directory(installed, monkeypatch):
    monkeypatch.setattr(agent, "HIDDEN", (os.path.dirname(os.path.realpath(sys.executable)) + "/",))
    assert told(agent.python(inspected())) == ("bad", "home")


def test_running_agent_speaks_for_its_python(installed, monkeypatch):
    monkeypatch.setattr(agent, "proof", lambda asked: {"python": "3.11.2", "sent": {"register": REGISTER}})
    asked = inspected(output="")
    assert "in use" in agent.python(asked)["found"] and told(agent.packages(asked)) == ("ok", "") and not asked.commands
    assert told(agent.payload(asked)) == ("ok", "")


def test_packages(installed):
    assert told(agent.packages(inspected())) == ("ok", "")
    seen = agent.packages(inspected("python 3.11\nTraceback (most recent call last):\nModuleNotFoundError: No module named 'httpcore'\n", 1))
    assert told(seen) == ("bad", "") and seen["found"] == "ModuleNotFoundError: No module named 'httpcore'"
    assert agent.packages(inspected("python 3.11\n", -9))["found"] == "exit status -9"


def test_other_start_gets_the_settings_and_the_token_file(installed, monkeypatch):
    monkeypatch.setattr(agent, "TOKEN_FILE", sys.executable)
    asked = inspected(files={agent.SETTINGS: "# x\nBETA9_POOL_NAME=gpu\nPATH=/evil\nBETA9_MAX_CPU=4000m\n"})
    agent.packages(asked)
    (command,) = asked.commands
    assert (
        command.startswith("env BETA9_MAX_CPU=4000m BETA9_POOL_NAME=gpu BETA9_TOKEN_FILE=%s %s -I -c " % (sys.executable, agent.PYTHON))
        and "evil" not in command
    )


def test_payload(installed):
    seen = agent.payload(inspected())
    assert told(seen) == ("ok", "") and seen["found"] == "8000m, 16Gi, 2 GPUs"
    for field, value in (("memory", "16GB"), ("cpu", "8"), ("machine_id", "x")):
        wrong = json.dumps({"register": dict(REGISTER, **{field: value})})
        seen = agent.payload(inspected("python 3.11\npackages\n" + wrong))
        assert told(seen) == ("bad", "") and field in seen["found"]
    seen = agent.payload(inspected("python 3.11\npackages\nline\nbeta9-agent: memory: expected 16Gi, found 16GB\n", 2))
    assert told(seen) == ("bad", "") and seen["found"] == "beta9-agent: memory: expected 16Gi, found 16GB"
    for text in ("beta9-agent: gateway_port: expected a port number, found 0\n", "Killed\n"):
        with pytest.raises(engine.Unknown, match="dry run ended with 2"):
            agent.payload(inspected("python 3.11\npackages\n" + text, 2))


def test_settings_of_another_machine(installed, monkeypatch):
    for name, value in (("MACHINE_ID", "ffffffff"), ("POOL_NAME", "gqu"), ("PROVIDER_NAME", "other")):
        monkeypatch.setattr(
            records,
            "agent_settings",
            lambda path, name=name, value=value: {"BETA9_POOL_NAME": "gpu", "BETA9_" + name: value},
        )
        seen = agent.settings(inspected())
        assert told(seen) == ("bad", "identity") and "BETA9_%s=%s" % (name, value) in seen["found"]


def test_settings(installed):
    assert told(agent.settings(inspected())) == ("ok", "")
    seen = agent.settings(inspected("python 3.11\npackages\nbeta9-agent: gateway_port: expected a port number, found 0\n", 2))
    assert told(seen) == ("bad", "") and "gateway_port" in seen["found"]
    with pytest.raises(engine.Unknown, match="ended with 1"):
        agent.settings(inspected("python 3.11\npackages\nOSError\n", 1))
    with pytest.raises(engine.Unknown, match="P03 and P04"):
        agent.settings(inspected("python 3.11\n", 1))


def test_registration(installed, client):
    client.answers["register"] = protocol_state("registered")
    assert told(api_probes.register(inspected())) == ("ok", "")
    _name, fields = client.asked[0]
    assert fields["token"] == "machine-t0ken-0123456789" and fields["cpu"] == "8000m" and client.token == "machine-t0ken-0123456789"
    client.asked.clear()
    api_probes.register(inspected(files={os.path.join(records.CREDENTIALS_DIR, "k3s_token"): "k3s\n"}))
    assert client.asked[0][1]["token"] == "k3s"
    client.answers["register"] = refusal("pool_unknown")
    assert told(api_probes.register(inspected())) == ("bad", "pool_unknown")


def protocol_state(word):
    class State:
        status = word

    return State()


def test_keepalive(client, installed):
    client.answers["keepalive"] = protocol_state("ready")
    assert told(api_probes.keepalive(context())) == ("ok", "")
    assert client.asked[0][1]["machine_id"] == "1165a9b6" and [name for name, *_rest in client.asked] == ["keepalive"]
    client.answers["keepalive"] = protocol_state("registered")
    assert told(api_probes.keepalive(context())) == ("bad", "")
    client.answers["keepalive"] = refusal("machine_not_found")
    assert told(api_probes.keepalive(context())) == ("bad", "machine_not_found")


def test_keepalive_after_the_registration_of_the_same_look(client, installed):
    client.answers.update(register=refusal("pool_unknown"), keepalive=protocol_state("ready"))
    asked = context({"env": INSPECTED}, probes={"A04": 5})
    assert told(api_probes.keepalive(asked)) == ("ok", "") and [name for name, *_rest in client.asked] == [
        "register",
        "keepalive",
    ]


# P01, P02: the unit

STATE = {"pid": 900, "status": "ready", "next_epoch": None}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No other agent on the host, and a journal that says nothing."""
    processes = []
    monkeypatch.setattr(linux, "processes", lambda: processes)
    monkeypatch.setattr(agent, "explanation", lambda *words, **options: "")
    monkeypatch.setattr(agent, "restarts_within", lambda asked, name, seconds: 99)
    return processes


def test_process():
    seen = agent.process(context(unit(), state=STATE))
    assert told(seen) == ("ok", "") and seen["found"] == "pid 900, ready"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"load": "masked", "active": "inactive", "pid": 0}, ("bad", "masked")),
        ({"load": "not-found", "active": "inactive", "pid": 0}, ("bad", "not_installed")),
        ({"active": "inactive", "pid": 0}, ("bad", "stopped")),
        ({"active": "failed", "pid": 0, "result": "exit-code"}, ("bad", "stopped")),
        ({"active": "deactivating"}, ("bad", "stopped")),
        ({"active": "activating", "pid": 0, "restarts": 53, "status": 2}, ("bad", "failing")),
        ({"active": "activating", "pid": 0, "restarts": 53, "status": 203}, ("bad", "program")),
        ({"active": "activating", "pid": 0, "restarts": 53, "status": 243}, ("bad", "credential")),
        # runs now, and is between two crashes
        ({"active": "activating", "restarts": 1, "age": 20.0}, ("bad", "failing")),
        ({"active": "active", "restarts": 3, "age": 20.0}, ("bad", "failing")),
        ({"active": "active", "restarts": 2, "age": 20.0}, ("ok", "")),
        ({"active": "active", "restarts": 9, "age": 61.0}, ("ok", "")),
        ({"active": "activating", "restarts": 0, "age": 20.0}, ("ok", "")),
    ],
)
def test_process_by_its_unit(changes, expected):
    assert told(agent.process(context(unit(**changes), state=STATE))) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("ok", "")),
        ({"tunnel": ""}, ("ok", "")),  # no tunnel on this host
        ({"boot": "static"}, ("ok", "")),
        ({"boot": "disabled"}, ("warn", "agent")),
        ({"tunnel": "disabled"}, ("warn", "tunnel")),
        ({"boot": "enabled-runtime"}, ("warn", "agent")),  # until the next boot
        ({"boot": "disabled", "tunnel": "disabled"}, ("warn", "")),
    ],
)
def test_boot(changes, expected):
    assert told(agent.boot(context(unit(**changes)))) == expected


def test_restarts_are_those_of_the_last_minutes(monkeypatch):
    monkeypatch.setattr(evidence, "restarts_within", lambda asked, name, seconds: 2)
    assert told(agent.process(context(unit(restarts=50, age=20.0), state=STATE))) == ("ok", "")

    def unreadable(asked, name, seconds):
        raise engine.Unknown("no journal")

    monkeypatch.setattr(evidence, "restarts_within", unreadable)
    assert told(agent.process(context(unit(restarts=50, age=20.0), state=STATE))) == ("bad", "failing")


def test_frozen():
    stopped = {"/proc/900/stat": "900 (python (x)) T 1 900"}
    assert told(agent.process(context(unit(), stopped, STATE))) == ("bad", "frozen")
    assert told(agent.process(context(unit(), {"/proc/900/stat": "900 (T) S 1 900"}, STATE))) == ("ok", "")
    assert told(agent.process(context(unit(), state=dict(STATE, next_epoch=time.time() - 60.5)))) == ("bad", "frozen")
    assert told(agent.process(context(unit(), state=dict(STATE, next_epoch=time.time() - 55)))) == ("ok", "")


def test_agent_that_has_not_said_how_it_is():
    for state in ({}, dict(STATE, pid=899)):
        assert told(agent.process(context(unit(age=11.0), state=state))) == ("bad", "frozen")
        with pytest.raises(engine.Unknown, match="has not said how it is"):
            agent.process(context(unit(age=5.0), state=state))


@pytest.mark.parametrize(
    ("words", "beside"),
    [
        (["python3", "-m", "beta9_agent"], True),
        (["python3", "-m", "beta9_agent", "--machine-id", "1165a9b6"], True),
        (["python3", "-m", "beta9_agent", "--machine-id", "ffffffff"], False),
        (["python3", "-m", "beta9_agent", "--machine-id"], True),
        (["python3", "-m", "beta9_agent", "--dry-run"], False),
        (["python3", "-m", "beta9_agent", "doctor"], False),
        (["vim", "beta9_agent.py"], False),
    ],
)
def test_second_agent(alone, words, beside):
    alone += [(900, 1, ["python", "-I", "-m", "beta9_agent"]), (950, 1, words)]
    seen = agent.process(context(unit(), state=STATE))
    assert told(seen) == (("bad", "duplicate") if beside else ("ok", "")) and ("950" in seen["found"]) is beside


@pytest.mark.parametrize(
    ("changes", "within", "expected"),
    [
        ({"restarts": 0}, 99, ("ok", "")),
        ({"restarts": 4, "age": 20.0}, 99, ("bad", "")),
        ({"restarts": 4, "age": 20.0}, 3, ("ok", "")),
        ({"restarts": 3, "age": 20.0}, 99, ("ok", "")),
        ({"restarts": 40, "age": 301.0}, 99, ("ok", "")),
        ({"restarts": 40, "age": 299.0}, 99, ("bad", "")),
        ({"journald": "inactive"}, 99, ("warn", "no_journal")),
        ({"journald": "inactive", "journald_load": "not-found"}, 99, ("ok", "")),
    ],
)
def test_restarts(monkeypatch, changes, within, expected):
    monkeypatch.setattr(agent, "restarts_within", lambda asked, name, seconds: within if seconds == 3600.0 else 0)
    assert told(agent.restarts(context(unit(**changes)))) == expected


def test_last_words_are_a_few_lines(monkeypatch):
    text = "\n".join("1.%d h a[1]: line %d" % (number, number) for number in range(30))
    monkeypatch.setattr(
        agent,
        "explanation",
        lambda asked, name, seconds, present_start: text if seconds == 300.0 and not present_start else "",
    )
    assert agent.last_words(context()) == "\n".join("a[1]: line %d" % number for number in range(18, 30))


def test_restarts_with_a_traceback(monkeypatch):
    text = "1.1 h a[1]: Traceback (most recent call last):\n1.2 h a[1]:   File x\n1.3 h a[1]: ValueError: first\n"
    monkeypatch.setattr(agent, "explanation", lambda *words, **options: text + text.replace("first", "last"))
    seen = agent.restarts(context(unit(restarts=4, age=20.0)))
    assert told(seen) == ("bad", "traceback") and "last" in seen["evidence"] and "first" not in seen["evidence"]


# P05, P06, M06: what the agent says of itself


@pytest.mark.parametrize(
    ("seconds", "age", "expected"),
    [
        (60, 10, ("ok", "")),
        (60, 164, ("ok", "")),
        (60, 167, ("bad", "late")),
        (60, None, ("ok", "")),
        (239, 10, ("ok", "")),
        (240, 10, ("bad", "")),
        (300, None, ("bad", "")),
    ],
)
def test_interval(seconds, age, expected):
    state = {"keepalive_interval_seconds": seconds, "last_keepalive_epoch": age and time.time() - age}
    seen = agent.interval(context(state=state))
    assert told(seen) == expected and (expected[1] == "late" or "every %d s" % seconds in seen["found"])


def test_agent_that_says_nothing():
    for probe, words in ((agent.interval, "no interval"), (agent.flapping, "no registrations")):
        for files in ({}, {agent.STATE_FILE: "{half"}):
            with pytest.raises(engine.Unknown, match=words):
                probe(context(files=files))
    assert agent.log(context())["found"] == "no state"


def test_log():
    problem = {"code": "pool_unknown", "cause": "no such pool", "remedy": "correct it"}
    assert told(agent.log(context(state={"status": "ready", "problem": None}))) == ("ok", "")
    assert told(agent.log(context(state={"status": "ready", "problem": problem}))) == ("warn", "pool_unknown")
    strange = dict(problem, code="invalid_field")
    assert told(agent.log(context(state={"status": "degraded", "problem": strange}))) == ("bad", "")
    seen = agent.log(context(state={"status": "degraded", "problem": problem}))
    assert told(seen) == ("bad", "pool_unknown") and seen["found"] == "pool_unknown: no such pool" and seen["evidence"] == "correct it"


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ([10, 20, 30], "bad"),
        ([10, 20], "ok"),
        ([310, 320, 330], "ok"),
        ([10, 20, 1900], "ok"),
        ([290, 1000, 1700], "bad"),
        ([], "ok"),
    ],
)
def test_flapping(ages, expected):
    assert agent.flapping(context(state={"registration_epochs": [time.time() - age for age in ages]}))["outcome"] == expected


# C04: owners and modes


@pytest.fixture
def configuration(tmp_path, monkeypatch):
    for name, mode in (("agent.env", 0o644), ("credentials/machine_token", 0o600), ("credentials/tunnel_key", 0o600)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
        path.chmod(mode)
    (tmp_path / "credentials").chmod(0o700)
    tmp_path.chmod(0o755)
    monkeypatch.setattr(file_probes, "CONFIGURATION", str(tmp_path))
    monkeypatch.setattr(agent, "TOKEN_FILE", str(tmp_path / "credentials/machine_token"))
    monkeypatch.setattr(records, "CREDENTIALS_DIR", str(tmp_path / "credentials"))
    real = os.lstat
    owners = {}
    monkeypatch.setattr(file_probes.os, "lstat", lambda path: Owned(real(path), owners.get(os.path.relpath(path, tmp_path), 0)))
    return tmp_path, owners


class Owned:
    """A stat whose owner is told, so that the test need not be root."""

    def __init__(self, found, uid):
        self.st_mode, self.st_size, self.st_uid = found.st_mode, found.st_size, uid


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        ("agent.env", 0o644, ("ok", "")),
        ("agent.env", 0o664, ("bad", "mode")),
        ("agent.env", 0o646, ("bad", "mode")),
        ("credentials/machine_token", 0o640, ("bad", "mode")),
        ("credentials/machine_token", 0o604, ("bad", "mode")),
        ("credentials/tunnel_key", 0o777, ("bad", "mode")),
        ("credentials/tunnel_key", 0o400, ("ok", "")),
    ],
)
def test_modes(configuration, name, mode, expected):
    folder, _owners = configuration
    (folder / name).chmod(mode)
    seen = file_probes.credentials(context())
    assert told(seen) == expected and (expected[0] == "ok" or "%04o" % mode in seen["found"])


def test_owners(configuration):
    _folder, owners = configuration
    owners["credentials/tunnel_key"] = 1000
    seen = file_probes.credentials(context())
    assert told(seen) == ("bad", "owner") and "uid 1000" in seen["found"]


def test_empty_key_and_token(configuration):
    folder, _owners = configuration
    (folder / "credentials/machine_token").write_text("")
    assert told(file_probes.credentials(context())) == ("ok", ""), "A01 is the one to tell"
    (folder / "credentials/tunnel_key").write_text("")
    seen = file_probes.credentials(context())
    assert told(seen) == ("bad", "empty") and "tunnel_key is empty" in seen["found"]


# M07: whose the gateway's record is


SETTINGS = "BETA9_HOSTNAME=127.77.9.8\nBETA9_PRIVATE_IP=10.0.0.7\n"
LISTED = {"id": "1165a9b6", "hostname": "127.77.9.8", "private_ip": "10.0.0.7", "last_keepalive": 1000}


@pytest.mark.parametrize(
    "change, told_last, expected",
    [
        ({}, 1000, ("ok", "")),
        ({}, 1060, ("ok", "")),  # a keepalive came between
        ({}, None, ("ok", "")),  # a gateway that tells no time
        ({"last_keepalive": None}, 1000, ("ok", "")),
        ({"hostname": "127.77.1.1"}, 1000, ("bad", "hostname")),
        ({"hostname": ""}, 1000, ("bad", "hostname")),
        ({"private_ip": "10.0.0.8"}, 1000, ("bad", "private_ip")),
        ({"last_keepalive": 1001}, 1000, ("bad", "keepalive")),
    ],
)
def test_identity_at_the_gateway(monkeypatch, tmp_path, change, told_last, expected):
    (tmp_path / "agent.env").write_text(SETTINGS)
    monkeypatch.setattr(agent, "SETTINGS", str(tmp_path / "agent.env"))
    monkeypatch.setattr(api_probes.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(tunnel, "client_of", lambda *args, **kwargs: Client(list_ready=[dict(LISTED, **change)]))
    assert told(api_probes.identity(context(state={"gateway_keepalive_epoch": told_last}))) == expected


def test_tailnet_that_the_gateway_appended_is_no_other_host(monkeypatch, tmp_path):
    (tmp_path / "agent.env").write_text("BETA9_HOSTNAME=127.77.1.1\n")
    monkeypatch.setattr(agent, "SETTINGS", str(tmp_path / "agent.env"))
    for hostname, expected in (("127.77.1.1.tail1234.ts.net", ("ok", "")), ("127.77.1.10", ("bad", "hostname"))):
        monkeypatch.setattr(tunnel, "client_of", lambda *args, name=hostname, **kwargs: Client(list_ready=[dict(LISTED, hostname=name)]))
        assert told(api_probes.identity(context(state={"gateway_keepalive_epoch": LISTED["last_keepalive"]}))) == expected


def test_identity_of_a_machine_that_is_not_listed_is_unknown(monkeypatch):
    monkeypatch.setattr(tunnel, "client_of", lambda *args, **kwargs: Client(list_ready=[]))
    with pytest.raises(engine.Unknown, match="does not list"):
        api_probes.identity(context())


# P08: whose programs and units are


@pytest.mark.parametrize(
    "path, mode, expected",
    [
        ("opt/versions/1/bin/python", 0o755, ("ok", "")),
        ("opt/versions/1/bin/python", 0o757, ("bad", "programs")),
        ("opt", 0o775, ("bad", "programs")),
        ("units/beta9-agent.service", 0o644, ("ok", "")),
        ("units/beta9-agent.service", 0o664, ("bad", "units")),
        ("units/beta9-agent.service.d/x.conf", 0o666, ("bad", "units")),
        ("beta9.fact", 0o646, ("bad", "units")),
    ],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="files of root")
def test_programs(monkeypatch, tmp_path, path, mode, expected):
    for name in ("opt/versions/1/bin/python", "units/beta9-agent.service", "units/beta9-agent.service.d/x.conf", "beta9.fact"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(file_probes.records, "AGENT_DIRECTORY", str(tmp_path / "opt"))
    monkeypatch.setattr(file_probes, "KEPT", ())
    monkeypatch.setattr(file_probes, "UNIT_FILES", (str(tmp_path / "units/beta9-*"), str(tmp_path / "units/beta9-*.d/*")))
    monkeypatch.setattr(records, "MACHINE_FACT_PATH", str(tmp_path / "beta9.fact"))
    (tmp_path / path).chmod(mode)
    assert told(file_probes.programs(context())) == expected


# C05: what has to be written can be


def file_system(**changes):
    """Return what statvfs says of a disk of 40 GB that is half full."""
    fields = {"f_bavail": 5_000_000, "f_frsize": 4096, "f_blocks": 10_000_000, "f_files": 2_000_000, "f_favail": 1_000_000, "f_flag": 0}
    return types.SimpleNamespace(**dict(fields, **changes))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("ok", "")),
        ({"f_bavail": 4095}, ("bad", "full")),
        ({"f_bavail": 4096}, ("ok", "")),
        ({"f_bavail": 0, "f_blocks": 0}, ("ok", "")),  # no disk
        ({"f_bavail": 5000, "f_frsize": 1024, "f_blocks": 20_000}, ("ok", "")),  # small, and a quarter of it is free
        ({"f_favail": 99}, ("bad", "inodes")),
        ({"f_favail": 100}, ("ok", "")),
        ({"f_favail": 0, "f_files": 0}, ("ok", "")),  # as btrfs tells
        ({"f_flag": os.ST_RDONLY | os.ST_NOSUID, "f_bavail": 0}, ("bad", "read_only")),
        ({"f_flag": os.ST_NOSUID}, ("ok", "")),
    ],
)
def test_disks(monkeypatch, changes, expected):
    monkeypatch.setattr(file_probes, "WRITTEN", ("/etc", "/nowhere", "/etc"))
    real = os.statvfs
    monkeypatch.setattr(file_probes.os, "statvfs", lambda path: file_system(**changes) if path == "/etc" else real(path))
    assert told(file_probes.disks(context())) == expected


def test_keepalive_that_is_on_its_way_is_waited_for(monkeypatch, tmp_path):
    (tmp_path / "agent.env").write_text(SETTINGS)
    monkeypatch.setattr(agent, "SETTINGS", str(tmp_path / "agent.env"))
    waited, states = [], [{"gateway_keepalive_epoch": 940}, {"gateway_keepalive_epoch": 940}, {"gateway_keepalive_epoch": 1000}]
    monkeypatch.setattr(api_probes.time, "sleep", waited.append)
    monkeypatch.setattr(tunnel, "client_of", lambda *args, **kwargs: Client(list_ready=[LISTED]))
    here = context()
    here.agent_state = lambda _path: states.pop(0) if len(states) > 1 else states[0]
    assert told(api_probes.identity(here)) == ("ok", "") and len(waited) == 2
