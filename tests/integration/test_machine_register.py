"""machine_register: only what is not ready with the same facts is registered."""

from __future__ import annotations

import pytest

from tests.doubles.gateway.harness import GatewayHarness
from tests.integration.conftest import FACTS

REGISTER = "/api/v1/machine/register"


def registers(gateway):
    return len([line for line in gateway.requests("POST") if line["path"] == REGISTER])


@pytest.fixture
def ready(run_module, created):
    assert run_module("machine_register", **created, **FACTS)["changed"]
    assert run_module("machine_keepalive", **created)["changed"]
    return created


def test_pending_machine_registers(gateway, run_module, created):
    result = run_module("machine_register", **created, **FACTS)
    assert result["changed"] and result["machine"] == {"id": created["machine_id"], "pool": "gpu", "status": "registered", "ttl_seconds": 300}
    state = gateway.state(created["machine_id"])
    assert (state["status"], state["hostname"], state["cpu"], state["memory"], state["gpu_count"]) == ("registered", "127.77.3.9", "8000", "16384", "1")
    assert created["token"] not in result["_raw"]


def test_ready_machine_is_left_alone(gateway, run_module, ready):
    before = registers(gateway)
    result = run_module("machine_register", **ready, **FACTS)
    assert not result["changed"] and registers(gateway) == before and gateway.state(ready["machine_id"])["status"] == "ready"
    assert ready["token"] not in result["_raw"]  # the list that was compared with leaks it


def test_changed_facts_register(gateway, run_module, ready):
    desired = dict(FACTS, memory="32Gi")
    checked = run_module("machine_register", check=True, **ready, **desired)
    assert checked["changed"] and (checked["diff"]["before"]["memory_mib"], checked["diff"]["after"]["memory_mib"]) == (16384, 32768)
    assert gateway.state(ready["machine_id"])["status"] == "ready"
    assert run_module("machine_register", **ready, **desired)["changed"] and gateway.state(ready["machine_id"])["memory"] == "32768"


def test_expired_state_registers_again_under_the_same_id(gateway, run_module, ready):
    gateway.db.delete("provider:machine:generic:gpu:" + ready["machine_id"])
    assert run_module("machine_register", **ready, **FACTS)["changed"] and gateway.state(ready["machine_id"])["status"] == "registered"


def test_force(gateway, run_module, ready):
    assert run_module("machine_register", force=True, **ready, **FACTS)["changed"] and gateway.state(ready["machine_id"])["status"] == "registered"


def test_k3s_token_is_what_the_gateway_gets(gateway, run_module, created, tmp_path):
    (tmp_path / "k3s").write_text("canary-k3s-token\n")
    result = run_module("machine_register", k3s_token_file=str(tmp_path / "k3s"), **created, **FACTS)
    assert gateway.state(created["machine_id"])["token"] == "canary-k3s-token" and "canary" not in result["_raw"]


def test_facts_that_are_not_given_are_measured(gateway, run_module, created):
    assert run_module("machine_register", hostname="w1", **created)["changed"]
    state = gateway.state(created["machine_id"])
    assert int(state["cpu"]) >= 1000 and int(state["memory"]) > 100 and state["private_ip"].count(".") == 3


def test_suffix_of_the_tailnet_is_the_same_name(tmp_path, run_module):
    other = GatewayHarness(tmp_path, hostname_mode="tailnet").start()
    try:
        made = run_module("machine", pool="gpu", gateway_url=other.url, token=other.admin_token)
        worker = {"gateway_url": other.url, "token": made["registration_token"], "machine_id": made["machine"]["id"], "pool": "gpu"}
        desired = dict(FACTS, hostname="w1")
        assert run_module("machine_register", **worker, **desired)["changed"] and run_module("machine_keepalive", **worker)["changed"]
        assert not run_module("machine_register", **worker, **desired)["changed"]
    finally:
        other.stop()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"token": "canary-nobody-knows-this"}, "token_unknown"),
        ({"token": "ADMIN"}, "token_wrong_type"),
        ({"pool": "gqu"}, "pool_unknown"),
        ({"memory": "16GB"}, "invalid_field"),
        ({"cpu": "8"}, "invalid_field"),
        ({"private_ip": "x"}, "invalid_field"),
        ({"machine_id": "XYZ"}, "invalid_field"),
    ],
)
def test_refusals(gateway, run_module, created, change, code):
    if change.get("token") == "ADMIN":
        change = {"token": gateway.admin_token}
    before = dict(gateway.state(created["machine_id"]))
    result = run_module("machine_register", **dict(created, **dict(FACTS, **change)))
    assert result["failed"] and result["code"] == code and "canary" not in result["_raw"]
    assert gateway.state(created["machine_id"]) == before and (code != "invalid_field" or not registers(gateway))
