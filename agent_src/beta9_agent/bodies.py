"""The bodies of requests of a machine, and what of them is remembered."""

from __future__ import annotations

from typing import Any

from . import __version__, protocol, state
from .config import Config
from .metrics import Machine


def register(config: Config, machine: Machine) -> dict[str, Any]:
    """Return the register body. Contains a token. Raises InvalidField."""
    return protocol.register_payload(
        token=config.cluster_token() or config.machine_token(),
        machine_id=config.machine_id,
        hostname=config.hostname,
        pool_name=config.pool_name,
        provider_name=config.provider_name,
        private_ip=config.private_ip,
        **machine.capacity(),
    )


def keepalive(config: Config, machine: Machine) -> dict[str, Any]:
    """Return the keepalive body. Contains no secret. Raises InvalidField."""
    metrics = machine.metrics()
    return protocol.keepalive_payload(config.machine_id, config.pool_name, config.provider_name, __version__, metrics)


def fingerprint(config: Config, payload: dict[str, Any]) -> str:
    """Return what differs where a register body, or the gateway that it goes to, does. Raises InvalidField."""
    return state.fingerprint([payload, config.gateway_url], config.machine_token())


class Registered:
    """The capacity that was registered."""

    def __init__(self, machine: Machine) -> None:
        self.capacity, self._differs = machine.capacity(), 0

    def differs(self, machine: Machine) -> bool:
        """Return whether a GPU was lost, or came back.

        Believed when seen twice, for registering takes the machine out of the pool for a moment.
        """
        changed = machine.gpu.stale_seconds is None and machine.capacity() != self.capacity
        self._differs = self._differs + 1 if changed else 0
        return self._differs > 1
