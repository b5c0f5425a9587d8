"""`beta9-agent status` and `beta9-agent doctor`: how the running agent is, and what an agent would find on this host.

Both only read. Exit status of status: 0 ready, 1 not ready, 3 no agent has written a state. Of doctor: 0 nothing wrong, 1 something is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time

from . import __version__, config, events, protocol
from . import state as state_file

# where the service's unit has its credentials from
CREDENTIALS = (
    ("--token-file", "/etc/beta9/credentials/machine_token"),
    ("--k3s-token-file", "/etc/beta9/credentials/k3s_token"),
    ("--k3s-ca-path", "/var/lib/rancher/k3s/server/tls/server-ca.crt"),
)


def _ago(epoch):
    seconds = time.time() - epoch
    return "%d s ago" % seconds if seconds >= 0 else "in %d s" % -seconds


def _lines(state):
    """Yield the state as lines for people."""
    alive = os.path.isdir("/proc/%d" % state["pid"])
    yield "machine      %s of pool %s at %s" % (state["machine_id"], state["pool"], state["gateway_url"])
    yield "agent        %s, pid %d%s" % (state["agent_version"], state["pid"], "" if alive else ", which does not run any more")
    yield "status       %s" % state["status"]
    if state["problem"]:
        yield "  cause      %s (%s)" % (state["problem"]["cause"], state["problem"]["code"])
        yield "  remedy     %s" % state["problem"]["remedy"]
    last, interval, ttl = state["last_keepalive_epoch"], state["keepalive_interval_seconds"], state["ttl_seconds"]
    yield "keepalive    last accepted %s, every %g s, forgotten after %g s" % (_ago(last) if last else "never", interval, ttl)
    yield "next         %s %s" % (state["next_action"], _ago(state["next_epoch"]))
    stale = state["gpu_stale_seconds"]
    yield "GPUs         %d free of %d%s" % (state["free_gpu_count"], state["gpu_count"], "" if stale is None else ", read %d s ago" % stale)
    for finding in state.get("gpu_findings", []):
        yield "  GPU %-6d %s (%s)" % (finding["gpu"], finding["text"], finding["check"])
    for name, why in sorted(state["unreadable"].items()):
        yield "  unreadable %s: %s" % (name, why)
    for name in ("register", "keepalive"):
        if name in state["sent"]:
            yield "last sent    %s %s" % (name, json.dumps(state["sent"][name], sort_keys=True))
    if state["reload_error"]:
        yield "reload       refused: %s" % state["reload_error"]
    for entry in reversed(state["recent_problems"]):
        yield "problem      %s, %d times, last %s: %s. %s" % (entry["code"], entry["count"], _ago(entry["last_epoch"]), entry["cause"], entry["remedy"])


def status(argv=None):
    """Tell how the running agent is. Return the exit status."""
    options = argparse.ArgumentParser(prog="beta9-agent status", description="Tell how the running agent is. Exit status: 0 ready, 1 not, 3 no agent.")
    options.add_argument("--json", action="store_true", help="the whole state file")
    options.add_argument("--state-file", default=os.path.join(config.RUNTIME_DIRECTORY, config.STATE_NAME), metavar="FILE", help="default: %(default)s")
    given = options.parse_args(argv)
    try:
        state = state_file.read(given.state_file)
        text = json.dumps(state, indent=2) if given.json else "\n".join(events.clean(line) for line in _lines(state))
        alive = state["status"] == "ready" and os.path.isdir("/proc/%d" % state["pid"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        print("beta9-agent status: no state of an agent in %s: %s. Is it running? systemctl status beta9-agent" % (given.state_file, error), file=sys.stderr)
        return 3
    print(text)
    return 0 if alive else 1


def facts(argv):
    """Return what an agent with these options finds on this host, and what is wrong as a list of texts."""
    found, wrong = {"agent_version": __version__, "python": platform.python_version(), "packages": {}}, []
    for name in ("httpx", "psutil", "pynvml"):
        try:
            __import__(name)
            found["packages"][name] = "loads"
        except ImportError as error:
            found["packages"][name] = str(error)
            wrong.append("package %s: %s" % (name, error))
    try:
        settings = config.from_arguments(argv)
    except protocol.InvalidField as error:
        found["settings"] = str(error)
        return found, wrong + [str(error)]
    if found["packages"]["psutil"] != "loads" or found["packages"]["httpx"] != "loads":
        return found, wrong
    from .metrics import Machine  # only now: it needs the packages

    machine = Machine.of(settings)
    found.update(settings="valid", gateway_url=settings.gateway_url, has_k3s_token=bool(settings.cluster_token()), metrics=machine.metrics())
    found["register"] = {
        "machine_id": settings.machine_id,
        "hostname": settings.hostname,
        "pool_name": settings.pool_name,
        "provider_name": settings.provider_name,
        "private_ip": settings.private_ip,
        **machine.capacity(),
    }
    found["gpus"] = [unit._asdict() for unit in machine.gpu.units]
    found["unreadable"] = machine.troubles
    machine.close()
    return found, wrong + ["%s: %s" % entry for entry in sorted(machine.troubles.items())]


def doctor(argv=None):
    """Tell what an agent finds on this host. Return the exit status."""
    options = argparse.ArgumentParser(
        prog="beta9-agent doctor",
        description="Tell what an agent finds on this host, without asking the gateway. Other options are those of the agent.",
        epilog="Without options: the settings of %s and the credentials of the service, which only root can read." % config.ENV_FILE,
    )
    options.add_argument("--json", action="store_true")
    given, rest = options.parse_known_args(argv)
    if not any(word.startswith("--env-file") for word in rest) and os.path.exists(config.ENV_FILE):
        rest += ["--env-file", config.ENV_FILE]
    for option, path in CREDENTIALS:
        if not any(word.startswith(option) for word in rest) and os.path.exists(path):
            rest += [option, path]
    found, wrong = facts(rest)
    if given.json:
        print(json.dumps(dict(found, wrong=wrong), indent=2))
        return 1 if wrong else 0
    for name, value in found.items():
        print("%-14s %s" % (name, events.clean(value if isinstance(value, str) else json.dumps(value, sort_keys=True))))
    for text in wrong or ["nothing"]:
        print("%-14s %s" % ("wrong", events.clean(text)))
    return 1 if wrong else 0
