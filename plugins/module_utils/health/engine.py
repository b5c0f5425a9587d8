# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs probes side by side, each with a time limit, all within one deadline. A probe that hangs or crashes is one
observation.

A probe is a function of a Context that returns ok(), bad(), warn(), not_applicable() or unknown(). It says what it saw,
never what that means.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import threading
import time
import traceback
from collections import namedtuple
from typing import Any, Callable, Sequence

from ansible_collections.beta9.workers.plugins.module_utils.agent import statefile
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation, observation

EVIDENCE_BYTES = 4096
OUTPUT_BYTES = 1024 * 1024
MAX_THREADS = 24
CANARY_SECONDS = 60  # of the Job of G10, beyond the deadline of all others
Probing = Callable[["Context"], Observation]
Probe = namedtuple("Probe", "id timeout_seconds")  # what observe() needs of a check
BEARER = re.compile(r"(Bearer |token[\"']?[:=] ?[\"']?)[A-Za-z0-9_.\-]{12,}", re.I)


class Unknown(Exception):
    """What the probe wants to see can't be seen: no permission, no tool, no access. The text says which."""


class Missing(Unknown):
    """The program that would tell is not there."""


def ok(found: str = "", evidence: str = "", **data: Any) -> Observation:
    """All is well."""
    return observation("ok", found, evidence=evidence, **data)


def bad(code: str, found: str, evidence: str = "", **data: Any) -> Observation:
    """Something is wrong. code is a key of the check's causes."""
    return observation("bad", found, code, evidence, **data)


def warn(code: str, found: str, evidence: str = "", **data: Any) -> Observation:
    """Something is worth a look."""
    return observation("warn", found, code, evidence, **data)


def not_applicable(found: str, **data: Any) -> Observation:
    """The host has no such part."""
    return observation("not_applicable", found, **data)


class Ran:
    """A finished command: status is None when it was killed at its time limit; output is capped.

    errors is what it wrote to stderr where that was kept apart, and empty where it is part of output.
    """

    def __init__(self, status: int | None, output: str, missing: bool = False, errors: str = "") -> None:
        self.status, self.output, self.missing, self.errors = status, output, missing, errors


def run_command(
    command: list[str], timeout_seconds: float, stdin: str | None = None, apart: bool = False, until: str = ""
) -> Ran:
    """Run a command in a process group of its own; stop reading at OUTPUT_BYTES, kill it at its time limit, never wait
    for ever.

    apart: keep stderr out of the output, for programs whose warnings go there. until: kill it once it has said this.
    """
    environment = dict(os.environ, LC_ALL="C", SYSTEMD_COLORS="0", NO_COLOR="1", PAGER="cat")
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if apart else subprocess.STDOUT,
            start_new_session=True,
            env=environment,
        )
    except (FileNotFoundError, PermissionError) as error:
        return Ran(127, f"{command[0]}: {error.strerror}", missing=True)
    if stdin and process.stdin:
        process.stdin.write(stdin.encode())
        process.stdin.close()
    deadline, size = time.monotonic() + timeout_seconds, 0
    chunks: dict[int, list[bytes]] = {stream.fileno(): [] for stream in (process.stdout, process.stderr) if stream}
    handles = list(chunks)
    killed = False
    while handles:
        left = deadline - time.monotonic()
        said = until and any(until.encode() in b"".join(blocks) for blocks in chunks.values())
        if left <= 0 or size > OUTPUT_BYTES or said:
            killed = left <= 0 or bool(said)
            break
        for handle in select.select(handles, [], [], min(left, 0.5))[0]:
            block = os.read(handle, 65536)
            if not block:
                handles.remove(handle)
            chunks[handle].append(block)
            size += len(block)
    status = _reap(process, max(0.0, deadline - time.monotonic()) if not killed and size <= OUTPUT_BYTES else 0.0)
    texts = [b"".join(blocks).decode("utf-8", "replace") for blocks in chunks.values()]
    return Ran(None if killed else status, texts[0], errors="".join(texts[1:]))


def _reap(process: subprocess.Popen[bytes], patience_seconds: float) -> int | None:
    """Return the exit status. What does not end is killed; what can't be killed (a driver that hangs) is left
    behind."""
    try:
        return process.wait(timeout=patience_seconds)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    try:
        return process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        return None


