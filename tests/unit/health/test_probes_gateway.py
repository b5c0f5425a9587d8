"""The gateway's side: what kubectl and Redis of a running gateway say, and what is made of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import gateway_side, tailnet
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api

from tests.unit.health.recorded import Context, Redis, told

MACHINE = {
    "machine_id": "1165a9b6",
    "pool": "gpu",
    "provider": "generic",
    "nonce": "n0nce",
    "k3s": True,
    "connection": "autossh",
}
KEY, OTHER = "provider:machine:generic:gpu:1165a9b6", "provider:machine:generic:cpu:1165a9b6"
INDEX, OTHER_INDEX = "provider:machine:generic:gpu:machine_index", "provider:machine:generic:cpu:machine_index"
GET = "kubectl --request-timeout=6s -n beta9 get "


def state(**fields):
    return dict(
        {
            "machine_id": "1165a9b6",
            "status": "ready",
            "hostname": "127.77.9.8",
            "gpu_count": "2",
            "last_keepalive": str(time.time()),
            "registration_token": "s3cret-t0ken",
        },
        **fields,
    )


def context(answers=None, redis=None, **config):
    return Context(answers, redis=redis, **dict({"machine": MACHINE}, **config))


def listing(*items):
    return json.dumps({"items": list(items)})


# Redis


def test_state_of_a_ready_machine():
    seen = gateway_side.state(context(redis=Redis({KEY: state()})))
    assert told(seen) == ("ok", "") and seen["data"]["gpu_count"] == 2
    assert seen["data"]["owner"] == hmac.new(b"n0nce", b"s3cret-t0ken", hashlib.sha256).hexdigest()


def test_token_of_the_state_stays_a_secret():
    asked = context(redis=Redis({KEY: state()}))
    gateway_side.state(asked)
    assert asked.redact("it is s3cret-t0ken") == "it is ********"


@pytest.mark.parametrize("fields", [{"registration_token": ""}, {"registration_token": None}])
def test_no_token_is_compared_with_nothing(fields):
    assert gateway_side.state(context(redis=Redis({KEY: state(**fields)})))["data"]["owner"] == ""
    assert gateway_side.owner_of(context(redis=Redis({KEY: state()}), machine=dict(MACHINE, nonce=None))) is None


@pytest.mark.parametrize("status", ["pending", "registered"])
def test_state_that_is_not_ready(status):
    seen = gateway_side.state(context(redis=Redis({KEY: state(status=status, gpu_count="")})))
    assert told(seen) == ("bad", "") and status in seen["found"] and seen["data"]["gpu_count"] == 0


def test_state_elsewhere_or_nowhere():
    seen = gateway_side.state(context(redis=Redis({OTHER: state()}, {OTHER_INDEX: [OTHER], INDEX: []})))
    assert told(seen) == ("bad", "other_pool") and "cpu" in seen["found"]
    seen = gateway_side.state(context(redis=Redis({}, {OTHER_INDEX: [], INDEX: []})))
    assert told(seen) == ("bad", "absent") and KEY in seen["found"]


def test_scan_goes_round_once():
    redis = Redis({}, {INDEX: [], OTHER_INDEX: []})
    assert gateway_side.index_pools(context(redis=redis)) == {"gpu", "cpu"}
    assert [call[1] for call in redis.calls] == ["0", "7"] and redis.calls[0][2:4] == (
        "MATCH",
        "provider:machine:*:machine_index",
    )


def test_only_safe_fields_are_read():
    redis = Redis({KEY: state()})
    assert set(gateway_side.state_of(context(redis=redis))) == {
        "machine_id",
        "status",
        "hostname",
        "gpu_count",
        "last_keepalive",
    }


@pytest.mark.parametrize(
    ("age", "status", "expected"),
    [
        (10, "ready", "ok"),
        (164, "ready", "ok"),
        (167, "ready", "bad"),
        (167, "registered", "ok"),
        (9999999, "ready", "bad"),
    ],
)
def test_ttl(age, status, expected):
    redis = Redis({KEY: state(last_keepalive=str(time.time() - age), status=status)}, ttls={KEY: 120})
    seen = gateway_side.ttl(context(redis=redis))
    assert seen["outcome"] == expected and "120 s left" in seen["found"]


def test_ttl_without_a_state():
    with pytest.raises(engine.Unknown, match="no state"):
        gateway_side.ttl(context(redis=Redis()))
    assert gateway_side.ttl(context(redis=Redis({KEY: state(last_keepalive=None)}, ttls={KEY: 120})))["outcome"] == "bad"


def test_index():
    whole = Redis({KEY: state()}, {INDEX: [KEY]})
    assert told(gateway_side.index(context(redis=whole))) == ("ok", "") and "1 entries" in gateway_side.index(context(redis=whole))["found"]
    assert told(gateway_side.index(context(redis=Redis({KEY: state()}, {INDEX: []})))) == ("bad", "missing")
    seen = gateway_side.index(context(redis=Redis({KEY: state()}, {INDEX: [KEY, KEY + "x"]})))
    assert told(seen) == ("warn", "") and seen["found"].startswith("1 of 2") and seen["evidence"] == KEY + "x"
    assert told(gateway_side.index(context(redis=Redis({}, {INDEX: []})))) == ("ok", "")


def test_ping():
    assert told(gateway_side.ping(context(redis=Redis()))) == ("ok", "")

    class Other(Redis):
        def call(self, *words):
            return "LOADING"

    assert told(gateway_side.ping(context(redis=Other()))) == ("bad", "")

    class Away(Redis):
        def call(self, *words):
            raise OSError("connection refused")

    seen = gateway_side.ping(context(redis=Away()))
    assert told(seen) == ("bad", "") and "refused" in seen["found"]
    with pytest.raises(engine.Unknown, match="Redis: connection refused"):
        gateway_side.ask(context(redis=Away()), "TTL", KEY)


def test_an_answer_is_asked_for_once():
    redis, asked = Redis(ttls={KEY: 5}), None
    asked = context(redis=redis)
    assert gateway_side.ask(asked, "TTL", KEY) == gateway_side.ask(asked, "TTL", KEY) == 5 and len(redis.calls) == 1


@pytest.mark.parametrize(
    ("fields", "states", "expected"),
    [
        ({"status": "HEALTHY", "pending_workers": "0"}, {}, ("ok", "")),
        ({"status": "DEGRADED", "pending_workers": "9"}, {KEY: state()}, ("bad", "pending_workers")),
        ({"status": "DEGRADED", "pending_workers": "0"}, {KEY: state()}, ("bad", "")),
        ({"status": "degraded", "pending_workers": None}, {KEY: state()}, ("bad", "")),
        ({"status": "DEGRADED", "pending_workers": "9"}, {KEY: state(status="pending")}, ("bad", "no_ready_machine")),
        ({"status": "DEGRADED"}, {}, ("bad", "no_ready_machine")),
    ],
)
def test_status_of_the_pool(fields, states, expected):
    redis = Redis(dict({"workerpool:gpu:state": fields}, **states), {INDEX: list(states)})
    assert told(gateway_side.status(context(redis=redis))) == expected


@pytest.mark.parametrize("fields", [{}, {"status": "UNKNOWN"}, {"status": ""}])
def test_pool_without_a_state_is_unknown(fields):
    with pytest.raises(engine.Unknown, match="no state of pool gpu"):
        gateway_side.status(context(redis=Redis({"workerpool:gpu:state": fields})))


class Server(threading.Thread):
    """Redis' replies, byte for byte, on a socket."""

    def __init__(self, replies):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.replies, self.received = replies, b""
        self.start()

    def run(self):
        peer, _address = self.socket.accept()
        for reply in self.replies:
            self.received += peer.recv(4096)
            peer.sendall(reply)
        peer.close()

    def url(self, more="", user=""):
        return "redis://%s127.0.0.1:%d%s" % (user, self.socket.getsockname()[1], more)


