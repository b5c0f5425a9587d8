# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Xid errors of NVIDIA's driver: what each is, and what NVIDIA's catalogue asks for at once.

https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, for Ampere and newer GPUs; 160, 171 and 172 from
https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/user-visible-statistics.html.
"""

from __future__ import annotations

from typing import Dict, Iterable, Set, Tuple

# Codes of check U08, gravest first. The catalogue's words: RESTART_BM, CHECK_MECHANICALS, WORKFLOW_XID_48 and what else
# the memory has, RESET_GPU, WORKFLOW_NVLINK_ERR and WORKFLOW_NVLINK5_ERR, RESTART_APP. What it says to ignore is
# "ignore".
XIDS: Tuple[Tuple[str, Dict[int, str]], ...] = (
    ("lost", {79: "GPU fell off the bus"}),
    ("power", {54: "auxiliary power is not connected"}),
    (
        "memory",
        {
            48: "uncorrectable memory error",
            63: "memory row remapped or page retired",
            64: "memory row could not be remapped",
            94: "contained memory error",
            95: "uncontained memory error",
            140: "unrecovered memory error",
            156: "resource retired",
            157: "resource could not be retired",
            160: "memory marked for repair",
            171: "uncorrectable error of the DRAM",
            172: "uncorrectable error of the SRAM",
        },
    ),
    (
        "reset",
        {
            46: "GPU stopped processing",
            62: "micro-controller halted",
            109: "context switch timed out",
            110: "security fault",
            119: "firmware did not answer in time",
            120: "firmware error",
            136: "NVLink training failed",
            143: "GPU initialisation failed",
            155: "NVLink error",
            158: "GPU timed out",
        },
    ),
    ("nvlink", dict.fromkeys((74, 144, 145, 146, 147, 148, 149, 150), "NVLink error")),
    (
        "program",
        {
            8: "GPU stopped processing a program",
            11: "corrupted commands",
            13: "exception in a program",
            25: "illegal commands",
            31: "memory page fault of a program",
            32: "corrupted commands",
            39: "copy engine exception",
            43: "program's channel was reset",
            45: "program was ended after another error",
            68: "video decoder exception",
            69: "class error of a program",
            80: "corrupted commands",
        },
    ),
    (
        "ignore",
        {
            37: "firmware notice",
            38: "firmware notice",
            44: "fault during context switch",
            66: "illegal access",
            67: "illegal access",
            92: "many corrected memory errors",
            93: "information memory is worn",
            106: "test message",
            107: "test message",
            121: "C2C notice",
            137: "NVLink access notice",
            141: "fast path notice",
            154: "recovery action changed",
        },
    ),
)
NAMES = {number: name for _code, group in XIDS for number, name in group.items()}


def code_of(numbers: Set[int]) -> str:
    """Return the code of the gravest Xid; an empty text where the gravest is one that the catalogue does not name."""
    known = [code for code, group in XIDS if numbers & set(group)]
    grave = [code for code in known if code not in ("program", "ignore")]
    if grave:
        return grave[0]
    return "" if numbers - set(NAMES) or not known else known[0]


def text(numbers: Iterable[int]) -> str:
    """Return Xids with their names, in order."""
    return ", ".join(f"{number} ({NAMES[number]})" if number in NAMES else str(number) for number in sorted(numbers))
