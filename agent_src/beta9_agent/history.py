"""What an agent did since it started. No secrets."""

from __future__ import annotations

import collections
import dataclasses
import time
from typing import Any, Counter

from . import protocol

KEPT_PROBLEMS = 5


@dataclasses.dataclass
class History:
    """sent: what the gateway was last sent, {"register": body without its token, "keepalive": body}.

    counts: "keepalives" and "registrations" that were accepted, and problems by code.
    problems: of the last few codes, oldest first, {code: {"first_epoch", "last_epoch", "cause", "remedy"}}.
    reload_error: why the last reload was refused.
    """

    sent: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    counts: Counter[str] = dataclasses.field(default_factory=collections.Counter)
    problems: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    reloads: int = 0
    reload_error: str | None = None

    def record_sent(self, what: str, payload: dict[str, Any]) -> None:
        """The gateway is sent this."""
        self.sent[what] = dict(payload, token="(not shown)") if "token" in payload else payload

    def record_problem(self, problem: protocol.Problem) -> None:
        """A request was refused, or did not arrive."""
        self.counts[problem.code] += 1
        now = round(time.time(), 3)
        entry = self.problems.pop(problem.code, {"first_epoch": now})
        self.problems[problem.code] = dict(entry, last_epoch=now, cause=problem.cause, remedy=problem.remedy)
        while len(self.problems) > KEPT_PROBLEMS:
            del self.problems[next(iter(self.problems))]

    def reloaded(self, refused: str | None) -> None:
        """Settings and credentials were read again. refused: why the old ones stay in force."""
        self.reloads += 1
        self.reload_error = refused
