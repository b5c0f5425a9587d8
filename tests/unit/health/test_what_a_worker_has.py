"""Module worker_health loads the probes of what the worker has, and says of the others that they are not there."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.module_utils.health import worker


def params(**changes):
    names = ("U01", "U07", "U24", "K01", "G10", "V03")
    given = {"connection": "direct", "k3s": False, "gpus": None, "gateway_url": "http://127.0.0.1:9", "inventory": {}}
    return dict(given, probes=dict.fromkeys(names, 1.0), deadline_seconds=5.0, **changes)


@pytest.mark.parametrize(
    ("changes", "bus", "expected"),
    [
        ({}, (), set()),
        ({"connection": "tailscale"}, (), {"V03"}),
        ({"k3s": True}, (), {"U07", "K01", "G10"}),
        ({"gpus": 2}, (), {"U01", "U24"}),
        ({"gpus": 0}, (), set()),
        ({}, ("0x8086",), set()),
        ({}, ("0x8086", "0x10de"), {"U01", "U24"}),
    ],
)
def test_probes_of_what_there_is(changes, bus, expected, tmp_path, monkeypatch):
    for number, vendor in enumerate(bus):
        (tmp_path / ("0000:0%d:00.0" % number)).mkdir()
        (tmp_path / ("0000:0%d:00.0" % number) / "vendor").write_text(vendor + "\n")
    monkeypatch.setattr(linux.nvidia_on_bus, "__defaults__", (str(tmp_path),))
    asked = dict(params(), **changes)
    assert {name for name in worker.probes_of(asked) if name in asked["probes"]} == expected


def test_what_is_not_there_does_not_apply(monkeypatch):
    monkeypatch.setattr(records, "machine_fact", lambda: {"machine_id": "1a2b3c4d"})
    monkeypatch.setattr(linux, "nvidia_on_bus", lambda: False)
    asked = params()
    del asked["probes"]["V03"]
    seen = {entry["id"]: entry for entry in worker.observe(asked)["observations"]}
    assert set(seen) == set(asked["probes"]) and {entry["outcome"] for entry in seen.values()} == {"not_applicable"}
    assert "NVIDIA" in seen["U01"]["found"] and "k3s" in seen["U07"]["found"] and "k3s" in seen["G10"]["found"]
