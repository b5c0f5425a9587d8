"""httpx to one place: no redirects, no cookies, no proxies, and by a transport of ours every answer bounded in size and time.

Whatever the other side does, a request ends within its seconds: httpx's own time limits hold for one read each, and a server that
drips its headers would keep it busy for hours. So the limit of each read and write is cut to what is left of the whole.
"""

from __future__ import annotations

import socket
import ssl
import time

import httpcore
import httpx

from . import __version__, protocol

MAX_BODY_BYTES = 1024 * 1024
STALE = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
FAILURES = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError)


class Unreachable(Exception):
    """No usable answer came. name is a key of protocol.TRANSPORT."""

    def __init__(self, name):
        super().__init__(name)
        self.name = name


class _Deadline:
    """The moment at which the request under way has to be over."""

    def __init__(self):
        self.moment = 0.0

    def cut(self, timeout):
        left = self.moment - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the request took too long")
        return left if timeout is None else min(left, timeout)


class _Stream(httpcore.NetworkStream):
    """A connection whose every step keeps to the deadline."""

    def __init__(self, stream, deadline):
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes, timeout=None):
        return self._stream.read(max_bytes, self._deadline.cut(timeout))

    def write(self, buffer, timeout=None):
        self._stream.write(buffer, self._deadline.cut(timeout))

    def close(self):
        self._stream.close()

    def start_tls(self, ssl_context, server_hostname=None, timeout=None):
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._deadline.cut(timeout)), self._deadline)

    def get_extra_info(self, info):
        return self._stream.get_extra_info(info)


class _Backend(httpcore.SyncBackend):
    """Opens connections that keep to the deadline, and counts them."""

    def __init__(self, deadline):
        self._deadline, self.connections = deadline, 0

    def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        self.connections += 1
        stream = super().connect_tcp(host, port, self._deadline.cut(timeout), local_address, socket_options)
        return _Stream(stream, self._deadline)


def _causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def transport_name(error):
    """Return the key of protocol.TRANSPORT for what httpx's engine raised."""
    causes = list(_causes(error))
    for kinds, name in (
        (ssl.SSLError, "tls"),
        (socket.gaierror, "dns"),
        (httpcore.TimeoutException, "timeout"),
        (ConnectionRefusedError, "refused"),
        (httpcore.RemoteProtocolError, "empty" if "disconnected without" in str(error) else "reset" if "closed" in str(error) else "not_json"),
        ((httpcore.NetworkError, OSError), "reset"),
    ):
        if any(isinstance(cause, kinds) for cause in causes):
            return name
    return "other"


class Transport(httpx.BaseTransport):
    """One connection, for a client of httpx. Raises Unreachable where no usable answer comes.

    An answer has a status and a body, as it came and no longer than max_body_bytes. Its headers are left out: nothing of them is
    used, and a client would act on some (compression, cookies).
    """

    def __init__(self, tls, idle_seconds, max_body_bytes):
        self._max, self._deadline = max_body_bytes, _Deadline()
        self._backend = _Backend(self._deadline)
        self._pool = httpcore.ConnectionPool(tls, max_connections=1, keepalive_expiry=idle_seconds, network_backend=self._backend)

    def handle_request(self, request):
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

    def _once(self, request):
        url = httpcore.URL(scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path)
        response = self._pool.handle_request(httpcore.Request(request.method, url, headers=request.headers.raw, content=request.stream))
        try:
            raw = bytearray()
            for block in response.iter_stream():
                raw += block
                if len(raw) > self._max:
                    raise Unreachable("too_large")
        finally:
            response.close()  # and the connection, where the answer was not read to its end
        return httpx.Response(response.status, content=bytes(raw))

    def close(self):
        """Close the connection."""
        self._pool.close()


def client(url, ca_path=None, seconds=10.0, idle_seconds=240.0, max_body_bytes=MAX_BODY_BYTES, certificate=None):
    """Return a client of httpx for one place.

    ca_path: for https only; without it the system's certificates are trusted. certificate: the files (certificate, key) to show.
    """
    # made once: reading the certificates costs more than all the rest of a keepalive
    tls = ssl.create_default_context(cafile=ca_path) if url.startswith("https:") else None
    if tls and certificate:
        try:
            tls.load_cert_chain(*certificate)
        except OSError as error:
            found = f"{certificate[0]}: {error.strerror or error}"
            raise protocol.InvalidField("client_cert", "a certificate, and its key in client_key", found) from None
    headers = {"User-Agent": "beta9-agent/" + __version__, "Accept": "application/json"}
    transport = Transport(tls, idle_seconds, max_body_bytes)
    return httpx.Client(transport=transport, base_url=url, headers=headers, timeout=seconds, trust_env=False)
