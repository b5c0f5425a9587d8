"""The client of the gateway over real HTTP: what it sends, in which order, and what it believes of what comes back."""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import socket
import ssl
import subprocess
import threading
import time
from typing import Any, NamedTuple

import pytest

from ansible_collections.beta9.workers.plugins.module_utils import exchange
from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, machine_runner, protocol

TOKEN, OTHER = "canary-admin-token-0123456789", "canary-machine-token-0123"
WELL = (200, {"status": "ok"})


class Call(NamedTuple):
    method: str
    path: str
    authorization: str | None
    body: Any


class Server:
    """Answers with what stands in answers for METHOD and path without query: (status, body) or a list of them, the last one for good."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.calls: list[Call] = []
        self.url = ""

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        found = self.answers.get(f"{method} {path.partition('?')[0]}", (404, {"message": "Not Found"}))
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found

    def asked(self) -> list[str]:
        return [f"{call.method} {call.path}" for call in self.calls]


@contextlib.contextmanager
def serving(server: Server, tls: ssl.SSLContext | None = None):
    class Handler(http.server.BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            server.calls.append(
                Call(self.command, self.path, self.headers.get("Authorization"), json.loads(raw) if raw else None)
            )
            status, body = server.answer(self.command, self.path)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(data)

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, *arguments: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if tls:
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()


@pytest.fixture
def server():
    with serving(Server()) as found:
        yield found


@pytest.fixture
def client(server):
    return api.GatewayClient(server.url, TOKEN, timeout=5, retries=0)


@pytest.fixture
def pauses(monkeypatch):
    """Wait for nothing, and note how long it would have been."""
    noted: list[float] = []
    monkeypatch.setattr(api.time, "sleep", noted.append)
    return noted


POOLS = {"pools": [{"name": "gpu", "active": True}]}
MACHINE = {"id": "1165a9b6", "poolName": "gpu", "providerName": "generic", "status": "ready"}


@pytest.mark.parametrize(
    "url", ["", "ftp://h", "http://", "http://user@h", "http://user:p@h", "http://h/path", "http://h/?q=1"]
)
def test_address_that_is_none_is_refused(url):
    with pytest.raises(protocol.InvalidField):
        api.GatewayClient(url)
    assert api.GatewayClient("http://h:1/").base_url == "http://h:1"


def test_health_is_asked_without_a_token(server, client):
    server.answers["GET /api/v1/health"] = WELL
    client.health()
    assert server.calls == [Call("GET", "/api/v1/health", None, None)]
    server.answers["GET /api/v1/health"] = (200, {"status": "nearly"})
    with pytest.raises(api.GatewayError):
        client.health()


def test_token_goes_with_everything_else(server, client):
    server.answers["GET /api/v1/gateway/pools"] = (200, POOLS)
    assert [pool["name"] for pool in client.list_pools()] == ["gpu"]
    assert server.calls == [Call("GET", "/api/v1/gateway/pools", "Bearer " + TOKEN, None)]


def test_what_may_pass_is_asked_again_with_pauses_that_grow(server, pauses, monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda low, high: (low, high))
    server.answers["GET /api/v1/gateway/pools"] = [(503, {})] * 3 + [(200, POOLS)]
    assert api.GatewayClient(server.url, TOKEN, timeout=5, retries=3).list_pools()
    assert pauses == [(0.25, 0.5), (0.5, 1.0), (1.0, 2.0)] and len(server.calls) == 4


def test_as_often_as_was_said_and_no_more(server, pauses):
    server.answers["GET /api/v1/gateway/pools"] = (503, {})
    with pytest.raises(api.GatewayError) as caught:
        api.GatewayClient(server.url, TOKEN, timeout=5, retries=2).list_pools()
    assert len(server.calls) == 3 and caught.value.problem.code == "gateway_unavailable" and len(pauses) == 2


def test_what_waiting_does_not_resolve_is_asked_once(server, pauses):
    server.answers["GET /api/v1/gateway/pools"] = (403, {"message": "Invalid token"})
    with pytest.raises(api.GatewayError):
        api.GatewayClient(server.url, TOKEN, timeout=5, retries=2).list_pools()
    assert len(server.calls) == 1 and not pauses


def test_a_refused_token_is_believed_of_a_gateway_that_is_well(server, client):
    server.answers = {"GET /api/v1/gateway/pools": (401, {"message": "Unauthorized"}), "GET /api/v1/health": WELL}
    with pytest.raises(api.GatewayError):
        client.list_pools()
    server.answers["GET /api/v1/health"] = (500, {"status": "not ok"})
    with pytest.raises(api.GatewayError) as caught:
        client.list_pools()
    assert caught.value.problem.code == "gateway_unhealthy" and server.calls[-1].authorization is None


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        ((200, b"<html>"), api.GatewayError, "not_gateway"),
        ((502, b"<html>"), api.GatewayError, "gateway_unavailable"),
        ((404, b"nothing"), api.NotFoundError, "route_missing"),
        ((302, b""), api.GatewayError, "not_gateway"),
        ((200, {"ok": False, "errMsg": "This action is not permitted"}), api.GatewayError, "not_permitted"),
        ((200, {"ok": False, "errMsg": "Invalid pool"}), api.GatewayError, "pool_unknown"),
        ((500, {"message": "worker pool state not found: x"}), api.GatewayError, "pool_state_missing"),
        ((200, b'{"pools": []}' + b" " * exchange.MAX_BODY_BYTES), api.GatewayError, "not_gateway"),
    ],
)
def test_answers_are_told_apart(server, client, answer, kind, code):
    server.answers["GET /api/v1/gateway/pools"] = answer
    with pytest.raises(kind) as caught:
        client.list_pools()
    assert caught.value.problem.code == code and TOKEN not in str(caught.value)


def test_an_answer_that_drips_ends_with_the_time(monkeypatch):
    class Dripping(Server):
        def answer(self, method, path):
            time.sleep(1.5)
            return 200, POOLS

    with serving(Dripping()) as server:
        start = time.monotonic()
        with pytest.raises(api.GatewayError) as caught:
            api.GatewayClient(server.url, TOKEN, timeout=0.3, retries=0).list_pools()
        assert caught.value.problem.code == "timeout" and time.monotonic() - start < 1.4


def test_an_answer_without_end_is_no_answer_though_its_beginning_is_one():
    """The connection is cut when the time is over, which looks like the end of an answer that did not say how long it is."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            with listener.accept()[0] as connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(b'HTTP/1.0 200 OK\r\n\r\n{"pools": []}')
                while not ended.wait(0.02):
                    connection.sendall(b" ")

        ended = threading.Event()
        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(api.GatewayError) as caught:
            api.GatewayClient("http://127.0.0.1:%d" % listener.getsockname()[1], timeout=0.3, retries=0).list_pools()
        ended.set()
    assert caught.value.problem.code == "timeout"