def test_protocol_of_redis():
    nested = b"*3\r\n$5\r\nready\r\n$-1\r\n*2\r\n:7\r\n$2\r\n\xc3\xa9\r\n"
    server = Server([b"+OK\r\n", b"+OK\r\n", b"+PONG\r\n", b":-2\r\n", nested, b"-ERR unknown command\r\n"])
    redis = gateway_side.Redis(server.url("/3", "ops:p%2Fss@"))
    assert redis.call("PING") == "PONG" and redis.call("TTL", "x") == -2
    assert redis.call("HMGET", "k", "é") == ["ready", None, [7, "é"]]
    with pytest.raises(OSError, match="ERR unknown command"):
        redis.call("NO")
    with pytest.raises(OSError, match="closed|reset by peer"):
        redis.call("PING")
    server.join(5)
    expected = b"*3\r\n$4\r\nAUTH\r\n$3\r\nops\r\n$4\r\np/ss\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n*1\r\n$4\r\nPING\r\n"
    assert server.received.startswith(expected) and b"$2\r\n\xc3\xa9\r\n" in server.received


def test_redis_by_its_address():
    server = Server([b"+PONG\r\n"])
    asked = Context(machine=MACHINE, redis_url=server.url())
    assert told(gateway_side.ping(asked)) == ("ok", "") and server.received == b"*1\r\n$4\r\nPING\r\n"


