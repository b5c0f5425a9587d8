"""The double against every line of the gateway's contract, over raw HTTP, independent of the product's client."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest

M, G = "/api/v1/machine", "/api/v1/gateway"
FULL = {
    "token": "k3s",
    "machine_id": "0a1b2c3d",
    "hostname": "w1",
    "provider_name": "generic",
    "pool_name": "gpu",
    "cpu": "8000m",
    "memory": "16Gi",
    "gpu_count": "1",
    "private_ip": "10.0.0.1",
}
BEAT = {"machine_id": "0a1b2c3d", "pool_name": "gpu", "metrics": {}}


def call(gateway, method, path, token=None, body=None):
    """Return (status, parsed body)."""
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(gateway.url + path, data=data, method=method, headers={"Content-Type": "application/json"})
    if token:
        request.add_header("Authorization", "Bearer " + token)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def less(body, *names, **changes):
    return dict({key: value for key, value in body.items() if key not in names}, **changes)


@pytest.mark.parametrize(
    ("method", "path", "token", "body", "status", "expected"),
    [
        ("POST", M + "/register", None, FULL, 500, {"message": "Internal Server Error"}),
        ("POST", M + "/register", "unknown", FULL, 401, {"message": "Unauthorized"}),
        ("POST", M + "/register", "ADMIN", FULL, 403, {"message": "Invalid token"}),
        ("POST", M + "/register", "WORKSPACE", FULL, 403, {"message": "Invalid token"}),
        ("POST", M + "/register", "MACHINE", b"{not json", 400, {"message": "Invalid payload"}),
        ("POST", M + "/register", "MACHINE", dict(FULL, gpu_count=1), 400, {"message": "Invalid payload"}),
        ("POST", M + "/register", "MACHINE", less(FULL, "cpu"), 500, {"message": "Invalid machine cpu value"}),
        ("POST", M + "/register", "MACHINE", dict(FULL, memory="16GB"), 500, {"message": "Invalid machine memory value"}),
        ("POST", M + "/register", "MACHINE", dict(FULL, gpu_count="one"), 500, {"message": "Invalid gpu count"}),
        ("POST", M + "/register", "MACHINE", dict(FULL, pool_name="gqu"), 500, {"message": "Invalid pool name"}),
        ("POST", M + "/keepalive", None, BEAT, 500, {"message": "Internal Server Error"}),
        ("POST", M + "/keepalive", "ADMIN", BEAT, 403, {"message": "Invalid token"}),
        ("POST", M + "/keepalive", "MACHINE", {}, 400, {"message": "machine_id and pool_name are required"}),
        ("POST", M + "/keepalive", "MACHINE", BEAT, 500, {"message": "Failed to update keepalive: machine not found"}),
        ("POST", M + "/keepalive", "MACHINE", dict(BEAT, metrics={"worker_count": 1.5}), 400, {"message": "Invalid payload"}),
        ("GET", M + "/nothing", "MACHINE", None, 404, {"message": "Not Found"}),
        ("GET", G + "/pools", None, None, 401, {"code": 16, "message": "invalid or missing token", "details": []}),
        ("GET", G + "/pools", "MACHINE", None, 200, {"ok": False, "errMsg": "Unauthorized Access"}),
        ("POST", G + "/machines", "WORKSPACE", {"pool_name": "gpu"}, 200, {"ok": False, "errMsg": "This action is not permitted"}),
        ("POST", G + "/machines", "ADMIN", {"pool_name": "gqu"}, 200, {"ok": False, "errMsg": "Invalid pool name"}),
        ("POST", G + "/machines", "ADMIN", {"pool_name": "cloud"}, 200, {"ok": False, "errMsg": "This pool does not currently support machine creation"}),
        ("GET", G + "/machines", "WORKSPACE", None, 200, {"ok": True, "gpus": {"A10G": True, "T4": True}}),
        ("DELETE", G + "/machines/ffffffff?pool_name=gpu", "ADMIN", None, 200, {"ok": True, "errMsg": ""}),
        ("GET", "/api/v1/health", None, None, 200, {"status": "ok"}),
    ],
)
def test_answer(gateway, method, path, token, body, status, expected):
    names = {"ADMIN": gateway.admin_token, "MACHINE": gateway.token("machine"), "WORKSPACE": gateway.token("workspace")}
    assert call(gateway, method, path, names.get(token, token), body) == (status, expected)


def create(gateway, **body):
    status, answer = call(gateway, "POST", G + "/machines", gateway.admin_token, body or {"pool_name": "gpu"})
    assert status == 200 and answer["ok"]
    return answer["machine"]


def test_life_of_a_machine(gateway):
    machine = create(gateway)
    identity, token = machine["id"], machine["registrationToken"]
    assert len(identity) == 8 and machine["cpu"] == "0" and machine["gpuCount"] == 0
    assert gateway.state(identity)["status"] == "pending"
    assert 3590 <= gateway.db.ttl("provider:machine:generic:gpu:" + identity) <= 3600
    body = dict(FULL, machine_id=identity)
    assert call(gateway, "POST", M + "/register", token, body) == (
        200,
        {"config": None, "machine_state": {"machine_id": identity, "status": "registered", "pool_name": "gpu", "ttl_seconds": 300}},
    )
    assert 290 <= gateway.db.ttl("provider:machine:generic:gpu:" + identity) <= 300
    assert call(gateway, "GET", M + "/list?pool_name=gpu&provider_name=generic", token) == (200, [])
    beat = dict(BEAT, machine_id=identity, metrics={"free_gpu_count": 1, "cpu_utilization_pct": 2.5})
    status, answer = call(gateway, "POST", M + "/keepalive", token, beat)
    assert (status, answer["machine_state"]["status"], answer["machine_state"]["ttl_seconds"]) == (200, "ready", 300)
    assert answer["machine_state"]["last_keepalive"].isdigit()
    _status, listed = call(gateway, "GET", M + "/list?pool_name=gpu&provider_name=generic", token)
    assert listed[0]["state"]["token"] == "k3s" and listed[0]["state"]["registration_token"] == token  # it leaks
    _status, listed = call(gateway, "GET", G + "/machines?pool_name=gpu&limit=100", gateway.admin_token)
    assert (listed["machines"][0]["cpu"], listed["machines"][0]["memory"], listed["machines"][0]["status"]) == ("8000", "16384", "ready")
    assert listed["machines"][0]["machineMetrics"] == {"freeGpuCount": "1", "cpuUtilizationPct": 2.5}
    assert "hostname" not in listed["machines"][0] and listed["gpus"] == {"A10G": True, "T4": True}
    call(gateway, "POST", M + "/register", token, body)
    assert gateway.state(identity)["status"] == "registered"  # registering demotes a ready machine
    gateway.db.delete("provider:machine:generic:gpu:" + identity)  # as if expired
    assert call(gateway, "POST", M + "/keepalive", token, beat)[0] == 500
    assert call(gateway, "POST", M + "/register", token, body)[0] == 200  # same id, same token
    assert call(gateway, "DELETE", G + "/machines/%s?pool_name=gpu" % identity, gateway.admin_token) == (200, {"ok": True, "errMsg": ""})
    assert call(gateway, "POST", M + "/register", token, body)[0] == 401


def test_each_create_makes_another_machine_and_both_spellings_work(gateway):
    assert create(gateway, pool_name="gpu")["id"] != create(gateway, poolName="gpu", unknown_field=1)["id"]


def test_index_is_pruned_when_listed(gateway):
    machine = create(gateway)
    gateway.db.delete("provider:machine:generic:gpu:" + machine["id"])
    assert gateway.db.scard("provider:machine:generic:gpu:machine_index") == 1
    call(gateway, "GET", G + "/machines", gateway.admin_token)
    assert gateway.db.scard("provider:machine:generic:gpu:machine_index") == 0


def test_single_use_token_is_burnt_by_its_first_call(gateway):
    token = gateway.token("machine", single_use="1")
    assert call(gateway, "GET", M + "/list", token)[0] == 200
    assert call(gateway, "GET", M + "/list", token)[0] == 401


def test_upstream_build_has_no_keepalive_and_no_machine_state(gateway):
    machine = create(gateway)
    gateway.fault({"route": "*", "mode": "upstream"})
    body = dict(FULL, machine_id=machine["id"])
    assert call(gateway, "POST", M + "/register", machine["registrationToken"], body) == (200, {"config": None})
    assert call(gateway, "POST", M + "/keepalive", machine["registrationToken"], BEAT)[0] == 404


def test_keepalive_without_metrics_crashes_some_builds(gateway):
    machine = create(gateway)
    gateway.fault({"route": "keepalive", "mode": "no_metrics_crash"})
    assert call(gateway, "POST", M + "/keepalive", machine["registrationToken"], less(BEAT, "metrics")) == (500, {"message": "Internal Server Error"})


def test_log_holds_no_token(gateway):
    create(gateway)
    assert gateway.requests("POST")[0]["path"] == G + "/machines"
    assert "canary" not in gateway.log_path.read_text()
