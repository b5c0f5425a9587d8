"""A gateway that means harm, or is none: every answer ends in bounded time and memory, and the token goes nowhere else.

The hostile servers here speak raw bytes over real sockets, because no HTTP server would send what they send.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
import tracemalloc

import pytest
from beta9_agent import protocol
from beta9_agent.client import Client, Refused

TOKEN = "canary-token-0123456789abcdef"
SECONDS = 0.6
OK = b"HTTP/1.1 200 OK\r\n"


def whole_request(connection):
    """Return one request with its body, which may come by itself; b"" when there is no more."""
    data = connection.recv(65536)
    while data:
        head, blank, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if blank and len(body) >= int(length.group(1) if length else 0):
            break
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    return data


@contextlib.contextmanager
def server(talk, connections=None):
    """Serve each connection with talk(connection, request bytes). Yields the port; connections collects the requests."""
    stop = threading.Event()

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            connection.settimeout(5)
            while not stop.is_set():
                request = whole_request(connection)
                if not request:
                    return
                if connections is not None:
                    connections.append(request)
                if not talk(connection, request, stop):
                    return

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)


def answer(body, headers=b"", keep=True):
    """Return a talk that answers with a JSON body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda connection, _request, _stop: connection.sendall(OK + headers + b"Content-Length: %d\r\n\r\n" % len(data) + data) or keep


def repeat(start, piece, pause=0.0, times=10**9):
    """Return a talk that never comes to an end."""

    def talk(connection, _request, stop):
        connection.sendall(start)
        for _number in range(times):
            connection.sendall(piece)
            if stop.wait(pause):
                break

    return talk


