"""What the controller tells of a host by itself, and what only both sides together tell."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.health import control, join

from tests.unit.health.recorded import told

SETTINGS = {"pool": "gpu", "gateway_url": "http://gate.example.com:31994", "connection": "autossh", "hostname": "gpu-1"}
IDENTITY = {"machine_id": "1165a9b6", "pool": "gpu", "provider": "generic"}
MINE = {"id": "1165a9b6", "pool": "gpu", "status": "ready", "gpu_count": 2}


def inputs(identity=..., **settings):
    return control.observe(dict(SETTINGS, **settings), IDENTITY if identity is ... else identity, None)[0]


def machines(listed, identity=..., **settings):
    return control.observe(dict(SETTINGS, **settings), IDENTITY if identity is ... else identity, listed)[1]


def test_both_are_told():
    assert [entry["id"] for entry in control.observe(SETTINGS, IDENTITY, [])] == ["C01", "C02"]


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"pool": "no pool!"}, "beta9_pool: expected"),
        ({"hostname": "no host!"}, "beta9_hostname: expected"),
        ({"gateway_url": "gate.example.com"}, "beta9_gateway_url: expected http://host:port, found gate.example.com"),
        ({"gateway_url": "http://gate.example.com/path"}, "beta9_gateway_url"),
        ({"connection": "pigeon"}, "beta9_connection: expected one of autossh, tailscale, direct, found pigeon"),
        ({"pool": "cpu"}, "the host's machine is of pool gpu, the inventory says beta9_pool cpu"),
    ],
)
def test_inputs_that_are_wrong(settings, found):
    seen = inputs(**settings)
    assert told(seen) == ("bad", "") and found in seen["found"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pool": ""},
        {"hostname": ""},
        {"gateway_url": ""},
        {"gateway_url": "https://gate/"},
        {"connection": "direct"},
        {"connection": "tailscale"},
    ],
)
def test_inputs_that_will_do(settings):
    seen = inputs(**settings)
    assert told(seen) == ("ok", "") and "1165a9b6" in seen["found"]


@pytest.mark.parametrize("wrong", [{"machine_id": "xyz"}, {"pool": "no pool!"}, {"provider": "-"}])
def test_identity_that_is_wrong(wrong):
    seen = inputs(dict(IDENTITY, **wrong), pool="")
    assert told(seen) == ("bad", "") and "on the host, %s: expected" % next(iter(wrong)) in seen["found"]


def test_host_without_a_machine_or_without_an_answer():
    assert told(inputs({})) == ("bad", "no_machine")
    assert told(inputs(None)) == ("unknown", "")
    seen = inputs(None, connection="pigeon")
    assert told(seen) == ("bad", "") and "pigeon" in seen["found"]


@pytest.mark.parametrize(
    ("listed", "expected", "found"),
    [
        ([MINE], ("ok", ""), "ready"),
        ([dict(MINE, status="pending")], ("bad", "pending"), "status pending"),
        ([dict(MINE, status="registered")], ("bad", "registered"), "status registered"),
        ([dict(MINE, pool="cpu")], ("bad", "other_pool"), "cpu"),
        ([dict(MINE, id="ffffffff")], ("bad", "absent"), "not among 1 machines"),
        ([], ("bad", "absent"), "not among 0 machines"),
    ],
)
def test_machines(listed, expected, found):
    seen = machines(listed)
    assert told(seen) == expected and found in seen["found"]
    assert seen["data"] == ({"gpu_count": 2} if listed and listed[0]["id"] == MINE["id"] else {})


def test_machines_that_can_not_be_listed():
    seen = machines(None, list_error="401")
    assert told(seen) == ("unknown", "") and seen["found"] == "401"
    assert machines(None)["found"] == "no admin token was given"
    assert machines([MINE], {})["found"] == "the machine's id is not known" and machines([MINE], None)["outcome"] == "unknown"


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("HEALTHY", [("G06", "ok", ""), ("G07", "ok", "")]),
        ("Degraded", [("G06", "ok", ""), ("G07", "bad", "")]),
        ("UNKNOWN", [("G06", "ok", "")]),
    ],
)
def test_pools(status, expected):
    seen = control.pools("gpu", [{"name": "cpu", "status": "DEGRADED"}, {"name": "gpu", "status": status}])
    assert [(entry["id"], *told(entry)) for entry in seen] == expected


def test_pool_that_is_not_there():
    (seen,) = control.pools("gqu", [{"name": "gpu"}, {"name": "cpu"}])
    assert told(seen) == ("bad", "absent") and seen["found"] == "pools: cpu, gpu" and seen["id"] == "G06"
    assert control.pools("gpu", [])[0]["found"] == "pools: none"


def both(seen, **settings):
    """Return {id: observation} of the checks that compare. seen: {id: data, or an outcome}."""
    observations = [
        {
            "id": name,
            "outcome": "ok" if isinstance(data, dict) else data,
            "data": data if isinstance(data, dict) else None,
        }
        for name, data in seen.items()
    ]
    return {entry["id"]: entry for entry in join.join(observations, dict({"connection": "autossh"}, **settings))}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ({"U03": {"gpu_count": 2}, "M02": {"gpu_count": 2}}, "ok"),
        ({"U03": {"gpu_count": 2}, "M02": {"gpu_count": 0}}, "bad"),
        ({"U03": {"gpu_count": 0}, "M02": {"gpu_count": 0}}, "ok"),
        ({"U03": {"gpu_count": 2}, "C02": {"gpu_count": 1}}, "bad"),
        ({"U03": {"gpu_count": 2}, "M02": {"gpu_count": 2}, "C02": {"gpu_count": 1}}, "ok"),
        ({"U03": {"gpu_count": 2}}, "unknown"),
        ({"M02": {"gpu_count": 2}}, "unknown"),
        ({"U03": "not_applicable", "M02": {"gpu_count": 2}}, "not_applicable"),
    ],
)
def test_advertised(seen, expected):
    assert both(seen)["U06"]["outcome"] == expected


def test_advertised_names_both_numbers():
    assert both({"U03": {"gpu_count": 2}, "M02": {"gpu_count": 1}})["U06"]["found"] == "2 here, 1 at the gateway"


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        ("a", "a", "ok"),
        ("a", "b", "bad"),
        (None, "b", "unknown"),
        ("a", None, "unknown"),
        (None, None, "unknown"),
        ("a", "", "not_applicable"),
        (None, "", "unknown"),
    ],
)
def test_owner(here, there, expected):
    seen = both({"A01": {"owner": here}, "M02": {"owner": there}})["M05"]
    assert seen["outcome"] == expected and ("another token" in seen["found"]) == (expected == "bad")


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [(31994, 31994, "ok"), (31993, 31994, "bad"), (None, 31994, "unknown"), (31994, None, "unknown")],
)
def test_nodeport(here, there, expected):
    seen = both({"T06": {"target_port": here}, "nodeport": {"nodeport": there}})["G04"]
    assert seen["outcome"] == expected and (expected != "bad" or seen["found"] == "tunnel to 31993, NodePort 31994")
    assert both({"T06": {"target_port": here}, "nodeport": {"nodeport": there}}, connection="direct")["G04"]["outcome"] == "not_applicable"
