"""How things are, for others: the state file, systemd's status line, Prometheus. Pure: a snapshot in, text out. No
secrets."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from typing import Any, Callable

from . import __version__, events, protocol
from .config import Config
from .gpus import Health, Reading
from .history import History
from .lifecycle import Lifecycle
from .metrics import Machine

PACKAGES = ("httpx", "psutil", "pynvml")
STATES = ("starting", "registering", "registered", "ready", "degraded")
Labels = dict[str, str]
Add = Callable[..., None]  # name, kind, text, *(labels, value)


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """An agent at one moment. Moments are seconds of the agent's clock: now is this one, and epoch is what it is since
    1970."""

    now: float
    epoch: float
    config: Config
    status: str
    problem: protocol.Problem | None
    failures: int
    action: str
    due: float
    ttl_seconds: float
    last_accepted: float | None
    gateway_epoch: int | None  # of the last keepalive, by the gateway's clock
    registrations: tuple[float, ...]
    gpu: Reading
    troubles: dict[str, str]  # what can't be read of the host: why
    history: History

    @classmethod
    def of(cls, config: Config, life: Lifecycle, machine: Machine, history: History, now: float) -> Snapshot:
        """Return how things are now, by the agent's clock."""
        return cls(
            now=now,
            epoch=time.time(),
            config=config,
            status=life.status,
            problem=life.problem,
            failures=life.failures,
            action=life.action,
            due=life.due,
            ttl_seconds=life.ttl,
            last_accepted=life.last_accepted,
            gateway_epoch=life.told_last,
            registrations=tuple(life.registrations),
            gpu=machine.gpu,
            troubles=machine.troubles,
            history=history,
        )

    def epoch_of(self, moment: float) -> float:
        """Return a moment in seconds since 1970."""
        return round(moment - self.now + self.epoch, 3)


def document(shot: Snapshot) -> dict[str, Any]:
    """Return what the state file holds."""
    config, gpu, history = shot.config, shot.gpu, shot.history
    problem, last = shot.problem, shot.last_accepted
    return {
        "agent_version": __version__,
        "pid": os.getpid(),
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "loaded": [name for name in PACKAGES if name in sys.modules],
        "machine_id": config.machine_id,
        "pool": config.pool_name,
        "provider": config.provider_name,
        "gateway_url": config.gateway_url,
        "hostname": config.hostname,
        "status": shot.status,
        "problem": dict(problem._asdict(), cause=events.clean(problem.cause)) if problem else None,
        "failures": shot.failures,
        "registration_epochs": [shot.epoch_of(moment) for moment in shot.registrations],
        "gpu_count": gpu.count,
        "free_gpu_count": gpu.free,
        "gpu_problem": gpu.trouble,
        "gpu_findings": [finding._asdict() for finding in gpu.health.findings],
        "gpu_stale_seconds": None if gpu.stale_seconds is None else round(gpu.stale_seconds),
        "unreadable": shot.troubles,
        "keepalive_interval_seconds": config.keepalive_interval,
        "ttl_seconds": shot.ttl_seconds,
        "next_action": shot.action,
        "next_epoch": shot.epoch_of(shot.due),
        "last_keepalive_epoch": None if last is None else shot.epoch_of(last),
        "gateway_keepalive_epoch": shot.gateway_epoch,
        "updated_epoch": round(shot.epoch, 3),
        "updated_boottime": round(shot.now, 3),  # with it the times above can be told by a clock that was set since
        "has_k3s_token": bool(config.k3s_token or config.k3s_token_file),
        "reloads": history.reloads,
        "reload_error": history.reload_error,
        "keepalives": history.counts["keepalives"],
        "registrations": history.counts["registrations"],
        "sent": history.sent,
        "recent_problems": [
            dict(entry, code=code, count=history.counts[code], cause=events.clean(entry["cause"]))
            for code, entry in history.problems.items()
        ],
    }


def state_text(shot: Snapshot) -> str:
    """Return the state file's text."""
    return json.dumps(document(shot), indent=1) + "\n"


def status_text(shot: Snapshot) -> str:
    """Return one line for people, as systemctl status shows it."""
    gpu, parts = shot.gpu, [shot.status]
    if shot.problem:
        parts[0] = f"{shot.status}: {events.clean(shot.problem.cause)}"
        parts.append(f"next try in {max(0, int(shot.due - shot.now))} s")
    elif gpu.count == 0:
        parts.append("no GPU")
    else:
        parts.append(f"{gpu.free} GPU{'' if gpu.free == 1 else 's'} free")
    if gpu.stale_seconds is not None:
        parts.append(f"GPUs not readable for {int(gpu.stale_seconds)} s")
    if shot.last_accepted is not None:
        parts.append(f"last keepalive {int(shot.now - shot.last_accepted)} s ago")
    return ", ".join(parts)


