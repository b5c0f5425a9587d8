"""A worker's side with a real API: manifests, the service account's rights and token, and the checks that ask k3s."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Context, Unknown
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import agent, k3s
from ansible_collections.beta9.workers.plugins.modules import k3s_ready, k3s_token

from tests.kubernetes.conftest import manifest

JOBS, PODS = "/apis/batch/v1/namespaces/default/jobs", "/api/v1/namespaces/default/pods"
REFUSED = [
    *(("GET", path) for path in ("/api/v1/secrets", "/api/v1/nodes", "/api/v1/namespaces", "/api/v1/pods", "/apis/batch/v1/jobs", "/api/v1/events")),
    *(("GET", f"/api/v1/namespaces/default/{kind}") for kind in ("secrets", "configmaps", "services", "events", "serviceaccounts", "endpoints")),
    *(("GET", f"/api/v1/namespaces/kube-system/{kind}") for kind in ("secrets", "pods", "configmaps")),
    *(("GET", path) for path in ("/apis/batch/v1/namespaces/kube-system/jobs", "/apis/batch/v1/namespaces/default/cronjobs")),
    *(("GET", path) for path in ("/api/v1/namespaces/default/secrets/beta9-gateway", PODS + "/any", PODS + "/any/log")),
    *(("POST", path) for path in (PODS, "/api/v1/namespaces/default/secrets", "/api/v1/namespaces", "/apis/batch/v1/namespaces/kube-system/jobs")),
    *(("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/default/{kind}") for kind in ("roles", "rolebindings")),
    *(("POST", path) for path in ("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", "/api/v1/namespaces/default/serviceaccounts/default/token")),
    *(("DELETE", path) for path in (PODS + "/any", "/api/v1/nodes/any", "/api/v1/namespaces/default", "/api/v1/namespaces/default/secrets/any")),
    *(("PATCH", path) for path in (JOBS + "/any", PODS + "/any", "/api/v1/nodes/any")),
]


def job(name: str) -> dict:
    return k3s.job(name, "registry.example.com/any", 1)


@pytest.fixture
def applied(host, monkeypatch):
    """The file of the token, on a host with role k3s' manifest in its place."""
    path = host / "beta9-gateway.yaml"
    path.write_text(manifest("gateway", k3s_rbac="least-privilege"))
    token = str(host / "credentials" / "k3s_token")
    for name, value in {"MANIFEST": str(path), "PATH": token, "WAIT_SECONDS": 30}.items():
        monkeypatch.setattr(k3s_token, name, value)
    return token


@pytest.fixture
def token(applied, run_module):
    """The token as role k3s keeps it."""
    result = run_module(k3s_token)
    assert "msg" not in result, result
    with open(applied, encoding="ascii") as stream:
        return stream.read()


def worker(monkeypatch, path, **config):
    """Return a context of a worker's probes."""
    monkeypatch.setattr(agent, "K3S_TOKEN_FILE", path)
    return Context({"k3s": True, "gpus": 0, "canary_image": "registry.example.com/any", **config})


def test_rights_of_the_gateway(cluster, token):
    for verb, path, body, expected in (
        ("POST", JOBS, job("worker-1"), 201),
        ("GET", JOBS, None, 200),
        ("GET", JOBS + "/worker-1", None, 200),
        ("GET", PODS, None, 200),
        ("GET", PODS + "?labelSelector=job-name%3Dworker-1", None, 200),
        ("DELETE", JOBS + "/worker-1?propagationPolicy=Background", None, 200),
    ):
        assert cluster.call(verb, path, body, token)[0] == expected, (verb, path)
    assert len(REFUSED) >= 30
    answers = {}
    for verb, path in REFUSED:
        body = {"apiVersion": "v1", "kind": "Any", "metadata": {"name": "any"}} if verb == "POST" else {} if verb == "PATCH" else None
        kind = "application/merge-patch+json" if verb == "PATCH" else "application/json"
        answers[verb, path] = cluster.call(verb, path, body, token, kind)
    assert {key: (status, found["reason"]) for key, (status, found) in answers.items()} == dict.fromkeys(answers, (403, "Forbidden"))
    assert answers["GET", "/apis/batch/v1/namespaces/kube-system/jobs"][1]["message"].startswith("jobs.batch is forbidden: User ")


