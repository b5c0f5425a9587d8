# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at k3s on the worker, and at the GPUs that it offers."""

from __future__ import annotations

import json
import re
import time
import uuid
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import (
    CANARY_SECONDS,
    Context,
    Missing,
    Ran,
    Unknown,
    bad,
    not_applicable,
    ok,
    warn,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import agent, tunnel
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation

JOBS = "/apis/batch/v1/namespaces/default/jobs"


def installed(context: Context) -> Observation:
    """K01: the binary."""
    try:
        ran = context.run("k3s", "--version")
    except Missing:
        return bad("", "there is no k3s")
    return ok(ran.output.splitlines()[0]) if ran.status == 0 and ran.output else bad("", ran.output.strip()[:200])


def active(context: Context) -> Observation:
    """K02: the unit."""
    unit = tunnel.unit_of(context, "k3s.service")
    if unit.load == "masked":
        return bad("masked", "k3s.service is masked")
    return ok("active") if unit.active == "active" else bad("", f"the unit is {unit.active}")


def kubectl(context: Context, *words: str, **options: Any) -> Ran:
    """Return the answer of k3s kubectl, warnings and errors apart; Unknown where it may not be run."""
    ran = context.run("k3s", "kubectl", *api.KUBECTL_OPTIONS, *words, timeout=options.get("timeout", 8), apart=True)
    if "permission denied" in ran.errors:
        raise Unknown("k3s kubectl: permission denied")
    return ran


def ready(context: Context) -> Observation:
    """K03: /readyz."""
    ran = kubectl(context, "get", "--raw", "/readyz?verbose")
    if ran.status != 0:
        return bad("", ", ".join(api.failing_parts(ran.errors)) or api.complaint(ran.errors), ran.errors)
    return ok("ok", certificate=certificate())


def certificate() -> str | None:
    """Return the SHA-256 of the certificate that k3s shows here, or None. The gateway's side compares it with what it
    is shown."""
    try:
        return api.certificate("127.0.0.1", 6443, 3)
    except OSError:
        return None


def nodes(context: Context) -> list[dict[str, Any]]:
    """Return the nodes of the worker's cluster."""

    def read() -> list[dict[str, Any]]:
        ran = kubectl(context, "get", "nodes", "-o", "json")
        if ran.status != 0:  # with a token that is refused, an empty list is on stdout all the same
            raise Unknown(f"k3s kubectl get nodes: {api.complaint(ran.errors)}")
        try:
            return json.loads(ran.output)["items"]
        except (ValueError, KeyError):
            raise Unknown("k3s kubectl get nodes: no list of nodes") from None

    return context.shared("nodes", read)


def node(context: Context) -> Observation:
    """K04: this host's node and its Ready condition, and nodes that an earlier name of the host left over."""
    own, others = api.own_node(nodes(context))
    if not own:
        return bad("", f"the cluster has no node of this host{', only ' + ', '.join(others) if others else ''}")
    for condition in own["status"].get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] != "True":
            return bad("", f"{condition.get('reason', 'not ready')}: {condition.get('message', '')}")
    if others:
        return warn(
            "stale",
            f"{own['metadata']['name']} is Ready; left over from another name of this host: {', '.join(others)}",
        )
    return ok(f"{own['metadata']['name']} is Ready")


def ask_k3s(context: Context, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    """Return (status, document) of a call to the k3s API with the service account's token. Raises Unknown when k3s does
    not answer."""
    try:
        return api.ask(method, path, agent.secret_of(context, agent.K3S_TOKEN_FILE), body, timeout=4)
    except OSError as error:
        raise Unknown(f"k3s did not judge the token: {error}") from None


def service_account(context: Context) -> Observation:
    """K05: what the service account's own token may do, asked of k3s itself."""
    if not agent.secret_of(context, agent.K3S_TOKEN_FILE):
        return bad("missing", f"{agent.K3S_TOKEN_FILE} does not exist")
    denied = []
    for verb, group, resource in (
        ("create", "batch", "jobs"),
        ("list", "batch", "jobs"),
        ("delete", "batch", "jobs"),
        ("list", "", "pods"),
    ):
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {"namespace": "default", "verb": verb, "group": group, "resource": resource}
            },
        }
        status, answer = ask_k3s(context, "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        if status == 401:
            return bad("invalid", "k3s answers 401")
        if status not in (200, 201):
            raise Unknown(f"k3s did not judge the token: HTTP {status}")
        if not answer["status"]["allowed"]:
            denied.append(f"{verb} {resource}")
    return bad("", "may not " + ", ".join(denied)) if denied else ok("may create, list and delete jobs, and list pods")


def job(name: str, image: str, gpus: int) -> dict[str, Any]:
    """Return a Job that does nothing, made as the gateway makes its own: host network, a GPU where the worker has
    one."""
    container: dict[str, Any] = {"name": "canary", "image": image, "command": ["true"]}
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": "1"}}
    pod = {"restartPolicy": "Never", "hostNetwork": True, "containers": [container]}
    spec: dict[str, Any] = {"backoffLimit": 0, "ttlSecondsAfterFinished": 60, "activeDeadlineSeconds": CANARY_SECONDS}
    labels = {"app": "beta9-canary", "beta9-canary": name}
    spec["template"] = {"metadata": {"labels": labels}, "spec": pod}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels}, "spec": spec}


