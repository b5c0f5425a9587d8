"""The life of a machine as a state machine and a schedule. Pure: no clock, no network, no randomness of its own.

    starting ──register──▶ registered ──keepalive──▶ ready ──┐ keepalive every interval, at the machine's own phase
        │                      ▲                       ▲  └──┘
        │ (registered before)  │ machine_not_found     │ accepted
        └──────keepalive───────┴────── degraded ◀──────┘ any other problem
                                         │  ▲
                                         └──┘ retryable: full jitter, doubling, capped at a tenth of the TTL
                                              not retryable: once an interval, and the problem is told with its remedy

It never ends by itself: a gateway that is away, or that refuses the token, is asked again.
"""

from __future__ import annotations

import collections
import hashlib

from . import protocol

FIRST_PAUSE_SECONDS = 1.0


def phase_of(machine_id, interval):
    """Return the machine's own second within the interval: stable, and evenly spread over a fleet."""
    return int.from_bytes(hashlib.sha256(machine_id.encode()).digest()[:8], "big") / 2.0**64 * interval


class Lifecycle:
    """What to do next, and when. Times are seconds of any monotonic clock.

    action is "register" or "keepalive"; due is when. rng is a random.Random.
    """

    def __init__(self, machine_id, interval, now, rng, registered=False, wall_offset=0.0):
        self.interval, self.rng = interval, rng
        self.ttl = protocol.STATE_TTL_SECONDS
        self.status = "starting"
        self.action = "keepalive" if registered else "register"
        self.due = now
        self.problem = None
        self.failures = 0
        self.last_accepted = None
        self.registrations = collections.deque(maxlen=8)  # when
        self._phase = phase_of(machine_id, interval)
        self._wall_offset = wall_offset  # wall clock minus monotonic clock at start: aligns the phases of a fleet
        self._refound = 0

    def registered(self, now, state):
        """The register was accepted: a keepalive follows at once."""
        self.registrations.append(now)
        self.status = "registered"
        self._accept_ttl(state)
        self.action, self.due = "keepalive", now

    def kept(self, now, state):
        """The keepalive was accepted."""
        self._accept_ttl(state)
        self.status, self.problem, self.failures, self._refound = "ready", None, 0, 0
        self.last_accepted = now
        self.action, self.due = "keepalive", self._next_slot(now)

    def failed(self, now, problem):
        """Something was refused or did not arrive."""
        if problem.code == "machine_not_found" and self.action == "keepalive" and self._refound == 0:
            self._refound += 1  # once at once; a gateway that forgets what it was just told is asked with pauses
            self.status, self.problem = "registering", problem
            self.action, self.due = "register", now
            return
        if problem.code == "machine_not_found":
            self.action = "register"
        self.status, self.problem = "degraded", problem
        self.failures += 1
        self.due = now + self._pause(problem)

    def reload(self, now):
        """Credentials or settings changed: register with them now."""
        self.action, self.due, self.failures = "register", now, 0

    def _accept_ttl(self, state):
        if state.ttl_seconds and state.ttl_seconds > 0:
            self.ttl = state.ttl_seconds

    def _pause(self, problem):
        if not problem.retryable:
            slow = min(60.0, self.interval)
            return self.rng.uniform(slow / 2, slow)
        cap = min(self.ttl / 10.0, FIRST_PAUSE_SECONDS * 2.0 ** min(self.failures - 1, 16))
        return self.rng.uniform(min(0.2, cap), cap)

    def _next_slot(self, now):
        """Return the machine's next slot, at least half an interval away, never later than half the TTL."""
        earliest = now + self.interval / 2
        wall = earliest + self._wall_offset - self._phase
        slot = earliest + (-wall) % self.interval
        return min(slot, now + self.ttl / 2.0)
