# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at the gateway's side: its Redis, and its cluster through kubectl. Once for all machines of a run.

Probes of one machine take its identity from context.config["machine"]; what they share is read once. Only named, safe
fields of a state are read: the rest of the hash are secrets. Where kubectl or Redis can't be had, the answer is
unknown. A kubectl that failed is no answer, and its warnings, which go to stderr, are none either.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
import ssl
import time
from urllib.parse import unquote, urlsplit
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils import grammar
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import (
    Context,
    Ran,
    Unknown,
    bad,
    not_applicable,
    ok,
    warn,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import tailnet
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api

LABELS = ("app=gateway", "app.kubernetes.io/component=gateway")
SERVICES = ("gateway", "beta9-gateway")
NODEPORTS = ("beta9-gateway-nodeport", "gateway", "beta9-gateway")
# Where installations keep the gateway's configuration: by hand and k3d in a ConfigMap, kustomize and helm in a Secret
CONFIGURATIONS = (
    ("configmap", "gateway-config"),
    ("configmap", "beta9-config"),
    ("secret", "beta9-config"),
    ("secret", "beta9-config-helm"),
)
REDIS_LABEL = "app.kubernetes.io/name=redis"
SAFE_FIELDS = (
    "machine_id",
    "pool_name",
    "provider_name",
    "status",
    "hostname",
    "gpu",
    "gpu_count",
    "last_keepalive",
    "created",
    "agent_version",
)


class Redis:
    """The few commands that are needed, over a socket (RESP). Read-only."""

    def __init__(self, url: str, timeout: float = 3.0) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port or 6379), timeout=timeout)
        if parts.scheme == "rediss":
            self._socket = ssl.create_default_context().wrap_socket(self._socket, server_hostname=parts.hostname)
        self._stream = self._socket.makefile("rb")
        if parts.password:
            self.call("AUTH", *map(unquote, filter(None, (parts.username, parts.password))))
        if parts.path.strip("/"):
            self.call("SELECT", parts.path.strip("/"))

    def call(self, *words: object) -> Any:
        """Send one command; return its parsed reply."""
        message = b"*%d\r\n" % len(words)
        for word in words:
            data = str(word).encode()
            message += b"$%d\r\n%s\r\n" % (len(data), data)
        self._socket.sendall(message)
        return self._reply()

    def _reply(self) -> Any:
        line = self._stream.readline().rstrip(b"\r\n")
        if not line:
            raise OSError("Redis closed the connection")
        kind, rest = line[:1], line[1:].decode("utf-8", "replace")
        if kind == b"-":
            raise OSError("Redis: " + rest)
        if kind == b":":
            return int(rest)
        if kind == b"$":
            size = int(rest)
            return None if size < 0 else self._stream.read(size + 2)[:-2].decode("utf-8", "replace")
        if kind == b"*":
            return [self._reply() for _entry in range(int(rest))]
        return rest


class RedisInPod:
    """The same commands through redis-cli in the pod."""

    def __init__(self, context: Context, pod: dict[str, Any]) -> None:
        names = [container["name"] for container in pod.get("spec", {}).get("containers", [])]
        self._context, self._pod = context, pod["metadata"]["name"]
        self._container = "redis" if "redis" in names or not names else names[0]  # a sidecar may come first

    def call(self, *words: object) -> Any:
        """Run redis-cli with JSON output in the pod."""
        ran = kubectl(
            self._context, "exec", self._pod, "-c", self._container, "--", "redis-cli", "--json", *map(str, words)
        )
        if ran.status != 0 and CANT_ASK.search(ran.errors):
            raise Unknown(complaint(ran))
        if ran.status != 0:
            raise OSError(f"redis-cli: {(ran.output.strip() or complaint(ran))[:200]}")
        try:
            return json.loads(ran.output)
        except ValueError:
            raise OSError(f"redis-cli: {ran.output.strip()[:200]}") from None


CANT_ASK = re.compile(
    r"\((?:Forbidden|Unauthorized)\)|is forbidden|You must be logged in|the server has asked for the client to "
    r"provide credentials"
    r"|Unable to connect to the server|The connection to the server|no configuration has been provided"
)


