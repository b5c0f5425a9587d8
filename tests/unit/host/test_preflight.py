"""Every problem of a host, with what was expected, what was found, and what to do."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils import preflight

SETTINGS = {
    "pool": "gpu",
    "pools": ["gpu", "cpu"],
    "provider": "generic",
    "gateway_url": "http://gateway:31994",
    "connection": "autossh",
    "keepalive_interval": 60,
}
PARAMS = {
    "settings": SETTINGS,
    "connections": ["autossh", "direct"],
    "systems": ["debian 12", "rocky"],
    "min_python": "3.10",
    "min_memory_mib": 512,
    "min_disk_mib": 1024,
    "disk_path": "/opt",
    "tunnel_port": 1994,
    "controller_epoch": 1000.0,
    "max_clock_skew_seconds": 30,
}
FACTS = {
    "system": "debian 12",
    "system_id": "debian",
    "python": "3.11",
    "root": True,
    "systemd": True,
    "memory_mib": 4096,
    "disk_free_mib": 9999,
    "epoch": 1001.0,
    "resolved": {"gateway": ["10.0.0.1"]},
    "tunnel_listeners": [{"process": "ssh", "pid": 1, "address": "127.0.0.1"}],
}


def test_good_host_has_none():
    assert preflight.problems(PARAMS, FACTS) == []


@pytest.mark.parametrize(
    ("change", "what", "word"),
    [
        ({"pool": ""}, "beta9_pool", "beta9 pool list"),
        ({"pool": "gqu"}, "beta9_pool", "Did you mean 'gpu'?"),
        ({"pool": "zzz"}, "beta9_pool", "worker.pools"),
        ({"gateway_url": None}, "beta9_gateway_url", "nothing"),
        ({"gateway_url": "gateway:31994"}, "beta9_gateway_url", "gateway:31994"),
        ({"connection": "pigeon"}, "beta9_connection", "autossh, direct"),
        ({"machine_id": "XYZ"}, "beta9_machine_id", "XYZ"),
        ({"max_memory": "16GB"}, "beta9_max_memory", "16GB"),
        ({"max_cpu": "8"}, "beta9_max_cpu", "8000m"),
        ({"hostname": "a b"}, "beta9_hostname", "a b"),
        ({"keepalive_interval": 300}, "agent_keepalive_interval", "300"),
    ],
)
def test_setting(change, what, word):
    found = [entry for entry in preflight.problems(dict(PARAMS, settings=dict(SETTINGS, **change)), FACTS) if entry["what"] == what]
    assert found and word in " ".join(found[0].values())


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"system": "debian 11"}, "operating system"),
        ({"python": "3.9"}, "Python"),
        ({"root": False}, "privileges"),
        ({"systemd": False}, "init system"),
        ({"memory_mib": 100}, "memory"),
        ({"disk_free_mib": 1}, "disk"),
        ({"epoch": 2000.0}, "clock"),
        ({"resolved": {"gateway": []}}, "name resolution"),
        ({"tunnel_listeners": [{"process": "nginx", "pid": 7, "address": "0.0.0.0"}]}, "port 1994"),
    ],
)
def test_host(change, what):
    found = preflight.problems(PARAMS, dict(FACTS, **change))
    assert [entry["what"] for entry in found] == [what] and all(found[0].values())


def test_pools_that_are_not_known_are_not_compared():
    assert preflight.problems(dict(PARAMS, settings=dict(SETTINGS, pools=None, pool="anything")), FACTS) == []
