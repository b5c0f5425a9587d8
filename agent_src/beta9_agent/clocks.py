"""The agent's clock, and what happens to a host's clocks while it waits."""

from __future__ import annotations

import time
from typing import NamedTuple


class Passed(NamedTuple):
    """What happened between two moments: for how long the host was suspended, and how far its wall clock was set."""

    suspended_seconds: float
    set_seconds: float


def now() -> float:
    """Return seconds that only go forward, also while the host is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clocks:
    """Tells what happened to the clocks from call to call."""

    def __init__(self) -> None:
        self._wall, self._suspended = self._offsets()

    def compare(self) -> Passed:
        """Return what happened since the last call."""
        wall, suspended = self._offsets()
        passed = Passed(suspended - self._suspended, wall - self._wall)
        self._wall, self._suspended = wall, suspended
        return passed

    @staticmethod
    def _offsets() -> tuple[float, float]:
        moment = now()
        return time.time() - moment, moment - time.monotonic()