def test_a_proxy_is_asked_only_where_the_caller_says_so(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert exchange.exchange("GET", server.url + "/nowhere", 3).status < 600
    with pytest.raises(OSError):
        exchange.exchange("GET", server.url + "/nowhere", 3, proxied=True)


def test_nobody_listens_and_no_such_name():
    for url, code in (
        ("http://127.0.0.1:9", "connection_refused"),
        ("http://no-such-name.invalid:1994", "name_unresolved"),
    ):
        with pytest.raises(api.GatewayError) as caught:
            api.GatewayClient(url, TOKEN, timeout=3, retries=0).health()
        assert caught.value.problem.code == code


def test_no_machines_are_believed_of_who_may_see_them(server, client):
    server.answers = {
        "GET /api/v1/gateway/machines": (200, {"machines": []}),
        "GET /api/v1/gateway/pools": (200, POOLS),
    }
    assert client.list_machines("gpu") == [] and server.asked() == [
        "GET /api/v1/gateway/machines?pool_name=gpu&limit=10000",
        "GET /api/v1/gateway/pools",
    ]
    server.answers["GET /api/v1/gateway/pools"] = (500, {"message": "worker pool state not found: x"})
    assert client.list_machines() == []
    server.answers["GET /api/v1/gateway/pools"] = (200, {"ok": False, "errMsg": "This action is not permitted"})
    with pytest.raises(api.GatewayError):
        client.list_machines()
    server.answers["GET /api/v1/gateway/machines"] = (200, {"machines": [MACHINE]})
    assert len(client.list_machines()) == 1


def test_a_machine_is_asked_for_once(server, pauses):
    server.answers["POST /api/v1/gateway/machines"] = (503, {})
    with pytest.raises(api.GatewayError):
        api.GatewayClient(server.url, TOKEN, timeout=5, retries=2).create_machine("gpu")
    assert len(server.calls) == 1 and server.calls[0].body == {"pool_name": "gpu"}


def test_deleting_looks_first(server, client):
    """In a local pool the request would kill the gateway; asking for its machines tells that it is one."""
    server.answers = {
        "GET /api/v1/gateway/machines": (200, {"ok": False, "errMsg": "Local pools don't currently track machines"})
    }
    with pytest.raises(api.GatewayError):
        client.delete_machine("1165a9b6", "home")
    assert server.asked() == ["GET /api/v1/gateway/machines?pool_name=home&limit=10000"]
    server.answers = {
        "GET /api/v1/gateway/machines": (200, {"machines": [MACHINE]}),
        "DELETE /api/v1/gateway/machines/1165a9b6": (200, {"ok": True}),
    }
    client.delete_machine("1165a9b6", "gpu")
    assert server.asked()[-1] == "DELETE /api/v1/gateway/machines/1165a9b6?pool_name=gpu"


@pytest.mark.parametrize("kept", [True, False])
def test_discarding_a_machine_revokes_its_token(server, client, kept):
    created = {"id": "1165a9b6", "pool": "gpu", "registration_token": OTHER}
    tokens = {"tokens": [{"key": OTHER, "tokenId": "5ac"}] if kept else []}
    server.answers = {
        "GET /api/v1/gateway/machines": (200, {"machines": [MACHINE]}),
        "DELETE /api/v1/gateway/machines/1165a9b6": (200, {"ok": True}),
        "GET /api/v1/gateway/tokens": (200, tokens),
        "DELETE /api/v1/gateway/tokens/5ac": (200, {"ok": True}),
    }
    client.discard_machine(created)
    assert ("DELETE /api/v1/gateway/tokens/5ac" in server.asked()) == kept


def test_workers_of_one_machine(server, client):
    workers = [{"id": "w-1", "machineId": "1165a9b6"}, {"id": "w-2", "machineId": "1165a9b7"}]
    server.answers = {
        "GET /api/v1/gateway/workers": (200, {"workers": workers}),
        "POST /api/v1/gateway/workers/w-1/cordon": (200, {"ok": True}),
    }
    server.answers["POST /api/v1/gateway/workers/w-1/drain"] = (200, {"ok": True})
    assert [worker["id"] for worker in client.list_workers("1165a9b6")] == ["w-1"]
    client.cordon_worker("w-1")
    client.drain_worker("w-1")
    assert [call.path.rpartition("/")[2] for call in server.calls[1:]] == ["cordon", "drain"] and server.calls[
        1
    ].body == {}


def test_owner_is_asked_with_a_machines_token(server, client):
    tokens = {"tokens": [{"key": OTHER, "active": True, "reusable": True, "tokenType": "machine"}]}
    server.answers = {
        "GET /api/v1/gateway/tokens": (200, tokens),
        "GET /api/v1/machine/list": (200, [{"state": {"machine_id": "1165a9b6", "token": OTHER}}]),
    }
    assert client.owned("1165a9b6", "gpu", "", [protocol.token_mark(OTHER)]) is True
    assert server.calls[-1] == Call(
        "GET", "/api/v1/machine/list?pool_name=gpu&provider_name=generic", "Bearer " + OTHER, None
    )
    assert client._token == TOKEN
    server.answers["GET /api/v1/gateway/tokens"] = (200, {"tokens": []})
    assert client.owned("1165a9b6", "gpu", "", []) is None


@pytest.mark.parametrize(("answer", "upstream"), [((200, {}), True), ((501, {}), True), ((404, {}), False)])
def test_upstream_build_is_known_by_its_path(server, client, answer, upstream):
    server.answers["GET " + protocol.JOIN_PATH] = answer
    assert client.is_upstream() is upstream


def test_only_an_operators_questions_go_by_a_proxy():
    def proxied(url, path):
        return api.GatewayClient(url)._proxied(path)

    assert proxied("http://gateway.example.com", protocol.GATEWAY_API + "/pools")
    for url in ("http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1"):
        assert not proxied(url, protocol.GATEWAY_API + "/pools")
    assert not proxied("http://gateway.example.com", protocol.MACHINE_API + "/list")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, check=True, capture_output=True
    )
    return folder


