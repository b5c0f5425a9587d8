"""Answers become safe data: tokens are gone, int64 strings are numbers."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol


def test_machine_list_drops_tokens():
    state = {
        "machine_id": "1165a9b6",
        "pool_name": "gpu",
        "status": "ready",
        "hostname": "w1",
        "cpu": 8000,
        "memory": 16384,
        "gpu": "A10G",
        "gpu_count": 2,
        "private_ip": "10.0.0.7",
        "last_keepalive": "1790000000",
        "token": "canary-1",
        "registration_token": "canary-2",
        "surprise": "canary-3",
    }
    machines = protocol.parse_machine_list([{"state": state, "metrics": {"free_gpu_count": "1", "token": "canary-4"}}])
    assert "canary" not in repr(machines)
    assert machines == [
        {
            "id": "1165a9b6",
            "pool": "gpu",
            "status": "ready",
            "gpu": "A10G",
            "gpu_count": 2,
            "cpu_millicores": 8000,
            "memory_mib": 16384,
            "last_keepalive": 1790000000,
            "created": None,
            "agent_version": "",
            "metrics": {"free_gpu_count": 1},
            "provider": "generic",
            "hostname": "w1",
            "private_ip": "10.0.0.7",
        }
    ]


def test_machines_of_the_gateway_api():
    body = {
        "ok": True,
        "machines": [
            {
                "id": "1165a9b6",
                "cpu": "8000",
                "memory": "16384",
                "gpu": "A10G",
                "gpuCount": 1,
                "status": "ready",
                "poolName": "gpu",
                "lastKeepalive": "1790000000",
                "created": "",
                "agentVersion": "0.1.0",
                "registrationToken": "canary",
                "machineMetrics": {"freeGpuCount": "1", "cpuUtilizationPct": 2.5},
            }
        ],
    }
    machine = protocol.parse_machines(body)[0]
    assert "canary" not in repr(machine)
    assert (machine["cpu_millicores"], machine["memory_mib"], machine["last_keepalive"], machine["created"]) == (8000, 16384, 1790000000, None)
    assert machine["metrics"] == {"free_gpu_count": 1, "cpu_utilization_pct": 2.5}


def test_created():
    body = {"ok": True, "machine": {"id": "1165a9b6", "registrationToken": "canary", "poolName": "gpu", "providerName": "generic", "gpu": "A10G"}}
    assert protocol.parse_created(body) == {"id": "1165a9b6", "pool": "gpu", "provider": "generic", "gpu": "A10G", "registration_token": "canary"}


@pytest.mark.parametrize("body", [{}, {"machine": {}}, {"machine": {"id": "x", "registrationToken": "canary"}}, {"machine": {"id": "1165a9b6"}}])
def test_created_without_id_or_token_is_an_error(body):
    with pytest.raises(protocol.InvalidField) as caught:
        protocol.parse_created(body)
    assert "canary" not in str(caught.value)


def test_state_of_upstream_and_fork():
    assert protocol.parse_machine_state({"config": {}}).status == "registered"
    state = protocol.parse_machine_state(
        {"status": "ok", "machine_state": {"machine_id": "1165a9b6", "status": "ready", "ttl_seconds": 300, "last_keepalive": "17"}}
    )
    assert (state.status, state.ttl_seconds, state.last_keepalive) == ("ready", 300, 17)


def test_pools_and_who_may_list():
    assert protocol.parse_pools({"pools": [{"name": "gpu", "active": True, "gpu": "A10G", "minFreeGpu": "0", "state": {"status": "degraded"}}]}) == [
        {"name": "gpu", "active": True, "gpu": "A10G", "min_free_gpu": 0, "schedules": False, "status": "degraded"}
    ]