@pytest.mark.parametrize("url", ["redis://:canary/word@127.0.0.1:1/0", "redis://:canary#word@h:1", "redis://:canary?word@h:1", "redis://:canary[word@h:1"])
def test_a_password_in_an_address_that_is_none_is_never_shown(url):
    checks = [(catalog.BY_ID[name], probe) for name, probe in gateway_side.ONCE.items() if name == "G09"]
    (seen,) = engine.observe(checks, engine.Context({"machine": MACHINE, "redis_url": url}), 5.0)
    assert seen["outcome"] == "unknown" and seen["found"].startswith("beta9_redis_url:") and "%2F" in seen["found"] and "canary" not in json.dumps(seen)


def test_a_password_of_redis_is_redacted():
    asked = Context(machine=MACHINE, redis_url=Server([b"+OK\r\n", b"+PONG\r\n"]).url(user=":canary%2Fword@"))
    gateway_side.ping(asked)
    assert "canary" not in asked.redact("canary/word and canary%2Fword")


def test_redis_in_its_pod():
    pods = GET + "pods -l app.kubernetes.io/name=redis"
    command = "kubectl --request-timeout=6s -n beta9 exec redis-0 -c redis -- redis-cli --json "
    asked = context({pods: listing({"metadata": {"name": "redis-0"}}), command + "PING": '"PONG"\n', command + "TTL": "120\n"})
    assert told(gateway_side.ping(asked)) == ("ok", "") and gateway_side.ask(asked, "TTL", KEY) == 120
    broken = context({pods: listing({"metadata": {"name": "redis-0"}}), command: (1, "Could not connect to Redis")})
    assert told(gateway_side.ping(broken)) == ("bad", "") and "Could not connect" in gateway_side.ping(broken)["found"]
    odd = context({pods: listing({"metadata": {"name": "redis-0"}}), command: "not JSON"})
    assert told(gateway_side.ping(odd)) == ("bad", "")
    with pytest.raises(engine.Unknown, match="no Redis pod"):
        gateway_side.ping(context({pods: listing()}))


# the cluster


def test_kubectl_is_asked_as_configured():
    asked = context({"kubectl": "{}"}, kubeconfig="/etc/kube", namespace="other")
    gateway_side.kubectl(asked, "get", "pods")
    assert asked.commands == ["kubectl --kubeconfig /etc/kube --request-timeout=6s -n other get pods"]
    with pytest.raises(engine.Unknown, match="health_check_kube"):
        gateway_side.kubectl(context({"kubectl": "{}"}, kube=False), "get", "pods")


