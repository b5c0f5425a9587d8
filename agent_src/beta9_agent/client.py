"""The machine API over httpx: one client, one connection, bounded answers. Raises Refused with a classified problem."""

from __future__ import annotations

import json
import logging
import socket
import ssl

import httpx

from . import __version__, protocol

MAX_BODY_BYTES = 1024 * 1024
TIMEOUT_SECONDS = 10.0

# Their lines would show every URL, and at debug level every header
for name in ("httpx", "httpcore"):
    logging.getLogger(name).setLevel(logging.WARNING)


class Refused(Exception):
    """The call did not succeed. problem is a protocol.Problem; message is what the gateway said, never a token."""

    def __init__(self, problem, message=""):
        super().__init__("%s: %s%s" % (problem.code, problem.cause, " (%s)" % message if message else ""))
        self.problem, self.message = problem, message


def _tls(url, ca_path):
    if url.startswith("https:"):
        return ssl.create_default_context(cafile=ca_path)
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; making the real one would cost time and memory


def _causes(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def transport_name(error):
    """Return the key of protocol.TRANSPORT for an httpx error."""
    causes = list(_causes(error))
    for kinds, name in (
        ((ssl.SSLError,), "tls"),
        ((socket.gaierror,), "dns"),
        ((httpx.TimeoutException,), "timeout"),
        ((ConnectionRefusedError,), "refused"),
        ((httpx.RemoteProtocolError,), "empty"),
        ((httpx.NetworkError, OSError), "reset"),
    ):
        if any(isinstance(cause, kinds) for cause in causes):
            if name == "reset" and "refused" in str(error).lower():
                return "refused"
            return name
    return "other"


class Client:
    """The two calls of an agent's life. token is a function, so that a new credential is used without a restart."""

    def __init__(self, url, token, ca_path=None):
        self._token = token
        self._http = httpx.Client(
            base_url=url,
            timeout=TIMEOUT_SECONDS,
            follow_redirects=False,
            verify=_tls(url, ca_path),
            trust_env=False,
            limits=httpx.Limits(max_connections=1, keepalive_expiry=protocol.KEEPALIVE_MAX_INTERVAL_SECONDS),
            headers={"User-Agent": "beta9-agent/" + __version__, "Accept": "application/json"},
        )

    def register(self, payload):
        """Register; return the MachineState."""
        return self._post("/register", payload)

    def keepalive(self, payload):
        """Send a keepalive; return the MachineState."""
        return self._post("/keepalive", payload)

    def close(self):
        """Close the connection."""
        self._http.close()

    def _post(self, path, payload):
        path = protocol.MACHINE_API + path
        try:
            with self._http.stream("POST", path, json=payload, headers={"Authorization": "Bearer " + self._token()}) as response:
                raw = b""
                for block in response.iter_raw(65536):
                    raw += block
                    if len(raw) > MAX_BODY_BYTES:
                        raise Refused(protocol.classify(None, "too_large"))
        except httpx.HTTPError as error:
            raise Refused(protocol.classify(None, transport_name(error))) from None
        try:
            body = json.loads(raw)
        except ValueError:
            if response.status_code < 300:
                raise Refused(protocol.classify(None, "not_json")) from None
            body = raw
        problem = protocol.classify(response.status_code, body, path)
        if problem:
            raise Refused(problem, protocol.message_of(body))
        return protocol.parse_machine_state(body)
