"""machine: create and delete, seen in Redis and on the wire."""

from __future__ import annotations

import pytest

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
    wish = dict(admin, pool="gpu", machine_id=created["machine_id"], state="absent")
    assert run_module("machine", check=True, **wish)["changed"] and gateway.state(created["machine_id"])
    result = run_module("machine", **wish)
    assert result["changed"] and not gateway.state(created["machine_id"]) and result["diff"]["after"] == {}
    assert not run_module("machine", **wish)["changed"]


def test_token_of_a_machine_that_expired_is_deleted_as_well(gateway, run_module, admin, created):
    gateway.db.delete("provider:machine:generic:gpu:" + created["machine_id"])
    result = run_module("machine", pool="gpu", machine_id=created["machine_id"], state="absent", **admin)
    assert not result["changed"] and not [key for key in gateway.db.keys("double:token:*") if gateway.db.hget(key, "machine_id") == created["machine_id"]]


def test_check_mode_creates_nothing(gateway, run_module, admin):
    result = run_module("machine", check=True, pool="gpu", **admin)
    assert result["changed"] and result["diff"]["after"]["pool"] == "gpu" and not gateway.requests("POST", "DELETE")


def test_wrong_pool_of_a_known_machine_is_an_error(run_module, admin, created):
    result = run_module("machine", pool="cpu", machine_id=created["machine_id"], **admin)
    assert result["failed"] and "pool: expected gpu" in result["msg"]


@pytest.mark.parametrize(
    ("params", "code", "word"),
    [
        ({"pool": "gqu"}, "invalid_field", "gqu"),
        ({"pool": "cloud"}, "pool_no_create", "does not make machines"),
        ({"pool": "gpu", "machine_id": "XYZ"}, "invalid_field", "machine_id"),
        ({"pool": "a:b"}, "invalid_field", "pool_name"),
    ],
)
def test_bad_input(gateway, run_module, admin, params, code, word):
    result = run_module("machine", **dict(admin, **params))
    assert result["failed"] and result["code"] == code and word in result["msg"], result
    assert result["cause"] and result["remedy"] and not gateway.db.keys("provider:*")


@pytest.mark.parametrize(("kind", "code"), [("machine", "not_permitted"), ("workspace", "not_permitted"), (None, "token_unknown")])
def test_other_tokens(gateway, run_module, admin, kind, code):
    token = gateway.token(kind) if kind else "canary-nobody-knows-this"
    result = run_module("machine", pool="gpu", **dict(admin, token=token))
    assert result["failed"] and result["code"] == code and not result["retryable"]
    assert "canary" not in result["_raw"]


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
