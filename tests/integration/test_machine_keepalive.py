"""machine_keepalive: changed only when the status changes."""

from __future__ import annotations

import pytest

from tests.integration.conftest import FACTS

KEEPALIVE = "/api/v1/machine/keepalive"


def beats(gateway, worker):
    """Count this machine's: a slow request of an earlier test may still arrive."""
    return len([line for line in gateway.requests("POST") if line["path"] == KEEPALIVE and line["machine_id"] == worker["machine_id"]])


def test_registered_becomes_ready_and_stays(gateway, run_module, created):
    run_module("machine_register", **created, **FACTS)
    checked = run_module("machine_keepalive", check=True, **created)
    assert checked["changed"] and beats(gateway, created) == 0
    result = run_module("machine_keepalive", agent_version="test", metrics={"free_gpu_count": 1}, **created)
    assert result["changed"] and result["machine"]["status"] == "ready" and result["machine"]["ttl_seconds"] == 300 and result["machine"]["last_keepalive"] > 1
    assert result["diff"] == {"before": {"status": "not ready"}, "after": {"status": "ready"}}
    again = run_module("machine_keepalive", **created)
    assert not again["changed"] and beats(gateway, created) == 2
    assert created["token"] not in result["_raw"] + again["_raw"]


def test_forgotten_machine_has_its_own_code(gateway, run_module, created):
    gateway.db.delete("provider:machine:generic:gpu:" + created["machine_id"])
    result = run_module("machine_keepalive", **created)
    assert result["failed"] and result["code"] == "machine_not_found" and "Register" in result["remedy"]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ({"mode": "no_keepalive_route"}, "route_missing"),
        ({"mode": "garbage"}, "not_gateway"),
        ({"mode": "empty"}, "empty_reply"),
        ({"mode": "answer", "status": 503, "body": ""}, "gateway_unavailable"),
        ({"mode": "answer", "status": 500, "body": '{"message":"Internal Server Error"}'}, "internal_error"),
        ({"mode": "answer", "status": 400, "body": '{"message":"Invalid payload"}'}, "payload_invalid"),
        ({"mode": "answer", "status": 400, "body": '{"message":"machine_id and pool_name are required"}'}, "field_missing"),
        (
            {"mode": "answer", "status": 500, "body": '{"error_code":"machine_not_found","message":"Machine state expired or never registered"}'},
            "machine_not_found",
        ),
        ({"mode": "slow", "seconds": 3}, "timeout"),
        ({"mode": "huge", "bytes": 20_000_000}, "not_gateway"),
        ({"mode": "redirect", "location": "http://127.0.0.1:9/"}, "not_gateway"),
    ],
)
def test_codes(gateway, run_module, created, fault, code):
    gateway.fault(dict(fault, route="keepalive"))
    result = run_module("machine_keepalive", **dict(created, timeout=1, retries=0))
    assert result["failed"] and result["code"] == code, result
    assert created["token"] not in result["_raw"]


def test_wrong_metrics_are_refused_before_they_are_sent(gateway, run_module, created):
    result = run_module("machine_keepalive", metrics={"worker_count": 1.5}, **created)
    assert result["code"] == "invalid_field" and "metrics.worker_count" in result["msg"] and beats(gateway, created) == 0


def test_retries_what_may_pass_and_nothing_else(gateway, run_module, created):
    gateway.fault({"route": "keepalive", "mode": "answer", "status": 503, "body": ""})
    run_module("machine_keepalive", **dict(created, retries=2))
    assert beats(gateway, created) == 3
    gateway.fault({"route": "keepalive", "mode": "answer", "status": 401, "body": '{"message":"Unauthorized"}'})
    run_module("machine_keepalive", **dict(created, retries=2))
    assert beats(gateway, created) == 4


def test_create_is_never_sent_twice(gateway, run_module, admin):
    gateway.fault({"route": "machines", "method": "POST", "mode": "answer", "status": 503, "body": ""})
    run_module("machine", pool="gpu", retries=5, **admin)
    assert len(gateway.requests("POST")) == 1
