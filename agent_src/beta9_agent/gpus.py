"""The NVIDIA GPUs as NVML sees them, asked in a thread of its own: a call into a sick driver may never return.

A unit is what a pod can get: a GPU, or each MIG instance of a GPU that is partitioned. It is free when it has no
compute process and its GPU is well enough to be given work. A GPU that NVML can't reach any more is not counted, and
told. How well the GPUs are is asked every HEALTH_SECONDS only: it takes many times as long as to count them.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from typing import Any, Callable, NamedTuple

from . import gpu_health

NVML_SECONDS = 3.0
HEALTH_SECONDS = 300.0
ACCEPTANCE = "/var/lib/beta9/gpu_acceptance.json"  # what module gpu_acceptance found


class Unit(NamedTuple):
    """One GPU or MIG instance. uuid may be empty."""

    index: str  # type: ignore[assignment]  # a tuple has a method of this name, which nobody calls here
    uuid: str
    name: str
    free: bool


class Health(NamedTuple):
    """How well the GPUs are. gpus: as gpu_health reads them; accepted: whether a GPU passed its acceptance, by UUID;
    epoch: when."""

    gpus: tuple[dict[str, Any], ...] = ()
    findings: tuple[gpu_health.Finding, ...] = ()
    accepted: dict[str, bool] = {}
    epoch: float = 0.0

    @property
    def unfit(self) -> set[int]:
        """Return the indexes of the GPUs on which nothing may be expected to go well."""
        return {finding.gpu for finding in self.findings if finding.severity == gpu_health.GRAVE}


class Reading(NamedTuple):
    """What was found. stale_seconds is None when it was found just now; trouble says what is wrong, or is None."""

    units: tuple[Unit, ...] = ()
    trouble: str | None = None
    stale_seconds: float | None = None
    health: Health = Health()

    @property
    def count(self) -> int:  # type: ignore[override]  # as with index of Unit
        """Return the number of units."""
        return len(self.units)

    @property
    def free(self) -> int:
        """Return the number of free units whose GPU is fit for work."""
        unfit = self.health.unfit
        return sum(unit.free and int(unit.index.partition(":")[0]) not in unfit for unit in self.units)


class Gpus:
    """wanted limits what is counted: indexes or UUIDs, None for all."""

    def __init__(self, wanted: tuple[str, ...] | None = None, deadline_seconds: float = NVML_SECONDS) -> None:
        self.wanted, self.deadline_seconds = wanted, deadline_seconds
        self._requests: queue.Queue[None] = queue.Queue(1)
        self._answers: queue.Queue[Reading] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._asked = False
        self._last: Reading | None = None
        self._last_moment = 0.0
        self._session: Any = None
        self._health, self._health_due = Health(), 0.0

    def read(self) -> Reading:
        """Return a Reading within the deadline. When NVML hangs it is the last good one, marked stale."""
        if self.wanted == ():
            return Reading()
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="nvml", daemon=True)
            self._thread.start()
        wait = self.deadline_seconds
        # the question before was not answered in time: its answer may be here by now, but is not worth waiting for
        if self._asked:
            try:
                self._answers.get_nowait()
                self._asked = False
            except queue.Empty:
                return self._stale()
        self._requests.put(None)
        self._asked = True
        try:
            reading = self._answers.get(timeout=wait)
        except queue.Empty:
            return self._stale()
        self._asked = False
        self._last, self._last_moment = reading, time.monotonic()
        return reading

    def _stale(self) -> Reading:
        trouble = f"NVML did not answer within {self.deadline_seconds:g} s: the driver hangs"
        if self._last is None:
            return Reading(trouble=trouble)
        return self._last._replace(trouble=trouble, stale_seconds=time.monotonic() - self._last_moment)

    # -- in the thread --

    def _serve(self) -> None:
        while True:
            self._requests.get()
            try:
                reading = self._ask()
            except Exception as error:  # whatever it is, a thread that ended would look like a driver that hangs
                reading = Reading(trouble=f"NVML could not be asked: {type(error).__name__}: {error}")
            self._answers.put(reading)

    def _ask(self) -> Reading:
        try:
            import pynvml  # only here: it costs memory, and a host without GPUs has no use for it
        except ImportError:
            return Reading(trouble="the nvidia-ml-py package is missing")
        try:
            # kept: where no other process holds the driver, each new one would wake all GPUs up
            if self._session is None:
                pynvml.nvmlInit()
                self._session = pynvml
            found: list[Unit] = []
            troubles: list[str] = []
            for index in range(pynvml.nvmlDeviceGetCount()):
                try:
                    found += _units(pynvml, index)
                except pynvml.NVMLError as error:
                    troubles.append(f"GPU {index}: {error}")
            if time.monotonic() >= self._health_due:
                self._health, self._health_due = _health(pynvml), time.monotonic() + HEALTH_SECONDS
        except pynvml.NVMLError as error:
            self._end(pynvml)
            # a host without NVIDIA hardware is not in trouble
            absent = isinstance(error, pynvml.NVMLError_LibraryNotFound) and not os.path.exists("/proc/driver/nvidia")
            return Reading(trouble=None if absent else f"NVML: {error}")
        if troubles:
            self._end(pynvml)
        wanted = self.wanted
        if wanted is not None:
            there = {name for unit in found for name in _names(unit)}
            troubles += [f"GPU {name} is not there" for name in wanted if name not in there]
            found = [unit for unit in found if not _names(unit).isdisjoint(wanted)]
        return Reading(tuple(found), "; ".join(troubles) or None, health=self._health)

    def _end(self, pynvml: Any) -> None:
        """Start over with the next question: after a driver's reload the old session is of no use."""
        if self._session is not None:
            self._session = None
            try:
                pynvml.nvmlShutdown()
            except pynvml.NVMLError:
                pass  # it was lost already


