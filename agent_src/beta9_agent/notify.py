"""systemd's notification protocol (sd_notify(3)). Does nothing where systemd does not listen."""

from __future__ import annotations

import os
import socket


class Notifier:
    """Sends READY, STATUS and WATCHDOG."""

    def __init__(self):
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) if address else None
        watchdog = os.environ.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(watchdog) / 1e6 if watchdog.isdigit() else None

    def send(self, *lines):
        """Send assignments like "READY=1"."""
        if self._channel:
            try:
                self._channel.sendto("\n".join(lines).encode(), self._address)
            except OSError:
                pass  # systemd is restarting itself, or slow; the next one arrives
