# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway's protocol: payloads, their validation, response shapes, and the one error classifier.

Pure: standard library, no input or output, Python 3.8 and newer. The collection and the agent share this file.

    request    register_payload, keepalive_payload        raise InvalidField before anything is sent
    response   parse_machine_state, parse_machine_list    (machine API: snake_case)
               parse_pools, parse_machines, parse_created (gateway API: proto JSON, int64 as strings)
    error      classify(status, body) -> Problem | None

Units: cpu in millicores, memory in MiB, times in seconds since 1970.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import re
from typing import Any, Callable, NamedTuple, overload

PROVIDER_DEFAULT = "generic"
KEEPALIVE_INTERVAL_SECONDS = 60
KEEPALIVE_MAX_INTERVAL_SECONDS = 240
STATE_TTL_SECONDS = 300
K3S_API_PORT = 6443
WORKER_CORDONED = "disabled"  # the status of a worker that takes nothing more

MACHINE_API = "/api/v1/machine"
GATEWAY_API = "/api/v1/gateway"
HEALTH_PATH = "/api/v1/health"
JOIN_PATH = GATEWAY_API + "/agent/join"  # upstream builds only

INT_METRICS = (
    "total_cpu_available",
    "total_memory_available",
    "total_disk_space_bytes",
    "total_disk_free_bytes",
    "worker_count",
    "container_count",
    "free_gpu_count",
    "cache_capacity",
    "cache_memory_usage",
)
FLOAT_METRICS = ("cpu_utilization_pct", "memory_utilization_pct", "cache_usage_pct", "cache_cpu_usage")
# each by its name in the machine API and, in camel case, in the gateway API
METRICS = {
    name[0] + spelled[1:]: name
    for name in INT_METRICS + FLOAT_METRICS
    for spelled in (name, name.title().replace("_", ""))
}

# What may be read of a machine. Everything else in a state hash may be a secret.
SAFE_STATE_FIELDS = (
    "machine_id",
    "pool_name",
    "provider_name",
    "status",
    "hostname",
    "cpu",
    "memory",
    "gpu",
    "gpu_count",
    "private_ip",
    "last_keepalive",
    "created",
    "agent_version",
    "last_worker_seen",
)


class InvalidField(ValueError):
    """A value that the gateway would not take. Names the field, what was expected and what was found; never a token."""

    def __init__(self, field: str, expected: str, found: str) -> None:
        self.field, self.expected, self.found = field, expected, found
        super().__init__(f"{field}: expected {expected}, found {found}")


class Problem(NamedTuple):
    """One classified answer of the gateway, or of the connection to it."""

    code: str
    cause: str
    remedy: str
    retryable: bool
    status: int | None


class MachineState(NamedTuple):
    """What register and keepalive answer. ttl_seconds is None where the gateway does not say."""

    machine_id: str
    status: str
    pool_name: str
    ttl_seconds: int | None
    last_keepalive: int | None
    agent_version: str


# --- validation -----------------------------------------------------------------------------------------------------


def _text(field: str, value: object, pattern: str, expected: str) -> str:
    text = value.strip() if isinstance(value, str) else value
    if not isinstance(text, str) or not re.match(pattern + r"\Z", text):
        raise InvalidField(field, expected, "nothing" if value in (None, "") else repr(value))
    return text


def machine_id(value: object) -> str:
    """Return a machine id: 8 lower-case hexadecimal characters, as the gateway makes them."""
    return _text("machine_id", value, r"[0-9a-f]{8}", "8 lower-case hexadecimal characters like 1165a9b6")


def pool_name(value: object) -> str:
    """Return the name of a pool. It becomes part of a Redis key, so colons and blanks can't be in it."""
    return _text(
        "pool_name", value, r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "a name of letters, digits, '-', '_' or '.', like gpu"
    )


def provider_name(value: object) -> str:
    """Return the name of a provider."""
    return _text(
        "provider_name", value, r"[a-z0-9][a-z0-9-]{0,62}", "a name of lower-case letters, digits or '-', like generic"
    )


def cpu(value: object) -> str:
    """Return an amount of CPU in millicores, as "8000m"."""
    return _text("cpu", value, r"[1-9][0-9]{0,8}m", "millicores like 8000m")


