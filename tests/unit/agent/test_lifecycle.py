"""The state machine and the schedule, on a clock of the test's own."""

from __future__ import annotations

import random

import pytest
from beta9_agent import protocol
from beta9_agent.lifecycle import Lifecycle, phase_of

GONE = protocol.classify(500, {"message": "machine not found"})
REFUSED = protocol.classify(None, "refused")
UNKNOWN = protocol.classify(401, {"message": "Unauthorized"})
READY = protocol.parse_machine_state({"machine_state": {"status": "ready", "ttl_seconds": 300}})
REGISTERED = protocol.parse_machine_state({"machine_state": {"status": "registered", "ttl_seconds": 300}})


def fresh(now=1000.0, **options):
    return Lifecycle("1165a9b6", 60.0, now, random.Random(0), **options)


def ready(now=1000.0):
    life = fresh(now)
    life.registered(now, REGISTERED)
    life.kept(now, READY)
    return life


def test_registers_and_then_keeps_alive_at_once():
    life = fresh()
    assert (life.status, life.action, life.due) == ("starting", "register", 1000.0)
    life.registered(1000.2, REGISTERED)
    assert (life.status, life.action, life.due) == ("registered", "keepalive", 1000.2)
    life.kept(1000.3, READY)
    assert life.status == "ready" and life.problem is None


def test_machine_that_was_registered_before_is_not_registered_again():
    assert fresh(registered=True).action == "keepalive"


def test_forgotten_machine_registers_at_once_and_then_with_pauses():
    life = ready()
    life.failed(1060.0, GONE)
    assert (life.status, life.action, life.due) == ("registering", "register", 1060.0)
    life.registered(1060.1, REGISTERED)
    life.failed(1060.2, GONE)
    assert (life.status, life.action) == ("degraded", "register") and life.due > 1060.3
    life.registered(life.due, REGISTERED)
    life.kept(life.due, READY)
    assert life.status == "ready"


def test_pauses_grow_and_are_capped_at_a_tenth_of_the_ttl():
    life, longest, now = ready(), [], 1060.0
    for _attempt in range(200):
        life.failed(now, REFUSED)
        longest.append(life.due - now)
        now = life.due
    assert longest[0] <= 1.0 and max(longest) <= 30.0 and max(longest[20:]) > 20.0
    assert min(longest) >= 0.2


def test_what_waiting_cannot_mend_is_asked_once_an_interval():
    life = ready()
    life.failed(1060.0, UNKNOWN)
    assert life.status == "degraded" and life.problem.code == "token_unknown" and 30.0 <= life.due - 1060.0 <= 60.0


def test_recovers_and_forgets_its_failures():
    life = ready()
    life.failed(1060.0, REFUSED)
    life.kept(1061.0, READY)
    assert (life.status, life.problem, life.failures) == ("ready", None, 0)


@pytest.mark.parametrize("now", [0.0, 17.3, 12345.6])
def test_next_keepalive_is_at_the_machines_own_second(now):
    life = ready(now)
    assert now + 30.0 <= life.due <= now + 90.0
    assert (life.due - phase_of("1165a9b6", 60.0)) % 60.0 == pytest.approx(0.0, abs=1e-6) or life.due == now + 150.0
    first = life.due
    life.kept(first, READY)
    assert life.due == pytest.approx(first + 60.0)


def test_never_later_than_half_the_ttl():
    life = Lifecycle("1165a9b6", 240.0, 0.0, random.Random(0))
    life.kept(0.0, READY)
    assert life.due <= 150.0


def test_fleet_is_spread_evenly():
    buckets = [0] * 10
    for number in range(2000):
        buckets[int(phase_of("%08x" % number, 60.0) / 6.0)] += 1
    assert 150 <= min(buckets) and max(buckets) <= 250


def test_reload_registers_at_once():
    life = ready()
    life.reload(1005.0)
    assert (life.action, life.due) == ("register", 1005.0)
