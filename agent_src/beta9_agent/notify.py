"""systemd's notification protocol (sd_notify(3)). Does nothing where systemd does not listen."""

from __future__ import annotations

import os
import socket


class Notifier:
    """Sends READY, STATUS and WATCHDOG."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._channel = socket.socket(socket.AF_UNIX, kind) if address else None
        watchdog = os.environ.get("WATCHDOG_USEC", "")
        self.watchdog_seconds: float | None = int(watchdog) / 1e6 if watchdog.isdigit() else None

    def send(self, *lines: str) -> None:
        """Send assignments like "READY=1"."""
        if self._channel:
            try:
                self._channel.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                pass  # systemd is restarting itself, or slow; the next one arrives
