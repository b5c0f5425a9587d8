"""k3s as its commands and its API tell of it."""

from __future__ import annotations

import json

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api as k3s_api
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import agent, k3s

from tests.unit.health.recorded import Context, told

KUBECTL = " ".join(("k3s kubectl", *k3s_api.KUBECTL_OPTIONS, ""))
TOKEN = {agent.K3S_TOKEN_FILE: "k3s-t0ken-0123456789\n"}
NODE = {
    "metadata": {"name": "gpu-1"},
    "status": {
        "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
        "allocatable": {"nvidia.com/gpu": "2"},
    },
}


def nodes(*entries):
    return {KUBECTL + "get nodes": json.dumps({"items": list(entries)})}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("k3s version v1.31.2+k3s1 (6da20424)\ngo version go1.22.8\n", ("ok", "")),
        (None, ("bad", "")),
        ((1, "exec format error"), ("bad", "")),
        ((0, ""), ("bad", "")),
    ],
)
def test_installed(answer, expected):
    seen = k3s.installed(Context({"k3s --version": answer}))
    assert told(seen) == expected and (seen["outcome"] != "ok" or seen["found"] == "k3s version v1.31.2+k3s1 (6da20424)")


@pytest.mark.parametrize(
    ("load", "active", "expected"),
    [
        ("loaded", "active", ("ok", "")),
        ("loaded", "activating", ("bad", "")),
        ("loaded", "failed", ("bad", "")),
        ("masked", "inactive", ("bad", "masked")),
    ],
)
def test_active(load, active, expected):
    seen = k3s.active(Context({"systemctl show": "Id=k3s.service\nLoadState=%s\nActiveState=%s\n" % (load, active)}))
    assert told(seen) == expected and (active in seen["found"] or load in seen["found"])


ONE_LINE = r'Error from server (InternalError): an error on the server ("[+]ping ok\n[-]etcd failed: reason withheld\n[-]informer-sync failed") has prevented'
READYZ = "[+]ping ok\n[-]etcd failed: reason withheld\n[+]informer-sync ok\nreadyz check failed\n"


@pytest.mark.parametrize(
    ("answer", "expected", "found"),
    [
        ((0, "[+]ping ok\n[+]etcd ok\nreadyz check passed\n"), ("ok", ""), "ok"),
        ((1, READYZ), ("bad", ""), "etcd"),
        ((1, "Warning: deprecated\n" + ONE_LINE), ("bad", ""), "etcd, informer-sync"),
        ((1, "The connection to the server 127.0.0.1:6443 was refused\n"), ("bad", ""), "was refused"),
        ((1, ""), ("bad", ""), "no answer"),
    ],
)
def test_ready(monkeypatch, answer, expected, found):
    monkeypatch.setattr(k3s, "certificate", lambda: "c0ffee")
    seen = k3s.ready(Context({KUBECTL + "get --raw /readyz?verbose": answer}))
    assert told(seen) == expected and found in seen["found"] and (seen["outcome"] != "ok" or seen["data"] == {"certificate": "c0ffee"})


def test_ready_without_rights_is_unknown():
    with pytest.raises(engine.Unknown, match="permission denied"):
        k3s.ready(Context({"k3s kubectl": (1, 'time="..." error: open /etc/rancher/k3s/k3s.yaml: permission denied')}))


def test_certificate(monkeypatch):
    monkeypatch.setattr(k3s.api, "certificate", lambda host, port, seconds: f"{host} {port}")
    assert k3s.certificate() == "127.0.0.1 6443"

    def refused(*_address):
        raise ConnectionRefusedError

    monkeypatch.setattr(k3s.api, "certificate", refused)
    assert k3s.certificate() is None


