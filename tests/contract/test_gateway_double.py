"""The double against every line of the gateway's contract, over raw HTTP, independent of the product's client."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request

import pytest

from tests.doubles.gateway.harness import GatewayHarness

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
KEY = "provider:machine:generic:gpu:0a1b2c3d"
NO_GPUS = dict.fromkeys(("A10G", "A100-40", "A100-80", "A6000", "H100", "L4", "L40S", "RTX4090", "RTX5090", "T4"), False)
CREATE_REFUSED = {
    "ok": False,
    "errMsg": "This pool does not currently support machine creation",
    "machine": None,
    "agentUpstreamUrl": "",
    "agentUpstreamBranch": "",
}
BEAT = {"machine_id": "0a1b2c3d", "pool_name": "gpu", "metrics": {}}


def call(gateway, method, path, token=None, body=None, seconds=5):
    """Return (status, parsed body)."""
    data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
    request = urllib.request.Request(gateway.url + path, data=data, method=method, headers={"Content-Type": "application/json"})
    if token:
        request.add_header("Authorization", "Bearer " + token)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as response:
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
        ("POST", M + "/keepalive", "MACHINE", BEAT, 500, {"message": "Failed to update keepalive: failed to get machine state %s: machine not found" % KEY}),
        ("POST", M + "/keepalive", "MACHINE", dict(BEAT, metrics={"worker_count": 1.5}), 400, {"message": "Invalid payload"}),
        ("GET", M + "/nothing", "MACHINE", None, 404, {"message": "Not Found"}),
        ("GET", G + "/pools", None, None, 401, {"code": 16, "message": "invalid or missing token", "details": []}),
        ("GET", G + "/pools", "MACHINE", None, 200, {"ok": False, "errMsg": "This action is not permitted"}),
        ("GET", G + "/pools", "WORKSPACE_RESTRICTED", None, 200, {"ok": False, "errMsg": "Unauthorized Access"}),
        ("POST", G + "/machines", "WORKSPACE", {"pool_name": "gpu"}, 200, {"ok": False, "errMsg": "This action is not permitted"}),
        ("POST", G + "/machines", "ADMIN", {"pool_name": "gqu"}, 200, dict(CREATE_REFUSED, errMsg="Invalid pool name")),
        ("POST", G + "/machines", "ADMIN", {"pool_name": "cloud"}, 200, CREATE_REFUSED),
        ("GET", G + "/machines", "WORKSPACE", None, 200, {"ok": True, "errMsg": "", "machines": [], "gpus": NO_GPUS}),
        ("GET", G + "/machines?pool_name=gqu", "ADMIN", None, 200, {"ok": False, "errMsg": "Invalid pool"}),
        ("GET", G + "/machines?pool_name=home", "ADMIN", None, 200, {"ok": False, "errMsg": "Local pools don't currently track machines"}),
        ("GET", G + "/nothing", "ADMIN", None, 404, {"code": 5, "message": "Not Found", "details": []}),
        ("PUT", G + "/machines", "ADMIN", None, 501, {"code": 12, "message": "Method Not Allowed", "details": []}),
        ("POST", G + "/agent/join", "ADMIN", {}, 404, {"code": 5, "message": "Not Found", "details": []}),
        ("GET", M + "/list?auth_token=MACHINE", None, None, 200, []),
        ("DELETE", G + "/machines/ffffffff?pool_name=gpu", "ADMIN", None, 200, {"ok": True, "errMsg": ""}),
        ("GET", "/api/v1/health", None, None, 200, {"status": "ok"}),
    ],
)
def test_answer(gateway, method, path, token, body, status, expected):
    names = {kind.upper(): gateway.token(kind) for kind in ("machine", "workspace", "workspace_restricted")}
    names["ADMIN"] = gateway.admin_token
    assert call(gateway, method, path.replace("=MACHINE", "=" + names["MACHINE"]), names.get(token, token), body) == (status, expected)


SECRETS = {"database": {"redis": {"password": "canary-secret-of-the-gateway"}}}  # in direct mode a register is told everything


def create(gateway, **body):
    status, answer = call(gateway, "POST", G + "/machines", gateway.admin_token, body or {"pool_name": "gpu"})
    assert status == 200 and answer["ok"]
    return answer["machine"]


def test_life_of_a_machine(gateway):
    machine = create(gateway)
    identity, token = machine["id"], machine["registrationToken"]
    assert len(identity) == 8 and machine["cpu"] == "0" and machine["gpuCount"] == 0 and machine["status"] == ""
    assert gateway.state(identity)["status"] == "pending"
    assert 3590 <= gateway.db.ttl("provider:machine:generic:gpu:" + identity) <= 3600
    body = dict(FULL, machine_id=identity)
    assert call(gateway, "POST", M + "/register", token, body) == (
        200,
        {"config": SECRETS, "machine_state": {"machine_id": identity, "status": "registered", "pool_name": "gpu", "ttl_seconds": 300}},
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
    metrics = listed["machines"][0]["machineMetrics"]
    assert len(metrics) == 11 and metrics["freeGpuCount"] == 1 and metrics["cpuUtilizationPct"] == 2.5 and metrics["workerCount"] == 0
    assert "hostname" not in listed["machines"][0] and listed["gpus"] == NO_GPUS
    call(gateway, "POST", M + "/register", token, body)
    assert gateway.state(identity)["status"] == "registered"  # registering demotes a ready machine
    gateway.db.delete("provider:machine:generic:gpu:" + identity)  # as if expired
    assert call(gateway, "POST", M + "/keepalive", token, beat)[0] == 500
    assert call(gateway, "POST", M + "/register", token, body)[0] == 200  # same id, same token
    assert call(gateway, "DELETE", G + "/machines/%s?pool_name=gpu" % identity, gateway.admin_token) == (200, {"ok": True, "errMsg": ""})
    assert gateway.state(identity) == {} and gateway.db.scard("provider:machine:generic:gpu:machine_index") == 0
    assert call(gateway, "POST", M + "/keepalive", token, beat)[0] == 500
    assert call(gateway, "POST", M + "/register", token, body)[0] == 200  # the token outlives the machine, which so comes back
    assert gateway.state(identity)["registration_token"] == ""  # as after an expiry


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
    for _call in range(2):
        assert call(gateway, "GET", M + "/list", token)[0] == 200  # the cache believes it on
    gateway.age_tokens()
    assert call(gateway, "GET", M + "/list", token)[0] == 401


def test_upstream_build_has_no_keepalive_and_joins_otherwise(gateway):
    machine = create(gateway)
    body = dict(FULL, machine_id=machine["id"])
    call(gateway, "POST", M + "/register", machine["registrationToken"], body)
    call(gateway, "POST", M + "/keepalive", machine["registrationToken"], dict(BEAT, machine_id=machine["id"]))
    gateway.fault({"route": "*", "mode": "upstream"})
    assert call(gateway, "GET", G + "/machines", gateway.admin_token)[1]["machines"][0]["status"] == "available"
    assert call(gateway, "POST", M + "/register", machine["registrationToken"], body) == (200, {"config": SECRETS})
    assert call(gateway, "POST", M + "/keepalive", machine["registrationToken"], BEAT)[0] == 404
    for path in (M + "/list", G + "/pools", G + "/machines", G + "/workers", G + "/tokens"):
        assert call(gateway, "GET", path, gateway.admin_token if path.startswith(G) else machine["registrationToken"])[0] == 200
    assert gateway.state(machine["id"])["hostname"].startswith("w1.")  # it has no direct mode
    assert call(gateway, "GET", G + "/agent/join", gateway.admin_token)[0] == 501
    assert call(gateway, "POST", G + "/agent/join", gateway.admin_token, {})[0] == 400


def test_keepalive_without_metrics_makes_ready_and_crashes(gateway):
    machine = create(gateway)
    before = gateway.db.ttl("provider:machine:generic:gpu:" + machine["id"])
    beat = dict(less(BEAT, "metrics"), machine_id=machine["id"])
    assert call(gateway, "POST", M + "/keepalive", machine["registrationToken"], beat) == (500, {"message": "Internal Server Error"})
    assert gateway.state(machine["id"])["status"] == "ready" and gateway.db.ttl("provider:machine:generic:gpu:" + machine["id"]) > before - 10


# -- what was seen on the running gateway --


def tokens(gateway, caller=None):
    """Return {key: row} as GET /tokens tells it."""
    status, answer = call(gateway, "GET", G + "/tokens", caller or gateway.admin_token)
    assert status == 200 and answer["ok"] and answer["errMsg"] == ""
    return {row["key"]: row for row in answer["tokens"]}


def test_token_is_deleted_by_its_id_and_cached_for_ten_minutes(gateway):
    token = create(gateway)["registrationToken"]
    assert call(gateway, "GET", M + "/list", token)[0] == 200
    assert gateway.db.ttl("workspace:authorization:token:" + token) > 590
    row = tokens(gateway)[token]
    assert set(row) == {"tokenId", "key", "active", "reusable", "workspaceId", "tokenType", "createdAt", "updatedAt"}
    assert (row["active"], row["reusable"], row["tokenType"]) == (True, True, "machine")
    assert call(gateway, "DELETE", G + "/tokens/" + row["tokenId"], gateway.token("workspace"))[1]["ok"] is False
    assert call(gateway, "DELETE", G + "/tokens/" + row["tokenId"], gateway.admin_token) == (200, {"ok": True, "errMsg": ""})
    assert token not in tokens(gateway)
    assert call(gateway, "GET", M + "/list", token)[0] == 200  # for up to ten minutes
    gateway.age_tokens()
    assert call(gateway, "GET", M + "/list", token) == (401, {"message": "Unauthorized"})


def test_token_that_was_deactivated_is_cached_as_well(gateway):
    token = gateway.token("machine")
    assert call(gateway, "GET", M + "/list", token)[0] == 200
    gateway.db.hset(gateway.token_row(token), "active", "0")
    assert call(gateway, "GET", M + "/list", token)[0] == 200 and tokens(gateway)[token]["active"] is False
    gateway.age_tokens()
    assert call(gateway, "GET", M + "/list", token)[0] == 401


def test_machine_token_reads_every_key(gateway):
    assert gateway.admin_token in tokens(gateway, create(gateway)["registrationToken"])


def test_token_is_taken_without_bearer(gateway):
    request = urllib.request.Request(gateway.url + M + "/list", headers={"Authorization": gateway.token("machine")})
    with urllib.request.urlopen(request, timeout=5) as response:
        assert response.status == 200


def test_401_does_not_prove_a_bad_token(gateway):
    cached, fresh = gateway.token("machine"), gateway.token("machine")
    assert call(gateway, "GET", M + "/list", cached)[0] == 200
    gateway.fault({"route": "*", "mode": "postgres_down"})
    assert call(gateway, "GET", M + "/list", cached)[0] == 200
    assert call(gateway, "GET", M + "/list", fresh)[0] == 401
    assert call(gateway, "GET", G + "/pools", gateway.admin_token)[0] == 401
    assert call(gateway, "GET", "/api/v1/health") == (500, {"status": "not ok", "error": "failed to connect to Postgres"})


def test_without_redis_the_gateway_api_knows_nobody(tmp_path):
    other = GatewayHarness(tmp_path).start()
    try:
        other.redis_process.kill()
        other.redis_process.wait()
        assert call(other, "GET", G + "/pools", other.admin_token) == (401, {"code": 16, "message": "invalid or missing token", "details": []})
        assert call(other, "GET", "/api/v1/health")[0] == 500
    finally:
        other.stop()


def test_pending_machine_is_listed_with_zeros_and_whatever_limit(gateway):
    create(gateway), create(gateway)
    machines = call(gateway, "GET", G + "/machines?limit=1", gateway.admin_token)[1]["machines"]
    assert not [name for name in machines[0]["machineMetrics"] if "isk" in name]
    assert len(machines) == 2 and set(machines[0]["machineMetrics"].values()) == {0} and len(machines[0]["machineMetrics"]) == 11
    assert machines[0]["lastKeepalive"] == ""


def test_delete_in_a_local_pool_kills_the_gateway(tmp_path):
    other = GatewayHarness(tmp_path).start()
    try:
        with pytest.raises(OSError):
            call(other, "DELETE", G + "/machines/0a1b2c3d?pool_name=home", other.admin_token)
        assert other.process.wait(timeout=5) == 2
    finally:
        other.stop()


def test_refused_create_in_a_local_pool_leaves_a_token(gateway):
    assert call(gateway, "POST", G + "/machines", gateway.admin_token, {"pool_name": "home"}) == (200, CREATE_REFUSED)
    assert [row["tokenType"] for row in tokens(gateway).values()].count("machine") == 1


def test_state_hash(gateway):
    machine = create(gateway)
    state = gateway.state(machine["id"])
    assert "provider_name" not in state and "auto_consolidate" in state and state["last_keepalive"] == state["last_worker_seen"] == ""
    assert state["registration_token"] == machine["registrationToken"]


def test_keepalive_on_a_pending_machine_makes_it_ready_without_cpu(gateway):
    machine = create(gateway)
    status, answer = call(gateway, "POST", M + "/keepalive", machine["registrationToken"], dict(BEAT, machine_id=machine["id"]))
    assert status == 200 and set(answer["machine_state"]) == {"machine_id", "status", "last_keepalive", "ttl_seconds"}  # what is empty is left out
    assert (gateway.state(machine["id"])["status"], gateway.state(machine["id"])["cpu"]) == ("ready", "0")


@pytest.mark.parametrize(
    "body", [{"machine_id": ""}, {"machine_id": "ffffffff"}, {"pool_name": "home"}, {"provider_name": "any"}, {"cpu": "8", "memory": "16384"}]
)
def test_register_takes_nearly_anything(gateway, body):
    assert call(gateway, "POST", M + "/register", gateway.token("machine"), dict(FULL, **body))[0] == 200


def test_register_takes_another_machine_s_token(gateway):
    mine, other = create(gateway), create(gateway)
    assert call(gateway, "POST", M + "/register", other["registrationToken"], dict(FULL, machine_id=mine["id"]))[0] == 200
    assert gateway.state(mine["id"])["status"] == "registered"


def test_register_without_a_way_to_workers_takes_its_time_and_adds_a_suffix(tmp_path):
    other = GatewayHarness(tmp_path, hostname_mode="tailnet").start()
    try:
        token = other.token("machine")
        start = time.monotonic()
        assert call(other, "POST", M + "/register", token, less(FULL, "cpu"), seconds=10)[0] == 500  # a refused one as well
        assert time.monotonic() - start > 5.0
        other.restart_gateway(register_seconds=0)
        assert call(other, "POST", M + "/register", token, FULL)[1]["config"] is None
        assert other.state("0a1b2c3d")["hostname"] == "w1.beta9.tailnet.example"
        other.restart_gateway(hostname_mode="direct")
        call(other, "POST", M + "/keepalive", token, BEAT)
        assert other.state("0a1b2c3d")["hostname"] == "w1.beta9.tailnet.example"  # only a register changes it
        call(other, "POST", M + "/register", token, FULL)
        assert other.state("0a1b2c3d")["hostname"] == "w1"
    finally:
        other.stop()


def test_pools(gateway):
    create(gateway)
    pools = {pool["name"]: pool for pool in call(gateway, "GET", G + "/pools", gateway.admin_token)[1]["pools"]}
    assert not any(pool["active"] for pool in pools.values()) and "home" in pools
    assert (pools["gpu"]["state"]["status"], pools["gpu"]["state"]["readyMachines"]) == ("DEGRADED", "0")
    assert pools["home"]["minFreeGpu"] == ""
    machine = create(gateway)
    call(gateway, "POST", M + "/keepalive", machine["registrationToken"], dict(BEAT, machine_id=machine["id"]))
    pools = {pool["name"]: pool for pool in call(gateway, "GET", G + "/pools", gateway.admin_token)[1]["pools"]}
    state = pools["gpu"]["state"]
    assert (pools["gpu"]["active"], state["status"], state["readyMachines"]) == (False, "HEALTHY", "0")


def test_pools_fail_while_one_has_no_state(gateway):
    gateway.fault({"route": "pools", "mode": "no_pool_state", "pool": "cloud"})
    assert call(gateway, "GET", G + "/pools", gateway.admin_token) == (500, {"code": 2, "message": "worker pool state not found: cloud", "details": []})
    assert call(gateway, "GET", G + "/machines", gateway.admin_token)[0] == 200


@pytest.fixture
def scheduling(tmp_path):
    """Start a gateway that keeps something of pool gpu free, with a ready machine; return it and what reads its log."""
    started, log = [], tmp_path / "gateway.log"

    def start(hostname, **config):
        log.touch()
        other = GatewayHarness(tmp_path, gateway_log=str(log), **config)
        wanted = {"gpu": {"min_free": {"cpu": 1000}}}
        other.config["pools"] = [dict(pool, **wanted.get(pool["name"], {})) for pool in other.config["pools"]]
        started.append(other.start())
        token = other.token("machine")
        assert call(other, "POST", M + "/register", token, dict(FULL, hostname=hostname))[0] == 200
        assert call(other, "POST", M + "/keepalive", token, BEAT)[0] == 200
        return other, lambda: log.read_text().splitlines()

    yield start
    for other in started:
        other.stop()


def test_ready_machine_without_k3s_is_tried_twice_a_second_with_an_error_each_time(scheduling):
    other, lines = scheduling("127.77.1.1", tailnet_connected=True)
    time.sleep(2.2)
    errors = [line for line in lines() if "ERR" in line]
    assert 3 <= len(errors) <= 5 and "127.77.1.1:6443" in errors[0] and "pool_name=\x1b[0mgpu" in errors[0]
    pools = {pool["name"]: pool["minFreeCpu"] for pool in call(other, "GET", G + "/pools", other.admin_token)[1]["pools"]}
    assert (pools["gpu"], pools["cpu"]) == ("1000", "0")


def test_with_a_tailnet_it_dials_the_name_as_registered(scheduling):
    with socket.create_server(("127.77.1.2", 6443)) as k3s:
        k3s.settimeout(5)
        _other, lines = scheduling("127.77.1.2", tailnet_connected=True)
        k3s.accept()[0].close()
    assert "using existing machine \x1b[36mhostname=\x1b[0m127.77.1.2" in lines()[0]


def test_direct_mode_without_a_tailnet_takes_the_machine_and_never_dials(scheduling):
    with socket.create_server(("127.77.1.3", 6443)) as k3s:
        k3s.settimeout(2)
        other, lines = scheduling("127.77.1.3", tailnet_connected=False)
        with pytest.raises(TimeoutError):
            k3s.accept()
    assert len(lines()) == 1 and "using existing machine" in lines()[0] and other.db.exists(KEY + ":lock")


def test_refused_request_is_an_error_line_in_colour(scheduling):
    other, lines = scheduling("127.77.1.1", tailnet_connected=False)
    assert call(other, "POST", M + "/keepalive", other.token("machine"), {})[0] == 400
    assert "\x1b[31mERR\x1b[0m request failed" in lines()[-1] and "status=\x1b[0m400" in lines()[-1]


def test_log_holds_no_token(gateway):
    create(gateway)
    assert gateway.requests("POST")[0]["path"] == G + "/machines"
    assert "canary" not in gateway.log_path.read_text()
