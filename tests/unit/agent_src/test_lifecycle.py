"""The state machine and the schedule, on a clock of the test's own."""

from __future__ import annotations

import random

import pytest
from beta9_agent import protocol
from beta9_agent.lifecycle import CREDENTIAL, REACTIONS, REGISTER, RETRY, SLOW, Lifecycle, phase_of, reaction_to

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


def every_problem():
    """Return every problem that the classifier knows."""
    return {code: entry.problem() for code, entry in protocol.CODES.items()}


def test_registers_and_then_keeps_alive_at_once():
    life = fresh()
    assert (life.status, life.action, life.due) == ("starting", "register", 1000.0)
    life.registered(1000.2, REGISTERED)
    assert (life.status, life.action, life.due) == ("registered", "keepalive", 1000.2)
    life.kept(1000.3, READY)
    assert life.status == "ready" and life.problem is None


def test_machine_that_was_registered_before_is_not_registered_again():
    assert fresh(registered=True).action == "keepalive"


@pytest.mark.parametrize("code", sorted(every_problem()))
def test_every_problem_has_its_reaction(code):
    problem, life = every_problem()[code], ready()
    if code == "unexpected":
        assert code not in REACTIONS  # the one that is judged by whether it may pass
    else:
        assert code in REACTIONS
        # what may pass by itself is retried soon; what may not, slowly
        assert (REACTIONS[code] == RETRY) == problem.retryable
    life.failed(1060.0, problem)
    assert life.status in ("degraded", "registering") and life.due >= 1060.0
    assert life.due - 1060.0 <= {RETRY: 1.0, REGISTER: 0.0}.get(life.reaction, 60.0)


def test_every_reaction_is_of_a_problem_that_exists():
    made_by_the_agent = {"credential_unreadable", "invalid_field"}
    assert set(REACTIONS) - made_by_the_agent <= set(every_problem())
    assert set(REACTIONS.values()) == {REGISTER, RETRY, CREDENTIAL, SLOW}


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


@pytest.mark.parametrize(("ttl", "longest"), [(300, 65.0), (20, 5.0)])
def test_pauses_grow_with_full_jitter_and_are_capped_well_below_the_ttl(ttl, longest):
    life, pauses, now = ready(), [], 1060.0
    life.kept(1000.0, READY._replace(ttl_seconds=ttl))
    for _attempt in range(400):
        life.failed(now, REFUSED)
        pauses.append(life.due - now)
        now = life.due
    assert pauses[0] <= 1.0 and pauses[1] <= 2.0 and min(pauses) >= 0.2
    late = pauses[20:]
    assert max(late) <= longest and max(late) > 0.95 * longest and min(late) < 0.1 * longest  # full jitter, also at the cap


def test_what_waiting_cannot_mend_is_asked_once_an_interval():
    life = ready()
    life.failed(1060.0, UNKNOWN)
    assert life.status == "degraded" and life.reaction == CREDENTIAL and 30.0 <= life.due - 1060.0 <= 60.0


def test_recovers_and_forgets_its_failures():
    life = ready()
    life.failed(1060.0, REFUSED)
    life.kept(1061.0, READY)
    assert (life.status, life.problem, life.failures, life.reaction) == ("ready", None, 0, None)


@pytest.mark.parametrize("now", [0.0, 17.3, 12345.6])
def test_next_keepalive_is_at_the_machines_own_second(now):
    life, phase = ready(now), phase_of("1165a9b6", 60.0)
    assert now + 30.0 <= life.due <= now + 91.0
    for _minute in range(5):
        before = life.due
        life.kept(before + 0.05, READY)
        assert 0.0 <= (life.due - phase) % 60.0 <= 1.0  # with a little jitter that does not add up
        assert 58.0 <= life.due - before <= 62.0


@pytest.mark.parametrize(("interval", "ttl"), [(240.0, 300), (60.0, 40), (60.0, 5)])
def test_never_later_than_half_the_ttl(interval, ttl):
    life = Lifecycle("1165a9b6", interval, 0.0, random.Random(0))
    life.kept(0.0, READY._replace(ttl_seconds=ttl))
    assert life.due <= ttl / 2


@pytest.mark.parametrize(("told", "believed"), [(None, 300), (0, 300), (-7, 5), (1, 5), (20, 20), (10**30, 86400)])
def test_a_ttl_that_no_gateway_has_is_not_believed(told, believed):
    life = fresh()
    life.kept(1000.0, READY._replace(ttl_seconds=told))
    assert life.ttl == believed


def test_fleet_is_spread_evenly():
    buckets = [0] * 10
    for number in range(2000):
        buckets[int(phase_of("%08x" % number, 60.0) / 6.0)] += 1
    assert 150 <= min(buckets) and max(buckets) <= 250


def test_reload_registers_at_once_as_another_machine():
    life = ready()
    before = list(life.registrations)
    life.reload(1005.0, "00000001", 30.0)
    assert (life.action, life.due, life.status) == ("register", 1005.0, "registering")
    life.registered(1005.1, REGISTERED)
    assert list(life.registrations) == before  # it was asked for: no sign of a machine that expires
    life.kept(1005.2, READY)
    assert 0.0 <= (life.due - phase_of("00000001", 30.0)) % 30.0 <= 0.5


def test_what_no_one_foresaw_is_judged_by_whether_it_may_pass():
    problem = protocol.classify(418, {})
    assert problem.code not in REACTIONS
    assert reaction_to(problem) == SLOW and reaction_to(problem._replace(retryable=True)) == RETRY


def test_ttl_is_taken_from_the_register_too():
    life = fresh()
    life.registered(1000.0, REGISTERED._replace(ttl_seconds=20))
    assert life.ttl == 20


def test_machine_that_was_ready_again_is_registered_at_once_when_forgotten_again():
    life = ready()
    for moment in (1060.0, 1120.0):
        life.failed(moment, GONE)
        assert (life.status, life.action, life.due) == ("registering", "register", moment)
        life.registered(moment, REGISTERED)
        life.kept(moment, READY)


def test_gateway_s_own_time_of_the_keepalive_is_kept():
    life = ready()
    life.kept(1060.0, READY._replace(last_keepalive=17))
    assert life.told_last == 17 and life.last_accepted == 1060.0


def test_registrations_that_nobody_asked_for_are_remembered():
    life = fresh()
    for moment in range(10):
        life.registered(float(moment), REGISTERED)
    assert list(life.registrations) == [float(moment) for moment in range(2, 10)]
    life.reload(20.0, "1165a9b6", 60.0)
    life.registered(21.0, REGISTERED)
    life.registered(22.0, REGISTERED)
    assert list(life.registrations)[-1] == 22.0 and 21.0 not in life.registrations


@pytest.mark.parametrize(("interval", "longest"), [(240.0, 60.0), (10.0, 10.0)])
def test_what_waiting_does_not_resolve_is_spread_over_half_an_interval(interval, longest):
    pauses = []
    for seed in range(50):
        life = Lifecycle("1165a9b6", interval, 0.0, random.Random(seed))
        life.failed(0.0, UNKNOWN)
        pauses.append(life.due)
    assert longest / 2 <= min(pauses) < 0.6 * longest and 0.9 * longest < max(pauses) <= longest
