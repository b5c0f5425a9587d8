"""Diagnosis as a pure function: properties that hold for the whole catalogue and for any one."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, diagnose
from ansible_collections.beta9.workers.plugins.module_utils.health.checks import terms
from hypothesis import given
from hypothesis import strategies as st

IDS = [check.id for check in catalog.CHECKS]
OUTCOMES = ["ok", "bad", "warn", "not_applicable", "unknown", "crash"]


def seen(**outcomes):
    """Return observations: everything ok but what is named."""
    return [{"id": name, "outcome": outcomes.get(name, "ok")} for name in IDS]


def roots(observations, **options):
    return [verdict["id"] for verdict in diagnose.roots(diagnose.diagnose(observations, **options))]


def descendants(name):
    """Return the checks that a failure of this one may block or explain."""
    found = {name}
    for check in diagnose.order(catalog.CHECKS):
        if found & set(check.requires + check.explained_by):
            found.add(check.id)
    return found


def test_catalogue_is_sound():
    assert len(set(IDS)) == len(IDS)
    assert len(diagnose.order(catalog.CHECKS)) == len(IDS)
    for check in catalog.CHECKS:
        assert set(check.requires + check.explained_by) <= set(IDS), check.id
        assert check.causes and all(cause and (remedy.command or remedy.prose) for cause, remedy in check.causes.values()), check.id
        assert bool(check.heal or check.heals) == (check.heal_class != terms.PERSON) and set(check.heals) <= set(check.causes), check.id
        assert check.title and check.impact and set(check.heals.values()) | {check.heal} <= set(catalog.HEALS) | {""}, check.id


def test_cycle_is_refused():
    first = catalog.CHECKS[0]._replace(id="X01", requires=("X02",), explained_by=())
    second = first._replace(id="X02", requires=("X01",))
    with pytest.raises(ValueError, match="X01 -> X02 -> X01|X02 -> X01 -> X02"):
        diagnose.order([first, second])


def test_healthy():
    verdicts = diagnose.diagnose(seen())
    assert diagnose.outcome(verdicts) == "healthy" and not diagnose.roots(verdicts)


@pytest.mark.parametrize("failed", [("T01", "T02", "T03", "T04", "A01"), ("T04", "A01", "M01")], ids=["listening-denied", "connecting-denied"])
def test_sshd_that_may_not_forward_is_the_root(failed):
    """As SELinux of the gateway host has it, for a tunnel that does not come up and for one that carries nothing."""
    assert roots(seen(**dict.fromkeys((*failed, "T09"), "bad"))) == ["T09"]


def test_dead_tunnel_is_one_root():
    failed = {name: "bad" for name in ("T01", "T02", "T03", "T04", "A01", "A02", "M01", "M02", "C02")}
    verdicts = {verdict["id"]: verdict for verdict in diagnose.diagnose(seen(**failed))}
    assert [name for name in IDS if verdicts[name]["root"]] == ["T01"]
    assert verdicts["T03"]["status"] == "blocked" and verdicts["A01"]["because"] == ["T01"] and verdicts["M02"]["because"] == ["T01"]


@pytest.mark.parametrize("name", ["T01", "T08", "T04", "A01", "A02", "A03", "A05", "P07", "G06", "U05"])
def test_keepalives_that_are_late_come_from_what_keeps_them_from_being_sent_or_accepted(name):
    """The later one looks: an hour after the fault as well as in its first minute, when none is late yet."""
    assert roots(seen(**{name: "bad", "P05": "bad", "P06": "bad", "M01": "bad", "M02": "bad", "C02": "bad"})) == [name]


@pytest.mark.parametrize("name", IDS)
def test_single_fault_is_the_only_root_whatever_follows_from_it(name):
    assert roots(seen(**{name: "bad"})) == [name]
    assert roots(seen(**{other: "bad" for other in descendants(name)})) == [name]


@given(st.sampled_from(IDS), st.sampled_from(IDS))
def test_two_independent_faults_are_two_roots(first, second):
    if second in descendants(first) or first in descendants(second):
        return
    assert roots(seen(**{first: "bad", second: "bad"})) == [name for name in IDS if name in (first, second)]


@given(st.fixed_dictionaries({name: st.sampled_from(OUTCOMES) for name in IDS}))
def test_whatever_is_seen(outcomes):
    verdicts = {verdict["id"]: verdict for verdict in diagnose.diagnose(seen(**outcomes))}
    for verdict in verdicts.values():
        assert not (verdict["root"] and verdict["because"])
        assert not verdict["root"] or verdict["status"] in ("fail", "warn")
        # every consequence leads to roots that really failed; what is unknown, crashed or fine explains nothing
        for name in verdict["because"]:
            assert verdicts[name]["root"]
        if verdict["status"] == "blocked":
            assert verdict["because"] and verdicts[verdict["blocked_by"]]["status"] in ("fail", "blocked")
    troubled = any(verdict["status"] in ("fail", "warn") for verdict in verdicts.values())
    assert troubled == any(verdict["root"] for verdict in verdicts.values())


@given(st.sampled_from(IDS))
def test_unknown_explains_nothing(name):
    everything_after = {other: "bad" for other in descendants(name)}
    everything_after[name] = "unknown"
    assert name not in roots(seen(**everything_after))
    for verdict in diagnose.diagnose(seen(**everything_after)):
        assert name not in verdict["because"]


def test_accepted_failure_is_a_warning_and_explains_nothing():
    accept = [{"id": "T06", "reason": "known"}]
    verdicts = {verdict["id"]: verdict for verdict in diagnose.diagnose(seen(T06="bad"), accept=accept)}
    assert (verdicts["T06"]["status"], verdicts["T06"]["root"], verdicts["T06"]["accepted"]) == ("warn", False, "known")


def test_order_of_observations_does_not_matter():
    observations = seen(T01="bad", M02="bad")
    assert diagnose.diagnose(observations) == diagnose.diagnose(observations[::-1])


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "healthy"),
        ({"K06": "bad"}, "healthy"),  # a warning
        ({"G08": "unknown"}, "healthy"),  # no link of the chain
        ({"T05": "warn"}, "healthy"),
        ({"T01": "bad"}, "unhealthy"),
        ({"T01": "bad", "P01": "crash"}, "unhealthy"),
        ({"K06": "crash"}, "unknown"),
        ({"M01": "unknown", "M02": "unknown", "C02": "unknown"}, "unknown"),
        (dict.fromkeys(IDS, "unknown"), "unknown"),
        (dict.fromkeys(IDS, "not_applicable"), "unknown"),
    ],
)
def test_outcome(changes, expected):
    assert diagnose.outcome(diagnose.diagnose(seen(**changes))) == expected


def test_nothing_seen_is_unknown():
    assert diagnose.outcome([]) == "unknown"


@pytest.mark.parametrize("link", diagnose.CHAIN)
def test_a_link_that_nobody_saw_well_is_not_healthy(link):
    verdicts = diagnose.diagnose(seen(**dict.fromkeys(link, "unknown")))
    assert diagnose.outcome(verdicts) == "unknown" and {verdict["id"] for verdict in diagnose.unseen(verdicts)} == set(link)
    for other in link:  # one that saw it will do
        assert diagnose.outcome(diagnose.diagnose(seen(**dict(dict.fromkeys(link, "unknown"), **{other: "ok"})))) == "healthy"


def test_what_is_blocked_blocks_what_needs_it():
    plain = catalog.BY_ID["T01"]._replace(requires=(), explained_by=())
    checks = [plain._replace(id="X01"), plain._replace(id="X02", requires=("X01",)), plain._replace(id="X03", requires=("X02",))]
    observations = [{"id": "X01", "outcome": "bad"}, {"id": "X02", "outcome": "ok"}, {"id": "X03", "outcome": "bad"}]
    first, second, third = diagnose.diagnose(observations, checks)
    assert (first["root"], second["blocked_by"], third["status"], third["blocked_by"], third["because"]) == (True, "X01", "blocked", "X02", ["X01"])


def test_what_does_not_apply_is_not_unseen():
    link = next(link for link in diagnose.CHAIN if len(link) > 2)
    verdicts = diagnose.diagnose(seen(**dict(dict.fromkeys(link, "unknown"), **{link[1]: "not_applicable"})))
    assert {verdict["id"] for verdict in diagnose.unseen(verdicts)} == set(link) - {link[1]}