def test_jobs_without_a_restart_policy_are_refused(cluster):
    wrong = job("wrong")
    del wrong["spec"]["template"]["spec"]["restartPolicy"]
    status, answer = cluster.call("POST", JOBS, wrong)
    assert status == 422 and 'valid values: "OnFailure", "Never"' in answer["message"]


def test_other_manifests_are_taken(cluster, host):
    secrets = [{"registry": "registry.example.com", "username": "puller", "password": 'p"w: {x}'}]
    plugin = {"k3s_device_plugin_image": "registry.example.com/plugin:v1"}
    texts = {"nvidia": manifest("nvidia", _k3s_gpu_ids="", **plugin), "nvidia-two": manifest("nvidia", _k3s_gpu_ids="0,2", **plugin)}
    texts.update({"pull-secret": manifest("pull-secret", k3s_image_pull_secrets=secrets), "gateway": manifest("gateway", k3s_rbac="cluster-admin")})
    for name, text in texts.items():
        path = host / (name + ".yaml")
        path.write_text(text)
        for command in (f"apply --dry-run=server -f {path}", f"apply -f {path}", f"delete -f {path} --ignore-not-found --wait=false"):
            assert os.system(f"k3s {command} > {host}/out 2>&1") == 0, (host / "out").read_text()


def test_secret_that_is_made_again_holds_the_same_token_and_another_account_another(cluster, token, applied, run_module):
    secret = "/api/v1/namespaces/default/secrets/beta9-gateway"
    assert cluster.call("DELETE", secret)[0] == 200
    result = run_module(k3s_token)
    assert result.get("changed") is False, result
    assert cluster.call("GET", PODS, token=token)[0] == 200
    assert cluster.call("DELETE", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/beta9-gateway")[0] == 200
    result = run_module(k3s_token)
    assert result.get("changed") is False, result
    result = run_module(k3s_token, renew=True)
    assert result.get("changed") is True and "token" not in result, result
    with open(applied, encoding="ascii") as stream:
        renewed = stream.read()
    assert renewed != token and cluster.call("GET", PODS, token=renewed)[0] == 200
    cluster.wait(lambda: cluster.call("GET", PODS, token=token)[0] == 401, 20, "kube-apiserver")  # it keeps what it saw for ten seconds


def test_checks_of_the_service_account(cluster, token, applied, monkeypatch):
    seen = k3s.service_account(worker(monkeypatch, applied))
    assert seen["outcome"] == "ok", seen
    role = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/beta9-gateway"
    cluster.patch(role, {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]})
    seen = k3s.service_account(worker(monkeypatch, applied))
    assert (seen["outcome"], seen["found"]) == ("bad", "may not create jobs, list jobs, delete jobs")
    with open(applied, "w", encoding="ascii") as stream:
        stream.write(token[:-6] + "AAAAAA")
    assert k3s.service_account(worker(monkeypatch, applied))["code"] == "invalid"
    assert cluster.call("DELETE", role)[0] == 200