def memory(value: object) -> str:
    """Return an amount of memory in binary units, as "16Gi" or "32768Mi"."""
    return _text("memory", value, r"[1-9][0-9]{0,8}(Gi|Mi)", "an amount like 16Gi or 32768Mi")


def gpu_count(value: object) -> str:
    """Return a number of GPUs as the string that the gateway wants."""
    text = _text("gpu_count", str(value), r"[0-9]{1,2}", "a whole number from 0 to 64")
    if int(text) > 64:
        raise InvalidField("gpu_count", "a whole number from 0 to 64", text)
    return str(int(text))


def ip_address(value: object, field: str = "private_ip") -> str:
    """Return an IPv4 or IPv6 address in its usual form."""
    given: Any = value.strip() if isinstance(value, str) else value
    try:
        return str(ipaddress.ip_address(given))
    except ValueError:
        raise InvalidField(field, "an IP address like 192.168.1.100", "nothing" if not value else repr(value)) from None


def is_ip(value: object) -> bool:
    """Return whether value is an IP address."""
    try:
        ip_address(value)
    except InvalidField:
        return False
    return True


def hostname(value: object) -> str:
    """Return a host name or IP address: what the gateway puts between https:// and :6443."""
    label = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    try:
        return ip_address(value, "hostname")
    except InvalidField:
        text = _text("hostname", value, f"{label}(\\.{label})*\\.?", "a host name or an IP address")
    if len(text) > 253:
        raise InvalidField("hostname", "at most 253 characters", f"{len(text)}")
    return text


def token(value: object) -> str:
    """Return a token without the blanks around it. The error never shows it."""
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        raise InvalidField("token", "a token", "nothing")
    if not re.match(r"[\x21-\x7e]+\Z", text):
        raise InvalidField(
            "token", "printable characters without blanks", f"something else ({len(text)} characters, not shown)"
        )
    return text


def cpu_millicores(value: int | str) -> int:
    """Return "8000m" or 8000 as 8000 millicores."""
    return int(str(value).rstrip("m") or 0)


def memory_mib(value: int | str) -> int:
    """Return "16Gi", "16384Mi" or 16384 as 16384 MiB."""
    text = str(value)
    return int(text[:-2]) * (1024 if text.endswith("Gi") else 1) if text.endswith("i") else int(text or 0)


# --- requests -------------------------------------------------------------------------------------------------------

# The fields of a register, and what each has to be
REGISTER = {
    "token": token,
    "machine_id": machine_id,
    "hostname": hostname,
    "provider_name": provider_name,
    "pool_name": pool_name,
    "cpu": cpu,
    "memory": memory,
    "gpu_count": gpu_count,
    "private_ip": ip_address,
}


def register_payload(
    token: object,
    machine_id: object,
    hostname: object,
    pool_name: object,
    cpu: object,
    memory: object,
    gpu_count: object,
    private_ip: object,
    provider_name: object = PROVIDER_DEFAULT,
) -> dict[str, str]:
    """Return the body of POST /register: every value a string.

    token is what the gateway will use as bearer token of this host's k3s: the service account's where there is one.
    """
    given: dict[str, object] = {
        "token": token,
        "machine_id": machine_id,
        "hostname": hostname,
        "provider_name": provider_name,
        "pool_name": pool_name,
    }
    given.update(cpu=cpu, memory=memory, gpu_count=gpu_count, private_ip=private_ip)
    return {field: check(given[field]) for field, check in REGISTER.items()}


