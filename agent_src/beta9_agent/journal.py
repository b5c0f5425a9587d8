"""What the agent logs: each change once, of one snapshot after the other."""

from __future__ import annotations

from . import events
from .events import log
from .report import Snapshot

READINGS = ("gpu", "cpu", "memory", "disk", "k3s")


class Journal:
    """Remembers what was logged."""

    def __init__(self) -> None:
        self._changes = events.Changes()
        self._gpu_findings: set[tuple[int, str, str]] = set()  # (index, check, code)

    def readings(self, shot: Snapshot) -> None:
        """Log what can't be read of the host any more, or can again, and what became of its GPUs."""
        for name in READINGS:
            trouble = shot.troubles.get(name)
            if self._changes.changed(name, trouble):
                if trouble:
                    log(events.WARNING, "unreadable", what=name, cause=trouble)
                elif shot.last_accepted is not None:
                    log(events.INFO, "readable", what=name)
        self._gpus(shot)

    def _gpus(self, shot: Snapshot) -> None:
        """Log once what became of a GPU, and once that it is over. Figures in the text may change without a word."""
        found = {(finding.gpu, finding.check, finding.code): finding for finding in shot.gpu.health.findings}
        for (gpu, check, code), finding in found.items():
            if (gpu, check, code) not in self._gpu_findings:
                fields = {"gpu": gpu, "check": check, "code": code or None}
                log(events.WARNING, "gpu_problem", **fields, severity=finding.severity, found=finding.text)
        for gpu, check, code in sorted(self._gpu_findings - set(found)):
            log(events.INFO, "gpu_problem_over", gpu=gpu, check=check, code=code or None)
        self._gpu_findings = set(found)

    def status(self, shot: Snapshot) -> None:
        """Log that the machine's status, or its problem, became another."""
        problem = shot.problem
        if problem and shot.status != "registered":  # what a registration resolves is over with the keepalive after it
            passing = problem.retryable or shot.status == "registering"
            fields = {"code": problem.code, "cause": problem.cause, "remedy": problem.remedy}
            log(events.WARNING if passing else events.ERROR, shot.status, **fields)
        elif shot.status == "ready":
            log(
                events.INFO, "ready", machine_id=shot.config.machine_id, pool=shot.config.pool_name, gpus=shot.gpu.count
            )
        else:
            log(events.INFO, shot.status, machine_id=shot.config.machine_id)

    def lateness(self, late_seconds: float, interval_seconds: float) -> None:
        """Log that the loop fell behind its schedule."""
        behind = late_seconds > max(1.0, interval_seconds / 4)
        if self._changes.changed("behind", behind) and behind:
            log(events.WARNING, "behind_schedule", seconds=round(late_seconds))

    def written(self, name: str, trouble: str | None) -> None:
        """Log that a file could not be written. trouble: why, or None where it was."""
        if self._changes.changed(name, trouble) and trouble:
            log(events.WARNING, "not_written", what=name, cause=trouble)
