"""machine_drain: cordon, drain, wait; seen in the gateway's Redis and on the wire."""

from __future__ import annotations

import json

import pytest

MACHINE = "1165a9b6"


def worker(machine=MACHINE, containers=1, **more):
    running = [{"containerId": "c-%d" % number} for number in range(containers)]
    return json.dumps(dict(more, machineId=machine, poolName="gpu", status="available", activeContainers=running))


@pytest.fixture
def workers(gateway):
    """Two workers of the machine, and one of another."""
    gateway.db.hset("double:workers", mapping={"w-1": worker(), "w-2": worker(containers=0), "other": worker("9c40e2d7")})
    yield lambda: {name: json.loads(text) for name, text in gateway.db.hgetall("double:workers").items()}
    gateway.db.delete("double:workers")


def posts(gateway):
    return [line["path"].rpartition("/workers/")[2] for line in gateway.requests("POST") if "/workers/" in line["path"]]


def test_drains_the_machines_workers_only(gateway, run_module, admin, workers):
    result = run_module("machine_drain", machine_id=MACHINE, **admin)
    assert result["changed"] and result["workers"] == ["w-1", "w-2"]
    assert result["diff"] == {
        "before": {"w-1": "available, 1 containers", "w-2": "available, 0 containers"},
        "after": {"w-1": "disabled, 0 containers", "w-2": "disabled, 0 containers"},
    }
    assert posts(gateway) == ["w-1/cordon", "w-2/cordon", "w-1/drain"], "no container may find its way to a worker that is about to be drained"
    left = workers()
    assert left["other"]["status"] == "available" and len(left["other"]["activeContainers"]) == 1
    again = run_module("machine_drain", machine_id=MACHINE, **admin)
    assert not again["changed"] and len(posts(gateway)) == 3


def test_check_mode_drains_nothing(gateway, run_module, admin, workers):
    before = workers()
    assert run_module("machine_drain", check=True, machine_id=MACHINE, **admin)["changed"]
    assert workers() == before and posts(gateway) == []


def test_what_does_not_end_is_told(gateway, run_module, admin, workers):
    gateway.db.hset("double:workers", "w-1", worker(stubborn=True))
    result = run_module("machine_drain", machine_id=MACHINE, wait_seconds=1, **admin)
    assert result["failed"] and "w-1 runs 1" in result["msg"]
    assert workers()["w-1"]["status"] == "disabled"


def test_machine_without_workers(gateway, run_module, admin):
    assert not run_module("machine_drain", machine_id=MACHINE, **admin)["changed"]
