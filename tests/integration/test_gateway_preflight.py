"""gateway_preflight: what a gateway can't do is told before anything is changed, and nothing is left behind."""

from __future__ import annotations

import pytest

from tests.doubles.gateway.harness import GatewayHarness


@pytest.fixture
def tailnet_gateway(tmp_path):
    """A gateway with its defaults: neither direct mode nor a tailnet, so a register takes five seconds."""
    harness = GatewayHarness(tmp_path, hostname_mode="tailnet")
    yield harness.start()
    harness.stop()


def left(gateway):
    return gateway.db.keys("provider:machine:*:????????"), gateway.db.keys("double:token:*")


def test_nothing_is_in_the_way_and_nothing_is_left(gateway, run_module, admin):
    result = run_module("gateway_preflight", pools=["gpu", "cpu"], hostnames=["direct"], probe=True, **admin)
    assert result["problems"] == [] and result["hostnames"] == "direct" and not result["changed"], result
    assert left(gateway) == ([], []) and "canary" not in result["_raw"]


def test_gateway_that_appends_its_tailnet(tailnet_gateway, run_module):
    admin = {"gateway_url": tailnet_gateway.url, "token": tailnet_gateway.admin_token, "timeout": 3}
    result = run_module("gateway_preflight", pools=["gpu"], hostnames=["direct", "tailnet"], probe=True, **admin)
    assert [problem["hostnames"] for problem in result["problems"]] == ["direct"] and result["hostnames"] == "tailnet", result
    assert "192.0.2.1.beta9.tailnet.example" in result["problems"][0]["found"] and "tailscale.directRedisHost" in result["problems"][0]["remedy"]
    assert left(tailnet_gateway) == ([], [])


def test_check_mode_makes_no_machine(gateway, run_module, admin):
    result = run_module("gateway_preflight", check=True, pools=["gpu", "home"], hostnames=["tailnet"], probe=True, **admin)
    assert [problem["pool"] for problem in result["problems"]] == ["home"] and result["hostnames"] == ""
    assert not gateway.requests("POST", "DELETE")


def test_pools_that_can_have_no_machines(gateway, run_module, admin):
    result = run_module("gateway_preflight", pools=["home", "gqu"], hostnames=["direct"], probe=True, **admin)
    assert [(problem["pool"], problem["what"]) for problem in result["problems"]] == [("home", "beta9_pool"), ("gqu", "beta9_pool")]
    assert "local pool" in result["problems"][0]["found"] and not gateway.requests("POST", "DELETE")


def test_upstream_build_is_recognised(gateway, run_module, admin):
    gateway.fault({"route": "*", "mode": "upstream"})
    result = run_module("gateway_preflight", pools=["gpu"], hostnames=["direct"], probe=True, **admin)
    assert len(result["problems"]) == 1 and "beam-agent" in result["problems"][0]["found"], result
    assert not gateway.requests("POST", "DELETE")


def test_older_build_without_keepalive(gateway, run_module, admin):
    gateway.fault({"route": "keepalive", "mode": "no_keepalive_route"})
    result = run_module("gateway_preflight", pools=["gpu"], hostnames=["direct"], probe=True, **admin)
    assert len(result["problems"]) == 1 and "no keepalive endpoint" in result["problems"][0]["found"], result
    assert left(gateway) == ([], [])


def test_what_fails_leaves_nothing_either(gateway, run_module, admin):
    gateway.fault({"route": "register", "mode": "answer", "status": 500, "body": {"message": "Failed to register machine"}})
    result = run_module("gateway_preflight", pools=["gpu"], probe=True, **dict(admin, retries=0))
    assert result["failed"] and result["code"] == "internal_error" and left(gateway) == ([], [])
