"""The life of a machine as a state machine and a schedule. Pure: no clock, no network, no randomness of its own.

    starting ── registered the same in an earlier run ──▶ keepalive is due, as after a register
       │ register
       ▼                 keepalive
    registered ────────────────────────────▶ ready ⟲ a keepalive every interval, at the machine's own phase
       ▲                                     │   │
       │ register          machine_not_found │   │ any other problem
       │                                     │   ▼
    registering ◀────────────────────────────┘  degraded ⟲ tried again as REACTIONS says
       │                                         ▲   │
       └───────────── any problem ───────────────┘   └─▶ registered or ready, with what was due and now succeeded

What a problem does, by its code, is in REACTIONS:

    REGISTER    the gateway does not know the machine: register, then a keepalive at once; if it is forgotten again, as
    RETRY
    RETRY       the gateway or the connection to it is down: full jitter, doubling, up to a little more than the
    interval, so that a fleet
                comes back spread over one interval
    CREDENTIAL  the token is refused: once an interval, and at once when the credential on disk changes
    SLOW        waiting does not resolve it: once an interval, and the problem is told with its remedy

A reload, a changed credential and changed capacity lead from any state to registering. It never ends by itself: a
gateway that is away, or that refuses the token, is asked again.
"""

from __future__ import annotations

import collections
import hashlib
import random

from . import protocol

FIRST_PAUSE_SECONDS = 1.0
TTL_LIMITS_SECONDS = (5, 86400)  # a gateway that says less or more than this is not believed

REGISTER, RETRY, CREDENTIAL, SLOW = "register", "retry", "credential", "slow"
REACTIONS = {
    "machine_not_found": REGISTER,
    "connection_refused": RETRY,
    "connection_reset": RETRY,
    "empty_reply": RETRY,
    "timeout": RETRY,
    "name_unresolved": RETRY,
    "gateway_unavailable": RETRY,
    "gateway_unhealthy": RETRY,
    "internal_error": RETRY,
    "pool_state_missing": RETRY,
    "token_unknown": CREDENTIAL,
    "token_wrong_type": CREDENTIAL,
    "credential_unreadable": CREDENTIAL,
    "not_permitted": SLOW,
    "pool_unknown": SLOW,
    "pool_no_create": SLOW,
    "pool_local": SLOW,
    "field_missing": SLOW,
    "cpu_invalid": SLOW,
    "memory_invalid": SLOW,
    "gpu_count_invalid": SLOW,
    "payload_invalid": SLOW,
    "route_missing": SLOW,
    "gateway_upstream": SLOW,
    "tls_failed": SLOW,
    "not_gateway": SLOW,
    "invalid_field": SLOW,
}


def reaction_to(problem: protocol.Problem) -> str:
    """Return what a problem does. An answer that no one foresaw is judged by whether it may pass."""
    return REACTIONS.get(problem.code) or (RETRY if problem.retryable else SLOW)


def phase_of(machine_id: str, interval: float) -> float:
    """Return the machine's own second within the interval: stable, and evenly spread over a fleet."""
    return int.from_bytes(hashlib.sha256(machine_id.encode()).digest()[:8], "big") / 2.0**64 * interval


class Lifecycle:
    """What to do next, and when. Times are seconds of any clock that only goes forward.

    action is "register" or "keepalive"; due is when. wall_offset: the wall clock minus this clock, which aligns a
    fleet's phases.
    """

    def __init__(
        self,
        machine_id: str,
        interval: float,
        now: float,
        rng: random.Random,
        registered: bool = False,
        wall_offset: float = 0.0,
    ) -> None:
        self.rng = rng
        self.status = "starting"
        self.problem: protocol.Problem | None = None
        self.failures = 0
        self.last_accepted: float | None = None
        self.told_last: int | None = None  # when that was by the gateway's clock, where it tells
        # when, but for those that a person asked for
        self.registrations: collections.deque[float] = collections.deque(maxlen=8)
        self._asked_for = False
        self._wall_offset = wall_offset
        self._refound = 0
        self._settings(machine_id, interval)
        self.action, self.due = "keepalive" if registered else "register", now

    def _settings(self, machine_id: str, interval: float) -> None:
        self.interval, self.ttl = interval, protocol.STATE_TTL_SECONDS
        self._phase = phase_of(machine_id, interval)

    @property
    def reaction(self) -> str | None:
        """Return the reaction to the problem there is, or None."""
        return reaction_to(self.problem) if self.problem else None

    def registered(self, now: float, state: protocol.MachineState) -> None:
        """The register was accepted: a keepalive follows at once."""
        if not self._asked_for:
            self.registrations.append(now)
        self._asked_for = False
        self.status = "registered"
        self._accept_ttl(state)
        self.action, self.due = "keepalive", now

    def kept(self, now: float, state: protocol.MachineState) -> None:
        """The keepalive was accepted."""
        self._accept_ttl(state)
        self.status, self.problem, self.failures, self._refound = "ready", None, 0, 0
        self.last_accepted = now
        self.told_last = state.last_keepalive
        self.action, self.due = "keepalive", self._next_slot(now)

    def failed(self, now: float, problem: protocol.Problem) -> None:
        """Something was refused or did not arrive."""
        reaction = reaction_to(problem)
        if reaction == REGISTER and self.action == "keepalive" and not self._refound:
            self._refound += 1  # once at once; a gateway that forgets what it was just told is asked with pauses
            self.status, self.problem = "registering", problem
            self.action, self.due = "register", now
            return
        if reaction == REGISTER:
            self.action = "register"
        self.status, self.problem = "degraded", problem
        self.failures += 1
        self.due = now + self._pause(reaction)

    def register_again(self, now: float) -> None:
        """What was registered is not true any more: tell the gateway now."""
        self.status, self.problem, self.failures = "registering", None, 0
        self.action, self.due = "register", now

    def reload(self, now: float, machine_id: str, interval: float) -> None:
        """Settings or credentials may be others: register with them now."""
        self._settings(machine_id, interval)
        self.register_again(now)
        self._asked_for = True

    def _accept_ttl(self, state: protocol.MachineState) -> None:
        if state.ttl_seconds:
            self.ttl = min(max(state.ttl_seconds, TTL_LIMITS_SECONDS[0]), TTL_LIMITS_SECONDS[1])

    def _pause(self, reaction: str) -> float:
        if reaction in (CREDENTIAL, SLOW):
            slow = min(60.0, self.interval)
            return self.rng.uniform(slow / 2, slow)
        # A short outage ends within seconds for everyone. After a long one, each machine's next try is somewhere in
        # this much
        # time: so long that the gateway gets less than twice its usual load, and still several tries in the TTL
        longest = min(self.ttl / 4.0, self.interval + 5.0)
        cap = min(longest, FIRST_PAUSE_SECONDS * 2.0 ** min(self.failures - 1, 16))
        return self.rng.uniform(min(0.2, cap), cap)

    def _next_slot(self, now: float) -> float:
        """Return the machine's next slot, at least half an interval away, never later than half the TTL."""
        earliest = now + self.interval / 2
        wall = earliest + self._wall_offset - self._phase
        slot = earliest + (-wall) % self.interval + self.rng.uniform(0.0, self.interval / 60)
        return min(slot, now + self.ttl / 2.0)