@pytest.mark.parametrize(
    ("entries", "expected", "found"),
    [
        ([NODE], ("ok", ""), "gpu-1 is Ready"),
        ([NODE, dict(NODE, metadata={"name": "earlier"})], ("warn", "stale"), "earlier"),
        (
            [dict(NODE, metadata={"name": "earlier"}), dict(NODE, metadata={"name": "other"})],
            ("bad", ""),
            "no node of this host, only earlier, other",
        ),
        (
            [
                {
                    "metadata": {"name": "gpu-1"},
                    "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "no CNI"}]},
                }
            ],
            ("bad", ""),
            "KubeletNotReady: no CNI",
        ),
        (
            [{"metadata": {"name": "gpu-1"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}],
            ("bad", ""),
            "not ready",
        ),
        ([], ("bad", ""), "no node"),
    ],
)
def test_node(monkeypatch, entries, expected, found):
    monkeypatch.setattr(k3s_api, "node_name", lambda: "gpu-1")
    seen = k3s.node(Context(nodes(*entries)))
    assert told(seen) == expected and found in seen["found"]


def test_nodes_that_can_not_be_read():
    for answer in ((1, "Unable to connect"), (0, "{}"), (1, json.dumps({"items": [NODE]}))):
        with pytest.raises(engine.Unknown, match="get nodes"):
            k3s.node(Context({KUBECTL + "get nodes": answer}))


@pytest.mark.parametrize(
    ("gpus", "offered", "expected"),
    [(2, "2", "ok"), (2, "1", "bad"), (1, "2", "ok"), (2, None, "bad"), (None, "2", "ok"), (3, "2", "bad")],
)
def test_allocatable(monkeypatch, gpus, offered, expected):
    monkeypatch.setattr(linux, "nvidia_pci_count", lambda: 2)
    entry = {"metadata": {"name": "gpu-1"}, "status": {"allocatable": {"nvidia.com/gpu": offered} if offered else {}}}
    assert k3s.allocatable(Context(nodes(entry), gpus=gpus))["outcome"] == expected


def test_allocatable_of_a_host_without_gpus(monkeypatch):
    monkeypatch.setattr(linux, "nvidia_pci_count", lambda: 0)
    assert k3s.allocatable(Context(nodes(NODE)))["outcome"] == "not_applicable"


@pytest.fixture
def api(monkeypatch):
    """Return (calls, answers): what is asked of the k3s API, and what it says, by the beginning of METHOD PATH."""
    calls, answers = [], {}

    def ask(method, path, token, body, timeout):
        calls.append((method, path, token, body))
        answer = answers[next(key for key in answers if ("%s %s" % (method, path)).startswith(key))]
        answer = answer(body) if callable(answer) else answer
        if isinstance(answer, OSError):
            raise answer
        return answer

    monkeypatch.setattr(k3s_api, "ask", ask)
    monkeypatch.setattr(k3s.time, "sleep", lambda seconds: None)
    return calls, answers


def test_service_account(api):
    calls, answers = api
    answers["POST"] = (201, {"status": {"allowed": True}})
    assert told(k3s.service_account(Context(files=TOKEN))) == ("ok", "")
    attributes = [call[3]["spec"]["resourceAttributes"] for call in calls]
    assert [(entry["verb"], entry["group"], entry["resource"]) for entry in attributes] == [
        ("create", "batch", "jobs"), ("list", "batch", "jobs"), ("delete", "batch", "jobs"), ("list", "", "pods")
    ]  # fmt: skip
    assert {entry["namespace"] for entry in attributes} == {"default"} and {call[2] for call in calls} == {"k3s-t0ken-0123456789"}


def test_service_account_that_may_not(api):
    api[1]["POST"] = lambda body: (201, {"status": {"allowed": body["spec"]["resourceAttributes"]["verb"] != "delete"}})
    seen = k3s.service_account(Context(files=TOKEN))
    assert told(seen) == ("bad", "") and seen["found"] == "may not delete jobs"


@pytest.mark.parametrize(("answer", "code"), [((401, {}), "invalid"), ((500, {}), None), (OSError("timed out"), None)])
def test_service_account_that_is_not_judged(api, answer, code):
    api[1]["POST"] = answer
    if code:
        assert told(k3s.service_account(Context(files=TOKEN))) == ("bad", code)
    else:
        with pytest.raises(engine.Unknown, match="did not judge"):
            k3s.service_account(Context(files=TOKEN))


def test_service_account_without_a_token(api):
    for files in ({}, {agent.K3S_TOKEN_FILE: "\n"}):
        assert told(k3s.service_account(Context(files=files))) == ("bad", "missing")
    asked = Context(files=TOKEN)
    agent.secret_of(asked, agent.K3S_TOKEN_FILE)
    assert "t0ken" not in asked.redact("k3s-t0ken-0123456789")


def canary(api, **answers):
    calls, known = api
    known.update({"POST": (201, {}), "DELETE": (200, {})}, **{"GET %s" % path: answer for path, answer in answers.items()})
    return k3s.canary(Context(files=TOKEN, gpus=1, canary_image="busybox:stable")), calls


JOBS, PODS = k3s.JOBS, "/api/v1/namespaces/default/pods"


def test_canary_completes_and_is_deleted(api):
    seen, calls = canary(api, **{JOBS: (200, {"items": [{"status": {"succeeded": 1}}]})})
    assert told(seen) == ("ok", "")
    job = calls[0][3]
    assert calls[0][:2] == ("POST", JOBS) and calls[-1][0] == "DELETE" and calls[-1][1].startswith("%s/%s?" % (JOBS, job["metadata"]["name"]))
    pod = job["spec"]["template"]["spec"]
    assert pod["hostNetwork"] is True and pod["restartPolicy"] == "Never" and job["spec"]["backoffLimit"] == 0
    assert pod["containers"][0]["resources"] == {"limits": {"nvidia.com/gpu": "1"}} and pod["containers"][0]["image"] == "busybox:stable"
    assert "resources" not in k3s.job("x", "y", 0)["spec"]["template"]["spec"]["containers"][0]


WAITING = {"containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}}]}


@pytest.mark.parametrize(
    ("job", "pod", "expected"),
    [
        ({}, WAITING, ("bad", "image")),
        (
            {},
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]},
            ("bad", "unschedulable"),
        ),
        ({"failed": 1}, {"phase": "Failed"}, ("bad", "")),
    ],
)
def test_canary_that_does_not_complete(api, job, pod, expected):
    seen, calls = canary(api, **{JOBS: (200, {"items": [{"status": job}]}), PODS: (200, {"items": [{"status": pod}]})})
    assert told(seen) == expected and calls[-1][0] == "DELETE"