def complaint(ran: Ran) -> str:
    """Return the last line that kubectl wrote to stderr besides its warnings."""
    lines = [
        line.strip()
        for line in ran.errors.splitlines()
        if line.strip() and not line.startswith(("Warning:", "Defaulted container"))
    ]
    return f"kubectl: {(lines or [f'exit status {ran.status} without a word'])[-1][:200]}"


def kubectl(context: Context, *words: str, timeout: float = 8.0) -> Ran:
    """Run kubectl in the gateway's namespace. Its caller decides what a failure means; output is stdout alone."""
    config = context.config
    if not config.get("kube"):
        raise Unknown("no access to the gateway's cluster was configured (health_check_kube)")
    command = ["kubectl"] + (["--kubeconfig", config["kubeconfig"]] if config.get("kubeconfig") else [])
    return context.run(*command, "--request-timeout=6s", "-n", config["namespace"], *words, timeout=timeout, apart=True)


def objects(context: Context, kind: str, name: str | None = None, label: str = "") -> list[dict[str, Any]]:
    """Return the items of a kubectl get, by name (at most one) or by label; [] when there are none, Unknown when
    kubectl could not tell."""

    def read() -> Any:
        ran = kubectl(context, "get", kind, *((name, "--ignore-not-found") if name else ("-l", label)), "-o", "json")
        if ran.status != 0:
            raise Unknown(complaint(ran))
        if name and not ran.output.strip():
            return []
        try:
            found = json.loads(ran.output)
            items = found["items"] if "items" in found else [found]
            return [item for item in items if isinstance(item, dict) and "metadata" in item]
        except (ValueError, TypeError):
            raise Unknown(f"kubectl get {kind} answered no JSON") from None

    return context.shared(f"kubectl {kind} {name} {label}", read)


