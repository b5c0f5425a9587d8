"""The loop itself, with a gateway of the test's own and clocks that jump: what can't be had for real here."""

from __future__ import annotations

import dataclasses
import json
import logging
import signal
import time

import pytest
from beta9_agent import agent as module
from beta9_agent import clocks, config, gpu_health, journal, protocol, report
from beta9_agent.client import Refused
from beta9_agent.gpus import Health, Reading, Unit

ACCEPTED = protocol.parse_machine_state({"machine_state": {"status": "ready", "ttl_seconds": 300}})


class Gateway:
    """Takes what the agent sends; answers is a list of problems or None, the last one for good."""

    def __init__(self, answers=(None,)):
        self.answers, self.sent = list(answers), []

    def _answer(self, what, payload):
        self.sent.append((what, payload))
        problem = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if problem:
            raise Refused(problem)
        return ACCEPTED

    def register(self, payload):
        return self._answer("register", payload)

    def keepalive(self, payload):
        return self._answer("keepalive", payload)

    def close(self):
        pass


class Notifier:
    watchdog_seconds = 60.0

    def __init__(self):
        self.lines = []

    def send(self, *lines):
        self.lines.extend(lines)


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that makes an agent whose loop turns through steps (called instead of waiting), and then stops."""
    monkeypatch.setattr(module.events, "setup", lambda log_format, debug: None)
    monkeypatch.setattr(logging.getLogger("beta9_agent"), "propagate", True)
    (tmp_path / "token").write_text("canary-token-0123456789")

    def build(*steps, gateway=None, more=()):
        words = ["--machine-id", "1165a9b6", "--pool-name", "gpu", "--private-ip", "10.0.0.7", "--gpu-ids", "none"]
        words += ["--token-file", str(tmp_path / "token"), "--state-file", str(tmp_path / "state.json"), *more]
        turns = iter([lambda _agent: None, lambda _agent: None, *steps])

        def wait(seconds):
            agent.waits.append(seconds)
            step = next(turns, None)
            return signal.SIGTERM if step is None else step(agent)

        monkeypatch.setattr(module, "Client", lambda *_arguments, **_more: gateway or Gateway())
        agent = module.Agent(lambda: config.from_arguments(words), notifier=Notifier(), wait=wait)
        agent.waits = []
        agent.state = lambda: json.loads((tmp_path / "state.json").read_text())
        return agent

    return build


def events(caplog):
    return [record.getMessage() for record in caplog.records]


def shift(monkeypatch, what, seconds):
    real = getattr(time, what)
    monkeypatch.setattr(time, what, lambda *arguments: real(*arguments) + seconds)


@pytest.mark.parametrize("seconds", [86400, -86400])
def test_jump_of_the_clock_moves_no_keepalive_and_mends_the_told_times(make, monkeypatch, caplog, seconds):
    caplog.set_level(logging.INFO)
    due = []

    def jump(agent):
        due.append(agent.life.due)
        shift(monkeypatch, "time", seconds)

    agent = make(jump, lambda agent: due.append(agent.life.due), lambda _agent: None)
    agent.run()
    assert due[0] == due[1] and events(caplog).count("clock_jumped") == 1
    assert abs(agent.state()["last_keepalive_epoch"] - time.time()) < 60 and 0 <= agent.state()["next_epoch"] - time.time() < 100


def test_resumed_host_keeps_alive_at_once(make, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    gateway = Gateway()

    def sleep(_agent):
        shift(monkeypatch, "clock_gettime", 3600)  # CLOCK_BOOTTIME counts the sleep, the monotonic clock does not

    agent = make(sleep, gateway=gateway)
    agent.run()
    assert "resumed" in events(caplog) and [what for what, _payload in gateway.sent] == ["register", "keepalive", "keepalive"]


def test_ready_is_told_once_and_the_watchdog_is_fed_by_the_loop(make):
    agent = make(lambda _agent: None)
    agent.run()
    lines = agent.notifier.lines
    assert lines.count("READY=1") == 1 and lines.count("WATCHDOG=1") == 3 and lines[-1] == "STOPPING=1"
    assert "STATUS=ready, no GPU, last keepalive 0 s ago" in lines


def test_watchdog_is_fed_while_the_gateway_is_away_and_ready_is_not_told(make):
    agent = make(*[lambda _agent: None] * 3, gateway=Gateway([protocol.classify(None, "refused")]))
    agent.run()
    assert agent.notifier.lines.count("WATCHDOG=1") == 5 and "READY=1" not in agent.notifier.lines


def test_one_line_for_one_change(make, caplog):
    caplog.set_level(logging.INFO)

    def again(agent):
        agent.life.due = 0.0

    refused = protocol.classify(None, "refused")
    agent = make(*[again] * 6, gateway=Gateway([None, None, refused, refused, refused, None]))
    agent.run()
    assert events(caplog).count("degraded") == 1 and events(caplog).count("ready") == 2


def test_number_of_gpus_that_changed_is_registered_when_seen_twice(make, caplog):
    caplog.set_level(logging.INFO)
    gateway, found = Gateway(), [2, 2, 1, 2, 1, 1, 1]

    class Gpus:
        def read(self):
            number = found.pop(0) if len(found) > 1 else found[0]
            return Reading(tuple(Unit(str(at), "", "", True) for at in range(number)))

    def again(agent):
        agent.life.due = 0.0

    agent = make(*[again] * 8, gateway=gateway)
    agent.machine.gpus = Gpus()
    agent.run()
    registered = [payload["gpu_count"] for what, payload in gateway.sent if what == "register"]
    assert registered == ["2", "1"] and events(caplog).count("capacity_changed") == 1


def test_stale_reading_registers_nothing(make):
    gateway = Gateway()
    agent = make(*[lambda agent: setattr(agent.life, "due", 0.0)] * 4, gateway=gateway)
    agent.machine.gpus = type("Gpus", (), {"read": lambda self: Reading(trouble="hangs", stale_seconds=9.0)})()
    agent._registered.capacity = {"gpu_count": 2}
    agent.life.registered(0.0, ACCEPTED)
    agent.run()
    assert "register" not in [what for what, _payload in gateway.sent]
    assert "GPUs not readable for 9 s" in report.status_text(agent.snapshot())


def test_unreadable_credential_is_a_problem_and_no_end(make, tmp_path):
    def lose(agent):
        (tmp_path / "token").unlink()
        agent.life.register_again(clocks.now())

    agent = make(lose, lambda _agent: None)
    agent.run()
    assert agent.life.problem.code == "credential_unreadable" and str(tmp_path / "token") in agent.life.problem.cause


def asked_again(agent):
    agent.life.due = 0.0


def registers(gateway):
    return [payload for what, payload in gateway.sent if what == "register"]


def test_waits_are_as_short_as_the_watchdog_and_the_credential_ask_for(make):
    agent = make(lambda _agent: None)
    agent.run()
    assert max(agent.waits) <= 10.0  # a resumed host is noticed this soon
    agent = make(lambda _agent: None)
    agent.notifier.watchdog_seconds = 6.0
    agent.run()
    assert 1.9 < max(agent.waits) <= 2.0
    agent = make(*[lambda _agent: None] * 2, gateway=Gateway([protocol.classify(401, {})]))
    agent.run()
    assert agent.waits[-1] <= 1.0  # a new credential is used at once


def test_credential_that_is_as_it_was_is_no_news(make, caplog):
    caplog.set_level(logging.INFO)
    gateway = Gateway([protocol.classify(401, {})])
    make(*[lambda _agent: None] * 3, gateway=gateway).run()
    assert "credential_changed" not in events(caplog) and len(registers(gateway)) == 1


def test_registration_is_remembered_and_not_done_again(make, tmp_path):
    file = ("--registration-file", str(tmp_path / "registration"))
    first, second, once = Gateway(), Gateway(), Gateway()
    make(gateway=first, more=file).run()
    assert len(registers(first)) == 1 and (tmp_path / "registration").stat().st_mode & 0o777 == 0o600
    agent = make(gateway=second, more=file)
    agent.run()
    assert not registers(second) and agent.history.sent["register"]["machine_id"] == "1165a9b6"
    make(gateway=once, more=(*file, "--once")).run()
    assert len(registers(once)) == 1
    for more in (("--max-cpu", "1m"), ("--gateway-port", "1")):  # a fact, or another gateway
        changed = Gateway()
        make(gateway=changed, more=(*file, *more)).run()
        assert len(registers(changed)) == 1
        make(gateway=Gateway(), more=file).run()


def test_once_ends_with_the_first_answer(make):
    good, bad = Gateway(), Gateway([protocol.classify(None, "refused")])
    assert make(*[asked_again] * 9, gateway=good, more=["--once"]).run() is True and [what for what, _payload in good.sent] == ["register", "keepalive"]
    assert make(*[asked_again] * 9, gateway=bad, more=["--once"]).run() is False and len(bad.sent) == 1


def test_gateway_is_given_the_cluster_s_token_where_there_is_one_and_the_state_file_neither(make, tmp_path):
    (tmp_path / "k3s").write_text("canary-k3s-0123456789")
    gateway = Gateway()
    agent = make(gateway=gateway, more=["--k3s-token-file", str(tmp_path / "k3s")])
    agent.run()
    assert registers(gateway)[0]["token"] == "canary-k3s-0123456789" and agent.history.sent["register"]["token"] == "(not shown)"
    assert "canary" not in (tmp_path / "state.json").read_text() and agent.state()["has_k3s_token"]
    (tmp_path / "k3s").write_text("")
    gateway = Gateway()
    make(gateway=gateway, more=["--k3s-token-file", str(tmp_path / "k3s")]).run()
    assert registers(gateway)[0]["token"] == "canary-token-0123456789"


def test_a_gpu_that_flickers_registers_nothing(make):
    gateway, found = Gateway(), [2, 2, 1, 2, 1, 2, 1, 2]

    class Gpus:
        def read(self):
            number = found.pop(0) if len(found) > 1 else found[0]
            return Reading(tuple(Unit(str(at), "", "", True) for at in range(number)))

    agent = make(*[asked_again] * 8, gateway=gateway)
    agent.machine.gpus = Gpus()
    agent.run()
    assert [payload["gpu_count"] for payload in registers(gateway)] == ["2"]


def test_last_five_kinds_of_problems_are_kept(make):
    names = ["refused", "reset", "empty", "timeout", "dns", "tls"]
    agent = make(*[asked_again] * 8, gateway=Gateway([protocol.classify(None, name) for name in names]))
    agent.run()
    kept = [entry["code"] for entry in agent.state()["recent_problems"]]
    assert kept == ["connection_reset", "empty_reply", "timeout", "name_unresolved", "tls_failed"]
    assert agent.state()["recent_problems"][-1]["count"] >= 3 and agent.state()["problem"]["code"] == "tls_failed"


def test_changed_credential_is_used_once(make, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    gateway = Gateway([protocol.classify(401, {})])

    def replace(_agent):
        (tmp_path / "new").write_text("canary-other-0123456789")
        (tmp_path / "new").replace(tmp_path / "token")

    agent = make(replace, *[lambda _agent: None] * 4, gateway=gateway)
    agent.run()
    assert events(caplog).count("credential_changed") == 1 and len(registers(gateway)) == 2


def test_reload_is_counted_and_a_refused_one_is_told_until_one_is_taken(make, tmp_path):
    told = []

    def reload(good):
        def step(agent):
            agent._load = agent.good if good else agent.bad
            return signal.SIGHUP

        return step

    def note(agent):
        told.append((agent.state()["reloads"], agent.state()["reload_error"]))

    agent = make(reload(False), note, reload(True), note)
    agent.good = agent._load

    def bad():
        raise protocol.InvalidField("pool_name", "a name", "nothing")

    agent.bad = bad
    agent.run()
    assert told == [(1, "pool_name: expected a name, found nothing"), (2, None)]


def test_lateness_is_told_once(make, caplog, monkeypatch):
    caplog.set_level(logging.INFO)

    def late(agent):
        agent.life.due = clocks.now() - 1000

    make(late, late, late).run()
    assert events(caplog).count("behind_schedule") == 1


def test_clock_that_stands_still_is_no_news(make, caplog):
    caplog.set_level(logging.INFO)
    make(*[lambda _agent: None] * 3).run()
    assert not {"resumed", "clock_jumped", "behind_schedule"} & set(events(caplog))


def test_ready_is_told_to_systemd_once_only(make):
    agent = make(*[asked_again] * 4)
    agent.run()
    assert agent.notifier.lines.count("READY=1") == 1 and agent.history.counts["keepalives"] > 3


def test_metrics_for_prometheus(make):
    agent = make(asked_again, gateway=Gateway([None, None, protocol.classify(None, "refused"), None]))
    agent.run()
    text = report.prometheus(agent.snapshot())
    states = [line for line in text.splitlines() if line.startswith("beta9_agent_status{")]
    assert [line.rpartition(" ")[2] for line in states].count("1") == 1 and len(states) == len(report.STATES)
    assert 'beta9_agent_problems_total{code="connection_refused"} 1' in text and "beta9_agent_keepalives_total 1" in text
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(names) == len(set(names)) > 10 and text.count("# HELP ") == len(names)
    assert report._escape('a"b\\c\nd') == 'a\\"b\\\\c d'


def test_problem_s_cause_is_shown_without_tokens(make, tmp_path):
    problem = protocol.classify(None, "refused")._replace(cause="refused canary-token-0123456789\x1b[2J")
    agent = make(gateway=Gateway([problem]))
    agent.run()
    assert "(token)" in agent.state()["problem"]["cause"] and "canary" not in (tmp_path / "state.json").read_text()
    assert "canary" not in report.status_text(agent.snapshot()) and "\x1b" not in agent.state()["problem"]["cause"]


def test_what_becomes_of_a_gpu_is_said_once(make, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    units = (Unit("0", "GPU-a", "NVIDIA L4", True), Unit("1", "GPU-b", "NVIDIA L4", True))
    found = gpu_health.Finding("U13", "thermal", 1, "throttled by its heat, at 91 degrees", "fail")
    hotter = found._replace(text="throttled by its heat, at 93 degrees")
    grave = gpu_health.Finding("U12", "failed", 0, "a row of its memory could not be remapped", "grave")
    gpus = ({"index": 0, "uuid": "GPU-a", "temperature": 40}, {"index": 1, "uuid": "GPU-b", "temperature": 91})
    readings = [Health(gpus, findings, {"GPU-a": True}, 1.0) for findings in ((found,), (hotter, grave), ())]

    def see(health):
        def step(agent):
            monkeypatch.setattr(agent.machine.gpus, "read", lambda: Reading(units, health=health))
            agent.life.due = 0.0

        return step

    told = []

    def note(agent):
        told.append((agent.machine.gpu.free, report.prometheus(agent.snapshot())))

    agent = make(*(step for health in readings for step in (see(health), note)))
    agent.run()
    said = [(record.getMessage(), record.fields["gpu"], record.fields["check"]) for record in caplog.records if record.getMessage().startswith("gpu_")]
    assert said == [("gpu_problem", 1, "U13"), ("gpu_problem", 0, "U12"), ("gpu_problem_over", 0, "U12"), ("gpu_problem_over", 1, "U13")]
    assert [free for free, _text in told] == [2, 1, 2]
    assert 'beta9_agent_gpu_problem{gpu="0",uuid="GPU-a",check="U12",code="failed",severity="grave"} 1' in told[1][1]
    assert 'beta9_agent_gpu_fit{gpu="0",uuid="GPU-a"} 0' in told[1][1] and 'beta9_agent_gpu_accepted{gpu="0",uuid="GPU-a"} 1' in told[1][1]
    assert 'beta9_agent_gpu_temperature_celsius{gpu="1",uuid="GPU-b"} 91' in told[1][1] and "gpu_nvlinks_up" not in told[1][1]
    assert agent.state()["gpu_findings"] == []


@pytest.mark.parametrize(("problem", "level"), [(protocol.classify(None, "refused"), "WARNING"), (protocol.classify(401, {}), "ERROR")])
def test_what_a_person_has_to_do_something_about_is_an_error(make, caplog, problem, level):
    caplog.set_level(logging.INFO)
    make(gateway=Gateway([problem])).run()
    assert [record.levelname for record in caplog.records if record.getMessage() == "degraded"] == [level]


def test_machine_that_is_forgotten_is_no_error(make, caplog):
    caplog.set_level(logging.INFO)
    gone = protocol.classify(500, {"message": "machine not found"})
    make(*[asked_again] * 3, gateway=Gateway([None, None, gone, None])).run()
    assert [record.levelname for record in caplog.records if record.getMessage() == "registering"] == ["WARNING"]


def test_each_accepted_keepalive_is_counted_once(make):
    gateway = Gateway()
    agent = make(*[asked_again] * 3, gateway=gateway)
    agent.run()
    assert agent.history.counts["keepalives"] == [what for what, _payload in gateway.sent].count("keepalive") and agent.history.counts["registrations"] == 1


def test_problem_that_comes_again_is_the_latest(make):
    refused, reset = (protocol.classify(None, name) for name in ("refused", "reset"))
    agent = make(*[asked_again] * 3, gateway=Gateway([refused, reset, refused]))
    agent.run()
    kept = agent.state()["recent_problems"]
    assert [entry["code"] for entry in kept] == ["connection_reset", "connection_refused"]
    assert kept[1]["first_epoch"] <= kept[0]["first_epoch"] <= kept[1]["last_epoch"]


def test_reading_that_comes_back_is_logged_of_a_machine_that_was_ready(make, caplog):
    caplog.set_level(logging.INFO)
    shot = make().snapshot()
    for accepted, logged in ((None, ["unreadable"]), (1.0, ["unreadable", "readable"])):
        written = journal.Journal()
        caplog.clear()
        written.readings(dataclasses.replace(shot, troubles={"disk": "gone"}, last_accepted=accepted))
        written.readings(dataclasses.replace(shot, troubles={}, last_accepted=accepted))
        assert events(caplog) == logged


def test_file_that_can_not_be_written_is_logged_once(caplog):
    caplog.set_level(logging.INFO)
    written = journal.Journal()
    for trouble in ("full", "full", None, None, "full"):
        written.written("state", trouble)
    assert events(caplog) == ["not_written", "not_written"]


def test_state_file_may_be_read_by_everyone_and_tells_of_no_past_try(make, tmp_path):
    agent = make(gateway=Gateway([protocol.classify(None, "refused")]))
    agent.run()
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o644
    late = dataclasses.replace(agent.snapshot(), due=0.0)
    assert late.now > 1 and "next try in 0 s" in report.status_text(late)