def reached(pod: dict[str, Any]) -> tuple[str, str]:
    """Return (code, text): how far a pod came, and why no further."""
    status = pod.get("status") or {}
    for entry in status.get("containerStatuses") or []:
        waiting = (entry.get("state") or {}).get("waiting") or {}
        if "Image" in waiting.get("reason", ""):
            return "image", f"{waiting['reason']}: {waiting.get('message', '')}"
        if waiting:
            return "", f"waiting: {waiting.get('reason')} {waiting.get('message', '')}"
        ended = (entry.get("state") or {}).get("terminated") or {}
        if ended and ended.get("reason") != "Completed":
            return (
                "ended",
                f"{ended.get('reason', 'terminated')}: exit status {ended.get('exitCode')} {ended.get('message', '')}",
            )
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return "unschedulable", f"{condition.get('reason')}: {condition.get('message', '')}"
    return "", f"its pod is {status.get('phase', 'unknown')}"


def canary(context: Context) -> Observation:
    """G10 (active): start a Job as the gateway would, wait for its end, delete it."""
    if not agent.secret_of(context, agent.K3S_TOKEN_FILE):
        raise Unknown(f"{agent.K3S_TOKEN_FILE} does not exist")
    name = f"beta9-canary-{uuid.uuid4().hex[:8]}"
    gpus = records.offered_gpus(context.config["gpus"] or context.shared("pci", linux.nvidia_pci_count))
    status, answer = ask_k3s(context, "POST", JOBS, job(name, context.config["canary_image"], gpus))
    if status == 401:
        raise Unknown("k3s does not know the token")
    if status not in (200, 201, 202):
        return bad("refused", f"k3s answers {status}: {answer.get('message', '')}")
    try:
        seen = follow(context, name)
    finally:
        ask_k3s(context, "DELETE", f"{JOBS}/{name}?propagationPolicy=Background")
    # GPUs that the node offers and that none is free of: other pods use them
    if (
        seen.get("code") == "unschedulable"
        and "Insufficient nvidia.com/gpu" in seen["found"]
        and gpus
        and offered(context) >= gpus
    ):
        raise Unknown(
            f"busy: other pods use all {offered(context)} GPUs, so that the canary got none. Try again when one is free"
        )
    return seen


def follow(context: Context, name: str) -> Observation:
    """Return what became of the Job."""
    end, code, found = time.monotonic() + CANARY_SECONDS, "", "no pod was made"
    while time.monotonic() < end:
        _status, jobs = ask_k3s(context, "GET", f"{JOBS}?labelSelector=beta9-canary%3D{name}")
        state = (jobs.get("items") or [{}])[0].get("status") or {}
        if state.get("succeeded"):
            return ok("completed")
        _status, pods = ask_k3s(context, "GET", f"/api/v1/namespaces/default/pods?labelSelector=beta9-canary%3D{name}")
        if pods.get("items"):
            code, found = reached(pods["items"][0])
        if state.get("failed") or code:
            return bad(code, found)
        time.sleep(0.5)
    return bad("", f"not complete after {int(CANARY_SECONDS)} s; {found}")


def kernel(context: Context) -> Observation:
    """K06: k3s' own check."""
    ran = context.run("k3s", "check-config", timeout=18)
    text = re.sub(r"\x1b\[[0-9;]*m", "", ran.output)
    failing = re.findall(r"^\s*- (.+?): .*\(fail\)", text, re.M)
    # of a cluster of several hosts; who may reach this one, V02 tells
    wanting = [part for part in failing if not re.match(r"(TCP|UDP) Port", part)]
    if wanting:
        return bad("", ", ".join(wanting), text[-2000:])
    if ran.status != 0 and not failing:
        lines = [line.strip() for line in text.splitlines() if "error" in line] or [f"exit status {ran.status}"]
        raise Unknown(f"k3s check-config: {lines[0][:200]}")
    return ok("complete")


def offered(context: Context) -> int:
    """Return how many GPUs this host's node offers."""
    own, _others = api.own_node(nodes(context))
    return int(own["status"].get("allocatable", {}).get("nvidia.com/gpu", 0)) if own else 0


def allocatable(context: Context) -> Observation:
    """U07: what the node offers."""
    expected = records.offered_gpus(context.config["gpus"] or context.shared("pci", linux.nvidia_pci_count))
    if not expected:
        return not_applicable("no GPU expected")
    found = offered(context)
    return ok(f"{found}") if found >= expected else bad("", f"{found}, expected {expected}")


PROBES = {
    "U07": allocatable,
    "K01": installed,
    "K02": active,
    "K03": ready,
    "K04": node,
    "K05": service_account,
    "K06": kernel,
    "G10": canary,
}
