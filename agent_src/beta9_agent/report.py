"""How things are, for others: the state file, systemd's status line, Prometheus. Pure: reads the agent, returns text. No secrets."""

from __future__ import annotations

import json
import os
import sys
import time

from . import __version__, events

PACKAGES = ("httpx", "psutil", "pynvml")
STATES = ("starting", "registering", "registered", "ready", "degraded")


def document(agent, now):
    """Return what the state file holds. now is the agent's clock."""
    life, config, wall, gpu = agent.life, agent.config, time.time() - now, agent.machine.gpu
    return {
        "agent_version": __version__,
        "pid": os.getpid(),
        "python": "%d.%d.%d" % sys.version_info[:3],
        "loaded": [name for name in PACKAGES if name in sys.modules],
        "machine_id": config.machine_id,
        "pool": config.pool_name,
        "provider": config.provider_name,
        "gateway_url": config.gateway_url,
        "hostname": config.hostname,
        "status": life.status,
        "problem": dict(life.problem._asdict(), cause=events.clean(life.problem.cause)) if life.problem else None,
        "failures": life.failures,
        "registration_epochs": [round(moment + wall, 3) for moment in life.registrations],
        "gpu_count": gpu.count,
        "free_gpu_count": gpu.free,
        "gpu_problem": gpu.trouble,
        "gpu_findings": [finding._asdict() for finding in gpu.health.findings],
        "gpu_stale_seconds": None if gpu.stale_seconds is None else round(gpu.stale_seconds),
        "unreadable": agent.machine.troubles,
        "keepalive_interval_seconds": config.keepalive_interval,
        "ttl_seconds": life.ttl,
        "next_action": life.action,
        "next_epoch": round(life.due + wall, 3),
        "last_keepalive_epoch": round(life.last_accepted + wall, 3) if life.last_accepted is not None else None,
        "gateway_keepalive_epoch": life.told_last,
        "updated_epoch": round(time.time(), 3),
        "has_k3s_token": bool(config.k3s_token or config.k3s_token_file),
        "reloads": agent.reloads,
        "reload_error": agent.reload_error,
        "keepalives": agent.counts["keepalives"],
        "registrations": agent.counts["registrations"],
        "sent": agent.sent,
        "recent_problems": [dict(entry, code=code, count=agent.counts[code], cause=events.clean(entry["cause"])) for code, entry in agent.problems.items()],
    }


def state_text(agent, now):
    """Return the state file's text."""
    return json.dumps(document(agent, now), indent=1) + "\n"


def status_text(agent, now):
    """Return one line for people, as systemctl status shows it."""
    life, gpu = agent.life, agent.machine.gpu
    parts = [life.status]
    if life.problem:
        parts[0] = "%s: %s" % (life.status, events.clean(life.problem.cause))
        parts.append("next try in %d s" % max(0, life.due - now))
    elif gpu.count == 0:
        parts.append("no GPU")
    else:
        parts.append("%d GPU%s free" % (gpu.free, "" if gpu.free == 1 else "s"))
    if gpu.stale_seconds is not None:
        parts.append("GPUs not readable for %d s" % gpu.stale_seconds)
    if life.last_accepted is not None:
        parts.append("last keepalive %d s ago" % (now - life.last_accepted))
    return ", ".join(parts)