BIG = b" " * 65536
HOSTILE = {
    "body of 100 MB": (repeat(OK + b"Content-Length: 104857600\r\n\r\n", BIG, times=1600), "not_gateway"),
    "body without end": (repeat(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + BIG + b"\r\n"), "not_gateway"),
    "body that drips": (repeat(OK + b"Content-Length: 1000\r\n\r\n", b" ", 0.05), "timeout"),
    "headers without end": (repeat(OK, b"X-Header: " + b"x" * 1000 + b"\r\n"), "not_gateway"),
    "one header without end": (repeat(OK + b"X-Header: ", b"x" * 1000), "not_gateway"),
    "headers that drip": (repeat(OK, b"X-Header: x\r\n", 0.05), "timeout"),
    "status line that drips": (repeat(b"HTTP/1.1 2", b"0", 0.05), "timeout"),
    "interim answers without end": (repeat(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01), "timeout"),
    "silence": (lambda _connection, _request, stop: stop.wait(5), "timeout"),
    "no byte": (lambda _connection, _request, _stop: None, "empty_reply"),
    "half an answer": (lambda connection, _request, _stop: connection.sendall(OK + b"Content-Length: 100\r\n\r\n{"), "connection_reset"),
    "another protocol": (lambda connection, _request, _stop: connection.sendall(b"220 mail.example ESMTP\r\n\r\n"), "not_gateway"),
    "no JSON": (answer(b"<html>It works!</html>"), "not_gateway"),
    "empty body": (answer(b""), "not_gateway"),
    "JSON without end of depth": (answer(b"[" * 900000), "not_gateway"),
    "a list": (answer([]), "not_gateway"),
    "a text": (answer("ok"), "not_gateway"),
    "an object of something else": (answer({"hello": "world"}), "not_gateway"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_answers_are_bounded_in_time_and_memory(name):
    talk, code = HOSTILE[name]
    seconds = SECONDS if code == "timeout" else 5.0  # what comes at once comes late on a busy machine
    with server(talk) as port:
        client = Client("http://127.0.0.1:%d" % port, lambda: TOKEN, seconds=seconds)
        tracemalloc.start()
        start = time.monotonic()
        try:
            with pytest.raises(Refused) as refused:
                client.keepalive({"machine_id": "1165a9b6"})
        finally:
            memory = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            client.close()
    assert refused.value.problem.code == code
    assert time.monotonic() - start < seconds + 2.0
    assert memory < 12 * 2**20


@pytest.mark.parametrize(
    "state",
    [
        {"ttl_seconds": "soon"},
        {"ttl_seconds": 1e400},
        {"ttl_seconds": -1},
        {"ttl_seconds": [1]},
        {"machine_id": {"a": 1}, "status": 7, "last_keepalive": "x", "agent_version": None},
        [],
        "ready",
        None,
    ],
)
def test_wrong_types_are_survived(state):
    with server(answer({"status": "ok", "machine_state": state})) as port:
        found = Client("http://127.0.0.1:%d" % port, lambda: TOKEN).keepalive({})
    assert isinstance(found.status, str) and (found.ttl_seconds is None or isinstance(found.ttl_seconds, int))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed_and_the_token_stays_here(status):
    elsewhere = []
    with server(answer({"status": "ok", "machine_state": {}}), elsewhere) as other:
        location = b"HTTP/1.1 %d Elsewhere\r\nLocation: http://127.0.0.1:%d/api/v1/machine/keepalive\r\nContent-Length: 0\r\n\r\n" % (status, other)
        with server(lambda connection, _request, _stop: connection.sendall(location)) as port:
            with pytest.raises(Refused) as refused:
                Client("http://127.0.0.1:%d" % port, lambda: TOKEN).keepalive({})
    assert refused.value.problem.code == "not_gateway" and elsewhere == []


def test_proxies_of_the_environment_do_not_get_the_token(monkeypatch):
    elsewhere = []
    with server(answer({}), elsewhere) as other, server(answer({"status": "ok"})) as port:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:%d" % other)
        Client("http://127.0.0.1:%d" % port, lambda: TOKEN).keepalive({})
    assert elsewhere == []


def test_token_that_is_repeated_does_not_get_into_the_problem():
    body = json.dumps({"message": "what is %s?" % TOKEN}).encode()
    teapot = b"HTTP/1.1 418 Teapot\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    with server(lambda connection, _request, _stop: connection.sendall(teapot)) as port:
        with pytest.raises(Refused) as refused:
            Client("http://127.0.0.1:%d" % port, lambda: TOKEN).keepalive({})
    assert "what is (token)?" in refused.value.problem.cause and TOKEN not in str(refused.value)


def test_one_connection_serves_all_and_cookies_are_not_kept():
    requests = []
    with server(answer({"status": "ok"}, b"Set-Cookie: a=b\r\n"), requests) as port:
        client = Client("http://127.0.0.1:%d" % port, lambda: TOKEN)
        for _keepalive in range(3):
            client.keepalive({})
    assert len(requests) == 3 and not any(b"ookie" in request for request in requests)
    assert all(b"Authorization: Bearer " + TOKEN.encode() in request and b"Host: 127.0.0.1:%d\r\n" % port in request for request in requests)


def test_idle_connection_that_the_server_closed_is_no_failure():
    """The server drops the connection when it sees the second request on it, as one does whose idle time was just over."""
    served = []

    def talk(connection, _request, _stop):
        if connection in served:
            return False
        served.append(connection)
        return answer({"status": "ok"})(connection, None, None)

    with server(talk) as port:
        client = Client("http://127.0.0.1:%d" % port, lambda: TOKEN)
        for _keepalive in range(3):
            client.keepalive({})
    assert len(served) == 3


def test_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Refused) as refused:
        Client("http://127.0.0.1:%d" % port, lambda: TOKEN).keepalive({})
    assert refused.value.problem.code == "connection_refused"


def test_name_without_address():
    with pytest.raises(Refused) as refused:
        Client("http://no-such-host.invalid:1", lambda: TOKEN).keepalive({})
    assert refused.value.problem.code == "name_unresolved"


@pytest.fixture
def names(monkeypatch):
    """Addresses of gate.example, and how often they were asked for; names["wait"] holds the answers back."""
    found, real = {"addresses": ["127.0.0.1"], "asked": 0, "wait": threading.Event()}, socket.getaddrinfo
    found["wait"].set()

    def look_up(host, port, *arguments, **more):
        if host != "gate.example":
            return real(host, port, *arguments, **more)
        found["asked"] += 1
        found["wait"].wait(20)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found["addresses"]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return found


def test_resolver_that_hangs_is_waited_for_no_longer_than_the_rest(names):
    names["wait"].clear()
    with server(answer({"status": "ok", "machine_state": {}})) as port:
        client = Client(f"http://gate.example:{port}", lambda: TOKEN, seconds=SECONDS)
        for _request in range(2):
            start = time.monotonic()
            with pytest.raises(Refused) as refused:
                client.keepalive({})
            assert refused.value.problem.code == "name_unresolved" and time.monotonic() - start < SECONDS + 1
        assert names["asked"] == 1  # no heap of threads
        names["wait"].set()
        client.keepalive({})
        client.close()


def test_each_address_of_a_name_is_tried(names):
    names["addresses"] = ["127.0.0.2", "127.0.0.1"]
    with server(answer({"status": "ok", "machine_state": {}})) as port:
        client = Client(f"http://gate.example:{port}", lambda: TOKEN, seconds=SECONDS)
        client.keepalive({})
        client.close()
    with pytest.raises(Refused) as refused:
        Client(f"http://gate.example:{port}", lambda: TOKEN, seconds=SECONDS).keepalive({})
    assert refused.value.problem.code == "connection_refused"


def test_missing_keepalive_route_has_its_own_message():
    with server(lambda connection, _request, _stop: connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")) as port:
        with pytest.raises(Refused) as refused:
            Client("http://127.0.0.1:%d" % port, lambda: TOKEN).keepalive({})
    assert refused.value.problem.code == "route_missing" and "keepalive" in refused.value.problem.cause
    assert protocol.classify(404, b"", "/api/v1/machine/register").cause != refused.value.problem.cause


def told(status, body):
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %d Told\r\nContent-Length: %d\r\n\r\n" % (status, len(data)) + data


@pytest.mark.parametrize(
    ("health", "code"),
    [
        (told(200, {"status": "ok"}), "token_unknown"),
        (told(500, {"status": "not ok", "error": "failed to connect to Postgres"}), "gateway_unhealthy"),
        (told(503, {}), "gateway_unavailable"),
        (b"", "empty_reply"),
    ],
)
def test_401_is_believed_of_a_healthy_gateway_only(health, code):
    requests = []

    def talk(connection, request, _stop):
        if request.startswith(b"GET /api/v1/health "):
            connection.sendall(health)
            return bool(health)
        connection.sendall(told(401, {"message": "Unauthorized"}))
        return True

    with server(talk, requests) as port:
        with pytest.raises(Refused) as refused:
            Client("http://127.0.0.1:%d" % port, lambda: TOKEN).keepalive({})
    assert refused.value.problem.code == code
    assert all((TOKEN.encode() in request) == (b"/keepalive" in request) for request in requests)


def test_new_connection_that_ends_without_an_answer_is_told_at_once():
    requests = []
    with server(lambda _connection, _request, _stop: False, requests) as port:
        with pytest.raises(Refused) as caught:
            Client("http://127.0.0.1:%d" % port, lambda: TOKEN, seconds=SECONDS).keepalive({})
    assert caught.value.problem.code == "empty_reply" and len(requests) == 1
