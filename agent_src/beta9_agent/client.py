"""The machine API: the two calls of an agent's life. Raises Refused with a classified problem."""

from __future__ import annotations

import json
from typing import Any, Callable, Sequence

from . import http, protocol

REQUEST_SECONDS = 10.0


class Refused(Exception):
    """The call did not succeed. problem is a protocol.Problem."""

    def __init__(self, problem: protocol.Problem) -> None:
        super().__init__(f"{problem.code}: {problem.cause}")
        self.problem = problem


class Client:
    """register and keepalive. token is a function, so that a new credential is used without a restart."""

    def __init__(
        self,
        url: str,
        token: Callable[[], str],
        ca_path: str | None = None,
        seconds: float = REQUEST_SECONDS,
        certificate: tuple[str, str | None] | None = None,
    ) -> None:
        self._token, idle = token, protocol.KEEPALIVE_MAX_INTERVAL_SECONDS
        self._http = http.client(url, ca_path, seconds, idle_seconds=idle, certificate=certificate)

    def register(self, payload: dict[str, Any]) -> protocol.MachineState:
        """Register; return the MachineState."""
        return self._post("/register", payload, ("config", "machine_state"))

    def keepalive(self, payload: dict[str, Any]) -> protocol.MachineState:
        """Send a keepalive; return the MachineState."""
        return self._post("/keepalive", payload, ("status", "machine_state"))

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _post(self, path: str, payload: dict[str, Any], expected: Sequence[str]) -> protocol.MachineState:
        path, token = protocol.MACHINE_API + path, self._token()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        status, body = self._ask("POST", path, headers=headers, content=json.dumps(payload).encode())
        if status == 401:  # without its Redis or Postgres a gateway knows no token
            health = protocol.classify(*self._ask("GET", protocol.HEALTH_PATH), protocol.HEALTH_PATH)
            if health:
                raise Refused(health)
        problem = protocol.classify(status, body, path)
        # a success that does not look like one of a gateway is none: something else answers there
        if problem is None and not (isinstance(body, dict) and any(name in body for name in expected)):
            problem = protocol.classify(None, "not_json")
        if problem:
            # some answers repeat what they were sent
            raise Refused(problem._replace(cause=problem.cause.replace(token, "(token)")))
        return protocol.parse_machine_state(body)

    def _ask(self, method: str, path: str, **request: Any) -> tuple[int, Any]:
        """Return (status, body parsed where it is JSON)."""
        try:
            response = self._http.request(method, path, **request)
        except http.Unreachable as error:
            raise Refused(protocol.classify(None, error.name)) from None
        try:
            return response.status_code, protocol.decode(response.content)
        except ValueError:
            return response.status_code, response.content
