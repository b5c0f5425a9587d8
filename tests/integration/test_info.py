"""pool_info and machine_info: tables of facts, never a token; another token is an error, not an empty list."""

from __future__ import annotations

import pytest

from tests.integration.conftest import FACTS


def test_pools(gateway, run_module, admin):
    result = run_module("pool_info", **admin)
    assert not result["changed"] and [pool["name"] for pool in result["pools"]] == ["cloud", "cpu", "gpu", "home"]
    assert result["pools"][2] == {"name": "gpu", "active": False, "gpu": "A10G", "min_free_gpu": 0, "schedules": False, "status": "DEGRADED"}


def test_machines(gateway, run_module, admin, created):
    run_module("machine_register", **created, **FACTS)
    run_module("machine_keepalive", metrics={"free_gpu_count": 1}, agent_version="0.1.0", **created)
    other = run_module("machine", pool="cpu", **admin)["machine"]["id"]
    result = run_module("machine_info", **admin)
    assert [(machine["pool"], machine["status"]) for machine in result["machines"]] == [("cpu", "pending"), ("gpu", "ready")]
    machine = result["machines"][1]
    assert (machine["cpu_millicores"], machine["memory_mib"], machine["gpu"], machine["gpu_count"], machine["agent_version"]) == (
        8000,
        16384,
        "A10G",
        1,
        "0.1.0",
    )
    assert machine["metrics"]["free_gpu_count"] == 1 and len(machine["metrics"]) == 11 and machine["last_keepalive"] > 1
    assert [entry["id"] for entry in run_module("machine_info", pool="cpu", **admin)["machines"]] == [other]
    assert [entry["id"] for entry in run_module("machine_info", machine_id=other, **admin)["machines"]] == [other]
    assert run_module("machine_info", machine_id="ffffffff", **admin)["machines"] == []
    assert created["token"] not in result["_raw"] and "canary" not in result["_raw"]


@pytest.mark.parametrize("module", ["machine_info", "pool_info"])
def test_other_token_is_an_error_and_not_an_empty_list(gateway, run_module, admin, module):
    result = run_module(module, **dict(admin, token=gateway.token("workspace")))
    assert result["failed"] and result["code"] == "not_permitted" and "canary" not in result["_raw"]


@pytest.mark.parametrize(("params", "word"), [({"pool": "gqu"}, "pool"), ({"machine_id": "XYZ"}, "machine_id")])
def test_bad_filter(run_module, admin, params, word):
    result = run_module("machine_info", **dict(admin, **params))
    assert result["failed"] and word in result["msg"]


def test_token_goes_nowhere_else(gateway, run_module, admin, tmp_path):
    """A redirect is not followed: the token would go along."""
    gateway.fault({"route": "pools", "mode": "redirect", "location": "http://127.0.0.1:9/steal"})
    result = run_module("pool_info", **admin)
    assert result["code"] == "not_gateway" and len(gateway.requests()) == 1


def test_waits_for_those_that_shall_be_ready(gateway, run_module, admin, created):
    """Until all are, or the time is over; asked once where there is nothing to wait for."""
    machine = created["machine_id"]

    def asked(seconds):
        before = len(gateway.requests())
        found = run_module("machine_info", wait_ready=[machine], wait_seconds=seconds, **admin)
        return found["machines"][0]["status"], len(gateway.requests()) - before

    status, requests = asked(1)
    assert status == "pending" and requests > 1
    run_module("machine_register", **created, **FACTS)
    run_module("machine_keepalive", metrics={"free_gpu_count": 1}, agent_version="0.1.0", **created)
    assert asked(60) == ("ready", 1)
