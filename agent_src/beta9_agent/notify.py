"""systemd's notification protocol (sd_notify(3)). Does nothing where systemd does not listen."""

from __future__ import annotations

import os
import socket


class Notifier:
    """Sends READY, STATUS and WATCHDOG."""

    def __init__(self):
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        watchdog = os.environ.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(watchdog) / 1e6 if watchdog.isdigit() else None

    def send(self, *lines):
        """Send assignments like "READY=1"."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            try:
                channel.sendto("\n".join(lines).encode(), address)
            except OSError:
                pass  # systemd is restarting itself; the next one arrives