def keepalive_payload(
    machine_id: object,
    pool_name: object,
    provider_name: object = PROVIDER_DEFAULT,
    agent_version: str = "",
    metrics: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body of POST /keepalive. metrics are always there: some gateways crash without them."""
    return {
        "machine_id": REGISTER["machine_id"](machine_id),
        "pool_name": REGISTER["pool_name"](pool_name),
        "provider_name": REGISTER["provider_name"](provider_name),
        "agent_version": str(agent_version),
        "metrics": _metrics(metrics or {}),
    }


def _metrics(given: dict[str, Any]) -> dict[str, Any]:
    checked = {}
    for name, value in given.items():
        if name in INT_METRICS:
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InvalidField("metrics." + name, "a whole number, 0 or more", repr(value))
        elif name in FLOAT_METRICS:
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
                raise InvalidField("metrics." + name, "a number, 0 or more", repr(value))
            value = float(value)
        else:
            raise InvalidField("metrics", f"one of {', '.join(INT_METRICS + FLOAT_METRICS)}", repr(name))
        checked[name] = value
    return checked


# --- responses ------------------------------------------------------------------------------------------------------


STATUS = r"[A-Za-z][A-Za-z_-]{0,31}"
GPU = r"[A-Za-z0-9][A-Za-z0-9 ._+/-]{0,62}"
VERSION = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,62}"
WORKER_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
# No text of a terminal's or a document's own: controls, direction overrides, lone surrogates
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def decode(raw: bytes | str) -> Any:
    """Return the JSON in bytes or text. Raises ValueError: also where it is nested without end, or has half a character
    (a lone surrogate)."""
    text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
    try:
        body = json.loads(text)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(body, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("nested without end") from None
    return body


def dropped_words(dropped: list[str]) -> str:
    """Return one warning for all that was left out of answers, "" where nothing was. dropped: texts, as parsers append
    them."""
    found = list(dict.fromkeys(dropped))
    return f"left out {len(found)} values that no beta9 gateway makes, the first: {found[0]}" if found else ""


def _taken(check: Callable[[object], str], value: object, dropped: list[str] | None, empty: str = "") -> str:
    """Return a value of an answer where it fits its grammar, else what stands for none. What is there and does not fit
    is noted."""
    if value in (None, ""):
        return empty
    try:
        return check(value)
    except InvalidField as error:
        if dropped is not None:
            dropped.append(UNPRINTABLE.sub("?", str(error))[:200])
        return empty


def _grammar(field: str, pattern: str) -> Callable[[object], str]:
    return lambda value: _text(field, value, pattern, f"a text like {pattern}")


_status, _gpu, _version = _grammar("status", STATUS), _grammar("gpu", GPU), _grammar("agent_version", VERSION)
_worker_id = _grammar("worker", WORKER_ID)


def _number(value: Any) -> int | None:
    try:
        number = int(float(value))
    except (TypeError, ValueError, OverflowError):
        return None
    return number if abs(number) < 2**63 else None


def _fraction(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < 2.0**63 else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def parse_machine_state(body: object) -> MachineState:
    """Return the MachineState of a register or keepalive answer. Older gateways send only "config": then
    "registered"."""
    state = _dict(_dict(body).get("machine_state"))
    return MachineState(
        machine_id=_taken(machine_id, state.get("machine_id"), None),
        status=_taken(_status, state.get("status"), None, "registered"),
        pool_name=_taken(pool_name, state.get("pool_name"), None),
        ttl_seconds=_number(state.get("ttl_seconds")),
        last_keepalive=_number(state.get("last_keepalive")),
        agent_version=_taken(_version, state.get("agent_version"), None),
    )


def parse_machine_list(body: object, dropped: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the ready machines of the machine API's /list, without the tokens that it leaks. dropped: list that takes
    what does not fit."""
    machines = []
    for entry in _list(body):
        state = {name: value for name, value in _dict(_dict(entry).get("state")).items() if name in SAFE_STATE_FIELDS}
        names = ("machine_id", "pool_name", "gpu_count", "last_keepalive", "agent_version")
        machine = _machine(state, names, _dict(entry).get("metrics"), dropped)
        if machine:
            machine["provider"] = _taken(provider_name, state.get("provider_name"), dropped, PROVIDER_DEFAULT)
            machine["hostname"] = _taken(hostname, state.get("hostname"), dropped)
            machine["private_ip"] = _taken(ip_address, state.get("private_ip"), dropped)
            machines.append(machine)
    return machines


def parse_machines(body: object, dropped: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the machines of the gateway API's GET /machines. dropped: list that takes what does not fit."""
    machines = []
    for entry in map(_dict, _list(_dict(body).get("machines"))):
        names = ("id", "poolName", "gpuCount", "lastKeepalive", "agentVersion")
        machine = _machine(entry, names, entry.get("machineMetrics"), dropped)
        if machine:
            machine["provider"] = _taken(provider_name, entry.get("providerName"), dropped)
            machines.append(machine)
    return machines


def parse_workers(body: object, dropped: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the workers of the gateway API's GET /workers: [{"id", "machine_id", "status", "containers"}]."""
    workers = []
    for entry in map(_dict, _list(_dict(body).get("workers"))):
        identity = _taken(_worker_id, entry.get("id"), dropped)
        if identity:
            worker = {"id": identity, "machine_id": _taken(machine_id, entry.get("machineId"), dropped)}
            worker["status"] = _taken(_status, entry.get("status"), dropped, "unknown")
            workers.append(dict(worker, containers=len(_list(entry.get("activeContainers")))))
    return workers


def _machine(
    entry: dict[str, Any], names: tuple[str, ...], metrics: object, dropped: list[str] | None
) -> dict[str, Any] | None:
    """Return the safe fields of a machine, None where it has no identity that a gateway could have made. names: of
    those fields that the two APIs call by different ones."""
    identity, pool, gpus, last_keepalive, agent_version = map(entry.get, names)
    found = {"id": _taken(machine_id, identity, dropped), "pool": _taken(pool_name, pool, dropped)}
    if not found["id"] or not found["pool"] and pool:
        return None
    return {
        **found,
        "status": _taken(_status, entry.get("status"), dropped, "unknown"),
        "gpu": _taken(_gpu, entry.get("gpu"), dropped),
        "gpu_count": _number(gpus) or 0,
        "cpu_millicores": _number(entry.get("cpu")) or 0,
        "memory_mib": _number(entry.get("memory")) or 0,
        "last_keepalive": _number(last_keepalive),
        "created": _number(entry.get("created")),
        "agent_version": _taken(_version, agent_version, dropped),
        "metrics": {
            METRICS[name]: (_number if METRICS[name] in INT_METRICS else _fraction)(value)
            for name, value in _dict(metrics).items()
            if name in METRICS
        },
    }


def parse_created(body: object) -> dict[str, str]:
    """Return the machine of POST /machines as {"id", "pool", "provider", "gpu", "registration_token"}. The last is a
    secret."""
    entry = _dict(_dict(body).get("machine"))
    return {
        "id": machine_id(entry.get("id")),
        "pool": _taken(pool_name, entry.get("poolName"), None),
        "provider": _taken(provider_name, entry.get("providerName"), None, PROVIDER_DEFAULT),
        "gpu": _taken(_gpu, entry.get("gpu"), None),
        "registration_token": token(entry.get("registrationToken")),
    }


def parse_pools(body: object, dropped: list[str] | None = None) -> list[dict[str, Any]]:
    """Return the pools of GET /pools as {"name", "active", "gpu", "min_free_gpu", "schedules", "status"}.

    schedules: whether something is to be kept free, so that the gateway starts workers without being asked. dropped:
    list that takes what does not fit.
    """
    pools = []
    for pool in map(_dict, _list(_dict(body).get("pools"))):
        name = _taken(pool_name, pool.get("name"), dropped)
        if name:
            pools.append(
                {
                    "name": name,
                    "active": bool(pool.get("active")),
                    "gpu": _taken(_gpu, pool.get("gpu"), dropped),
                    "min_free_gpu": _number(pool.get("minFreeGpu")),
                    "schedules": any(
                        re.search("[1-9]", str(pool.get(key) or ""))
                        for key in ("minFreeGpu", "minFreeCpu", "minFreeMemory")
                    ),
                    "status": _taken(_status, _dict(pool.get("state")).get("status"), dropped, "unknown"),
                }
            )
    return pools


def token_mark(text: object, salt: str | None = None) -> str:
    """Return what tells a token among others without telling it: "SALT:HMAC", both hexadecimal."""
    salt = salt or os.urandom(16).hex()
    return f"{salt}:{hmac.new(salt.encode(), token(text).encode(), hashlib.sha256).hexdigest()}"


def marked(key: object, mark: object) -> bool:
    """Return whether a mark was made of a key. Both may be anything."""
    if not isinstance(key, str) or not re.match(r"[!-~]+\Z", key) or not isinstance(mark, str):
        return False
    return hmac.compare_digest(token_mark(key, mark.partition(":")[0]).encode(), mark.encode())


def reusable_machine_key(body: object) -> str | None:
    """Return a machine's token out of GET /tokens that may be used without using it up, or None. A secret."""
    for entry in map(_dict, _list(_dict(body).get("tokens"))):
        key = entry.get("key")
        if (
            entry.get("active") is True
            and entry.get("reusable") is True
            and entry.get("tokenType") == "machine"
            and isinstance(key, str)
        ):
            if re.match(r"[!-~]+\Z", key):
                return key
    return None


def owned(body: object, identity: str, marks: list[str]) -> bool | None:
    """Return whether one of the marks is of the token that /list has for a machine, None where it does not have it.
    Keeps no token.

    The token is the one that the machine was made with. After a register that followed an expiry the gateway has
    forgotten it; then it is the one that the machine registered.
    """
    for entry in _list(body):
        state = _dict(_dict(entry).get("state"))
        if state.get("machine_id") == identity:
            kept = state.get("registration_token") or state.get("token")
            return any(marked(kept, mark) for mark in marks) if kept else None
    return None


def find_token(body: object, mark: str) -> str | None:
    """Return the tokenId of the key in GET /tokens that a mark was made of, or None. Nothing else of the answer is
    kept: it has every key."""
    for entry in map(_dict, _list(_dict(body).get("tokens"))):
        identity = str(entry.get("tokenId") or "")
        if marked(entry.get("key"), mark):
            return identity if re.match(r"[A-Za-z0-9-]{1,64}\Z", identity) else None
    return None


# --- errors ---------------------------------------------------------------------------------------------------------


class Code(NamedTuple):
    """One thing that a gateway, or the connection to it, can answer. The agent reacts to codes, and checks of the
    health check name them."""

    code: str
    cause: str
    remedy: str
    retryable: bool = False

    def problem(self, status: int | None = None, detail: str = "") -> Problem:
        """Return the Problem of one answer. detail: what the answer itself says, behind the cause."""
        return Problem(self.code, self.cause + (": " + detail if detail else ""), self.remedy, self.retryable, status)


NOT_FOUND = Code(
    "machine_not_found",
    "the machine's state expired (no keepalive for 5 minutes), or it was never registered, or pool or provider differ",
    "Register the machine again, then send a keepalive at once. The agent does so by itself; onboard_worker.yml does "
    "it for a host.",
)
NOT_PERMITTED = Code(
    "not_permitted",
    "the token is known, but not a cluster admin's",
    "Use a cluster-admin token for the gateway API: BETA9_TOKEN or beta9_admin_token_file.",
)
POOL_UNKNOWN = Code(
    "pool_unknown",
    "the gateway's configuration has no pool of this name",
    "Compare beta9_pool with 'beta9 pool list', or add the pool to worker.pools.",
)

POOL_STATE_MISSING = Code(
    "pool_state_missing",
    "the gateway has no state yet of one of its pools, and lists none of them until it has",
    "Wait ten seconds after a start of the gateway. If it stays so, correct that pool's provider in worker.pools.",
    True,
)

# (text in the message, what it means), tried in order whatever the status. The guide's spellings are among them.
MESSAGES = (
    ("machine_not_found", NOT_FOUND),
    ("machine not found", NOT_FOUND),
    ("machine state expired or never registered", NOT_FOUND),
    ("invalid pool", POOL_UNKNOWN),
    (
        "local pools don't currently track machines",
        Code(
            "pool_local",
            "this is a local pool: its workers are pods in the gateway's own cluster, and it has no machines",
            "Use a pool of mode external, provider generic.",
        ),
    ),
    ("worker pool state not found", POOL_STATE_MISSING),
    (
        "does not currently support machine creation",
        Code(
            "pool_no_create",
            "this pool's provider does not make machines on request",
            "Use a pool of mode external, provider generic.",
        ),
    ),
    ("this action is not permitted", NOT_PERMITTED),
    ("unauthorized access", NOT_PERMITTED),
    (
        "machine_id and pool_name are required",
        Code(
            "field_missing",
            "machine_id or pool_name was missing from the keepalive",
            "Send both. From the agent this is a defect: report it.",
        ),
    ),
    (
        "invalid machine cpu",
        Code("cpu_invalid", "cpu is missing or not an amount like 8000m", "Correct cpu: millicores, like 8000m."),
    ),
    (
        "invalid machine memory",
        Code("memory_invalid", "memory is missing or not an amount like 16Gi", "Correct memory: like 16Gi or 32768Mi."),
    ),
    (
        "invalid gpu count",
        Code(
            "gpu_count_invalid",
            "gpu_count is missing or not a whole number",
            "Correct gpu_count: a whole number, as a string.",
        ),
    ),
    (
        "invalid payload",
        Code(
            "payload_invalid",
            "the body is not JSON, or a value has the wrong type (numbers of a register must be strings)",
            "Send every value of a register as a string, and whole numbers in metrics.",
        ),
    ),
    (
        "invalid or missing token",
        Code(
            "token_unknown",
            "the gateway does not know this token",
            "Correct the admin token: BETA9_TOKEN or beta9_admin_token_file.",
        ),
    ),
    (
        "invalid token",
        Code(
            "token_wrong_type",
            "the gateway knows the token, but it is not a machine's (the guide: expired, used by another "
            "machine, or a typo)",
            "Use the token that came with this machine. onboard_worker.yml makes a new one where the "
            "host's is refused.",
        ),
    ),
)

CHECK_PODS = "Check the gateway's pods: kubectl get pods -n beta9 -l app=gateway"
STATUSES = {
    400: Code(
        "payload_invalid",
        "the gateway did not understand the request",
        "Compare the versions of gateway and collection.",
    ),
    401: Code(
        "token_unknown",
        "the token is unknown to the gateway, deactivated, or mistyped",
        "Check the token. onboard_worker.yml gives a host a new machine and token where its own is refused.",
    ),
    403: Code(
        "token_wrong_type",
        "the token is of another type than this API wants",
        "Machine API: the machine's token. Gateway API: a cluster-admin token.",
    ),
    404: Code(
        "route_missing",
        "this gateway build does not have this endpoint, or something else answers at this address",
        "Check the address. If /api/v1/health returns ok, upgrade the gateway to a build with the keepalive endpoint.",
    ),
    501: Code(
        "route_missing",
        "this gateway build does not take this method here",
        "Compare the versions of gateway and collection.",
    ),
    502: Code(
        "gateway_unavailable",
        "timed out upstream: a proxy in front of the gateway got no answer from it",
        CHECK_PODS,
        True,
    ),
    503: Code("gateway_unavailable", "the gateway is not ready", CHECK_PODS, True),
    504: Code("gateway_unavailable", "a proxy before the gateway waited in vain", CHECK_PODS, True),
}
KEEPALIVE_ROUTE_MISSING = Code(
    "route_missing",
    "this gateway build has no keepalive endpoint: it takes registrations, but a machine never becomes ready",
    f"Upgrade the gateway to a build that has POST {MACHINE_API}/keepalive.",
)
UPSTREAM = Code(
    "gateway_upstream",
    f"this gateway is an upstream build of 2026 or later: machines join it with an agent of its own (beam-agent, POST "
    f"{JOIN_PATH})",
    f"Join machines as that build's documentation says, or use a gateway build that has POST {MACHINE_API}/keepalive.",
)
INTERNAL_ERROR = Code(
    "internal_error",
    "the gateway failed inside; it does so, among others, for a request without an Authorization header",
    "Read the gateway's log: kubectl logs -n beta9 -l app=gateway --tail=50",
    True,
)
UNHEALTHY = Code(
    "gateway_unhealthy",
    "the gateway runs, but its Redis or Postgres does not answer",
    "Check Redis and Postgres: kubectl get pods -n beta9",
    True,
)

# What the connection to the gateway can do, as the two HTTP clients name it: classify(None, NAME)
TRANSPORT = {
    "refused": Code(
        "connection_refused",
        "nothing listens at this address and port (curl: 7)",
        "Start the tunnel (systemctl start beta9-tunnel) or the gateway, or correct the port.",
        True,
    ),
    "reset": Code(
        "connection_reset",
        "the connection was cut",
        "Read the tunnel's journal: journalctl -u beta9-tunnel -n 50",
        True,
    ),
    "empty": Code(
        "empty_reply",
        "the connection was closed without an answer (curl: 52): wrong NodePort, gateway not ready, or "
        "service not exposed",
        "Check the NodePort: kubectl get svc -n beta9 beta9-gateway-nodeport",
        True,
    ),
    "timeout": Code("timeout", "no answer in time", "Check the network path to the gateway, and its load.", True),
    "tls": Code(
        "tls_failed",
        "the gateway's certificate could not be verified, or the gateway demands one that was not shown",
        "Set beta9_ca_path to the CA that signed it, or correct the host name in the address. If it demands one: set "
        "beta9_client_cert.",
    ),
    "dns": Code("name_unresolved", "the gateway's name has no address", "Correct the name, or fix DNS.", True),
    "not_json": Code(
        "not_gateway",
        "something answers there, but it is not a beta9 gateway",
        "Check the port: the gateway's HTTP port is 1994, its NodePort 31994 (1993 and 31993 are gRPC).",
    ),
    "too_large": Code(
        "not_gateway", "the answer is larger than any of a gateway", "Check what listens at this address."
    ),
    "redirect": Code(
        "not_gateway",
        "the answer sends elsewhere, which a gateway never does",
        "Use the address that it names, if you trust it.",
    ),
    "other": Code("unexpected", "the request could not be made", "Run again with -vvv.", True),
}


# Every code. Of one that several answers share, the words are those that hold for all calls
CODES: dict[str, Code] = {}
for _entry in (
    *STATUSES.values(),
    *TRANSPORT.values(),
    *(entry for _text, entry in MESSAGES),
    KEEPALIVE_ROUTE_MISSING,
    UPSTREAM,
    INTERNAL_ERROR,
    UNHEALTHY,
):
    CODES.setdefault(_entry.code, _entry)


def message_of(body: object) -> str:
    """Return the error message of a body (bytes, text or parsed JSON) in one line of at most 300 printable
    characters."""
    if isinstance(body, bytes):
        body = body[:65536].decode("utf-8", "replace")
    found: object = body
    if isinstance(body, str):
        try:
            found = decode(body)
        except ValueError:
            return UNPRINTABLE.sub("", " ".join(body.split()))[:300]
    fields = _dict(found)
    words = [
        fields[name]
        for name in ("error_code", "message", "errMsg", "error")
        if fields.get(name) and isinstance(fields[name], str)
    ]
    return UNPRINTABLE.sub("", " ".join(": ".join(words).split()))[:300]


@overload
def classify(status: None, body: object, url_path: str = "") -> Problem: ...
@overload
def classify(status: int | None, body: object, url_path: str = "") -> Problem | None: ...


def classify(status: int | None, body: object, url_path: str = "") -> Problem | None:
    """Return the Problem of an answer, or None when it is a success.

    status is the HTTP status, or None when no answer came; then body is a key of TRANSPORT. body may be bytes, text or
    parsed JSON. Gateway-API errors come as 200 with ok:false.
    """
    if status is None:
        return TRANSPORT.get(str(body), TRANSPORT["other"]).problem()
    message = message_of(body)
    if 200 <= status < 300:
        if not (isinstance(body, dict) and body.get("ok") is False):
            return None
    elif 300 <= status < 400:
        return TRANSPORT["redirect"].problem(status)
    for text, known in MESSAGES:
        if text in message.lower():
            # the only message that names what it is about
            return known.problem(status, message if known is POOL_STATE_MISSING else "")
    if url_path == HEALTH_PATH and status == 500:
        return UNHEALTHY.problem(status, message)
    if status == 404 and url_path == MACHINE_API + "/keepalive":
        return KEEPALIVE_ROUTE_MISSING.problem(status)
    if status in STATUSES:
        return STATUSES[status].problem(status)
    if status >= 500:
        return INTERNAL_ERROR.problem(status)
    cause = f"the gateway answered {status}: {message or '(nothing)'}"
    return Problem("unexpected", cause, "Compare the versions of gateway and collection.", False, status)