@pytest.mark.parametrize(
    "output",
    [
        "Error from server (Forbidden): pods is forbidden",
        "error: You must be logged in to the server (Unauthorized)",
        "The connection to the server localhost:8080 was refused - did you specify the right host or port?",
        "error: Missing or incomplete configuration info.\ninvalid configuration: no configuration has been provided",
        "Unable to connect to the server: dial tcp 10.0.0.1:6443: i/o timeout",
    ],
)
def test_cluster_that_can_not_be_asked_is_unknown(output):
    with pytest.raises(engine.Unknown, match="kubectl: "):
        gateway_side.pods(context({"kubectl": (1, output)}))


def test_access():
    allowed = context({"kubectl": "yes\n"})
    assert told(gateway_side.access(allowed)) == ("ok", "")
    assert [command.split("can-i ")[1] for command in allowed.commands] == [
        "list pods",
        "get pods/log",
        "create pods/exec",
    ]
    seen = gateway_side.access(context({"kubectl": "yes\n", "kubectl --request-timeout=6s -n beta9 auth can-i create": (1, "no\n", "")}))
    assert told(seen) == ("bad", "") and seen["found"] == "may not create pods/exec"
    assert told(gateway_side.access(context({"kubectl": "yes\n", "kubectl --request-timeout=6s -n beta9 auth can-i create": None}, redis_url="x"))) == (
        "ok",
        "",
    )


def pod(name="gateway-0", ready=True, **state):
    return {
        "metadata": {"name": name},
        "status": {"phase": "Running", "containerStatuses": [{"ready": ready, "state": state}]},
    }


@pytest.mark.parametrize(
    ("pods", "expected", "found"),
    [
        ([pod()], ("ok", ""), "1 ready"),
        (
            [pod(), pod("gateway-1", False, waiting={"reason": "CrashLoopBackOff"})],
            ("bad", ""),
            "gateway-1: CrashLoopBackOff",
        ),
        ([pod(ready=False, running={})], ("bad", ""), "gateway-0: not ready"),
        ([{"metadata": {"name": "g"}, "status": {"phase": "Pending"}}], ("bad", ""), "g: Pending"),
        ([], ("bad", "none"), "app=gateway"),
    ],
)
def test_pods(pods, expected, found):
    seen = gateway_side.pods(context({GET + "pods": listing(*pods)}))
    assert told(seen) == expected and found in seen["found"]


def test_pods_by_the_second_label():
    asked = context({GET + "pods": listing(), GET + "pods -l app.kubernetes.io/component=gateway": listing(pod())})
    assert told(gateway_side.pods(asked)) == ("ok", "") and gateway_side.gateway_pods(asked)[0] == "app.kubernetes.io/component=gateway"
    assert len(asked.commands) == 2, "each is asked for once"


def named(kind, **objects):
    """Return the answers of `kubectl get KIND NAME`."""
    return {GET + "%s %s " % (kind, name.replace("_", "-")): json.dumps(dict(found, metadata={"name": name})) for name, found in objects.items()}


PORTS = [{"port": 1993, "nodePort": 31993}, {"port": 1994, "nodePort": 31994}]
NOTHING = {"kubectl": (0, "")}
READY = {"addresses": ["10.42.0.5"], "conditions": {"ready": True}}
SLICES = GET + "endpointslices -l kubernetes.io/service-name=beta9-gateway"


def slices(*ends):
    return {SLICES: listing({"metadata": {"name": "beta9-gateway-x7"}, "endpoints": list(ends) or None})}


def test_service():
    service = named("service", beta9_gateway={"spec": {}})
    assert told(gateway_side.service(context(dict(NOTHING, **service, **slices(READY))))) == ("ok", "")
    assert told(gateway_side.service(context(dict(NOTHING, **service, **slices({"addresses": ["10.42.0.5"]}))))) == (
        "ok",
        "",
    ), "a condition not told is true"
    for ends in ([], [dict(READY, conditions={"ready": False})], [dict(READY, addresses=[])]):
        seen = gateway_side.service(context(dict(NOTHING, **service, **slices(*ends))))
        assert told(seen) == ("bad", "") and "beta9-gateway" in seen["found"]
    with pytest.raises(engine.Unknown, match="no service"):
        gateway_side.service(context(NOTHING))


