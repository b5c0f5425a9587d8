"""A TEST DOUBLE of the beta9 gateway's HTTP port: behaves as the gateway does, quirks and leaks included.

Its state is in a real Redis under the real key names and TTLs. It needs Python 3.9+ and the redis client only.

    gateway_double.py --config FILE

Config (JSON): listen "0.0.0.0:31994", redis "redis://127.0.0.1:6379/0", admin_token_file, log (one JSON line a request, no
secrets), state_ttl_seconds 300, pending_ttl_seconds 3600, token_cache_seconds 600, hostname_mode direct|tailnet (direct is the real
one's tailscale.directRedisHost), tailnet_connected false, register_seconds 5.0 (how long a register takes without either), pools
[{name, mode external|local, provider, gpu, machine_creation, min_free {gpu, cpu, memory}}], tls {cert, key, client_ca},
gateway_log (what the real one writes to its standard output, coloured). SIGHUP reads it again.

A pool with min_free has its ready machines tried twice a second, as where the pool's worker size fits: what dials them
is there with tailnet_connected only.

The real one has its tokens in Postgres and caches them in Redis. Here both are Redis: hash double:token:SHA256 is the table.

Faults, while it runs, as JSON in Redis key double:fault, one or a list:
    {"route": "keepalive"|"register"|"list"|"machines"|"pools"|"health"|"*", "mode": MODE, ...}; with "method" only that one
    answer   status, body      any answer instead of the real one
    empty                      close without a byte
    slow     seconds           wait, then answer as usual
    garbage                    200 with something that is not JSON
    huge     bytes             200 with a body of that size
    drip     seconds           a header line every tenth of a second, without end
    flood    bytes             header lines as fast as they are taken, so many bytes
    trickle  seconds           200 with a body that comes a byte every tenth of a second
    redirect location, status  302, or another status
    date     offset            answer as usual, with a clock that is off by so many seconds
    no_keepalive_route         404 on keepalive: the upstream build
    upstream                   the upstream build: also another word for ready, and joining by an agent of its own
    dud_token                  machines are made with a token that is refused
    postgres_down              only cached tokens are known, and /health says so
    no_pool_state  pool        this pool has no state yet: GET /pools fails as a whole

Workers, which the real gateway starts by itself, are put into Redis by a test: hash double:workers, id -> {"machineId", "poolName",
"status", "activeContainers": [...], "stubborn": true}. A drained worker's containers are gone, except those of a stubborn one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import secrets
import signal
import socket
import ssl
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import redis

INT_METRICS = {
    "total_cpu_available",
    "total_memory_available",
    "total_disk_space_bytes",
    "total_disk_free_bytes",
    "worker_count",
    "container_count",
    "free_gpu_count",
    "cache_capacity",
    "cache_memory_usage",
}
LISTED_METRICS = INT_METRICS - {"total_disk_space_bytes", "total_disk_free_bytes"}
FLOAT_METRICS = {"cpu_utilization_pct", "memory_utilization_pct", "cache_usage_pct", "cache_cpu_usage"}
GPUS = ("A10G", "A100-40", "A100-80", "A6000", "H100", "L4", "L40S", "RTX4090", "RTX5090", "T4")
SUFFIX = "beta9.tailnet.example"
COLOURS = {"INF": "\x1b[32m", "ERR": "\x1b[31m"}
TOKEN_CACHE = "workspace:authorization:token:"
REGISTER_FIELDS = ("token", "machine_id", "hostname", "provider_name", "pool_name", "cpu", "memory", "gpu_count", "private_ip")


class Answer(Exception):
    """The answer to a request."""

    def __init__(self, status, body):
        super().__init__(status)
        self.status, self.body = status, body


def machine_error(status, message):
    return Answer(status, {"message": message})


def gateway_error(message):
    return Answer(200, {"ok": False, "errMsg": message})


def quantity(text, suffixes):
    """Return the number of a Kubernetes quantity, or None."""
    match = re.match(r"([0-9]+)(%s)$" % "|".join(suffixes), text or "")
    return int(match.group(1)) * suffixes[match.group(2)] if match else None


def kept_free(pool, what):
    """Return how much of a pool the gateway keeps free, as it tells it."""
    return str(pool.get("min_free", {}).get(what, 0))


def camel(name):
    return re.sub(r"_([a-z])", lambda match: match.group(1).upper(), name)


class Store:
    """The gateway's Redis: real key names, real TTLs."""

    def __init__(self, url):
        self.db = redis.Redis.from_url(url, decode_responses=True, socket_timeout=2, socket_connect_timeout=2)

    @staticmethod
    def state_key(provider, pool, machine_id):
        return "provider:machine:%s:%s:%s" % (provider, pool, machine_id)

    @staticmethod
    def index_key(provider, pool):
        return "provider:machine:%s:%s:machine_index" % (provider, pool)

    @staticmethod
    def token_row(text):
        return "double:token:" + hashlib.sha256(text.encode()).hexdigest()

    def add_token(self, text, kind, **fields):
        row = dict(fields, kind=kind, key=text, active="1", created=str(int(time.time())))
        self.db.hset(self.token_row(text), mapping=row)

    def deactivate(self, text):
        self.db.hset(self.token_row(text), "active", "0")

    def tokens(self):
        """Return the rows of all tokens by their ids. An id follows from the row's name, so that a test may plant a row of its own."""
        names = sorted(self.db.scan_iter("double:token:*"))
        return {str(uuid.uuid5(uuid.NAMESPACE_URL, name)): dict(self.db.hgetall(name), row=name) for name in names}

    def put(self, provider, pool, machine_id, fields, ttl):
        key = self.state_key(provider, pool, machine_id)
        with self.db.pipeline() as batch:
            batch.hset(key, mapping=fields)
            batch.expire(key, ttl)
            batch.sadd(self.index_key(provider, pool), key)
            batch.execute()

    def get(self, provider, pool, machine_id):
        return self.db.hgetall(self.state_key(provider, pool, machine_id))

    def all(self, provider, pool):
        """Return the states of a pool; entries of the index whose state expired are pruned now."""
        index = self.index_key(provider, pool)
        found = []
        for key in sorted(self.db.smembers(index)):
            state = self.db.hgetall(key)
            if state:
                found.append((state, self.db.hgetall(key + ":metrics")))
            else:
                self.db.srem(index, key)
        return found

    def delete(self, provider, pool, machine_id):
        """Forget the machine. Its token stays."""
        key = self.state_key(provider, pool, machine_id)
        self.db.delete(key, key + ":metrics", key + ":lock")
        self.db.srem(self.index_key(provider, pool), key)


