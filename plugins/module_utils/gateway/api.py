# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls of a gateway.

    GatewayError            .problem (protocol.Problem, whose code tells them apart), .method, .url
      NotFoundError         machine_not_found, route_missing

No message contains a token or a body. exchange follows no redirects, so a token goes to the named host only.
"""

from __future__ import annotations

import copy
import http.client
import ipaddress
import json
import random
import ssl
import time
from urllib.parse import quote, urlencode, urlsplit
from typing import Any

from ansible.module_utils.basic import env_fallback
from ansible_collections.beta9.workers.plugins.module_utils import exchange
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol

GATEWAY_ARGUMENT_SPEC = {
    "gateway_url": {"type": "str", "fallback": (env_fallback, ["BETA9_GATEWAY_URL"])},
    "token": {"type": "str", "no_log": True, "fallback": (env_fallback, ["BETA9_TOKEN"])},
    "token_file": {"type": "path", "no_log": False, "fallback": (env_fallback, ["BETA9_TOKEN_FILE"])},
    "ca_path": {"type": "path", "fallback": (env_fallback, ["BETA9_CA_PATH"])},
    "client_cert": {"type": "path", "fallback": (env_fallback, ["BETA9_CLIENT_CERT"])},
    "client_key": {"type": "path", "no_log": False, "fallback": (env_fallback, ["BETA9_CLIENT_KEY"])},
    "validate_certs": {"type": "bool", "default": True, "fallback": (env_fallback, ["BETA9_VALIDATE_CERTS"])},
    "timeout": {"type": "int", "default": 10},
    "retries": {"type": "int", "default": 2},
}


# Codes of problems that only another token ends
REFUSED_TOKEN = ("token_unknown", "token_wrong_type")


class GatewayError(Exception):
    """A gateway call that did not succeed."""

    def __init__(self, problem: protocol.Problem, method: str, url: str, message: str = "") -> None:
        self.problem, self.method, self.url = problem, method, url
        found = "no answer" if problem.status is None else f"HTTP {problem.status}"
        super().__init__(
            f"{method} {url}: expected success, found {found}{f' ({message})' if message else ''}: {problem.cause}. "
            f"{problem.remedy}"
        )


class NotFoundError(GatewayError):
    """The machine or the endpoint is not there."""


def error_of(problem: protocol.Problem, method: str, url: str, message: str = "") -> GatewayError:
    """Return the exception that fits a problem."""
    kind = NotFoundError if problem.code in ("machine_not_found", "route_missing") else GatewayError
    return kind(problem, method, url, message)


class GatewayClient:
    """The calls of one gateway. Each returns parsed safe data, or raises a GatewayError."""

    def __init__(
        self,
        base_url: str,
        token: str | None = None,
        ca_path: str | None = None,
        client_cert: str | None = None,
        client_key: str | None = None,
        validate_certs: bool = True,
        timeout: float = 10,
        retries: int = 2,
    ) -> None:
        parts = urlsplit(base_url or "")
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.username
            or parts.query
            or parts.path.strip("/")
        ):
            raise protocol.InvalidField(
                "gateway_url", "a URL like http://gateway.example.com:31994", repr(base_url) if base_url else "nothing"
            )
        self.base_url = base_url.rstrip("/")
        self._token = protocol.token(token) if token else None
        self._retries = retries
        self._timeout = timeout
        self.dropped: list[str] = []  # what the gateway sent that fits no grammar, for one warning
        # the trust store is read only where there is TLS: that takes 20 ms
        self._tls = _tls(ca_path, client_cert, client_key, validate_certs) if parts.scheme == "https" else None

    # -- gateway API (operator) --

    def health(self) -> None:
        """Return when the gateway says that it and its stores are well."""
        body = self._call("GET", protocol.HEALTH_PATH)
        if not isinstance(body, dict) or body.get("status") != "ok":
            raise error_of(protocol.classify(None, "not_json"), "GET", self.base_url + protocol.HEALTH_PATH)

    def list_pools(self) -> list[dict[str, Any]]:
        """Return protocol.parse_pools."""
        return protocol.parse_pools(self._call("GET", protocol.GATEWAY_API + "/pools"), self.dropped)

    def list_machines(self, pool: str | None = None) -> list[dict[str, Any]]:
        """Return protocol.parse_machines, of one pool or of all."""
        path = protocol.GATEWAY_API + "/machines?" + urlencode(dict({"pool_name": pool} if pool else {}, limit=10000))
        found = protocol.parse_machines(self._call("GET", path), self.dropped)
        if not found:
            self._be_permitted()
        return found

    def _be_permitted(self) -> None:
        """Return where the token is a cluster admin's. Another one is told of no machines, as if there were none."""
        try:
            self._call("GET", protocol.GATEWAY_API + "/pools", retries=0)
        except GatewayError as error:
            if error.problem.code != protocol.POOL_STATE_MISSING.code:  # told to nobody else
                raise

    def create_machine(self, pool: str) -> dict[str, str]:
        """Make a machine and return protocol.parse_created. Asked once only: every call that arrives makes another
        machine."""
        return protocol.parse_created(
            self._call("POST", protocol.GATEWAY_API + "/machines", {"pool_name": protocol.pool_name(pool)}, retries=0)
        )

    def delete_machine(self, machine_id: str, pool: str) -> None:
        """Delete a machine. One that is not there is a success. In a local pool the request would kill the gateway:
        looked at before."""
        self.list_machines(protocol.pool_name(pool))
        self._call(
            "DELETE",
            f"{protocol.GATEWAY_API}/machines/{quote(protocol.machine_id(machine_id))}?{urlencode(dict(pool_name=pool))}",
        )

    def token_id(self, mark: str) -> str | None:
        """Return the id of the token that protocol.token_mark was made of, None where the gateway has it no more."""
        return protocol.find_token(self._call("GET", protocol.GATEWAY_API + "/tokens"), mark)

    def delete_token(self, token_id: str) -> None:
        """Revoke a token. The gateway's cache honours it for up to ten minutes more."""
        self._call("DELETE", f"{protocol.GATEWAY_API}/tokens/{quote(token_id)}")

    def owned(self, machine_id: str, pool: str, provider: str, marks: list[str]) -> bool | None:
        """Return whether one of a host's marks (protocol.token_mark) is of the token that the gateway has for a
        machine; None where it can't be told. Only the machine API tells, of ready machines: it is asked with a token of
        the gateway's own list, which stays in here."""
        key = protocol.reusable_machine_key(self._call("GET", protocol.GATEWAY_API + "/tokens"))
        if not key:
            return None
        machines = copy.copy(self)
        machines._token = key
        query = urlencode({"pool_name": pool, "provider_name": provider or protocol.PROVIDER_DEFAULT})
        return protocol.owned(machines._call("GET", protocol.MACHINE_API + "/list?" + query), machine_id, marks)

    def discard_machine(self, created: dict[str, str]) -> None:
        """Delete a machine that was just made, and its token. created is what create_machine returned."""
        self.delete_machine(created["id"], created["pool"])
        identity = self.token_id(protocol.token_mark(created["registration_token"]))
        if identity:
            self.delete_token(identity)

    def list_workers(self, machine_id: str) -> list[dict[str, Any]]:
        """Return those of protocol.parse_workers that run on a machine."""
        found = protocol.parse_workers(self._call("GET", protocol.GATEWAY_API + "/workers"), self.dropped)
        return [worker for worker in found if worker["machine_id"] == machine_id]

    def cordon_worker(self, worker_id: str) -> None:
        """Let a worker take nothing more."""
        self._call("POST", f"{protocol.GATEWAY_API}/workers/{quote(worker_id)}/cordon", {})

    def drain_worker(self, worker_id: str) -> None:
        """Stop the containers that a worker runs."""
        self._call("POST", f"{protocol.GATEWAY_API}/workers/{quote(worker_id)}/drain", {})

    def is_upstream(self) -> bool:
        """Return whether this is an upstream build, which machines join with an agent of its own: the path is known, if
        not this method."""
        try:
            self._call("GET", protocol.JOIN_PATH, retries=0)
        except GatewayError as error:
            if error.problem.code != "route_missing":
                raise
            return error.problem.status == 501
        return True

    # -- machine API (worker) --

    def register(self, payload: dict[str, Any]) -> protocol.MachineState:
        """Register a machine; payload from protocol.register_payload. Return its MachineState."""
        return protocol.parse_machine_state(self._call("POST", protocol.MACHINE_API + "/register", payload))

    def keepalive(self, payload: dict[str, Any]) -> protocol.MachineState:
        """Send a keepalive; payload from protocol.keepalive_payload. Return the MachineState."""
        return protocol.parse_machine_state(self._call("POST", protocol.MACHINE_API + "/keepalive", payload))

    def list_ready(self, pool: str, provider: str = protocol.PROVIDER_DEFAULT) -> list[dict[str, Any]]:
        """Return the ready machines of a pool, without the tokens that the gateway sends along."""
        path = protocol.MACHINE_API + "/list?" + urlencode({"pool_name": pool, "provider_name": provider})
        return protocol.parse_machine_list(self._call("GET", path), self.dropped)

    # -- transport --

    def _call(self, method: str, path: str, payload: dict[str, Any] | None = None, retries: int | None = None) -> Any:
        """Return the parsed body of a success. Retries only what the classifier calls retryable.

        A 401 is believed only of a gateway that is well: without its Redis or Postgres it knows no token.
        """
        left = self._retries if retries is None else retries
        pause = 0.5
        while True:
            try:
                try:
                    return self._once(method, path, payload)
                except GatewayError as error:
                    if error.problem.status == 401:
                        self._once("GET", protocol.HEALTH_PATH, None)
                    raise
            except GatewayError as error:
                if left <= 0 or not error.problem.retryable:
                    raise
            left -= 1
            time.sleep(random.uniform(pause / 2, pause))
            pause *= 2

    def _proxied(self, path: str) -> bool:
        """Return whether the environment's proxy may be used (unless its no_proxy says otherwise): for an operator's
        questions, which the controller asks. A worker's own go by the tunnel, the tailnet or directly, and nobody's
        proxy knows another host's loopback."""
        host = urlsplit(self.base_url).hostname or ""
        loopback = host == "localhost" or (protocol.is_ip(host) and ipaddress.ip_address(host).is_loopback)
        return path.startswith(protocol.GATEWAY_API) and not loopback

    def _once(self, method: str, path: str, payload: dict[str, Any] | None) -> Any:
        url = self.base_url + path
        headers = {"Accept": "application/json", "User-Agent": "beta9.workers"}
        if payload is not None:
            headers["Content-Type"] = "application/json"
        if self._token and path != protocol.HEALTH_PATH:
            headers["Authorization"] = "Bearer " + self._token
        data = None if payload is None else json.dumps(payload).encode()
        try:
            status, _headers, raw = exchange.exchange(
                method, url, self._timeout, headers, data, self._tls, self._proxied(path)
            )
        except (OSError, http.client.HTTPException) as error:
            raise error_of(protocol.classify(None, exchange.name_of(error)), method, url) from None
        if len(raw) > exchange.MAX_BODY_BYTES:
            raise error_of(protocol.classify(None, "too_large"), method, url)
        try:
            body = protocol.decode(raw)
        except ValueError:
            if status < 300:
                raise error_of(protocol.classify(None, "not_json")._replace(status=status), method, url) from None
            body = raw
        problem = protocol.classify(status, body, path.partition("?")[0])
        if problem:
            raise error_of(problem, method, url, protocol.message_of(body))
        return body