def test_certificates_are_verified_unless_told_otherwise(certificate):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    with serving(Server(), tls) as server:
        server.answers["GET /api/v1/health"] = WELL
        with pytest.raises(api.GatewayError) as caught:
            api.GatewayClient(server.url, retries=0, timeout=5).health()
        assert caught.value.problem.code == "tls_failed" and not server.calls
        api.GatewayClient(server.url, ca_path=str(certificate / "cert.pem"), retries=0, timeout=5).health()
        api.GatewayClient(server.url, validate_certs=False, retries=0, timeout=5).health()


def test_token_that_is_given_goes_before_one_in_a_file(tmp_path):
    (tmp_path / "token").write_text(OTHER + "\n")
    params = {"gateway_url": "http://h", "token": TOKEN, "token_file": str(tmp_path / "token")}
    assert (
        api.client_from_params(params)._token == TOKEN
        and api.client_from_params(dict(params, token=""))._token == OTHER
    )
    for wrong, field in (
        ({"gateway_url": ""}, "gateway_url"),
        ({"token": "", "token_file": ""}, "token"),
        ({"token": "", "token_file": "/no/such"}, "token_file"),
    ):
        with pytest.raises(protocol.InvalidField) as caught:
            api.client_from_params(dict(params, **wrong))
        assert caught.value.field == field


