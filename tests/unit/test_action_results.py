"""What actions return, run as a task runs them, with the host's side given by the test."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure

from ansible_collections.beta9.workers.plugins.action import (
    check_verdict,
    health_report,
    host_preflight,
    machine_enrol,
    worker_health,
)
from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.gateway import api
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, diagnose
from ansible_collections.beta9.workers.plugins.plugin_utils import remote


def action_of(kind: Any, check_mode: bool = False, **arguments: Any) -> Any:
    """Return an action as ansible-playbook makes it for a task with these arguments."""
    task = types.SimpleNamespace(
        args=arguments,
        check_mode=check_mode,
        diff=False,
        async_val=0,
        action=kind.__module__.rpartition(".")[2],
        delegate_to=None,
    )
    shell = types.SimpleNamespace(tmpdir=None)
    connection = types.SimpleNamespace(_shell=shell, transport="ssh", has_pipelining=True, become=None)
    templar = types.SimpleNamespace(template=lambda value: value)
    return kind(task, connection, types.SimpleNamespace(), None, templar, None)


# -- the gate and the tasks of single checks --


def health(**seen: str) -> dict[str, Any]:
    """Return a host's entry of health_report: everything ok but what is named."""
    observations = [
        {"id": check.id, "outcome": seen.get(check.id, "ok"), "found": "as found"} for check in catalog.CHECKS
    ]
    verdicts = diagnose.clean(diagnose.diagnose(observations))
    for verdict in verdicts:
        if verdict["remedy"]:
            verdict["remedy"] = dict(verdict["remedy"], host="w1")
    return {"outcome": diagnose.outcome(verdicts), "message": "", "verdicts": verdicts}


def gate(entry: dict[str, Any]) -> dict[str, Any]:
    return action_of(check_verdict.ActionModule, health=entry).run(task_vars={})


def test_gate():
    assert gate(health()) == {"changed": False, "msg": "healthy"}
    sick = gate(health(T01="bad", T02="bad"))
    assert sick["failed"] and "unreachable" not in sick and sick["msg"].startswith("1 root cause (T01), ")
    unseen = gate(health(C02="unknown", M01="unknown", M02="unknown"))
    assert unseen["unreachable"] and "failed" not in unseen and "M02 unknown: as found" in unseen["msg"]
    assert "could not tell: no way" in gate({"outcome": "unknown", "message": "no way", "verdicts": []})["msg"]


def test_gate_counts_a_warning_that_explains_a_failure_as_root():
    told = gate(health(U08="warn", P02="bad", M06="bad", K03="bad"))["msg"]
    roots = [
        verdict["id"] for verdict in health(U08="warn", P02="bad", M06="bad", K03="bad")["verdicts"] if verdict["root"]
    ]
    assert ", ".join(roots) in told and "%d root cause" % len(roots) in told


def show(identity: str, **seen: str) -> dict[str, Any]:
    return action_of(check_verdict.ActionModule, id=identity, health=health(**seen)).run(task_vars={})


def test_verdicts_as_tasks():
    assert show("T01") == {"changed": False, "status": "pass", "found": "as found"}
    root = show("T01", T01="bad")
    assert root["failed"] and root["msg"].startswith("root cause: ") and "Do: on w1: " in root["msg"]
    check = next(check for check in catalog.CHECKS if check.requires)
    blocked = show(check.id, **{check.requires[0]: "bad"})
    assert (
        blocked["skipped"] and blocked["skip_reason"] == "blocked by " + check.requires[0] and "failed" not in blocked
    )
    assert show("U03", U03="not_applicable")["skip_reason"] == "as found"
    for outcome in ("warn", "unknown", "crash"):
        assert show("T01", T01=outcome)["warnings"][0].startswith("T01 " + outcome)
    assert show("Z99")["skip_reason"] == "not part of this run"


def test_consequence_names_what_it_comes_from():
    check = next(check for check in catalog.CHECKS if check.explained_by and not check.requires)
    told = show(check.id, **{check.id: "bad", check.explained_by[0]: "bad"})
    assert told["failed"] and told["msg"].startswith("consequence of %s: " % check.explained_by[0])


# -- worker_health: which probes run --


def probes(check_mode: bool = False, **arguments: Any) -> dict[str, float]:
    return action_of(worker_health.ActionModule, check_mode).probes(arguments)


