"""The gateway's side with a real API and a real kubectl: right, limited, refused, missing and misdirected kubeconfigs; pods in every state."""

from __future__ import annotations

import base64
import contextlib
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Context, Unknown
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import gateway_side

from tests.kubernetes.cluster import ADMIN, free_port, own_address, serving

NAMESPACE = "/api/v1/namespaces/beta9"
POOLS = "gateway:\n  httpPort: 1994\nredis:\n  password: canary-config-0123456789\nworker:\n  pools:\n    # old:\n    #   mode: external\n"
POOLS += "    cpu:\n      mode: local\n    gpu:\n      mode: external\n      provider: generic\n  imageTag: latest\n"
LINES = {
    "healthy": "2:15PM INF pool is healthy, resuming pool sizing pool_name=gpu\n2:15PM INF transferring interrupted jobs ERR=0 pool_name=gpu\n",
    "coloured": "\x1b[90m2:15PM\x1b[0m \x1b[31mERR\x1b[0m failed to create job \x1b[36merror=\x1b[0m"
    '\x1b[31m"dial tcp 127.77.1.1:6443: connect: connection refused"\x1b[0m \x1b[36mpool_name=\x1b[0mgpu\n',
    "json": '{"level":"error","pool_name":"gpu","error":"no such image","message":"failed to add worker"}\n',
    "other pool": "\x1b[31mERR\x1b[0m failed to add worker \x1b[36mpool_name=\x1b[0mcpu\n" + '{"level":"error","pool_name":"cpu","message":"failed"}\n',
    "own probe": "2:15PM ERR request failed method=POST path=/api/v1/machine/keepalive status=400\n",
    "refused token": "2:15PM INF request refused: Unauthorized\n",
}


@pytest.fixture
def ask(cluster, host):
    """Return a function that runs one of the gateway's probes with a kubeconfig."""

    def run(name, kubeconfig=None, **config):
        machine = {"pool": config.pop("pool", "gpu"), "provider": "generic", "machine_id": "a1"}
        kubeconfig = cluster.kubeconfig("admin", ADMIN) if kubeconfig is None else kubeconfig
        context = Context({"kube": True, "kubeconfig": kubeconfig, "namespace": "beta9", "machine": machine, **config})
        return {**gateway_side.ONCE, **gateway_side.PER_MACHINE}[name](context)

    return run


@pytest.fixture
def namespace(cluster):
    """The gateway's namespace, empty."""
    cluster.call("POST", "/api/v1/namespaces", {"metadata": {"name": "beta9"}})
    cluster.wait(lambda: cluster.call("GET", NAMESPACE + "/serviceaccounts/default")[0] == 200, 20, "kube-controller-manager")
    for kind in ("pods", "configmaps", "secrets"):
        cluster.call("DELETE", f"{NAMESPACE}/{kind}?gracePeriodSeconds=0")
    cluster.call("DELETE", NAMESPACE + "/services/gateway")
    cluster.wait(lambda: not cluster.call("GET", NAMESPACE + "/pods")[1]["items"], 20, "kube-controller-manager")


def pod(cluster, name, status, labels=None, node=None, containers=("main",)):
    """Make a pod and write a status into it."""
    spec = {"containers": [{"name": container, "image": "any"} for container in containers], "restartPolicy": "Always"}
    meta = {"name": name, "labels": labels or {"app.kubernetes.io/component": "gateway"}}
    cluster.make(NAMESPACE + "/pods", {"metadata": meta, "spec": {**spec, **({"nodeName": node} if node else {})}})
    cluster.patch(f"{NAMESPACE}/pods/{name}/status", {"status": status})


