# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker, or a gateway, sent: plain data of bounded size, without characters that would steer a terminal or
break a document."""

from __future__ import annotations

import math
import re
from typing import Any

MAX_TEXT = 65536  # characters of one text
MAX_ENTRIES = 10000  # of one list or mapping
MAX_DEPTH = 20
MAX_TOTAL = 4 * 1024 * 1024  # characters of one result
# C0 without tab and newline, DEL, C1, direction overrides, and lone surrogates, which no encoding of a file takes
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")


def text(value: str, limit: int = MAX_TEXT) -> str:
    """Return a text without unprintable characters, cut to a number of characters with a note of how much is
    missing."""
    shown = str(value[:limit]) if len(value) > limit else str(value)
    shown = UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", shown.replace("\r\n", "\n").replace("\r", "\n"))
    return shown if len(value) <= limit else f"{shown}... ({len(value) - limit} characters more)"


def data(value: Any, limit: int = MAX_TEXT) -> Any:
    """Return plain data: what is too long, too deep or no JSON is cut or left out."""
    return _Plain(limit).of(value, 0)


class _Plain:
    def __init__(self, limit: int) -> None:
        self.limit, self.left = limit, MAX_TOTAL

    def of(self, value: Any, depth: int) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return value if abs(value) < 2**63 else None
        if isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, str):
            shown = text(value, min(self.limit, max(self.left, 0)))
            self.left -= len(shown)
            return shown
        if depth >= MAX_DEPTH or self.left <= 0:
            return None
        if isinstance(value, dict):
            names = [name for name in value if isinstance(name, str)][:MAX_ENTRIES]
            return {self.of(name, depth + 1): self.of(value[name], depth + 1) for name in names}
        if isinstance(value, (list, tuple)):
            return [self.of(entry, depth + 1) for entry in list(value)[:MAX_ENTRIES]]
        return None