def alive(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the pods that work or shall: neither at their end nor being deleted."""
    return [
        pod
        for pod in pods
        if not pod["metadata"].get("deletionTimestamp")
        and pod.get("status", {}).get("phase") not in ("Failed", "Succeeded")
    ]


def redis(context: Context) -> Redis | RedisInPod:
    """Return a way to ask the gateway's Redis."""

    def connect() -> Redis | RedisInPod:
        if context.config.get("redis_url"):
            try:
                url = grammar.redis_url(context.config["redis_url"], "beta9_redis_url")
            except grammar.InvalidField as error:  # says nothing of what it may hold
                raise Unknown(str(error)) from None
            password = urlsplit(url).password or ""
            context.secrets.extend({url, password, unquote(password)})
            return Redis(url)
        found = alive(objects(context, "pods", label=REDIS_LABEL))
        if not found:
            raise Unknown(f"no Redis pod ({REDIS_LABEL}) was found")
        return RedisInPod(context, found[0])

    return context.shared("redis", connect)


def ask(context: Context, *words: object) -> Any:
    """Ask Redis; Unknown if it does not answer, because G09 tells of that. One at a time: the connection is shared."""

    def read() -> Any:
        try:
            return redis(context).call(*words)
        except OSError as error:
            raise Unknown(f"Redis: {error}") from None

    with context.redis_lock:
        return context.shared(f"redis:{words}", read)


def state_key(context: Context, pool: str | None = None) -> str:
    """Return the key of the machine's state."""
    machine = context.config["machine"]
    return f"provider:machine:{machine['provider']}:{pool or machine['pool']}:{machine['machine_id']}"


def state_of(context: Context) -> dict[str, Any]:
    """Return the machine's state, safe fields only; {} when there is none."""
    values = ask(context, "HMGET", state_key(context), *SAFE_FIELDS)
    return {name: value for name, value in zip(SAFE_FIELDS, values) if value is not None}


def ping(context: Context) -> Observation:
    """G09: PING."""
    try:
        with context.redis_lock:
            answer = redis(context).call("PING")
    except OSError as error:
        return bad("", str(error))
    return ok("PONG") if answer == "PONG" else bad("", f"PING is answered {answer!r}")


def state(context: Context) -> Observation:
    """M02: the state under the machine's pool, else under another."""
    found = state_of(context)
    if found:
        status = found.get("status")
        data: dict[str, Any] = {"gpu_count": int(found.get("gpu_count") or 0), "owner": owner_of(context)}
        return ok("ready", **data) if status == "ready" else bad("", f"status {status}", **data)
    machine = context.config["machine"]
    for pool in sorted(index_pools(context)):
        if pool != machine["pool"] and ask(context, "EXISTS", state_key(context, pool)):
            return bad("other_pool", f"found in pool {pool}")
    return bad("absent", f"no key {state_key(context)}")


def index_pools(context: Context) -> set[str]:
    """Return the names of all pools that have machines, by SCAN."""
    cursor = "0"
    pools: set[str] = set()
    for _round in range(1000):
        cursor, keys = ask(context, "SCAN", cursor, "MATCH", "provider:machine:*:machine_index", "COUNT", "500")
        pools.update(key.split(":")[3] for key in keys)
        if str(cursor) == "0":
            break
    return pools


def owner_of(context: Context) -> str | None:
    """Return a keyed hash of the token that the gateway made for this machine, "" where it keeps none. The token stays
    here."""
    token, key = ask(context, "HGET", state_key(context), "registration_token"), context.config["machine"].get("nonce")
    if not key:
        return None
    if not token:
        return ""
    context.secrets.append(token)
    return hmac.new(key.encode(), token.encode(), hashlib.sha256).hexdigest()


def ttl(context: Context) -> Observation:
    """M03: the time to live, and the last keepalive in the state."""
    left = ask(context, "TTL", state_key(context))
    if left == -2:
        raise Unknown("there is no state")
    found = state_of(context)
    age = time.time() - float(found.get("last_keepalive") or 0)
    if found.get("status") == "ready" and age > 2.5 * protocol.KEEPALIVE_INTERVAL_SECONDS + 15:
        return bad("", f"{int(left)} s left, last keepalive {int(age)} s ago")
    return ok(f"{int(left)} s left")


def index(context: Context) -> Observation:
    """M04: the pool's index and the states."""
    machine = context.config["machine"]
    keys = ask(context, "SMEMBERS", f"provider:machine:{machine['provider']}:{machine['pool']}:machine_index") or []
    if state_of(context) and state_key(context) not in keys:
        return bad("missing", f"{state_key(context)} is not in the index")
    orphans = [key for key in keys if not ask(context, "EXISTS", key)]
    return (
        warn("", f"{len(orphans)} of {len(keys)} entries without a state", "\n".join(orphans[:10]))
        if orphans
        else ok(f"{len(keys)} entries")
    )


def resolves(context: Context) -> Observation:
    """V05: the registered host name, where the gateway runs."""
    return tailnet.resolves(context, state_of(context).get("hostname"))


def identity(context: Context) -> Observation:
    """V02: the certificate at the worker's address is this worker's."""
    machine = context.config["machine"]
    if not machine.get("k3s"):
        return not_applicable("k3s is not part of this worker's configuration")
    name = state_of(context).get("hostname")
    if not name:
        raise Unknown("the machine has registered no host name")
    try:
        shown = api.certificate(name, protocol.K3S_API_PORT, 4)
    except OSError as error:
        return bad("refused", f"{name}:{protocol.K3S_API_PORT}: {error}")
    own = machine.get("k3s_certificate")
    if own and own != shown:
        return bad("other", "the certificate is not this worker's")
    return ok("this worker's certificate" if own else "a certificate; the worker's own is not known")


def peer(context: Context) -> Observation:
    """V04: the path to the worker in the tailnet. Its registered name helps to find it, and is not needed."""
    try:
        name = state_of(context).get("hostname", "")
    except Unknown:
        name = ""
    return tailnet.path(context, name)


def access(context: Context) -> Observation:
    """G01: whether pods and logs are allowed, and exec where Redis is asked in its pod."""
    denied = []
    for verb, resource in (("list", "pods"), ("get", "pods/log")) + (
        () if context.config.get("redis_url") else (("create", "pods/exec"),)
    ):
        ran = kubectl(context, "auth", "can-i", verb, resource)
        answer = ran.output.strip().splitlines()[-1:]
        if answer not in (["yes"], ["no"]):
            raise Unknown(complaint(ran))
        if answer == ["no"]:
            denied.append(f"{verb} {resource}")
    return bad("", "may not " + ", ".join(denied)) if denied else ok("allowed")


def gateway_pods(context: Context) -> tuple[str, list[dict[str, Any]]]:
    """Return the gateway's pods by the first label that finds any."""
    for label in LABELS:
        found = objects(context, "pods", label=label)
        if alive(found):
            return label, alive(found)
    return "", []


def pods(context: Context) -> Observation:
    """G02: readiness and restarts."""
    _label, found = gateway_pods(context)
    if not found:
        return bad("none", f"no pod with label {' or '.join(LABELS)}")
    faults = []
    for pod in found:
        state, name = pod.get("status", {}), pod["metadata"]["name"]
        containers = state.get("containerStatuses") or []
        if not containers:
            faults.append(f"{name}: {state.get('phase', 'no status')}")
        for container in containers:
            waiting = (container.get("state", {}).get("waiting") or {}).get("reason")
            if not container.get("ready"):
                faults.append(f"{name}: {waiting or 'not ready'}")
    return bad("", "; ".join(faults)) if faults else ok(f"{len(found)} ready")


def service(context: Context) -> Observation:
    """G03: the service and its endpoints."""
    for name in SERVICES:
        if objects(context, "service", name):
            slices = objects(context, "endpointslices", label=f"kubernetes.io/service-name={name}")
            ends = [end for entry in slices for end in entry.get("endpoints") or []]
            # a condition that is not told counts as true, says the API
            ready = [
                address
                for end in ends
                if (end.get("conditions") or {}).get("ready") is not False
                for address in end.get("addresses") or []
            ]
            return ok(f"{name}: {len(ready)} endpoints") if ready else bad("", f"service {name} has no ready endpoint")
    raise Unknown(f"no service of a known name ({', '.join(SERVICES)})")


def nodeport(context: Context) -> Observation:
    """Part of G04: the NodePort of the gateway's HTTP port."""
    for name in NODEPORTS:
        for found in objects(context, "service", name):
            for port in found.get("spec", {}).get("ports", []):
                if port.get("nodePort") and port.get("port") == 1994:
                    return ok(f"{port['nodePort']}", nodeport=port["nodePort"])
    raise Unknown("no NodePort service of a known name has port 1994")


# The API server's own words where it could ask the gateway, but the gateway did not answer, or answered with an error
UNANSWERED = re.compile(
    r"no endpoints available|error trying to reach service|an error on the server|could not find the requested resource"
    r"|currently unable to handle the request|unable to return a response in the time allotted"
)


def direct(context: Context) -> Observation:
    """G05: the health route through the API server's service proxy."""
    for name in SERVICES:
        if objects(context, "service", name):
            ran = kubectl(
                context,
                "get",
                "--raw",
                f"/api/v1/namespaces/{context.config['namespace']}/services/{name}:1994/proxy{protocol.HEALTH_PATH}",
            )
            if ran.status == 0:
                return ok("ok") if '"ok"' in ran.output else bad("", f"answered {ran.output.strip()[:200]}")
            if UNANSWERED.search(ran.errors):
                return bad("", complaint(ran))
            raise Unknown(complaint(ran))
    raise Unknown(f"no service of a known name ({', '.join(SERVICES)})")


def configuration(context: Context) -> tuple[str, str]:
    """Return (where, text) of the gateway's configuration. It holds secrets: nothing of the text may be shown."""
    for kind, name in CONFIGURATIONS:
        for entry in objects(context, kind, name):
            texts = [value for value in (entry.get("data") or {}).values() if isinstance(value, str)]
            if kind == "secret":
                texts = [base64.b64decode(value).decode("utf-8", "replace") for value in texts]
            if any("pools" in text for text in texts):
                return f"{kind} {name}", "\n".join(texts)
    raise Unknown(
        f"none of the known places has the gateway's configuration: {', '.join(map(' '.join, CONFIGURATIONS))}"
    )


POOLS = re.compile(r"^( *)pools:[ \t]*\n((?:\1[ \t]+.*\n|[ \t]*\n|[ \t]*#.*\n)*)", re.M)


def pool(context: Context) -> Observation:
    """G06: the pool in the gateway's configuration."""
    name = context.config["machine"]["pool"]
    place, text = configuration(context)
    pools = POOLS.search(text + "\n")
    if not pools:
        raise Unknown(f"{place} has no worker.pools that can be read")
    block = re.search(
        rf"^(\s*)[\"']?{re.escape(name)}[\"']?:\s*(\{{.*\}})?\s*\n((?:\1\s+.*\n?)*)", pools.group(2), re.M
    )
    if not block:
        return bad("absent", f"no pool {name} in {place}")
    if not re.search(r"mode[\"']?:\s*[\"']?external", block.group(0)):
        return bad("mode", f"pool {name} is not mode external")
    return ok(f"pool {name} is there")


def status(context: Context) -> Observation:
    """G07: the gateway's own word, and which of its triggers."""
    name = context.config["machine"]["pool"]
    values = dict(
        zip(
            ("status", "pending_workers"),
            ask(context, "HMGET", f"workerpool:{name}:state", "status", "pending_workers"),
        )
    )
    word = (values["status"] or "").lower()
    if not word or word == "unknown":
        raise Unknown(f"the gateway has no state of pool {name}")
    if word != "degraded":
        return ok(word)
    ready = any(
        ask(context, "HGET", key, "status") == "ready"
        for key in ask(
            context, "SMEMBERS", f"provider:machine:{context.config['machine']['provider']}:{name}:machine_index"
        )
        or []
    )
    if not ready:
        return bad("no_ready_machine", "degraded, no ready machine")
    return bad("pending_workers" if int(values["pending_workers"] or 0) else "", "degraded")


COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# As consoles have it (ERR at its place, the level's, before any field), as JSON has it, and a panic of Go's runtime
LEVEL_ERROR = re.compile(
    r"^(?:(?!\b(?:TRC|DBG|INF|WRN|TRACE|DEBUG|INFO|WARN)\b)[^=])*\b(?:ERR|FTL|PNC|ERROR|FATAL|PANIC)\b"
    r"|\"level\":\s*\"(?:error|fatal|panic)\"|^panic: |^fatal error: "
)
K3S_CALL = re.compile(r":6443\b|\bk8s api\b|\bbatch/v1\b|\bjobs?\b", re.I)
# A02 asks for the keepalive route with an empty request, which is refused
OWN_PROBE = re.compile(r"(?=.*/machine/keepalive\b)(?=.*\b400\b)")
POOL_NAME = re.compile(r"\bpool_name(?:=|\":\s*)\"?([^\s\",}]+)")


def pool_of(line: str) -> str | None:
    """Return the pool that a line of the gateway's log names, or None."""
    match = POOL_NAME.search(line)
    return match.group(1) if match else None


def log(context: Context) -> Observation:
    """G08: the last ten minutes of the gateway's log."""
    label, found = gateway_pods(context)
    if not found:
        raise Unknown("no gateway pod")
    if all(pod.get("status", {}).get("phase") == "Pending" for pod in found):
        raise Unknown(f"{', '.join(pod['metadata']['name'] for pod in found)} is still starting, and has no log")
    ran = context.shared("gateway log", lambda: kubectl(context, "logs", "-l", label, "--since=10m", "--tail=2000"))
    if ran.status != 0:
        raise Unknown(complaint(ran))
    name = context.config["machine"]["pool"]
    lines = [COLOUR.sub("", line).strip() for line in ran.output.splitlines()]
    mine = [line for line in lines if pool_of(line) in (None, name)]
    errors = [line for line in mine if LEVEL_ERROR.search(line) and not OWN_PROBE.search(line)]
    for hits, code in (
        ([line for line in errors if K3S_CALL.search(line)], "k3s"),
        ([line for line in errors if "provider not implemented" not in line], ""),
    ):
        if hits:
            return bad(code, hits[-1][:300], "\n".join(hits[-5:]))
    provider = [line for line in mine if "provider not implemented" in line]
    if provider and context.config["machine"].get("ready"):
        return bad("provider", provider[-1].strip()[:300])
    return ok("no error" + (", 'provider not implemented' is expected for external pools" if provider else ""))


ONCE = {"G01": access, "G09": ping, "G02": pods, "G03": service, "G05": direct, "nodeport": nodeport}
PER_MACHINE = {
    "M02": state,
    "M03": ttl,
    "M04": index,
    "V05": resolves,
    "V02": identity,
    "V04": peer,
    "G06": pool,
    "G07": status,
    "G08": log,
}
