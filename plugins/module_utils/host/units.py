# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd and its journal say of a unit: its state now, and why, from the unit's present start, newest first.

A journal line only explains a state, it never makes one: lines of an earlier start are no evidence.
"""

from __future__ import annotations

import glob
import json
import os
import time
from typing import Callable, NamedTuple, TYPE_CHECKING

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

PROPERTIES = (
    "Id,LoadState,UnitFileState,ActiveState,SubState,MainPID,NRestarts,Restart,Result,ExecMainStatus,"
    "ExecMainStartTimestampMonotonic,InvocationID,ExecStart"
)
JOURNALS = ("/var/log/journal/*/system.journal", "/run/log/journal/*/system.journal")
# systemd's message ids: a restart of its own accord, any start, and a reload that went well
RESTART_SCHEDULED, STARTING = "5eb03494b6584870a536b337290809b3", "7d4958e842da4a758f6c1cdc7b36dcc5"
RELOADED = "7b05ebc668384222baa8881179cfda54"
# Exit statuses with which systemd ends a process that it could not start: systemd.exec(5), "Process Exit Codes"
EXEC_CODES = {200: "folder", 203: "program", 217: "account", 226: "sandbox", 243: "credential"}
Run = Callable[..., "tuple[int, str]"]  # a command's words -> (exit status, output)


class Unreadable(Exception):
    """The journal can't tell: the text says why."""


class Unit(NamedTuple):
    """One unit as systemd has it now. Times are microseconds of the monotonic clock, 0 for never."""

    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    main_pid: int = 0
    restarts: int = 0  # of systemd's own accord; a start by hand between two of them does not set it back
    restart: str = ""
    result: str = ""
    exit_status: int = 0
    started_us: int = 0
    invocation: str = ""
    program: str = ""  # path of what it starts
    at_boot: str = ""  # "enabled", "disabled", "masked", ...; empty where systemd can't tell

    @property
    def exec_code(self) -> str:
        """Return why systemd could not start its program (a value of EXEC_CODES), or an empty string."""
        return EXEC_CODES.get(self.exit_status, "") if not self.main_pid else ""

    def age_seconds(self) -> float:
        """Return how long its main process has been there; 0 without one."""
        return max(0.0, monotonic_us() - self.started_us) / 1e6 if self.main_pid and self.started_us else 0.0


def monotonic_us() -> float:
    """Return the clock by which systemd tells when a unit changed."""
    return time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6


def parse(text: str) -> dict[str, Unit]:
    """Return {name: Unit} of what `systemctl show NAME... --property=PROPERTIES` prints."""
    found = {}
    for block in text.strip().split("\n\n"):
        value = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if value.get("Id"):
            found[value["Id"]] = Unit(
                load=value.get("LoadState", "not-found"),
                active=value.get("ActiveState", "inactive"),
                sub=value.get("SubState", "dead"),
                main_pid=_number(value.get("MainPID")),
                restarts=_number(value.get("NRestarts")),
                restart=value.get("Restart", ""),
                result=value.get("Result", ""),
                exit_status=_number(value.get("ExecMainStatus")),
                started_us=_number(value.get("ExecMainStartTimestampMonotonic")),
                invocation=value.get("InvocationID", ""),
                program=value.get("ExecStart", "").partition("path=")[2].partition(" ;")[0],
                at_boot=value.get("UnitFileState", ""),
            )
    return found


def _number(text: str | None) -> int:
    return int(text) if text and text.isdigit() else 0


def readable(journald: Unit | None, paths: tuple = JOURNALS) -> None:
    """Raise Unreadable unless the system's journal is written and may be read here. journalctl itself is silent about
    both."""
    if journald is not None and journald.load != "not-found" and journald.active != "active":
        raise Unreadable(
            f"systemd-journald is {'masked' if journald.load == 'masked' else journald.active}: nothing new is "
            f"in the journal"
        )
    files = [name for path in paths for name in glob.glob(path)]
    if not files and any(os.path.isdir(path.split("/*", maxsplit=1)[0]) for path in paths) and os.geteuid() == 0:
        raise Unreadable("this host keeps no journal")
    if not any(os.access(name, os.R_OK) for name in files):
        raise Unreadable("the journal may not be read: run with become")


def journal(run: Run, name: str, unit: Unit, lines: int = 200, seconds: float | None = None) -> str:
    """Return what the unit's processes said in its present start, oldest first, each line with its time in seconds
    since 1970.

    Before systemd 254 `journalctl --since X -n N` gives the oldest N lines: -r gives the newest.
    seconds: only of so many seconds past. Raises Unreadable.
    """
    words = ["journalctl", "-q", "-r", "-n", str(lines), "--no-pager", "-o", "short-unix"]
    words += ["--since", f"@{time.time() - seconds:.0f}"] if seconds is not None else []
    words += [f"_SYSTEMD_INVOCATION_ID={unit.invocation}"] if unit.invocation else ["-u", name]
    return _newest(run, words)