def _tls(ca_path: str | None, client_cert: str | None, client_key: str | None, validate_certs: bool) -> ssl.SSLContext:
    """Return what TLS shall verify and show. InvalidField names a file that can't be used."""
    try:
        context = ssl.create_default_context(cafile=ca_path)
    except OSError as error:  # an SSLError is one
        raise protocol.InvalidField(
            "ca_path", "a file with CA certificates", f"{ca_path}: {error.strerror or error}"
        ) from None
    if not validate_certs:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if client_cert:
        try:
            context.load_cert_chain(client_cert, client_key)
        except OSError as error:
            raise protocol.InvalidField(
                "client_cert", "a certificate, and its key in client_key", f"{client_cert}: {error.strerror or error}"
            ) from None
    return context


def read_token(path: str) -> str:
    """Return the token in a file, or raise InvalidField that names the file."""
    try:
        with open(path, encoding="utf-8") as stream:
            return protocol.token(stream.read())
    except OSError as error:
        raise protocol.InvalidField("token_file", "a file with the token", f"{path}: {error.strerror}") from None


def client_from_params(params: dict[str, Any]) -> GatewayClient:
    """Return a client for parameters of GATEWAY_ARGUMENT_SPEC. A token given directly goes before one in a file."""
    if not params.get("gateway_url"):
        raise protocol.InvalidField(
            "gateway_url", "a URL like http://gateway.example.com:31994 (parameter, or BETA9_GATEWAY_URL)", "nothing"
        )
    token = params.get("token") or (read_token(params["token_file"]) if params.get("token_file") else None)
    if not token:
        raise protocol.InvalidField("token", "a token (parameter token or token_file, or BETA9_TOKEN)", "nothing")
    names = ("ca_path", "client_cert", "client_key", "validate_certs", "timeout", "retries")
    return GatewayClient(
        params["gateway_url"], token, **{name: params[name] for name in names if params.get(name) is not None}
    )
