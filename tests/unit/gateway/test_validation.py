"""What the gateway would not take is refused before it is sent, with the field's name."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol

GOOD = {
    "token": "canary-token-0123456789",
    "machine_id": "1165a9b6",
    "hostname": "127.77.3.9",
    "pool_name": "gpu",
    "cpu": "8000m",
    "memory": "16Gi",
    "gpu_count": 1,
    "private_ip": "10.0.0.7",
}


@pytest.mark.parametrize(
    ("check", "value", "result"),
    [
        (protocol.machine_id, " 1165a9b6 ", "1165a9b6"),
        (protocol.pool_name, "gpu-a_1.b", "gpu-a_1.b"),
        (protocol.provider_name, "generic", "generic"),
        (protocol.cpu, "8000m", "8000m"),
        (protocol.memory, "16Gi", "16Gi"),
        (protocol.memory, "32768Mi", "32768Mi"),
        (protocol.gpu_count, 0, "0"),
        (protocol.gpu_count, "08", "8"),
        (protocol.ip_address, "::1", "::1"),
        (protocol.hostname, "gpu-01.example.com", "gpu-01.example.com"),
        (protocol.hostname, "fe80::1", "fe80::1"),
        (protocol.token, " abc\n", "abc"),
    ],
)
def test_good_value(check, value, result):
    assert check(value) == result


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (protocol.machine_id, "1165A9B6"),
        (protocol.machine_id, "1165a9b"),
        (protocol.machine_id, "1165a9b6\nx"),
        (protocol.machine_id, None),
        (protocol.machine_id, 11659012),
        (protocol.pool_name, ""),
        (protocol.pool_name, "a:b"),
        (protocol.pool_name, "a b"),
        (protocol.pool_name, "x" * 64),
        (protocol.provider_name, "Generic"),
        (protocol.cpu, "8"),
        (protocol.cpu, "0m"),
        (protocol.cpu, "8.5m"),
        (protocol.cpu, 8000),
        (protocol.memory, "16GB"),
        (protocol.memory, "16G"),
        (protocol.memory, "0Gi"),
        (protocol.memory, "-1Gi"),
        (protocol.gpu_count, True),
        (protocol.gpu_count, -1),
        (protocol.gpu_count, "1.0"),
        (protocol.gpu_count, 65),
        (protocol.ip_address, "10.0.0"),
        (protocol.ip_address, ""),
        (protocol.hostname, "-x"),
        (protocol.hostname, "a b"),
        (protocol.hostname, "a." * 140),
    ],
)
def test_bad_value_names_field_expected_and_found(check, value):
    with pytest.raises(protocol.InvalidField) as caught:
        check(value)
    assert caught.value.field and caught.value.expected and caught.value.found
    assert str(caught.value) == "%s: expected %s, found %s" % (caught.value.field, caught.value.expected, caught.value.found)


@pytest.mark.parametrize("value", ["canary secret with blanks", "canary\x00", "canary-ü"])
def test_bad_token_is_not_shown(value):
    with pytest.raises(protocol.InvalidField) as caught:
        protocol.token(value)
    assert "canary" not in str(caught.value)


def test_register_payload_is_all_strings():
    payload = protocol.register_payload(**GOOD)
    assert payload == dict(GOOD, gpu_count="1", provider_name="generic")
    assert all(isinstance(value, str) for value in payload.values())


@pytest.mark.parametrize("field", sorted(GOOD))
def test_register_payload_refuses_each_missing_field(field):
    with pytest.raises(protocol.InvalidField) as caught:
        protocol.register_payload(**dict(GOOD, **{field: None}))
    assert caught.value.field == field


def test_keepalive_payload_always_has_metrics():
    assert protocol.keepalive_payload("1165a9b6", "gpu") == {
        "machine_id": "1165a9b6",
        "pool_name": "gpu",
        "provider_name": "generic",
        "agent_version": "",
        "metrics": {},
    }


@pytest.mark.parametrize(
    ("metrics", "field"),
    [
        ({"worker_count": 1.0}, "metrics.worker_count"),
        ({"free_gpu_count": True}, "metrics.free_gpu_count"),
        ({"free_gpu_count": -1}, "metrics.free_gpu_count"),
        ({"cpu_utilization_pct": float("nan")}, "metrics.cpu_utilization_pct"),
        ({"cpu_utilization_pct": "1"}, "metrics.cpu_utilization_pct"),
        ({"unheard_of": 1}, "metrics"),
    ],
)
def test_wrong_metric_is_named(metrics, field):
    with pytest.raises(protocol.InvalidField) as caught:
        protocol.keepalive_payload("1165a9b6", "gpu", metrics=metrics)
    assert caught.value.field == field


def test_units():
    assert protocol.cpu_millicores("8000m") == protocol.cpu_millicores(8000) == 8000
    assert protocol.memory_mib("16Gi") == protocol.memory_mib("16384Mi") == protocol.memory_mib(16384) == 16384