def test_nodeport():
    seen = gateway_side.nodeport(context(dict(NOTHING, **named("service", beta9_gateway_nodeport={"spec": {"ports": PORTS}}))))
    assert seen["data"]["nodeport"] == 31994 and seen["found"] == "31994"
    for ports in (PORTS[:1], [{"port": 1994}], []):
        with pytest.raises(engine.Unknown, match="1994"):
            gateway_side.nodeport(context(dict(NOTHING, **named("service", gateway={"spec": {"ports": ports}}))))


def test_direct():
    service = named("service", gateway={"spec": {}})
    raw = GET + "--raw /api/v1/namespaces/beta9/services/gateway:1994/proxy/api/v1/health"
    assert told(gateway_side.direct(context(dict(NOTHING, **service, **{raw: '{"status":"ok"}'})))) == ("ok", "")
    away = "Error from server (ServiceUnavailable): "
    no_answer = [
        away + "no endpoints available for service",
        away + "the server is currently unable to handle the request",
    ]
    for answer in ((0, '{"status":"not ok"}'), *((1, text) for text in no_answer)):
        assert told(gateway_side.direct(context(dict(NOTHING, **service, **{raw: answer})))) == ("bad", "")
    with pytest.raises(engine.Unknown, match="Forbidden"):
        gateway_side.direct(context(dict(NOTHING, **service, **{raw: (1, "Error from server (Forbidden): services is forbidden")})))
    with pytest.raises(engine.Unknown, match="no service"):
        gateway_side.direct(context(NOTHING))


POOLS = "worker:\n  pools:\n    cpu:\n      mode: local\n    gpu:\n      mode: external\n      provider: generic\n"


@pytest.mark.parametrize(
    ("text", "pool", "expected"),
    [
        (POOLS, "gpu", ("ok", "")),
        (POOLS, "cpu", ("bad", "mode")),
        (POOLS, "gp", ("bad", "absent")),
        (POOLS, "gpux", ("bad", "absent")),
        ('{"worker": 1}', "gpu", None),
        ("worker:\n  pools: {}\n", "gpu", None),
        ("", "gpu", None),
    ],
)
def test_pool_in_the_configuration(text, pool, expected):
    answers = dict(NOTHING, **named("configmap", gateway_config={"data": {"config.yaml": text}}))
    asked = context(answers, machine=dict(MACHINE, pool=pool))
    if expected:
        assert told(gateway_side.pool(asked)) == expected
    else:
        with pytest.raises(engine.Unknown, match="configuration|can be read"):
            gateway_side.pool(asked)


LOG = "kubectl --request-timeout=6s -n beta9 logs"


@pytest.mark.parametrize(
    ("line", "ready", "expected"),
    [
        ("INF pool is healthy pool_name=gpu", True, ("ok", "")),
        (
            'ERR failed to create job error="dial tcp 127.77.1.1:6443: connect: connection refused" pool_name=gpu',
            True,
            ("bad", "k3s"),
        ),
        ("ERR k8s API timeout", True, ("bad", "k3s")),
        ('ERR failed to create job error=":6443" pool_name=cpu', True, ("ok", "")),
        ("ERR something else pool_name=gpu", True, ("bad", "")),
        ('ERR failed to add worker error="provider not implemented" pool_name=gpu', True, ("bad", "provider")),
        ('ERR failed to add worker error="provider not implemented" pool_name=gpu', False, ("ok", "")),
    ],
)
def test_log(line, ready, expected):
    answers = {GET + "pods": listing(pod()), LOG: "INF first\n%s\nINF last" % line}
    seen = gateway_side.log(context(answers, machine=dict(MACHINE, ready=ready)))
    assert told(seen) == expected
    assert ("provider not implemented" in seen["found"]) == ("provider not implemented" in line)