def test_which_probes_run():
    everything = probes()
    own = {
        check.id
        for check in catalog.CHECKS
        if check.side == catalog.WORKER and connections.gives("autossh", check.builds_on) and not check.active
    }
    assert set(everything) == own and everything["T01"] == catalog.BY_ID["T01"].timeout_seconds
    assert (
        set(probes(only="T01,A01")) == {"T01", "A01"}
        and "T01" not in probes(skip=["T01"])
        and "T01" not in probes(connection="direct")
    )
    active = {
        check.id
        for check in catalog.CHECKS
        if check.active and check.side == catalog.WORKER and connections.gives("autossh", check.builds_on)
    }
    assert active and active <= set(probes(active="yes")) and not active & set(probes(check_mode=True, active=True))
    with pytest.raises(AnsibleActionFail, match="Z99"):
        probes(only="Z99")


@pytest.mark.parametrize(("hosts", "login"), [(1, True), (4, True), (5, False)])
def test_few_hosts_log_in_at_once(monkeypatch, hosts, login):
    asked: list[Any] = []
    monkeypatch.setattr(
        worker_health.health_observe,
        "observe",
        lambda _action, _module, arguments, _vars, seconds: asked.append((arguments, seconds)) or {},
    )
    found = action_of(worker_health.ActionModule, k3s="true", inventory={"pool": "gpu"}).run(
        task_vars={"ansible_play_batch": ["h"] * hosts}
    )
    (arguments, seconds), settings = asked[0], found["settings"]
    assert (
        arguments["login"] is login
        and seconds == 20
        and len(arguments["nonce"]) == 32
        and found["nonce"] == arguments["nonce"]
    )
    assert settings == {"pool": "gpu", "connection": "autossh", "k3s": True} and found["started"] > 10**9
    with pytest.raises(AnsibleActionFail, match="deadline_seconds"):
        action_of(worker_health.ActionModule, deadline_seconds="soon").run(task_vars={})


# -- health_report: what of a worker's words is used --

TUNNEL = {"target": "localhost:31994", "listen": "127.77.3.9:6443", "port": 22, "user": "beta9-tunnel"}


def test_ends_of_a_tunnel_are_of_a_form_that_a_host_may_be_asked_with():
    assert health_report.tunnel_of(TUNNEL) == TUNNEL
    assert health_report.tunnel_of(dict(TUNNEL, listen=""))["listen"] == ""
    for wrong in (
        {"target": "x; reboot"},
        {"listen": "$(reboot)"},
        {"port": "22; reboot"},
        {"port": 0},
        {"user": "root -oProxyCommand=x"},
        {"user": "$(x)"},
        {"listen": None, "target": None},
    ):
        assert health_report.tunnel_of(dict(TUNNEL, **wrong)) is None
    assert health_report.tunnel_of(None) is None and health_report.tunnel_of({}) is None


IDENTITY = {"machine_id": "1165a9b6", "pool": "gpu", "provider": "generic"}


def worker(**more: Any) -> dict[str, Any]:
    return dict(
        {"identity": IDENTITY, "observations": [], "settings": {"connection": "autossh", "k3s": True}, "nonce": "5ac"},
        **more,
    )


def test_machines_that_the_gateway_is_asked_about():
    listed = {"machines": [{"id": "1165a9b6", "status": "ready"}, {"id": "1165a9b7", "status": "pending"}]}
    other = dict(IDENTITY, machine_id="1165a9b7")
    workers = {
        "a": worker(),
        "b": worker(identity=other),
        "c": worker(identity={}),
        "d": {"identity": IDENTITY, "unreachable": True},
    }
    found = health_report.machines_of(workers, listed)
    assert [(entry["host"], entry["ready"]) for entry in found] == [("a", True), ("b", False)]
    assert found[0]["nonce"] == "5ac" and found[0]["tunnel"] is None and found[0]["k3s"] is True
    seen = [{"id": "T08", "data": {"tunnel": TUNNEL}}, {"id": "V03", "data": {"addresses": ["100.64.0.1", {}, 5]}}]
    (entry,) = health_report.machines_of({"a": worker(observations=seen)}, {})
    assert entry["tunnel"] == TUNNEL and entry["tailnet_addresses"] == ["100.64.0.1"] and not entry["ready"]


PARAMS = {"only": [], "skip": [], "accept": []}


def judged(entry: dict[str, Any], **params: Any) -> dict[str, Any]:
    return health_report.judged("a", entry, dict(PARAMS, **params), {}, {"why": "not asked"})


def test_host_of_which_no_sense_can_be_made_holds_nobody():
    assert judged({"unreachable": True, "msg": " gone "}) == {"outcome": "unreachable", "message": "gone"}
    assert judged({"msg": "x"})["message"] == "expected the worker's observations, found: x"
    for broken in (
        {"observations": [{}]},
        {"observations": [5]},
        {"observations": [], "settings": None, "identity": IDENTITY},
        {"observations": 5},
    ):
        found = judged(dict(worker(), **broken))
        assert found["outcome"] == "unknown" and "could not be judged" in found["message"]