class GatewayDouble:
    """The gateway's answers. Each route returns by raising Answer."""

    def __init__(self, config_path):
        self.config_path = config_path
        self.reload()

    def reload(self):
        with open(self.config_path, encoding="utf-8") as stream:
            self.config = json.load(stream)
        self.pools = {pool["name"]: pool for pool in self.config.get("pools", [])}
        self.state_ttl = self.config.get("state_ttl_seconds", 300)
        self.pending_ttl = self.config.get("pending_ttl_seconds", 3600)
        self.store = Store(self.config.get("redis", "redis://127.0.0.1:6379/0"))
        with open(self.config["admin_token_file"], encoding="utf-8") as stream:
            self.admin_token = stream.read().strip()

    # -- its log, and what it does without being asked --

    def say(self, level, message, **fields):
        """Write a line to the gateway's log."""
        if self.config.get("gateway_log"):
            words = "".join(f" \x1b[36m{name}=\x1b[0m{value}" for name, value in fields.items())
            with open(self.config["gateway_log"], "a", encoding="utf-8") as stream:
                stream.write(f"\x1b[90m2:15PM\x1b[0m {COLOURS[level]}{level}\x1b[0m {message}{words}\n")

    def keep_free(self):
        """Try to start a worker on each ready machine of a pool of which something is to be kept free."""
        for name, pool in self.pools.items():
            if not pool.get("min_free"):
                continue
            for state, _metrics in self.store.all(pool.get("provider", "generic"), name):
                if state.get("status") == "ready":
                    self.start_worker(pool, state)

    def start_worker(self, pool, state):
        """Without a tailnet the machine is taken and locked, and that is all."""
        lock = self.store.state_key(pool.get("provider", "generic"), pool["name"], state["machine_id"]) + ":lock"
        if not self.config.get("tailnet_connected") and not self.store.db.set(lock, "1", nx=True):
            return
        self.say("INF", "using existing machine", hostname=state["hostname"], machine_id=state["machine_id"])
        if self.config.get("tailnet_connected"):
            tls = ssl.create_default_context()
            tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
            try:  # a tunnel takes the connection, whether there is a k3s behind it or not
                with socket.create_connection((state["hostname"], 6443), timeout=0.3) as plain:
                    tls.wrap_socket(plain).close()
            except OSError as error:
                reason = f"dial tcp {state['hostname']}:6443: connect: {(error.strerror or str(error)).lower()}"
                self.say("ERR", "failed to create job", error=json.dumps(reason), pool_name=pool["name"])

    def keep_free_for_ever(self):
        """Look twice a second."""
        while True:
            time.sleep(0.5)
            try:
                self.keep_free()
            except redis.RedisError:
                pass

    # -- authorisation --

    def who(self, header):
        """Return what is known of the token in a header. A cached one is believed for its time, whatever became of it."""
        token = (header or "").removeprefix("Bearer ")
        if not token:
            return {}
        cached = self.store.db.get(TOKEN_CACHE + token)
        if cached:
            return json.loads(cached)
        if self.fault("*", "postgres_down"):
            return {}
        known = {"kind": "admin", "active": "1"} if token == self.admin_token else self.store.db.hgetall(self.store.token_row(token))
        if known.get("active") != "1":
            return {}
        self.store.db.set(TOKEN_CACHE + token, json.dumps(known), ex=self.config.get("token_cache_seconds", 600))
        if known.get("single_use") == "1":
            self.store.deactivate(token)
        return known

    def machine_auth(self, header):
        if header is None:
            raise machine_error(500, "Internal Server Error")
        known = self.who(header)
        if not known:
            raise machine_error(401, "Unauthorized")
        if known["kind"] not in ("machine", "worker"):
            raise machine_error(403, "Invalid token")

    def gateway_auth(self, header):
        """Return the kind of the caller's token. Without Redis nobody is known."""
        try:
            known = self.who(header)
        except redis.RedisError:
            known = {}
        if not known:
            raise Answer(401, {"code": 16, "message": "invalid or missing token", "details": []})
        return known["kind"]

    def admin_only(self, header):
        kind = self.gateway_auth(header)
        if kind != "admin":
            raise gateway_error("Unauthorized Access" if kind == "workspace_restricted" else "This action is not permitted")

    # -- gateway API --

    def get_pools(self, header, _query, _raw):
        self.admin_only(header)
        fault = self.fault("pools", "no_pool_state")
        if fault:
            raise Answer(500, {"code": 2, "message": "worker pool state not found: " + fault["pool"], "details": []})
        pools = []
        for name, pool in sorted(self.pools.items()):
            ready = any(state.get("status") == "ready" for state, _metrics in self.store.all(pool.get("provider", "generic"), name))
            pools.append(
                {
                    "name": name,
                    "active": False,
                    "gpu": pool.get("gpu", ""),
                    "minFreeGpu": "" if pool.get("mode") == "local" else kept_free(pool, "gpu"),
                    "minFreeCpu": kept_free(pool, "cpu"),
                    "minFreeMemory": kept_free(pool, "memory"),
                    "defaultWorkerGpuCount": "0",
                    "state": {"status": "HEALTHY" if ready else "DEGRADED", "freeGpu": "0", "readyMachines": "0"},
                }
            )
        raise Answer(200, {"ok": True, "errMsg": "", "pools": pools})

    def post_machines(self, header, _query, raw):
        self.admin_only(header)
        try:
            body = json.loads(raw or b"{}")
        except ValueError:
            raise Answer(400, {"code": 3, "message": "invalid body", "details": []}) from None
        pool = self.pools.get(body.get("pool_name") or body.get("poolName"))
        if pool is None:
            raise Answer(200, {"ok": False, "errMsg": "Invalid pool name", "machine": None, "agentUpstreamUrl": "", "agentUpstreamBranch": ""})
        provider = pool.get("provider", "generic")
        machine_id, token = secrets.token_hex(4), secrets.token_urlsafe(48)
        local = pool.get("mode") == "local"
        if local or pool.get("machine_creation", True):
            self.store.add_token(token, "machine", machine_id=machine_id)
        if local or not pool.get("machine_creation", True):  # too late where it is local: the token stays
            message = "This pool does not currently support machine creation"
            raise Answer(200, {"ok": False, "errMsg": message, "machine": None, "agentUpstreamUrl": "", "agentUpstreamBranch": ""})
        if self.fault("machines", "dud_token"):
            self.store.deactivate(token)
        self.store.put(
            provider,
            pool["name"],
            machine_id,
            {
                "machine_id": machine_id,
                "pool_name": pool["name"],
                "status": "pending",
                "hostname": "",
                "token": "",
                "cpu": "0",
                "memory": "0",
                "gpu": pool.get("gpu", ""),
                "gpu_count": "0",
                "private_ip": "",
                "registration_token": token,
                "created": str(int(time.time())),
                "last_keepalive": "",
                "last_worker_seen": "",
                "agent_version": "",
                "auto_consolidate": "0",
            },
            self.pending_ttl,
        )
        raise Answer(
            200,
            {
                "ok": True,
                "errMsg": "",
                "agentUpstreamUrl": "",
                "agentUpstreamBranch": "",
                "machine": {
                    "id": machine_id,
                    "registrationToken": token,
                    "poolName": pool["name"],
                    "providerName": provider,
                    "gpu": pool.get("gpu", ""),
                    "tailscaleUrl": "",
                    "tailscaleAuth": "",
                    "userData": "",
                    "cpu": "0",
                    "memory": "0",
                    "gpuCount": 0,
                    "status": "",
                    "lastKeepalive": "",
                    "created": "",
                    "agentVersion": "",
                    "machineMetrics": None,
                },
            },
        )

    def get_machines(self, header, query, _raw):
        """The limit of the query is ignored."""
        admin = self.gateway_auth(header) == "admin"
        gpus = dict.fromkeys(GPUS, False)
        if not admin:
            raise Answer(200, {"ok": True, "errMsg": "", "machines": [], "gpus": gpus})
        wanted = query.get("pool_name") or query.get("poolName") or ""
        if wanted and wanted not in self.pools:
            raise gateway_error("Invalid pool")
        if wanted and self.pools[wanted].get("mode") == "local":
            raise gateway_error("Local pools don't currently track machines")
        machines = []
        for name, pool in sorted(self.pools.items()):
            if wanted in ("", name) and pool.get("mode") != "local":
                for state, metrics in self.store.all(pool.get("provider", "generic"), name):
                    machines.append(self.listed(name, pool, state, metrics))
        raise Answer(200, {"ok": True, "errMsg": "", "machines": machines, "gpus": gpus})

    def listed(self, name, pool, state, metrics):
        status = state["status"]
        return {
            "id": state["machine_id"],
            "cpu": state["cpu"],
            "memory": state["memory"],
            "gpu": state["gpu"],
            "gpuCount": int(state["gpu_count"]),
            "status": "available" if status == "ready" and self.fault("machines", "upstream") else status,
            "poolName": name,
            "providerName": pool.get("provider", "generic"),
            "registrationToken": "",
            "tailscaleUrl": "",
            "tailscaleAuth": "",
            "userData": "",
            "lastKeepalive": state["last_keepalive"],
            "created": state["created"],
            "agentVersion": state["agent_version"],
            "machineMetrics": {camel(key): (int if key in INT_METRICS else float)(metrics.get(key, 0)) for key in sorted(LISTED_METRICS | FLOAT_METRICS)},
        }

    def delete_machine(self, header, query, machine_id):
        self.admin_only(header)
        pool = self.pools.get(query.get("pool_name") or query.get("poolName"))
        if pool is None:
            raise gateway_error("Invalid pool name")
        if pool.get("mode") == "local":
            os._exit(2)  # the real one's nil pointer
        self.store.delete(pool.get("provider", "generic"), pool["name"], machine_id)
        raise Answer(200, {"ok": True, "errMsg": ""})

    def get_tokens(self, header, _query, _raw):
        """Whoever has a token of any kind reads them all."""
        self.gateway_auth(header)
        admin = {"kind": "admin", "active": "1", "key": self.admin_token}
        rows = dict({str(uuid.uuid5(uuid.NAMESPACE_URL, "admin")): admin}, **self.store.tokens())
        tokens = [
            {
                "tokenId": identity,
                "key": row.get("key", ""),
                "active": row["active"] == "1",
                "reusable": row.get("single_use") != "1",
                "workspaceId": 1,
                "tokenType": row["kind"],
                "createdAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(row.get("created", "0")))),
                "updatedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(row.get("created", "0")))),
            }
            for identity, row in rows.items()
        ]
        raise Answer(200, {"ok": True, "errMsg": "", "tokens": tokens})

    def delete_token(self, header, _query, identity):
        """What is cached of it works on."""
        self.admin_only(header)
        row = self.store.tokens().get(identity)
        if row is None:
            raise gateway_error("Failed to delete token")
        self.store.db.delete(row["row"])
        raise Answer(200, {"ok": True, "errMsg": ""})

    def post_join(self, header, _query, _raw):
        self.gateway_auth(header)
        raise Answer(400, {"code": 3, "message": "join token is required", "details": []})

    def get_workers(self, header, _query, _raw):
        self.admin_only(header)
        workers = {name: json.loads(text) for name, text in self.store.db.hgetall("double:workers").items()}
        raise Answer(200, {"ok": True, "errMsg": "", "workers": [dict(worker, id=name) for name, worker in sorted(workers.items())]})

    def change_worker(self, header, _query, desired):
        worker_id, verb = desired
        self.admin_only(header)
        text = self.store.db.hget("double:workers", worker_id)
        if not text:
            raise gateway_error("worker not found: %s" % worker_id)
        worker = json.loads(text)
        if verb == "drain":
            worker["activeContainers"] = worker["activeContainers"] if worker.get("stubborn") else []
        else:
            worker["status"] = "disabled" if verb == "cordon" else "available"
        self.store.db.hset("double:workers", worker_id, json.dumps(worker))
        raise Answer(200, {"ok": True, "errMsg": ""})

    # -- machine API --

    def post_register(self, header, _query, raw):
        self.machine_auth(header)
        body = self.json_object(raw)
        if any(not isinstance(body.get(name, ""), str) for name in REGISTER_FIELDS):
            raise machine_error(400, "Invalid payload")
        reachable = self.config.get("hostname_mode") == "direct" or self.config.get("tailnet_connected")
        if not reachable:
            time.sleep(self.config.get("register_seconds", 5.0))
        cpu = quantity(body.get("cpu"), {"m": 1, "": 1000})
        memory = quantity(body.get("memory"), {"Gi": 1024, "Mi": 1, "": 1})
        if cpu is None:
            raise machine_error(500, "Invalid machine cpu value")
        if memory is None:
            raise machine_error(500, "Invalid machine memory value")
        if not re.match(r"[0-9]+$", body.get("gpu_count", "")):
            raise machine_error(500, "Invalid gpu count")
        pool = self.pools.get(body.get("pool_name"))
        if pool is None:
            raise machine_error(500, "Invalid pool name")
        provider = body.get("provider_name") or "generic"
        machine_id = body.get("machine_id", "")
        before = self.store.get(provider, pool["name"], machine_id)
        hostname = body.get("hostname", "")
        upstream = self.fault("register", "upstream")
        if self.config.get("hostname_mode") == "tailnet" or upstream:  # upstream has no direct mode
            hostname = "%s.%s" % (hostname, SUFFIX)
        self.store.put(
            provider,
            pool["name"],
            machine_id,
            {
                "machine_id": machine_id,
                "pool_name": pool["name"],
                "status": "registered",
                "hostname": hostname,
                "token": body.get("token", ""),
                "cpu": str(cpu),
                "memory": str(memory),
                "gpu": pool.get("gpu", ""),
                "gpu_count": body["gpu_count"],
                "private_ip": body.get("private_ip", ""),
                "registration_token": before.get("registration_token", ""),  # lost when the state expired
                "created": before.get("created", str(int(time.time()))),
                "last_keepalive": str(int(time.time())),
                "last_worker_seen": before.get("last_worker_seen", ""),
                "agent_version": before.get("agent_version", ""),
                "auto_consolidate": before.get("auto_consolidate", "0"),
            },
            self.state_ttl,
        )
        answer = {"config": self.secrets() if reachable else None}
        if not upstream:
            answer["machine_state"] = {"machine_id": machine_id, "status": "registered", "pool_name": pool["name"], "ttl_seconds": self.state_ttl}
        raise Answer(200, answer)

    def post_keepalive(self, header, _query, raw):
        self.machine_auth(header)
        if self.fault("keepalive", "no_keepalive_route") or self.fault("keepalive", "upstream"):
            raise machine_error(404, "Not Found")
        body = self.json_object(raw)
        metrics = body.get("metrics")
        texts = ("machine_id", "pool_name", "provider_name", "agent_version")
        if any(not isinstance(body.get(name, ""), str) for name in texts) or not isinstance(metrics, (dict, type(None))):
            raise machine_error(400, "Invalid payload")
        for name, value in (metrics or {}).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if (name in INT_METRICS and not isinstance(value, int)) or (name in FLOAT_METRICS and not number):
                raise machine_error(400, "Invalid payload")
        if not body.get("machine_id") or not body.get("pool_name"):
            raise machine_error(400, "machine_id and pool_name are required")
        provider = body.get("provider_name") or "generic"
        state = self.store.get(provider, body["pool_name"], body["machine_id"])
        if not state:
            key = self.store.state_key(provider, body["pool_name"], body["machine_id"])
            raise machine_error(500, "Failed to update keepalive: failed to get machine state %s: machine not found" % key)
        if metrics is None:  # too late: the status is set, the time to live is not
            self.store.db.hset(self.store.state_key(provider, body["pool_name"], body["machine_id"]), "status", "ready")
            raise machine_error(500, "Internal Server Error")
        now = str(int(time.time()))
        self.store.put(
            provider,
            body["pool_name"],
            body["machine_id"],
            {"status": "ready", "last_keepalive": now, "agent_version": body.get("agent_version", "")},
            self.state_ttl,
        )
        known = {name: str(value) for name, value in (metrics or {}).items() if name in INT_METRICS | FLOAT_METRICS}
        if known:
            key = self.store.state_key(provider, body["pool_name"], body["machine_id"]) + ":metrics"
            self.store.db.hset(key, mapping=known)
            self.store.db.expire(key, self.state_ttl)
        told = {"last_worker_seen": state.get("last_worker_seen"), "agent_version": body.get("agent_version")}
        told = {name: text for name, text in told.items() if text}
        answer = {"machine_id": body["machine_id"], "status": "ready", "last_keepalive": now, "ttl_seconds": self.state_ttl}
        raise Answer(200, {"status": "ok", "machine_state": dict(answer, **told)})

    def get_list(self, header, query, _raw):
        """Only ready machines, and with every machine's tokens: the real one leaks them."""
        self.machine_auth(header)
        states = self.store.all(query.get("provider_name") or "generic", query.get("pool_name", ""))
        raise Answer(
            200,
            [
                {
                    "state": dict(state, cpu=int(state["cpu"]), memory=int(state["memory"]), gpu_count=int(state["gpu_count"])),
                    "metrics": {name: json.loads(value) for name, value in metrics.items()},
                }
                for state, metrics in states
                if state.get("status") == "ready"
            ],
        )

    def get_config(self, header, _query, _raw):
        self.machine_auth(header)
        raise Answer(200, {"config": self.secrets()})

    @staticmethod
    def secrets():
        return {"database": {"redis": {"password": "canary-secret-of-the-gateway"}}}

    @staticmethod
    def json_object(raw):
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise machine_error(400, "Invalid payload")
        return body

    # -- health and faults --

    def get_health(self, _header, _query, _raw):
        try:
            self.store.db.ping()
            if self.fault("health", "postgres_down"):
                raise Answer(500, {"status": "not ok", "error": "failed to connect to Postgres"})
        except redis.RedisError as error:
            raise Answer(500, {"status": "not ok", "error": str(error)}) from None
        raise Answer(200, {"status": "ok"})

    def faults(self):
        try:
            text = self.store.db.get("double:fault")
        except redis.RedisError:
            return []
        found = json.loads(text) if text else []
        return found if isinstance(found, list) else [found]

    def fault(self, route, mode=None, method=None):
        """Return the fault that is switched on for a route, of one mode or of any that replaces the answer."""
        for entry in self.faults():
            if entry.get("route", "*") in ("*", route) and mode in (None, entry.get("mode")) and entry.get("method") in (None, method):
                return entry
        return None

    def routes(self):
        gateway, machine = "/api/v1/gateway", "/api/v1/machine"
        upstream = {("POST", gateway + "/agent/join"): ("join", self.post_join)} if self.fault("*", "upstream") else {}
        return {
            **upstream,
            ("GET", "/api/v1/health"): ("health", self.get_health),
            ("GET", gateway + "/pools"): ("pools", self.get_pools),
            ("POST", gateway + "/machines"): ("machines", self.post_machines),
            ("GET", gateway + "/machines"): ("machines", self.get_machines),
            ("GET", gateway + "/workers"): ("workers", self.get_workers),
            ("GET", gateway + "/tokens"): ("tokens", self.get_tokens),
            ("POST", machine + "/register"): ("register", self.post_register),
            ("POST", machine + "/keepalive"): ("keepalive", self.post_keepalive),
            ("GET", machine + "/list"): ("list", self.get_list),
            ("GET", machine + "/config"): ("config", self.get_config),
        }

    def no_route(self, path):
        if not path.startswith("/api/v1/gateway/"):
            return machine_error(404, "Not Found")
        if path in {known for _method, known in self.routes()}:
            return Answer(501, {"code": 12, "message": "Method Not Allowed", "details": []})
        return Answer(404, {"code": 5, "message": "Not Found", "details": []})


class Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with persistent connections; every request is one line in the log, without secrets."""

    protocol_version = "HTTP/1.1"
    server_version = "beta9-gateway-double"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body in one segment, as Go's net/http does: through ssh, a second one waits 40 ms for the first one's ACK
    date_offset = 0
    faulty = False

    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + self.date_offset)

    def handle_any(self):
        double = self.server.double
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.faulty = False
        route, action = double.routes().get((self.command, url.path), (None, None))
        identity = re.search(r"/machines/([0-9a-f]+)$", url.path)
        if self.command == "DELETE" and identity:
            route, action, raw = "machines", double.delete_machine, identity.group(1)
        token = re.search(r"/tokens/([0-9a-f-]+)$", url.path)
        if self.command == "DELETE" and token:
            route, action, raw = "tokens", double.delete_token, token.group(1)
        worker = re.search(r"/workers/([^/]+)/(cordon|uncordon|drain)$", url.path)
        if self.command == "POST" and worker:
            route, action, raw = "workers", double.change_worker, worker.groups()
        fault = double.fault(route, method=self.command) if route else None
        self.faulty = bool(fault and fault.get("mode") not in ("date", "slow"))
        if fault and self.broken(fault, raw):
            return
        header = self.headers.get("Authorization", query.get("auth_token"))
        try:
            if action is None:
                raise double.no_route(url.path)
            action(header, query, raw)
        except Answer as answer:
            self.reply(answer.status, answer.body, raw)
        except redis.RedisError:
            self.reply(500, {"message": "Internal Server Error"}, raw)

    do_GET = do_POST = do_DELETE = do_PUT = handle_any

    def broken(self, fault, raw):
        """Answer as the fault says; return whether the request is done with."""
        mode = fault.get("mode")
        if mode == "date":
            self.date_offset = fault["offset"]
            return False
        if mode == "slow":
            time.sleep(fault["seconds"])
            return False
        if mode == "answer":
            self.reply(fault["status"], fault.get("body", ""), raw)
        elif mode == "garbage":
            self.reply(200, "<html><body>It works!</body></html>", raw)
        elif mode == "redirect":
            self.reply(fault.get("status", 302), "", raw, {"Location": fault["location"]})
        elif mode == "huge":
            self.log(200, raw)
            self.send_response(200)
            self.send_header("Content-Length", str(fault["bytes"]))
            self.end_headers()
            for _block in range(fault["bytes"] // 65536):
                self.wfile.write(b" " * 65536)
        elif mode == "drip":
            self.log(200, raw)
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(int(fault["seconds"] * 10)):
                self.wfile.write(b"X-%d: drip\r\n" % number)
                self.wfile.flush()
                time.sleep(0.1)
        elif mode == "flood":
            self.log(200, raw)
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(fault["bytes"] // 65536):
                self.wfile.write((b"X-%d: " % number).ljust(65534, b"x") + b"\r\n")
        elif mode == "trickle":
            self.log(200, raw)
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            for _number in range(int(fault["seconds"] * 10)):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
        elif mode == "empty":
            self.log(0, raw)
        else:
            return False
        self.close_connection = self.close_connection or mode in ("empty", "huge", "drip", "flood", "trickle")
        return True

    def reply(self, status, body, raw, headers=None):
        text = body if isinstance(body, str) else json.dumps(body)
        data = text.encode()
        self.log(status, raw)
        if status >= 400:
            path = urlsplit(self.path).path
            self.server.double.say("ERR", "request failed", method=self.command, path=path, status=status)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log(self, status, raw):
        found = re.search(rb'"machine_id"\s*:\s*"([^"]*)"', raw if isinstance(raw, bytes) else b"")
        line = {
            "time": round(time.time(), 3),
            "method": self.command,
            "path": urlsplit(self.path).path,
            "status": status,
            "machine_id": found.group(1).decode() if found else "",
            "fault": self.faulty,
        }
        with self.server.log_lock, open(self.server.double.config["log"], "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        """Say nothing: the log is ours."""

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, ssl.SSLError):
            pass  # the client went away


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    log_lock = threading.Lock()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    double = GatewayDouble(parser.parse_args().config)
    address, _colon, port = double.config.get("listen", "127.0.0.1:31994").rpartition(":")
    if ":" in address:
        Server.address_family = socket.AF_INET6
    server = Server((address.strip("[]"), int(port)), Handler)
    server.double = double
    tls = double.config.get("tls")
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls["cert"], tls["key"])
        if tls.get("client_ca"):
            context.load_verify_locations(tls["client_ca"])
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=double.keep_free_for_ever, daemon=True).start()
    signal.signal(signal.SIGHUP, lambda *_args: double.reload())
    print("gateway double listens on port %d" % server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
