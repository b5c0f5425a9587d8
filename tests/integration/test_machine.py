"""machine: create and delete, seen in Redis and on the wire."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol

from tests.doubles.gateway.harness import free_port

MACHINES = "/api/v1/gateway/machines"


def test_create(gateway, run_module, admin):
    result = run_module("machine", pool="gpu", **admin)
    identity = result["machine"]["id"]
    assert result["changed"] and result["machine"] == {"id": identity, "pool": "gpu", "provider": "generic", "gpu": "A10G", "status": "pending"}
    assert gateway.state(identity)["registration_token"] == result["registration_token"]
    assert "canary" not in result["_raw"]  # the admin token


def test_known_id_never_makes_another(gateway, run_module, admin, created):
    before = len(gateway.requests("POST"))
    result = run_module("machine", pool="gpu", machine_id=created["machine_id"], **admin)
    assert not result["changed"] and result["machine"]["status"] == "pending" and "registration_token" not in result
    gateway.db.delete("provider:machine:generic:gpu:" + created["machine_id"])
    result = run_module("machine", pool="gpu", machine_id=created["machine_id"], **admin)
    assert not result["changed"] and result["machine"]["status"] == "absent"
    assert len(gateway.requests("POST")) == before


def test_delete_and_delete_again(gateway, run_module, admin, created):
    desired = dict(admin, pool="gpu", machine_id=created["machine_id"], state="absent")
    assert run_module("machine", check=True, **desired)["changed"] and gateway.state(created["machine_id"])
    result = run_module("machine", **desired)
    assert result["changed"] and not gateway.state(created["machine_id"]) and result["diff"]["after"] == {}
    assert not run_module("machine", **desired)["changed"]


@pytest.mark.parametrize("state", ["pending", "expired"])
def test_token_is_revoked_with_its_machine(gateway, run_module, admin, created, state):
    """A machine that is only deleted comes back with its token. Other tokens stay, and none is shown."""
    if state == "expired":
        gateway.db.delete("provider:machine:generic:gpu:" + created["machine_id"])
    other = gateway.token("machine")
    desired = dict(admin, pool="gpu", machine_id=created["machine_id"], state="absent", token_mark=protocol.token_mark(created["token"]))
    result = run_module("machine", check=True, **desired)
    assert result["changed"] and result["token_revoked"] and result["diff"]["before"]["token"] == "valid" and gateway.has_token(created["token"])
    result = run_module("machine", **desired)
    assert result["changed"] and result["token_revoked"] and not gateway.has_token(created["token"]) and gateway.has_token(other)
    assert not any(secret in result["_raw"] for secret in (created["token"], other, gateway.admin_token))
    again = run_module("machine", **desired)
    assert not again["changed"] and not again["token_revoked"]


def test_mark_of_no_token_revokes_nothing(gateway, run_module, admin, created):
    for mark in (protocol.token_mark("something-else"), "", ":", "x:y"):
        result = run_module("machine", pool="gpu", machine_id=created["machine_id"], state="absent", token_mark=mark, **admin)
        assert not result["token_revoked"] and gateway.has_token(created["token"]), mark


def test_check_mode_creates_nothing(gateway, run_module, admin):
    result = run_module("machine", check=True, pool="gpu", **admin)
    assert result["changed"] and result["diff"]["after"]["pool"] == "gpu" and not gateway.requests("POST", "DELETE")


def test_wrong_pool_of_a_known_machine_is_an_error(run_module, admin, created):
    result = run_module("machine", pool="cpu", machine_id=created["machine_id"], **admin)
    assert result["failed"] and "pool: expected gpu" in result["msg"]


@pytest.mark.parametrize(
    ("params", "code", "word"),
    [
        ({"pool": "gqu"}, "pool_unknown", "gqu"),
        ({"pool": "cloud"}, "pool_no_create", "does not make machines"),
        ({"pool": "home"}, "pool_local", "local pool"),
        ({"pool": "home", "machine_id": "0a1b2c3d", "state": "absent"}, "pool_local", "local pool"),
        ({"pool": "gpu", "machine_id": "XYZ"}, "invalid_field", "machine_id"),
        ({"pool": "a:b"}, "invalid_field", "pool_name"),
    ],
)
def test_bad_input(gateway, run_module, admin, params, code, word):
    for check in (True, False):
        result = run_module("machine", check=check and code != "pool_no_create", **dict(admin, **params))
        assert result["failed"] and result["code"] == code and word in result["msg"], result
        assert result["cause"] and result["remedy"] and not gateway.db.keys("provider:*")
    assert not gateway.requests("DELETE") and code == "pool_no_create" or not gateway.db.keys("double:token:*")


@pytest.mark.parametrize(("kind", "code"), [("machine", "not_permitted"), ("workspace", "not_permitted"), (None, "token_unknown")])
def test_other_tokens(gateway, run_module, admin, kind, code):
    token = gateway.token(kind) if kind else "canary-nobody-knows-this"
    result = run_module("machine", pool="gpu", **dict(admin, token=token))
    assert result["failed"] and result["code"] == code and not result["retryable"]
    assert "canary" not in result["_raw"]


@pytest.mark.parametrize("module", ["machine", "machine_info", "pool_info"])
def test_401_is_believed_of_a_healthy_gateway_only(gateway, run_module, admin, module):
    gateway.fault({"route": "*", "mode": "postgres_down"})
    result = run_module(module, **dict(admin, retries=0), **({"pool": "gpu"} if module == "machine" else {}))
    assert result["code"] == "gateway_unhealthy" and result["retryable"] and "Postgres" in result["cause"], result


def test_pool_without_state_does_not_stop_the_others(gateway, run_module, admin):
    gateway.fault({"route": "pools", "mode": "no_pool_state", "pool": "cloud"})
    assert run_module("machine", pool="gpu", **admin)["changed"] and run_module("machine_info", pool="cpu", **admin)["machines"] == []
    result = run_module("pool_info", **dict(admin, retries=0))
    assert result["code"] == "pool_state_missing" and "cloud" in result["cause"] and result["retryable"], result


def test_gateway_that_is_down(run_module, admin):
    result = run_module("machine", pool="gpu", **dict(admin, gateway_url="http://127.0.0.1:%d" % free_port(), retries=0))
    assert result["code"] == "connection_refused" and result["retryable"] and "127.0.0.1" in result["msg"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"token": None}, "BETA9_TOKEN"),
        ({"gateway_url": None}, "BETA9_GATEWAY_URL"),
        ({"gateway_url": "gw:1"}, "gateway_url"),
        ({"token": None, "token_file": "/nowhere"}, "/nowhere"),
    ],
)
def test_missing_credentials_are_named(run_module, admin, change, word):
    params = {key: value for key, value in dict(admin, **change).items() if value is not None}
    result = run_module("machine", pool="gpu", **params)
    assert result["failed"] and word in result["msg"]


def test_credentials_from_the_environment(gateway, run_module):
    result = run_module("machine", pool="gpu", env={"BETA9_GATEWAY_URL": gateway.url, "BETA9_TOKEN": gateway.admin_token})
    assert result["changed"] and "canary" not in result["_raw"]
    assert run_module("pool_info", env={"BETA9_GATEWAY_URL": gateway.url, "BETA9_TOKEN_FILE": str(gateway.admin_token_file)})["pools"]


def test_a_host_proves_its_machine_by_its_token(gateway, run_module, admin, created):
    """Ready machines only tell: with its own token, with another, without any, and after a register that follows an expiry."""
    other = run_module("machine", pool="gpu", **admin)
    run_module("machine_register", hostname="127.77.3.9", cpu="8000m", memory="16Gi", gpu_count=1, private_ip="10.0.0.7", **created)
    wanted = {"pool": "gpu", "machine_id": created["machine_id"], "state": "absent", "prove_owner": True}
    mine, foreign = protocol.token_mark(created["token"]), protocol.token_mark(other["registration_token"])
    left = run_module("machine", token_mark=foreign, check=True, **wanted, **admin)
    assert not left.get("failed") and "until it expires" in left["_raw"] and left["machine"]["status"] == "registered"
    run_module("machine_keepalive", **created)
    for mark in (foreign, "0" * 32 + ":" + "0" * 64, None):
        refused = run_module("machine", **({"token_mark": mark} if mark else {}), **wanted, **admin)
        assert refused["failed"] and refused["code"] == "machine_not_proven" and "beta9_machine_confirmed" in refused["msg"]
        refused = run_module("machine_drain", machine_id=created["machine_id"], prove_owner=True, **({"token_mark": mark} if mark else {}), **admin)
        assert refused["failed"] and refused["code"] == "machine_not_proven"
    assert gateway.state(created["machine_id"]) and "canary-" not in refused["_raw"]
    assert not run_module("machine_drain", machine_id=created["machine_id"], prove_owner=True, token_mark=mine, **admin).get("failed")
    gateway.db.hset("provider:machine:generic:gpu:" + created["machine_id"], mapping={"registration_token": "", "token": "k3s-token-0123456789"})
    assert run_module("machine", token_mark=mine, **wanted, **admin)["failed"]
    wanted["pool"] = "cpu"  # the host's record was edited: a wrong pool is no proof, and doesn't hinder one
    assert run_module("machine", token_mark=foreign, **wanted, **admin)["code"] == "machine_not_proven"
    unproven = run_module("machine", **dict(wanted, prove_owner=False), **admin)
    assert unproven["code"] == "invalid_field" and gateway.state(created["machine_id"])
    gone = run_module("machine", token_mark=mine, k3s_mark=protocol.token_mark("k3s-token-0123456789"), **wanted, **admin)
    assert gone["changed"] and gone["token_revoked"] and not gateway.state(created["machine_id"])