def test_log_shows_the_last_lines():
    lines = "\n".join("ERR number %d" % number for number in range(9))
    seen = gateway_side.log(context({GET + "pods": listing(pod()), LOG: lines}))
    assert seen["found"] == "ERR number 8" and seen["evidence"].splitlines() == ["ERR number %d" % number for number in range(4, 9)]
    with pytest.raises(engine.Unknown, match="no gateway pod"):
        gateway_side.log(context({GET + "pods": listing()}))


# the path to the worker


def test_identity(monkeypatch):
    own = "c0ffee" * 10
    monkeypatch.setattr(api, "certificate", lambda *address: own if address == ("127.77.9.8", 6443, 4) else "")
    redis = Redis({KEY: state()})
    assert told(gateway_side.identity(context(redis=redis, machine=dict(MACHINE, k3s_certificate=own)))) == ("ok", "")
    assert told(gateway_side.identity(context(redis=redis, machine=dict(MACHINE, k3s_certificate="0" * 64)))) == (
        "bad",
        "other",
    )
    assert "not known" in gateway_side.identity(context(redis=redis))["found"]
    assert gateway_side.identity(context(redis=redis, machine=dict(MACHINE, k3s=False)))["outcome"] == "not_applicable"
    with pytest.raises(engine.Unknown, match="no host name"):
        gateway_side.identity(context(redis=Redis({KEY: state(hostname="")})))

    def refused(*_address):
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(api, "certificate", refused)
    seen = gateway_side.identity(context(redis=redis))
    assert told(seen) == ("bad", "refused") and "127.77.9.8:6443" in seen["found"]


PEER = {"DNSName": "gpu-1.tail.net.", "TailscaleIPs": ["100.64.0.2"], "Online": True}
TAILNET = dict(MACHINE, connection="tailscale", tailnet_addresses=["100.64.0.2"])


def tailscale(status, ping="pong from gpu-1 (100.64.0.2) via 10.0.0.1:41641 in 1ms\n"):
    return {"tailscale status": json.dumps(status), "tailscale ping": ping}


@pytest.mark.parametrize(
    ("status", "ping", "expected"),
    [
        (
            {"BackendState": "Running", "Peer": {"a": PEER}},
            "pong from gpu-1 (100.64.0.2) via 10.0.0.1:41641 in 1ms\n",
            ("ok", ""),
        ),
        (
            {"BackendState": "Running", "Peer": {"a": PEER}},
            "pong from gpu-1 (100.64.0.2) via DERP(fra) in 21ms\n",
            ("warn", "relayed"),
        ),
        ({"BackendState": "Running", "Peer": {"a": PEER}}, 'ping "100.64.0.2" timed out\nno reply\n', ("bad", "")),
        ({"BackendState": "Running", "Peer": {"a": dict(PEER, Expired=True)}}, "", ("bad", "expired")),
        (
            {"BackendState": "Running", "Peer": {"a": dict(PEER, TailscaleIPs=["100.64.0.9"], DNSName="x.tail.net.")}},
            "",
            ("bad", "unknown"),
        ),
        ({"BackendState": "Running", "Peer": None}, "", ("bad", "unknown")),
        ({"BackendState": "NeedsLogin"}, "", ("bad", "gateway")),
    ],
)
def test_path_in_the_tailnet(status, ping, expected):
    seen = gateway_side.peer(context(tailscale(status, ping), redis=Redis({KEY: state()}), machine=TAILNET))
    assert told(seen) == expected


def test_path_where_tailscaled_or_redis_is_away():
    assert told(gateway_side.peer(context({"tailscale": "no JSON"}, redis=Redis(), machine=TAILNET))) == (
        "bad",
        "gateway",
    )
    without_redis = context(tailscale({"BackendState": "Running", "Peer": {"a": PEER}}), kube=False, machine=TAILNET)
    assert told(gateway_side.peer(without_redis)) == ("ok", "")


