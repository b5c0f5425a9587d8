"""Where it is published how things are: the journal, the files, systemd."""

from __future__ import annotations

from . import report, state
from .journal import Journal
from .notify import Notifier


class Publisher:
    """Publishes snapshots."""

    def __init__(self, notifier: Notifier) -> None:
        self.journal, self._notifier = Journal(), notifier
        self._ready = False  # whether systemd knows

    def publish(self, shot: report.Snapshot) -> None:
        """Write the files, and tell systemd."""
        config = shot.config
        self.journal.written("state", state.replace(config.state_file, report.state_text(shot), 0o644))
        if config.metrics_file:
            self.journal.written("metrics", state.replace(config.metrics_file, report.prometheus(shot), 0o644))
        lines = ["STATUS=" + report.status_text(shot)]
        if shot.status == "ready" and not self._ready:
            self._ready = True
            lines.append("READY=1")
        self._notifier.send(*lines)

    def alive(self, shot: report.Snapshot) -> None:
        """Feed systemd's watchdog."""
        self._notifier.send("WATCHDOG=1", "STATUS=" + report.status_text(shot))

    def stopping(self) -> None:
        """Tell systemd that this is the end."""
        self._notifier.send("STOPPING=1")
