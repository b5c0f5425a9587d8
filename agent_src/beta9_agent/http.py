"""httpx to one place: no redirects, no cookies, no proxies, and by a transport of ours every answer bounded in size and
time.

Whatever the other side does, a request ends within its seconds: httpx's own time limits hold for one read each, and a
server that drips its headers would keep it busy for hours. So the limit of each read and write is cut to what is left
of the whole.
"""

from __future__ import annotations

import queue
import socket
import ssl
import threading
import time
from typing import Any, Iterable, Iterator

import httpcore
import httpx

from . import __version__, protocol

MAX_BODY_BYTES = 1024 * 1024
STALE = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
FAILURES = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError)


class Unreachable(Exception):
    """No usable answer came. name is a key of protocol.TRANSPORT."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class _Deadline:
    """The moment at which the request under way has to be over."""

    def __init__(self) -> None:
        self.moment = 0.0

    def cut(self, timeout: float | None) -> float:
        left = self.moment - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the request took too long")
        return left if timeout is None else min(left, timeout)


class _Stream(httpcore.NetworkStream):
    """A connection whose every step keeps to the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.cut(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.cut(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        secured = self._stream.start_tls(ssl_context, server_hostname, self._deadline.cut(timeout))
        return _Stream(secured, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Resolver:
    """Looks the place's name up, in a thread: the system's resolver has no time limit, and takes minutes where DNS is
    away."""

    def __init__(self) -> None:
        self._answers: queue.Queue[list[str] | OSError] | None = None  # of the question under way

    def addresses(self, host: str, port: int, seconds: float) -> list[str]:
        """Return the name's addresses. Raises OSError, also where none came within the time."""
        if self._answers is None:
            self._answers = queue.Queue()
            threading.Thread(target=self._look_up, args=(host, port, self._answers), daemon=True).start()
        try:
            found = self._answers.get(timeout=seconds)
        except queue.Empty:  # the next request waits for the same answer
            raise socket.gaierror(socket.EAI_AGAIN, f"the resolver did not answer within {seconds:.0f} s") from None
        self._answers = None
        if isinstance(found, OSError):
            raise found
        return found

    @staticmethod
    def _look_up(host: str, port: int, answers: queue.Queue[list[str] | OSError]) -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            answers.put(error)
        else:
            answers.put(list(dict.fromkeys(str(entry[4][0]) for entry in found)))


class _Backend(httpcore.SyncBackend):
    """Opens connections that keep to the deadline, and counts them."""

    def __init__(self, deadline: _Deadline) -> None:
        self._deadline, self._resolver, self.connections = deadline, _Resolver(), 0

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        self.connections += 1
        addresses = self._resolver.addresses(host, port, self._deadline.cut(timeout))
        for address in addresses:
            try:
                stream = super().connect_tcp(address, port, self._deadline.cut(timeout), local_address, socket_options)
            except httpcore.ConnectError:
                if address == addresses[-1]:
                    raise
            else:
                return _Stream(stream, self._deadline)
        raise httpcore.ConnectError("the name has no address")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def transport_name(error: BaseException) -> str:
    """Return the key of protocol.TRANSPORT for what httpx's engine raised."""
    causes = list(_causes(error))
    for kinds, name in (
        (ssl.SSLError, "tls"),
        (socket.gaierror, "dns"),
        (httpcore.TimeoutException, "timeout"),
        (ConnectionRefusedError, "refused"),
        (
            httpcore.RemoteProtocolError,
            "empty" if "disconnected without" in str(error) else "reset" if "closed" in str(error) else "not_json",
        ),
        ((httpcore.NetworkError, OSError), "reset"),
    ):
        if any(isinstance(cause, kinds) for cause in causes):
            return name
    return "other"


class Transport(httpx.BaseTransport):
    """One connection, for a client of httpx. Raises Unreachable where no usable answer comes.

    An answer has a status and a body, as it came and no longer than max_body_bytes. Its headers are left out: nothing
    of them is used, and a client would act on some (compression, cookies).
    """

    def __init__(self, tls: ssl.SSLContext | None, idle_seconds: float, max_body_bytes: int) -> None:
        self._max, self._deadline = max_body_bytes, _Deadline()
        self._backend = _Backend(self._deadline)
        self._pool = httpcore.ConnectionPool(
            tls, max_connections=1, keepalive_expiry=idle_seconds, network_backend=self._backend
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer, of any status."""
        self._deadline.moment = time.monotonic() + request.extensions["timeout"]["read"]
        opened = self._backend.connections
        try:
            return self._once(request)
        except STALE as error:
            if opened != self._backend.connections:
                raise Unreachable(transport_name(error)) from None
            # the server closed the idle connection while the request was on its way: that says nothing about the server
        except FAILURES as error:
            raise Unreachable(transport_name(error)) from None
        try:
            return self._once(request)
        except FAILURES as error:
            raise Unreachable(transport_name(error)) from None

    def _once(self, request: httpx.Request) -> httpx.Response:
        to = request.url
        url = httpcore.URL(scheme=to.raw_scheme, host=to.raw_host, port=to.port, target=to.raw_path)
        sent = httpcore.Request(request.method, url, headers=request.headers.raw, content=request.stream)
        response = self._pool.handle_request(sent)
        try:
            raw = bytearray()
            for block in response.iter_stream():
                raw += block
                if len(raw) > self._max:
                    raise Unreachable("too_large")
        finally:
            response.close()  # and the connection, where the answer was not read to its end
        return httpx.Response(response.status, content=bytes(raw))

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()


def client(
    url: str,
    ca_path: str | None = None,
    seconds: float = 10.0,
    idle_seconds: float = 240.0,
    max_body_bytes: int = MAX_BODY_BYTES,
    certificate: tuple[str, str | None] | None = None,
) -> httpx.Client:
    """Return a client of httpx for one place. Raises InvalidField, and OSError where ca_path holds no certificates.

    ca_path: for https only; without it the system's certificates are trusted. certificate: the files (certificate, key)
    to show; a key that has a passphrase is refused.
    """
    # made once: reading the certificates costs more than all the rest of a keepalive
    tls = ssl.create_default_context(cafile=ca_path) if url.startswith("https:") else None
    if tls and certificate:
        try:
            tls.load_cert_chain(*certificate, password="")  # without one, OpenSSL asks at the terminal
        except OSError as error:
            found = f"{certificate[0]}: {error.strerror or error}"
            raise protocol.InvalidField("client_cert", "a certificate, and its key in client_key", found) from None
    headers = {"User-Agent": "beta9-agent/" + __version__, "Accept": "application/json"}
    transport = Transport(tls, idle_seconds, max_body_bytes)
    return httpx.Client(transport=transport, base_url=url, headers=headers, timeout=seconds, trust_env=False)