def test_checks_that_were_left_out_have_no_verdict():
    seen = [
        dict(id=name, outcome="ok", found="", code="", evidence="", seconds=0.0, data={})
        for name in ("T01", "T02", "A01")
    ]
    entry = worker(observations=seen, limited="few rights")
    everything = {verdict["id"] for verdict in judged(entry)["verdicts"]}
    assert {"T01", "T02", "A01"} <= everything and judged(entry)["message"] == "few rights"
    assert {verdict["id"] for verdict in judged(entry, skip=["T01"])["verdicts"]} == everything - {"T01"}
    assert {verdict["id"] for verdict in judged(entry, only=["T01", "T02"], skip=["T02"])["verdicts"]} == {"T01"}


# -- machine_enrol: a machine is made and stored, or neither --


class Client:
    """A gateway's client that notes what it is asked to do."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def create_machine(self, pool: str) -> dict[str, str]:
        self.done.append("create " + pool)
        return {"id": "1165a9b6", "pool": pool, "registration_token": "canary-machine-token-0123"}

    def discard_machine(self, created: dict[str, str]) -> None:
        self.done.append("discard " + created["id"])


@pytest.fixture
def enrol(monkeypatch):
    """Return a function that enrols a host whose module answers so; it returns (result, what the gateway was asked, what the host)."""

    def run(answer: Any, check_mode: bool = False, **arguments: Any) -> tuple[dict[str, Any], list[str], list[Any]]:
        client, sent = Client(), []

        def host(_action: Any, module: str, given: dict[str, Any], _vars: Any) -> dict[str, Any]:
            sent.append((module, given))
            if isinstance(answer, BaseException):
                raise answer
            return answer

        monkeypatch.setattr(api, "client_from_params", lambda _params: client)
        monkeypatch.setattr(remote, "run", host)
        action = action_of(
            machine_enrol.ActionModule,
            check_mode,
            pool="gpu",
            gateway_url="http://h",
            token="canary-admin-token-0123",
            **arguments,
        )
        try:
            return action.run(task_vars={}), client.done, sent
        except KeyboardInterrupt as error:
            return {"raised": error}, client.done, sent

    return run


BEFORE = {"machine_id": "9c40e2d7", "pool": "gpu", "provider": "generic"}


def test_machine_is_made_and_its_credentials_stored(enrol):
    result, done, sent = enrol({"changed": True})
    assert result == {"changed": True, "machine": IDENTITY, "diff": {"before": {}, "after": IDENTITY}} and done == [
        "create gpu"
    ]
    given = dict(IDENTITY, machine_token="canary-machine-token-0123", replaces=None, seen=None)
    assert sent == [("machine_credentials", given)]
    result, _done, sent = enrol({"changed": True}, replaces=BEFORE)
    assert result["machine"] == dict(IDENTITY, replaces=BEFORE) and sent[0][1]["replaces"] == BEFORE


@pytest.mark.parametrize("pool, failed", [("gpu", False), ("cpu", True)])
def test_machine_that_another_run_gave_the_host_stays(enrol, pool, failed):
    other = dict(BEFORE, pool=pool)
    result, done, sent = enrol({"changed": False, "taken": True, "machine": other}, seen="")
    assert done == ["create gpu", "discard 1165a9b6"] and sent[0][1]["seen"] == "" and not result["changed"]
    assert (result.get("failed", False), result.get("machine")) == (failed, None if failed else other)
    assert "canary" not in str(result) and ("another run" in result.get("msg", "")) is failed


def test_check_mode_makes_no_machine(enrol):
    result, done, sent = enrol({}, check_mode=True, replaces=BEFORE)
    assert result["changed"] and result["diff"]["before"] == BEFORE and not done and not sent


@pytest.mark.parametrize(
    "answer", [{"failed": True, "msg": "full"}, {"unreachable": True}, KeyboardInterrupt()], ids=str
)
def test_host_that_can_not_store_them_leaves_no_machine_behind(enrol, answer):
    result, done, _sent = enrol(answer)
    assert (
        done == ["create gpu", "discard 1165a9b6"]
        and (result.get("failed") or result.get("raised"))
        and "canary" not in str(result)
    )


# -- host_preflight: the variables are judged here --


def test_variables_that_are_wrong_keep_nobody_from_looking(monkeypatch):
    asked: list[Any] = []
    monkeypatch.setattr(
        remote,
        "run",
        lambda _action, _name, arguments, _vars: asked.append(arguments) or {"problems": [{"what": "disk"}]},
    )
    arguments = {"settings": {"pool": "gpu", "connection": "autossh", "token": True}, "tunnel_port": "x"}
    result = action_of(host_preflight.ActionModule, **arguments).run(task_vars={"beta9_pool": "a:b"})
    assert [problem["what"] for problem in result["problems"]][0] == "beta9_pool" and result["problems"][-1] == {
        "what": "disk"
    }
    assert "pool" not in asked[0]["settings"] and asked[0]["settings"]["connection"] == "autossh"


# -- remote: what comes back --


def test_flags_are_no_numbers():
    assert remote.documented("agent_status", {"gpu_count": True})["code"] == "result_malformed"
    assert remote.documented("agent_status", {"gpu_count": 2}) == {"gpu_count": 2}


def test_few_warnings_of_a_host_are_shown():
    assert len(remote.documented("host_files", {"warnings": [str(number) for number in range(50)]})["warnings"]) == 20


@pytest.mark.parametrize(
    ("become", "passes"),
    [(None, True), ("ansible.builtin.sudo", True), ("sudo", True), ("su", False), ("community.general.su", False)],
)
def test_secrets_go_by_standard_input_where_that_is_passed_on(become, passes):
    action = action_of(machine_enrol.ActionModule)
    action._connection.become = types.SimpleNamespace(name=become) if become else None
    assert remote.pipelined(action) is passes
    assert all(issubclass(kind, remote.Pipelined) for kind in (machine_enrol.ActionModule, health_report.ActionModule))
    action._connection.has_pipelining = False
    assert not remote.pipelined(action)


@pytest.mark.parametrize("named", ["host_files", "beta9.workers.host_files"])
def test_an_action_runs_the_module_that_the_task_names(named):
    action = action_of(remote.OnHost)
    action._task.action = named
    assert action.module() == "host_files"


def test_every_result_of_a_host_passes_the_variables_check(monkeypatch):
    seen: list[Any] = []
    monkeypatch.setattr(remote.trust, "require_own_variables", seen.append)
    monkeypatch.setattr(remote, "_executed", lambda *_arguments: {"changed": True, "surprise": 1})
    action = action_of(check_verdict.ActionModule)
    assert remote.run(action, "host_files", {}, {"a": 1}) == {"changed": True} and seen == [{"a": 1}]


def test_the_command_lines_python_is_none_of_the_controllers(monkeypatch):
    given = {"ansible_python_interpreter": "/opt/theirs"}
    variables = {"ansible_delegated_vars": {"localhost": dict(given, more=1)}}
    action = action_of(check_verdict.ActionModule)
    for target, transport, extra, own in (
        (None, "local", given, False),  # a host of the inventory that is the controller itself
        ("gateway", "local", given, False),
        ("localhost", "ssh", given, False),
        ("localhost", "local", {}, False),  # what the inventory says of localhost counts
        ("localhost", "local", given, True),
    ):
        action._task.delegate_to, action._connection.transport = target, transport
        monkeypatch.setattr(remote, "load_extra_vars", lambda _loader, extra=extra: extra)
        python = sys.executable if own else "/opt/theirs"
        found = remote.with_own_python(action, variables)["ansible_delegated_vars"]["localhost"]
        assert found == {"ansible_python_interpreter": python, "more": 1}, (target, transport, extra)


def test_time_that_a_task_has_left_goes_on():
    import signal

    with remote.within(50):
        with remote.within(20):
            pass
        assert 45 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [
        ({}, 300),
        ({"wait_seconds": 60}, 360),
        ({"wait_seconds": "60", "gpu_wait_seconds": 5.5}, 365.5),
        ({"wait_seconds": "x"}, 300),
        ({"lock_seconds": 600, "timeout_seconds": 20}, 920),
    ],
)
def test_limit_is_what_the_module_s_own_waits_come_to(monkeypatch, arguments, seconds):
    limits: list[float] = []

    class Within:
        def __init__(self, limit):
            limits.append(limit)

        def __enter__(self):
            raise remote.TooLate

        def __exit__(self, *_arguments):
            return False

    monkeypatch.setattr(remote, "within", Within)
    result = remote.run(action_of(check_verdict.ActionModule), "agent_status", arguments, {})
    assert limits == [seconds] and result["unreachable"] and "within %.0f s" % seconds in result["msg"]


def test_sudo_that_is_not_understood_is_named(monkeypatch):
    def fail(*_arguments):
        raise AnsibleConnectionFailure(words)

    monkeypatch.setattr(remote, "_executed", fail)
    words = "Timeout (12s) waiting for privilege escalation prompt: "
    with pytest.raises(AnsibleConnectionFailure, match="escalation prompt.*sudo-rs.*ansible_become_exe to sudo.ws"):
        remote.run(action_of(check_verdict.ActionModule), "host_files", {}, {})
    words = "Connection refused"
    with pytest.raises(AnsibleConnectionFailure, match="refused$"):
        remote.run(action_of(check_verdict.ActionModule), "host_files", {}, {})