def _health(pynvml: Any) -> Health:
    reading = gpu_health.read(pynvml)
    return Health(tuple(reading["gpus"]), tuple(gpu_health.findings(reading)), _accepted(), round(time.time()))


def _accepted(path: str = ACCEPTANCE) -> dict[str, bool]:
    """Return whether each GPU passed its acceptance, by UUID; {} where none was made. A GPU that was in use is left
    out."""
    try:
        with open(path, encoding="utf-8") as stream:
            gpus = json.load(stream)["gpus"]
        return {str(gpu["uuid"]): gpu["outcome"] == "passed" for gpu in gpus if gpu["outcome"] in ("passed", "failed")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _names(unit: Unit) -> set[str]:
    """Return the names under which a unit can be asked for: a MIG instance also under its GPU's index."""
    return {unit.index, unit.index.partition(":")[0], unit.uuid} - {""}


def _units(pynvml: Any, index: int) -> list[Unit]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    name = _optional(pynvml, pynvml.nvmlDeviceGetName, handle) or ""
    if not _partitioned(pynvml, handle):
        return [_unit(pynvml, str(index), name, handle)]
    found = []
    for number in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        instance = _optional(pynvml, pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
        if instance is not None:
            found.append(_unit(pynvml, f"{index}:{number}", name, instance))
    return found


def _unit(pynvml: Any, index: str, name: str | bytes, handle: Any) -> Unit:
    uuid = _optional(pynvml, pynvml.nvmlDeviceGetUUID, handle) or ""
    return Unit(index, _text(uuid), _text(name), not pynvml.nvmlDeviceGetComputeRunningProcesses(handle))


def _partitioned(pynvml: Any, handle: Any) -> bool:
    mode = _optional(pynvml, pynvml.nvmlDeviceGetMigMode, handle)
    return mode is not None and mode[0] == 1


def _optional(pynvml: Any, call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the answer of a call that not every GPU or driver has, or None. A GPU that is lost is not excused."""
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if getattr(error, "value", None) in (NOT_SUPPORTED, FUNCTION_NOT_FOUND, NOT_FOUND, INVALID_ARGUMENT):
            return None
        raise


NOT_SUPPORTED, FUNCTION_NOT_FOUND, NOT_FOUND, INVALID_ARGUMENT = 3, 13, 6, 2


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