class Context:
    """What probes share: the settings, commands, and sources that are read once."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.secrets: list[str] = []
        self._shared: dict[str, tuple[Any, Exception | None]] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._guard = threading.Lock()
        self.redis_lock = threading.RLock()

    def narrowed(self, **config: Any) -> Context:
        """Return a context with further settings that shares what was read, the connection, and the secrets."""
        other = Context(dict(self.config, **config))
        other._shared, other._locks, other._guard = self._shared, self._locks, self._guard
        other.redis_lock, other.secrets = self.redis_lock, self.secrets
        return other

    def run(
        self,
        *command: str,
        timeout: float = 4.0,
        stdin: str | None = None,
        hangs: bool = False,
        apart: bool = False,
        until: str = "",
    ) -> Ran:
        """Run a command. Unknown if there is no such program, or if it does not end in time; with hangs, the probe
        judges that itself."""
        ran = run_command(list(command), timeout, stdin, apart, until)
        if ran.missing:
            raise Missing(f"{command[0]} is not installed, or may not be run")
        if ran.status is None and not hangs:
            raise Unknown(f"{os.path.basename(command[0])} did not end within {timeout:g} s")
        return ran

    def shared(self, name: str, read: Callable[[], Any]) -> Any:
        """Return read() of the first probe that asks for a name. An exception is shared as well."""
        with self._guard:
            lock = self._locks.setdefault(name, threading.RLock())
        with lock:
            if name not in self._shared:
                try:
                    self._shared[name] = (read(), None)
                except Exception as error:  # pylint: disable=broad-except  # whatever it is, every probe that asks shall see it
                    self._shared[name] = (None, error)
        value, failure = self._shared[name]
        if failure:
            raise failure
        return value

    def read(self, path: str) -> str | None:
        """Return a file's text; Unknown if it may not be read; None if it does not exist."""
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                return stream.read(OUTPUT_BYTES)
        except FileNotFoundError:
            return None
        except PermissionError:
            raise Unknown(f"{path} may not be read: run with become") from None
        except OSError as error:
            raise Unknown(f"{path} can't be read: {error.strerror}") from None

    def agent_state(self, path: str) -> dict[str, Any]:
        """Return what the agent says of itself, {} when it says nothing that may be believed. Read now, not shared."""
        return statefile.of(path)

    def redact(self, found: object) -> str:
        """Return found as text without any secret, cut to EVIDENCE_BYTES."""
        text = str(found)
        for secret in self.secrets:
            if len(secret) >= 8:
                text = text.replace(secret, "********")
        text = BEARER.sub(r"\1********", text)
        return text if len(text) <= EVIDENCE_BYTES else text[:EVIDENCE_BYTES] + " [cut]"


def observe(probes: Sequence[tuple[Any, Probing]], context: Context, deadline_seconds: float) -> list[dict[str, Any]]:
    """Run probes [(check, function)] and return one observation each, in their order."""
    deadline = time.monotonic() + deadline_seconds
    slots = threading.Semaphore(MAX_THREADS)
    boxes = [_Box(check, function, context, slots) for check, function in probes]
    for box in boxes:
        box.start()
    return [box.result(deadline) for box in boxes]


class _Box(threading.Thread):
    """One probe in a thread of its own, which is abandoned when it hangs: a daemon thread holds no process."""

    def __init__(self, check: Any, function: Probing, context: Context, slots: threading.Semaphore) -> None:
        super().__init__(daemon=True, name=check.id)
        self.check, self.function, self.context, self.slots = check, function, context, slots
        self.started_at: float | None = None
        self.seen: dict[str, Any] | None = None
        self.finished = threading.Event()

    def run(self) -> None:
        with self.slots:
            self.started_at = time.monotonic()
            try:
                seen = self.function(self.context)
            except Unknown as reason:
                seen = observation("unknown", str(reason))
            except Exception as error:  # pylint: disable=broad-except  # a broken probe must not take the others with it
                last = traceback.extract_tb(error.__traceback__)[-1]
                seen = observation(
                    "crash", f"{type(error).__name__}: {error} ({os.path.basename(last.filename)}:{last.lineno})"
                )
            self.seen = dict(seen, seconds=round(time.monotonic() - self.started_at, 3))
            self.finished.set()

    def result(self, deadline: float) -> dict[str, Any]:
        seen: Any = None
        while seen is None and not self.finished.is_set():
            now = time.monotonic()
            end = min(deadline, self.started_at + self.check.timeout_seconds + 1.0) if self.started_at else deadline
            if now >= end:
                late = now - (self.started_at or now)
                seen = observation("unknown", f"no result within {late:.0f} s", seconds=round(late, 3))
            else:
                self.finished.wait(min(0.2, end - now))
        seen = seen or self.seen
        shown = {name: self.context.redact(seen[name]) for name in ("found", "evidence")}
        return dict(seen, id=self.check.id, **shown)