def test_path_that_is_offline_says_so():
    status = {"BackendState": "Running", "Peer": {"a": dict(PEER, Online=False)}}
    assert "offline" in gateway_side.peer(context(tailscale(status, "no reply"), redis=Redis(), machine=TAILNET))["found"]
    status["Peer"]["a"]["Online"] = True
    assert "offline" not in gateway_side.peer(context(tailscale(status, "no reply"), redis=Redis(), machine=TAILNET))["found"]


@pytest.mark.parametrize(
    ("name", "addresses", "found"),
    [
        ("gpu-1", [], True),
        ("gpu-1.tail.net", [], True),
        ("100.64.0.2", [], True),
        ("", ["100.64.0.2"], True),
        ("", [], False),
        ("gpu-2", [], False),
    ],
)
def test_peer_by_name_or_address(name, addresses, found):
    assert (tailnet.peer_of({"Peer": {"b": {}, "a": PEER}}, name, addresses) is PEER) is found
    assert tailnet.peer_of({}, name, addresses) is None


def test_name_of_the_worker(monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda name, port: [(2, 1, 6, "", ("100.64.0.2", port))])
    asked = context(redis=Redis({KEY: state(hostname="gpu-1")}), machine=TAILNET)
    assert told(gateway_side.resolves(asked)) == ("ok", "")
    other = context(redis=Redis({KEY: state(hostname="gpu-1")}), machine=dict(TAILNET, tailnet_addresses=["100.64.0.9"]))
    assert told(gateway_side.resolves(other)) == ("bad", "other")
    assert told(gateway_side.resolves(context(redis=Redis({KEY: state()})))) == ("ok", "")
    with pytest.raises(engine.Unknown, match="no host name"):
        gateway_side.resolves(context(redis=Redis({KEY: state(hostname=None)})))

    def nothing(_name, _port):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    assert told(gateway_side.resolves(asked)) == ("bad", "")
    appended = context(redis=Redis({KEY: state(hostname="127.77.9.8.beta9.example.internal")}), machine=TAILNET)
    assert told(gateway_side.resolves(appended)) == ("bad", "suffix")


@pytest.mark.parametrize(
    ("mode", "remedy"),
    [
        ("autossh", "Set tailscale.directRedisHost in the gateway's configuration"),
        ("direct", "Set tailscale.directRedisHost in the gateway's configuration"),
        ("tailscale", "Set tailscale_gateway_mode=tailnet"),
    ],
)
def test_name_that_the_gateway_made_longer_is_cured_by_what_the_connection_has(monkeypatch, mode, remedy):
    """A worker without a tailnet needs another gateway configuration; one in a tailnet another name."""

    def nothing(_name, _port):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)
    machine = dict(TAILNET, connection=mode)
    seen = gateway_side.resolves(context(redis=Redis({KEY: state(hostname="127.77.9.8.beta9.example.internal")}), machine=machine))
    assert catalog.causes_of(catalog.BY_ID["V05"], told(seen)[1])[1].prose.startswith(remedy)


NODE = {
    "BackendState": "Running",
    "Self": {"Online": True, "DNSName": "gpu-1.tail.net."},
    "TailscaleIPs": ["100.64.0.2"],
}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (NODE, ("ok", "")),
        (dict(NODE, BackendState="NeedsLogin"), ("bad", "login")),
        (dict(NODE, BackendState="Stopped"), ("bad", "down")),
        (dict(NODE, Health=["something is odd"]), ("warn", "health")),
    ],
)
def test_node_of_the_worker(status, expected):
    seen = tailnet.node(Context({"tailscale status": json.dumps(status), "tailscale debug": "{}"}, connection="tailscale"))
    assert told(seen) == expected and seen["data"] == {"addresses": ["100.64.0.2"], "name": "gpu-1"}


def test_node_without_tailscaled():
    assert told(tailnet.node(Context({"tailscale": "failed to connect to local tailscaled"}, connection="tailscale"))) == ("bad", "stopped")