def test_canary_that_takes_too_long(api, monkeypatch):
    moments = iter(range(0, 1000, 20))
    monkeypatch.setattr(k3s.time, "monotonic", lambda: float(next(moments)))
    seen, calls = canary(api, **{JOBS: (200, {"items": []}), PODS: (200, {"items": []})})
    assert told(seen) == ("bad", "") and "not complete after 60 s; no pod was made" in seen["found"] and calls[-1][0] == "DELETE"


def test_canary_that_is_refused(api):
    api[1]["POST"] = (403, {"message": "jobs.batch is forbidden"})
    seen = k3s.canary(Context(files=TOKEN, canary_image="x"))
    assert told(seen) == ("bad", "refused") and "forbidden" in seen["found"] and [call[0] for call in api[0]] == ["POST"]
    api[1]["POST"] = (401, {})
    with pytest.raises(engine.Unknown, match="token"):
        k3s.canary(Context(files=TOKEN, gpus=1, canary_image="x"))
    with pytest.raises(engine.Unknown, match="does not exist"):
        k3s.canary(Context(gpus=1, canary_image="x"))


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (WAITING, ("image", "ErrImagePull: no such host")),
        (
            {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]},
            ("", "waiting: ContainerCreating "),
        ),
        ({"containerStatuses": [{"state": {"running": {}}}], "phase": "Running"}, ("", "its pod is Running")),
        ({"conditions": [{"type": "PodScheduled", "status": "True"}], "phase": "Pending"}, ("", "its pod is Pending")),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, ("", "its pod is unknown")),
        (None, ("", "its pod is unknown")),
    ],
)
def test_how_far_a_pod_came(status, expected):
    assert k3s.reached({"status": status}) == expected


CONFIG = "\n- CONFIG_NAMESPACES: enabled\n- \x1b[1mCONFIG_VETH\x1b[m: \x1b[1;31mmissing (fail)\x1b[m\n- CONFIG_IP_SET: missing\n"
PORTS = "- ufw: is enabled\n  - TCP Port 6443 is blocked:  (fail)\n  - TCP Port 2379 is blocked:  (fail)\nSTATUS: 2 (fail)\n"


@pytest.mark.parametrize(
    ("answer", "expected", "found"),
    [
        ((0, "STATUS: pass"), "ok", "complete"),
        ((1, CONFIG), "bad", "CONFIG_VETH"),
        ((3, CONFIG + PORTS), "bad", "CONFIG_VETH"),
        ((2, PORTS), "ok", "complete"),
    ],
)
def test_kernel(answer, expected, found):
    seen = k3s.kernel(Context({"k3s check-config": answer}))
    assert seen["outcome"] == expected and seen["found"] == found


def test_kernel_whose_configuration_can_not_be_read():
    with pytest.raises(engine.Unknown, match="cannot find kernel config"):
        k3s.kernel(
            Context(
                {
                    "k3s check-config": (
                        1,
                        "- links: good\nerror: cannot find kernel config\n  try running this script again",
                    )
                }
            )
        )