STARTED = {"name": "canary", "image": "any", "imageID": "", "ready": False, "restartCount": 0}
NO_DEVICE = dict(STARTED, state={"terminated": {"reason": "StartError", "exitCode": 128, "message": "nvidia-container-cli: no such device"}})
NO_IMAGE = dict(STARTED, state={"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}})
TAKEN = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
UNSCHEDULED = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": TAKEN}


@contextlib.contextmanager
def pods_become(cluster, status):
    """Write into the canary's pod what a kubelet or a scheduler would."""
    ended = threading.Event()

    def write():
        while not ended.wait(0.1):
            for pod in cluster.call("GET", PODS + "?labelSelector=app%3Dbeta9-canary")[1].get("items", []):
                cluster.call("PATCH", f"{PODS}/{pod['metadata']['name']}/status", {"status": status}, kind="application/strategic-merge-patch+json")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    "status, code, text",
    [
        ({"phase": "Failed", "containerStatuses": [NO_DEVICE]}, "ended", "StartError: exit status 128 nvidia-container-cli: no such device"),
        ({"phase": "Pending", "containerStatuses": [NO_IMAGE]}, "image", "ImagePullBackOff: Back-off pulling image"),
        ({"phase": "Pending", "conditions": [UNSCHEDULED]}, "unschedulable", TAKEN),
    ],
)
def test_canary_tells_what_became_of_its_job(cluster, token, applied, monkeypatch, status, code, text):
    """The Job and its pod are made by the real API and its controller; nothing of them is left."""
    with pods_become(cluster, status):
        seen = k3s.canary(worker(monkeypatch, applied))
    assert (seen["code"], text in seen["found"]) == (code, True), seen
    assert cluster.call("GET", JOBS)[1]["items"] == []


def test_worker_whose_gpus_are_in_use_is_busy(cluster, token, applied, monkeypatch):
    cluster.make("/api/v1/nodes", {"metadata": {"name": "this-host"}})
    cluster.patch("/api/v1/nodes/this-host/status", {"status": {"allocatable": {"nvidia.com/gpu": "2"}}})
    try:
        with pods_become(cluster, {"phase": "Pending", "conditions": [UNSCHEDULED]}), pytest.raises(Unknown, match="busy: other pods use all 2 GPUs"):
            k3s.canary(worker(monkeypatch, applied, gpus=2))
    finally:
        cluster.call("DELETE", "/api/v1/nodes/this-host")


def test_ready_means_this_start_of_this_version(cluster, host, monkeypatch, run_module):
    """A node as a kubelet registers it, and its Lease, before and after a start of the unit."""
    unit = {"ActiveState": "active", "SubState": "running"}
    start = time.monotonic() * 1e6
    unit.update(dict.fromkeys(("ActiveEnterTimestampMonotonic", "ExecMainStartTimestampMonotonic"), str(int(start - 20e6))))
    monkeypatch.setattr(k3s_ready, "unit_of", lambda _module: unit)
    monkeypatch.setattr(api, "node_name", lambda: "this-host")
    module = type("Module", (), {"run_command": staticmethod(_run_command)})()
    assert k3s_ready.inspect(module)[0] == "the node this-host has not joined"
    for name in ("this-host", "earlier"):
        cluster.make("/api/v1/nodes", {"metadata": {"name": name}})
    info = dict.fromkeys(("machineID", "systemUUID", "bootID", "kernelVersion", "osImage", "containerRuntimeVersion", "kubeProxyVersion"), "any")
    info.update(kubeletVersion="v1.36.0+k3s1", operatingSystem="linux", architecture="amd64")
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"}
    cluster.patch("/api/v1/nodes/this-host/status", {"status": {"nodeInfo": info, "conditions": [ready], "allocatable": {"nvidia.com/gpu": "2"}}})
    try:
        found, known = k3s_ready.inspect(module, "v1.36.1+k3s1")
        assert found == "the node reports version v1.36.0+k3s1" and known["gpus"] == 2 and known["others"] == ["earlier"]
        assert "no heartbeat" in k3s_ready.inspect(module, "v1.36.0+k3s1")[0]
        lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        cluster.make(lease, {"metadata": {"name": "this-host"}, "spec": {"renewTime": _time(-30)}})
        assert "no heartbeat" in k3s_ready.inspect(module)[0]
        cluster.patch(lease + "/this-host", {"spec": {"renewTime": _time(0)}})
        assert k3s_ready.inspect(module, "v1.36.0+k3s1")[0] == ""
        assert k3s.node(Context({"k3s": True}))["code"] == "stale"
    finally:
        for name in ("this-host", "earlier"):
            cluster.call("DELETE", "/api/v1/nodes/" + name)


def _time(offset: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(time.time() + offset))


def _run_command(command, **_options):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_parts_that_are_not_ready_are_named(cluster, host):
    """kubectl tells of them on one line. Here etcd stands still."""
    etcd = cluster._running[0].pid
    os.kill(etcd, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 30
        while (seen := k3s.ready(Context({"k3s": True})))["outcome"] == "ok" and time.monotonic() < deadline:
            time.sleep(0.2)
    except Unknown as reason:
        pytest.fail(str(reason))
    finally:
        os.kill(etcd, signal.SIGCONT)
    assert seen["outcome"] == "bad" and "etcd" in seen["found"] and "\\n" not in seen["found"], seen