def _escape(value: object) -> str:
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def prometheus(shot: Snapshot) -> str:
    """Return metrics in Prometheus's text format."""
    config, gpu, counts = shot.config, shot.gpu, shot.history.counts
    lines: list[str] = []

    def add(name: str, kind: str, text: str, *samples: tuple[Labels, object]) -> None:
        lines.extend([f"# HELP beta9_agent_{name} {text}", f"# TYPE beta9_agent_{name} {kind}"])
        for labels, value in samples:
            inner = ",".join(f'{key}="{_escape(label)}"' for key, label in labels.items())
            lines.append(f"beta9_agent_{name}{'{' + inner + '}' if inner else ''} {value}")

    who = {
        "version": __version__,
        "machine_id": config.machine_id,
        "pool": config.pool_name,
        "provider": config.provider_name,
    }
    add("info", "gauge", "The agent and its machine.", (who, 1))
    states = [({"status": name}, int(name == shot.status)) for name in STATES]
    add("status", "gauge", "1 for the state that the machine is in.", *states)
    add("updated_timestamp_seconds", "gauge", "When this was written.", ({}, round(shot.epoch, 3)))
    if shot.last_accepted is not None:
        text = "When the gateway last accepted a keepalive."
        add("last_keepalive_timestamp_seconds", "gauge", text, ({}, shot.epoch_of(shot.last_accepted)))
    add("keepalive_interval_seconds", "gauge", "Seconds between keepalives.", ({}, config.keepalive_interval))
    add(
        "ttl_seconds",
        "gauge",
        "How long the gateway remembers the machine without a keepalive.",
        ({}, shot.ttl_seconds),
    )
    add("consecutive_failures", "gauge", "Requests that failed since the last success.", ({}, shot.failures))
    add("keepalives_total", "counter", "Accepted keepalives.", ({}, counts["keepalives"]))
    add("registrations_total", "counter", "Accepted registrations.", ({}, counts["registrations"]))
    failed = [({"code": code}, counts[code]) for code in sorted(set(counts) - {"keepalives", "registrations"})]
    add("problems_total", "counter", "Requests that failed, by the problem's code.", *failed)
    add("gpus", "gauge", "GPUs, or MIG instances, that are offered.", ({}, gpu.count))
    add("gpus_free", "gauge", "Those without a compute process, on GPUs that are fit for work.", ({}, gpu.free))
    _gpus(add, gpu.health)
    text = "1 while the GPUs can't be read and the last good reading is reported."
    add("gpu_reading_stale", "gauge", text, ({}, int(gpu.stale_seconds is not None)))
    add(
        "unreadable",
        "gauge",
        "1 for each reading that fails.",
        *[({"what": name}, 1) for name in sorted(shot.troubles)],
    )
    return "\n".join(lines) + "\n"


def _gpus(add: Add, health: Health) -> None:
    """Add what is known of each GPU. A figure that a GPU does not tell is left out."""
    if not health.epoch:
        return
    who = {gpu["index"]: {"gpu": str(gpu["index"]), "uuid": gpu.get("uuid", "")} for gpu in health.gpus}

    def figures(name: str, kind: str, text: str, value_of: Callable[[dict[str, Any]], object]) -> None:
        values = [(who[gpu["index"]], value_of(gpu)) for gpu in health.gpus]
        values = [entry for entry in values if entry[1] is not None]
        if values:
            add(name, kind, text, *values)

    add("gpu_health_timestamp_seconds", "gauge", "When the figures of the GPUs were read.", ({}, health.epoch))
    add(
        "gpu_fit",
        "gauge",
        "Whether a GPU is fit for work.",
        *((who[index], int(index not in health.unfit)) for index in who),
    )
    found = (
        (dict(who[finding.gpu], check=finding.check, code=finding.code, severity=finding.severity), 1)
        for finding in health.findings
    )
    add("gpu_problem", "gauge", "1 for each problem of a GPU, by the health check that reports it.", *found)
    figures(
        "gpu_accepted",
        "gauge",
        "Whether a GPU passed its acceptance.",
        lambda gpu: _truth(health.accepted.get(gpu.get("uuid", ""))),
    )
    figures("gpu_temperature_celsius", "gauge", "Temperature.", lambda gpu: gpu.get("temperature"))
    figures("gpu_power_watts", "gauge", "Power that is drawn.", lambda gpu: _thousandth(gpu.get("power")))
    figures(
        "gpu_power_limit_watts",
        "gauge",
        "Power that may be drawn.",
        lambda gpu: _thousandth((gpu.get("power_limits") or [None])[0]),
    )
    figures(
        "gpu_uncorrectable_memory_errors",
        "gauge",
        "Uncorrectable memory errors since the driver was loaded.",
        lambda gpu: gpu.get("uncorrected"),
    )
    figures("gpu_nvlinks_up", "gauge", "NVLinks that are up.", lambda gpu: (gpu.get("links") or [None])[0])
    figures(
        "gpu_pcie_link_generation",
        "gauge",
        "Generation of the PCIe link, lower while idle.",
        lambda gpu: (gpu.get("pcie") or [None])[0],
    )
    figures(
        "gpu_pcie_link_width",
        "gauge",
        "Width of the PCIe link.",
        lambda gpu: gpu["pcie"][2] if gpu.get("pcie") else None,
    )


def _truth(value: bool | None) -> int | None:
    return None if value is None else int(value)


def _thousandth(value: float | None) -> float | None:
    return None if value is None else value / 1000