def _escape(value):
    return str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def prometheus(agent, now):
    """Return metrics in Prometheus's text format."""
    life, config, gpu, wall = agent.life, agent.config, agent.machine.gpu, time.time() - now
    lines = []

    def add(name, kind, text, *samples):
        lines.extend(["# HELP beta9_agent_%s %s" % (name, text), "# TYPE beta9_agent_%s %s" % (name, kind)])
        for labels, value in samples:
            inner = ",".join('%s="%s"' % (key, _escape(label)) for key, label in labels.items())
            lines.append("beta9_agent_%s%s %s" % (name, "{%s}" % inner if inner else "", value))

    who = {"version": __version__, "machine_id": config.machine_id, "pool": config.pool_name, "provider": config.provider_name}
    add("info", "gauge", "The agent and its machine.", (who, 1))
    add("status", "gauge", "1 for the state that the machine is in.", *(({"status": name}, int(name == life.status)) for name in STATES))
    add("updated_timestamp_seconds", "gauge", "When this was written.", ({}, round(time.time(), 3)))
    if life.last_accepted is not None:
        add("last_keepalive_timestamp_seconds", "gauge", "When the gateway last accepted a keepalive.", ({}, round(life.last_accepted + wall, 3)))
    add("keepalive_interval_seconds", "gauge", "Seconds between keepalives.", ({}, config.keepalive_interval))
    add("ttl_seconds", "gauge", "How long the gateway remembers the machine without a keepalive.", ({}, life.ttl))
    add("consecutive_failures", "gauge", "Requests that failed since the last success.", ({}, life.failures))
    add("keepalives_total", "counter", "Accepted keepalives.", ({}, agent.counts["keepalives"]))
    add("registrations_total", "counter", "Accepted registrations.", ({}, agent.counts["registrations"]))
    codes = sorted(set(agent.counts) - {"keepalives", "registrations"})
    add("problems_total", "counter", "Requests that failed, by the problem's code.", *(({"code": code}, agent.counts[code]) for code in codes))
    add("gpus", "gauge", "GPUs, or MIG instances, that are offered.", ({}, gpu.count))
    add("gpus_free", "gauge", "Those without a compute process, on GPUs that are fit for work.", ({}, gpu.free))
    _gpus(add, gpu.health)
    add("gpu_reading_stale", "gauge", "1 while the GPUs can't be read and the last good reading is reported.", ({}, int(gpu.stale_seconds is not None)))
    unreadable = [({"what": name}, 1) for name in sorted(agent.machine.troubles)]
    add("unreadable", "gauge", "1 for each reading that fails.", *unreadable)
    return "\n".join(lines) + "\n"


def _gpus(add, health):
    """Add what is known of each GPU. A figure that a GPU does not tell is left out."""
    if not health.epoch:
        return
    who = {gpu["index"]: {"gpu": str(gpu["index"]), "uuid": gpu.get("uuid", "")} for gpu in health.gpus}

    def figures(name, kind, text, value_of):
        values = [(who[gpu["index"]], value_of(gpu)) for gpu in health.gpus]
        values = [entry for entry in values if entry[1] is not None]
        if values:
            add(name, kind, text, *values)

    add("gpu_health_timestamp_seconds", "gauge", "When the figures of the GPUs were read.", ({}, health.epoch))
    add("gpu_fit", "gauge", "Whether a GPU is fit for work.", *((who[index], int(index not in health.unfit)) for index in who))
    found = ((dict(who[finding.gpu], check=finding.check, code=finding.code, severity=finding.severity), 1) for finding in health.findings)
    add("gpu_problem", "gauge", "1 for each problem of a GPU, by the health check that reports it.", *found)
    figures("gpu_accepted", "gauge", "Whether a GPU passed its acceptance.", lambda gpu: _truth(health.accepted.get(gpu.get("uuid"))))
    figures("gpu_temperature_celsius", "gauge", "Temperature.", lambda gpu: gpu.get("temperature"))
    figures("gpu_power_watts", "gauge", "Power that is drawn.", lambda gpu: _thousandth(gpu.get("power")))
    figures("gpu_power_limit_watts", "gauge", "Power that may be drawn.", lambda gpu: _thousandth((gpu.get("power_limits") or [None])[0]))
    figures("gpu_uncorrectable_memory_errors", "gauge", "Uncorrectable memory errors since the driver was loaded.", lambda gpu: gpu.get("uncorrected"))
    figures("gpu_nvlinks_up", "gauge", "NVLinks that are up.", lambda gpu: (gpu.get("links") or [None])[0])
    figures("gpu_pcie_link_generation", "gauge", "Generation of the PCIe link, lower while idle.", lambda gpu: (gpu.get("pcie") or [None])[0])
    figures("gpu_pcie_link_width", "gauge", "Width of the PCIe link.", lambda gpu: gpu["pcie"][2] if gpu.get("pcie") else None)


def _truth(value):
    return None if value is None else int(value)


def _thousandth(value):
    return None if value is None else value / 1000