# -- the run of every module of the gateway --

PARAMS = {"gateway_url": "http://h", "token": TOKEN}


def test_check_mode_applies_nothing():
    done: list[str] = []
    plan = machine_runner.Plan({"a": 1}, {"a": 2}, lambda: done.append("x") or {"more": 1}, {"kept": 1})
    checked = machine_runner.execute(lambda _client, _params: plan, PARAMS, True)
    assert checked == {"kept": 1, "changed": True, "diff": {"before": {"a": 1}, "after": {"a": 2}}} and not done
    assert machine_runner.execute(lambda _client, _params: plan, PARAMS, False)["more"] == 1 and done == ["x"]


def test_applying_what_is_as_it_was_is_no_change():
    assert not machine_runner.execute(
        lambda _client, _params: machine_runner.Plan({"a": 1}, {"a": 1}, dict, {}), PARAMS, False
    )["changed"]
    assert not machine_runner.execute(machine_runner.reads(lambda _client, _params: {"x": 1}), PARAMS, False)["changed"]


def test_failures_have_code_cause_and_remedy(server):
    def asks(client, _params):
        client.list_pools()

    server.answers["GET /api/v1/gateway/pools"] = (403, {"message": "Invalid token"})
    failed = machine_runner.execute(asks, dict(PARAMS, gateway_url=server.url, retries=0), False)
    assert (
        failed["failed"]
        and not failed["changed"]
        and (failed["code"], failed["retryable"]) == ("token_wrong_type", False)
        and failed["remedy"]
        and failed["cause"]
    )
    failed = machine_runner.execute(asks, {"gateway_url": "x", "token": TOKEN}, False)
    assert (
        failed["failed"]
        and failed["code"] == "invalid_field"
        and "gateway_url" in failed["cause"]
        and failed["remedy"] == "Correct gateway_url."
    )


def test_what_was_left_out_is_a_warning():
    def drops(client, _params):
        client.dropped += ["x", "x"]
        return {}

    assert machine_runner.execute(machine_runner.reads(drops), PARAMS, False)["warnings"] == [
        "left out 1 values that no beta9 gateway makes, the first: x"
    ]
    assert "warnings" not in machine_runner.execute(machine_runner.reads(lambda _client, _params: {}), PARAMS, False)


class Owning:
    """What require_owner needs of a client."""

    def __init__(self, owned):
        self.answer = owned

    def owned(self, *_arguments):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


ABSENT = api.error_of(protocol.classify(404, {}), "GET", "/x")


@pytest.mark.parametrize(
    ("owned", "status", "params", "outcome"),
    [
        (True, "ready", {}, "free"),
        (False, "ready", {}, "refused"),
        (False, "pending", {}, "refused"),
        (None, "ready", {}, "refused"),
        (None, "pending", {}, "stays"),
        (ABSENT, "pending", {}, "stays"),
        (ABSENT, "ready", {}, "refused"),
        (False, "ready", {"confirmed": True}, "free"),
        (False, "ready", {"prove_owner": False}, "free"),
    ],
)
def test_whose_machine_it_is(owned, status, params, outcome):
    given = dict({"prove_owner": True, "confirmed": False, "token_mark": "a:b", "k3s_mark": None}, **params)
    machine = {"id": "1165a9b6", "pool": "gpu", "provider": "generic", "status": status}
    if outcome == "refused":
        with pytest.raises(machine_runner.NotProven) as caught:
            machine_runner.require_owner(Owning(owned), given, machine)
        assert ("nothing that tells" in str(caught.value)) == (owned is not False)
    else:
        assert bool(machine_runner.require_owner(Owning(owned), given, machine)) == (outcome == "stays")
    assert machine_runner.require_owner(Owning(owned), given, None) == ""