def last_exits(run: Run, name: str, seconds: float, lines: int = 60) -> str:
    """Return what was said by and of a unit in so many seconds past, whichever its start: for one that ends again and
    again."""
    words = [
        "journalctl",
        "-q",
        "-r",
        "-n",
        str(lines),
        "--no-pager",
        "-o",
        "short-unix",
        "--since",
        f"@{time.time() - seconds:.0f}",
        "-u",
        name,
    ]
    return _newest(run, words)


def restarts_within(run: Run, name: str, seconds: float) -> int:
    """Return how often systemd started a unit again of its own accord since it was last started or reloaded by hand,
    within so many seconds past."""
    words = [
        "journalctl",
        "-q",
        "-r",
        "-n",
        "1000",
        "--no-pager",
        "-o",
        "json",
        "--output-fields=MESSAGE_ID",
        "--since",
        f"@{time.time() - seconds:.0f}",
    ]
    output = _newest(
        run,
        words + [f"MESSAGE_ID={RESTART_SCHEDULED}", f"MESSAGE_ID={STARTING}", f"MESSAGE_ID={RELOADED}", f"UNIT={name}"],
    )
    count, scheduled = 0, False
    for line in output.splitlines():
        if RESTART_SCHEDULED in line:
            count += 1
        elif not scheduled:
            count = 0  # what ended before someone started or reloaded it is over
        scheduled = RESTART_SCHEDULED in line
    return count


def of_module(module: AnsibleModule) -> Run:
    """Return what runs commands for the functions of this file in an AnsibleModule."""

    def run(*words: str) -> tuple:
        status, output, errors = module.run_command(list(words))
        return status, output or errors

    return run


def read(run: Run, name: str) -> Unit:
    """Return one unit as it is now; one that systemd does not know where systemd does not answer."""
    return parse(run("systemctl", "show", name, f"--property={PROPERTIES}")[1]).get(name, Unit())


def said(run: Run, name: str, lines: int = 3, seconds: float = 600.0) -> str:
    """Return why a unit is as it is, in the last lines of its own processes, without their times: of the start that
    ended last where systemd starts it again and again, else of the present one. What systemd says of it counts where
    its own processes said nothing."""
    unit = read(run, name)
    try:
        ends = unit.active != "active" and (unit.restarts or not unit.main_pid)
        own = last_run(run, name, unit, seconds) if ends else journal(run, name, unit, lines)
        return without_times(own or last_exits(run, name, seconds, lines), lines)
    except Unreadable as reason:
        return str(reason)


def last_run(run: Run, name: str, unit: Unit, seconds: float) -> str:
    """Return what a unit's own processes said in the last of their starts that ended within so many seconds past;
    nothing where they did not.

    Raises Unreadable."""
    words = [
        "journalctl",
        "-q",
        "-r",
        "-n",
        "200",
        "--no-pager",
        "-o",
        "json",
        "--since",
        f"@{time.time() - seconds:.0f}",
    ]
    words += [
        "--output-fields=MESSAGE,INVOCATION_ID,_SYSTEMD_INVOCATION_ID,_SYSTEMD_UNIT",
        f"_SYSTEMD_UNIT={name}",
        "+",
        f"UNIT={name}",
    ]
    # by invocation, in the order in which they began; one of which only systemd told as well
    starts: dict[str, list] = {}
    for text in _newest(run, words).splitlines():
        entry = json.loads(text)
        mine = entry.get("_SYSTEMD_UNIT") == name
        said_then = starts.setdefault(str(entry.get("_SYSTEMD_INVOCATION_ID" if mine else "INVOCATION_ID")), [])
        if mine and isinstance(entry.get("MESSAGE"), str):  # what is no text is told as numbers
            said_then.append(entry["MESSAGE"])
    if unit.main_pid:
        starts.pop(unit.invocation, None)
    return "\n".join(list(starts.values())[-1]) if starts else ""


def _newest(run: Run, words: list) -> str:
    status, output = run(*words)
    if status != 0:
        raise Unreadable(f"journalctl: {(output.strip() or f'exit status {status}').splitlines()[-1][:200]}")
    return "\n".join(reversed(output.splitlines()))


def without_times(text: str, count: int = 4) -> str:
    """Return the last lines of a journal, without their times and hosts."""
    found = []
    for line in text.strip().splitlines()[-count:]:
        words = line.split(" ", 2)
        found.append(words[2] if len(words) == 3 and words[0].replace(".", "").isdigit() else line)
    return "\n".join(found)
