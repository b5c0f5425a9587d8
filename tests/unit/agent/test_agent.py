"""The loop itself, with a gateway of the test's own and clocks that jump: what can't be had for real here."""

from __future__ import annotations

import json
import logging
import signal
import time

import pytest
from beta9_agent import agent as module
from beta9_agent import config, protocol, report
from beta9_agent.client import Refused
from beta9_agent.gpus import Reading, Unit

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

    def build(*steps, gateway=None):
        words = ["--machine-id", "1165a9b6", "--pool-name", "gpu", "--private-ip", "10.0.0.7", "--gpu-ids", "none"]
        words += ["--token-file", str(tmp_path / "token"), "--state-file", str(tmp_path / "state.json")]
        turns = iter([lambda _agent: None, lambda _agent: None, *steps])

        def wait(_seconds):
            step = next(turns, None)
            return signal.SIGTERM if step is None else step(agent)

        monkeypatch.setattr(module, "Client", lambda *_arguments: gateway or Gateway())
        agent = module.Agent(lambda: config.from_arguments(words), notifier=Notifier(), wait=wait)
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

    agent = make(jump, lambda agent: due.append(agent.life.due))
    agent.run()
    assert due[0] == due[1] and "clock_jumped" in events(caplog)
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
    agent._registered_capacity = {"gpu_count": 2}
    agent.life.registered(0.0, ACCEPTED)
    agent.run()
    assert "register" not in [what for what, _payload in gateway.sent]
    assert "GPUs not readable for 9 s" in report.status_text(agent, module.clock())


def test_unreadable_credential_is_a_problem_and_no_end(make, tmp_path):
    def lose(agent):
        (tmp_path / "token").unlink()
        agent.life.register_again(module.clock())

    agent = make(lose, lambda _agent: None)
    agent.run()
    assert agent.life.problem.code == "credential_unreadable" and str(tmp_path / "token") in agent.life.problem.cause
