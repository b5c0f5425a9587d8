# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables for people, as lists of lines: every callback, and AWX, shows a list as it is, one line below the other.
Pure."""

from __future__ import annotations

import re
from typing import Mapping, Sequence

from ansible_collections.beta9.workers.plugins.module_utils.host import preflight


def aligned(rows: Sequence[Sequence[object]]) -> list[str]:
    """Return a line a row, the columns two blanks apart."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells]


def grouped(title: str, messages: Mapping[str, str]) -> list[str]:
    """Return {host: message, or an empty text} as lines: each message once below the title, with the hosts that have
    it."""
    hosts_of: dict[str, list[str]] = {}
    for host, message in messages.items():
        if message:
            hosts_of.setdefault(re.sub(rf"(^|: ){re.escape(host)}: ", r"\1", message).strip(), []).append(host)
    lines = []
    for message, hosts in hosts_of.items():
        lines += ["", f"{title} on {preflight.names(hosts, len(messages))}:"] + [
            "  " + line for line in message.splitlines()
        ]
    return lines
