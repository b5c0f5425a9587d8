"""Observations and verdicts have one form each, and what a worker tells of its tunnel has a grammar."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.action import health_report
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, engine, records

TUNNEL = {"target": "localhost:31994", "listen": "127.77.1.2:6443", "port": "22", "user": "beta9-tunnel"}


@pytest.mark.parametrize("seen", [engine.ok(), engine.bad("x", "y"), engine.warn("x", "y"), engine.not_applicable("y")])
def test_every_observation_has_all_its_keys(seen):
    assert set(seen) == set(records.Observation.__annotations__) and seen["outcome"] in records.OUTCOMES


def test_a_verdict_has_all_its_keys():
    made = records.verdict(catalog.CHECKS[0], records.observation("ok", "f", evidence="e", seconds=1.0), "pass")
    assert set(made) == set(records.Verdict.__annotations__) - {"blocked_by", "accepted"} and (made["found"], made["evidence"], made["seconds"]) == (
        "f",
        "e",
        1.0,
    )


def test_other_outcomes_and_statuses_are_refused():
    with pytest.raises(ValueError, match="outcome: expected one of ok"):
        records.observation("fine")
    with pytest.raises(ValueError, match="status: expected one of pass"):
        records.verdict(catalog.CHECKS[0], records.observation("ok"), "fine")


def test_ends_of_a_tunnel():
    assert health_report.tunnel_of(TUNNEL) == dict(TUNNEL, port=22)
    assert health_report.tunnel_of(dict(TUNNEL, listen=""))["listen"] == ""


@pytest.mark.parametrize(
    "change",
    [{"user": "x,addr=1.2.3.4"}, {"user": "-oProxyCommand=x"}, {"target": "localhost"}, {"target": "a b:1"}, {"port": "x"}, {"port": 70000}, {"listen": "x"}],
)
def test_ends_that_are_no_such_thing_are_dropped(change):
    assert health_report.tunnel_of(dict(TUNNEL, **change)) is None


@pytest.mark.parametrize("told", [None, [], "x", {}, {"target": "localhost:1"}])
def test_no_ends_at_all(told):
    assert health_report.tunnel_of(told) is None