def state(ready=True, **running):
    """Return the status of a pod whose container is ready, or is not."""
    entry = {"name": "main", "image": "any", "imageID": "any", "ready": ready, "restartCount": 0}
    entry["state"] = running or {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    condition = {"type": "Ready", "status": "True" if ready else "False"}
    return {"phase": "Running", "conditions": [condition], "podIP": own_address(), "containerStatuses": [entry]}


def account(cluster, name, rules):
    """Return a kubeconfig of a service account with these rules in the gateway's namespace."""
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/beta9"
    cluster.call("POST", NAMESPACE + "/serviceaccounts", {"metadata": {"name": name}})
    cluster.call("POST", path + "/roles", {"metadata": {"name": name}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": "beta9"}
    cluster.call("POST", path + "/rolebindings", {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]})
    status, told = cluster.call("POST", f"{NAMESPACE}/serviceaccounts/{name}/token", {"spec": {"expirationSeconds": 600}})
    assert status == 201, told
    return cluster.kubeconfig(name, told["status"]["token"])


@contextlib.contextmanager
def service(cluster, answer=(200, '{"status": "ok"}')):
    """Make the gateway's service, behind which a server on this machine answers."""
    with serving(lambda _path: answer, own_address()) as port:
        ports = [{"name": "http", "port": 1994, "targetPort": port}]
        spec = {"type": "NodePort", "selector": {"app.kubernetes.io/component": "gateway"}, "ports": ports}
        cluster.make(NAMESPACE + "/services", {"metadata": {"name": "gateway"}, "spec": spec})
        yield


def of_gateway(ask, names, kubeconfig):
    """Return {name: "outcome: what was found"}."""
    seen = {}
    for name in names:
        try:
            answer = ask(name, kubeconfig)
            seen[name] = f"{answer['outcome']}: {answer['found']}"
        except Unknown as reason:
            seen[name] = f"unknown: {reason}"
    return seen


ASKED = ("G01", "G02", "G03", "G05", "nodeport", "G06", "G08")


def test_cluster_that_can_not_be_asked_is_unknown(cluster, namespace, ask):
    """Whatever the reason, no check says more."""
    silent = f"https://127.0.0.1:{free_port()}"
    wrong = {
        "refused": (cluster.kubeconfig("refused", "canary-wrong-0123456789"), "logged in|Unauthorized|credentials"),
        "missing": ("/nowhere/kubeconfig", "no such file"),
        "nowhere": (cluster.kubeconfig("nowhere", ADMIN, silent), "refused"),
    }
    for name, (path, _text) in wrong.items():
        seen = of_gateway(ask, ASKED, path)
        assert {key: text.split(":")[0] for key, text in seen.items()} == dict.fromkeys(ASKED, "unknown"), (name, seen)
        for text in seen.values():
            assert gateway_side.re.search(_text, text), (name, text)


def test_limited_access(cluster, namespace, ask):
    """What may be seen is judged, and the rest is unknown. Exec is wanted only where Redis is asked in its pod."""
    with service(cluster):
        pod(cluster, "gateway-0", state())
        path = account(cluster, "reader", [{"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]}])
        cluster.wait(lambda: ask("G01", path, redis_url="redis://any")["outcome"] == "ok", 20, "kube-apiserver")
        seen = of_gateway(ask, ASKED, path)
    assert seen["G01"] == "bad: may not create pods/exec" and seen["G02"] == "ok: 1 ready", seen
    for name in ("G03", "G05", "nodeport", "G06"):
        assert seen[name].startswith("unknown: kubectl: Error from server (Forbidden): "), seen


def test_pods_that_count(cluster, namespace, ask):
    assert ask("G02")["code"] == "none"
    pod(cluster, "gateway-0", {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."})
    pod(cluster, "gateway-1", dict(state(ready=False), phase="Succeeded"))
    assert ask("G02")["code"] == "none"
    pod(cluster, "gateway-2", state())
    assert ask("G02")["found"] == "1 ready"
    pod(cluster, "gateway-3", state(ready=False, waiting={"reason": "CrashLoopBackOff", "message": "back-off"}))
    assert ask("G02")["found"] == "gateway-3: CrashLoopBackOff"
    cluster.call("DELETE", NAMESPACE + "/pods/gateway-3?gracePeriodSeconds=0")
    pod(cluster, "gateway-4", {"phase": "Pending"})
    assert ask("G02")["found"] == "gateway-4: Pending"


def test_service_its_endpoints_and_the_way_to_it(cluster, namespace, ask):
    for name in ("G03", "G05", "nodeport"):
        with pytest.raises(Unknown, match="no (NodePort )?service of a known name"):
            ask(name)
    with service(cluster):
        assert ask("G03")["found"] == "service gateway has no ready endpoint"
        assert "no endpoints available" in ask("G05")["found"]
        cluster.make("/api/v1/nodes", {"metadata": {"name": "this-host"}})
        pod(cluster, "gateway-0", state(), node="this-host")
        cluster.wait(lambda: ask("G03")["outcome"] == "ok", 30, "kube-controller-manager")
        assert ask("G03")["found"] == "gateway: 1 endpoints"
        cluster.wait(lambda: ask("G05")["outcome"] == "ok", 30, "kube-apiserver")
        assert 30000 <= ask("nodeport")["data"]["nodeport"] < 32768
    # the server is gone, the service is still there
    assert ask("G05")["outcome"] == "bad" and "error trying to reach service" in ask("G05")["found"], ask("G05")
    cluster.call("DELETE", NAMESPACE + "/services/gateway")
    with service(cluster, (503, '{"status": "not ok"}')):
        cluster.wait(lambda: ask("G03")["outcome"] == "ok", 30, "kube-controller-manager")
        seen = ask("G05")
        assert seen["outcome"] == "bad", seen
    cluster.call("DELETE", "/api/v1/nodes/this-host")


@pytest.mark.parametrize("kind, name", gateway_side.CONFIGURATIONS)
def test_pools_wherever_the_configuration_is(cluster, namespace, ask, kind, name):
    with pytest.raises(Unknown, match="none of the known places"):
        ask("G06")
    data = {"config.yaml": base64.b64encode(POOLS.encode()).decode() if kind == "secret" else POOLS}
    cluster.make(f"{NAMESPACE}/{kind}s", {"metadata": {"name": name}, "data": data})
    seen = {pool: ask("G06", pool=pool) for pool in ("gpu", "cpu", "old", "gateway", "none")}
    assert {pool: (answer["outcome"], answer.get("code") or "") for pool, answer in seen.items()} == {
        "gpu": ("ok", ""),
        "cpu": ("bad", "mode"),
        "old": ("bad", "absent"),
        "gateway": ("bad", "absent"),
        "none": ("bad", "absent"),
    }
    assert "canary-config" not in str(seen) and f"{kind} {name}" in seen["none"]["found"]


def test_log_of_a_pod_that_starts_is_unknown(cluster, namespace, ask):
    """kubectl tells no error then, and no line."""
    pod(cluster, "gateway-0", {"phase": "Pending"})
    with pytest.raises(Unknown, match="gateway-0 is still starting"):
        ask("G08")


def test_log(cluster, namespace, ask):
    """The API server fetches it from the pod's node, which is a double of a kubelet here. A sidecar makes kubectl write to stderr."""
    told = {}
    keys = (cluster.ca_path, cluster.directory / "apiserver.key")
    with serving(lambda path: (200, told["log"]) if path.startswith("/containerLogs/beta9/gateway-0/main") else (404, "?"), own_address(), keys) as port:
        cluster.make("/api/v1/nodes", {"metadata": {"name": "this-host"}})
        address = [{"type": "InternalIP", "address": own_address()}]
        cluster.patch("/api/v1/nodes/this-host/status", {"status": {"addresses": address, "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}})
        try:
            pod(cluster, "gateway-0", state(), node="this-host", containers=("main", "sidecar"))
            seen = {}
            for name, told["log"] in LINES.items():
                answer = ask("G08")
                seen[name] = (answer["outcome"], answer.get("code") or "")
                assert "\x1b" not in answer["found"]
        finally:
            cluster.call("DELETE", "/api/v1/nodes/this-host")
    fine = ("ok", "")
    assert seen == {
        "healthy": fine,
        "coloured": ("bad", "k3s"),
        "json": ("bad", ""),
        "other pool": fine,
        "own probe": fine,
        "refused token": fine,
    }


def test_silent_cluster_takes_no_longer_than_its_check(cluster, namespace, ask):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and says nothing
        path = cluster.kubeconfig("silent", ADMIN, "https://127.0.0.1:%d" % silent.getsockname()[1])
        start = time.monotonic()
        with pytest.raises(Unknown, match="did not end within 8 s|timeout|deadline"):
            ask("G09", path)
        assert time.monotonic() - start < 10
