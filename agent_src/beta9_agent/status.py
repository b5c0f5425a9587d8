"""`beta9-agent status` and `beta9-agent doctor`: how the running agent is, and what an agent would find on this host.

Both only read. Exit status of status: 0 ready, 1 not ready, 3 no agent has written a state. Of doctor: 0 nothing wrong,
1 something is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from typing import Any, Iterator, Sequence

from . import __version__, config, events, protocol
from . import state as state_file

# where the service's unit has its credentials from
CREDENTIALS = (
    ("--token-file", "/etc/beta9/credentials/machine_token"),
    ("--k3s-token-file", "/etc/beta9/credentials/k3s_token"),
    ("--k3s-ca-path", "/var/lib/rancher/k3s/server/tls/server-ca.crt"),
)


def _ago(epoch: float) -> str:
    seconds = int(time.time() - epoch)
    return f"{seconds} s ago" if seconds >= 0 else f"in {-seconds} s"


def _lines(state: dict[str, Any]) -> Iterator[str]:
    """Yield the state as lines for people."""
    pid, problem = int(state["pid"]), state["problem"]
    alive = os.path.isdir(f"/proc/{pid}")
    yield f"machine      {state['machine_id']} of pool {state['pool']} at {state['gateway_url']}"
    yield f"agent        {state['agent_version']}, pid {pid}{'' if alive else ', which does not run any more'}"
    yield f"status       {state['status']}"
    if problem:
        yield f"  cause      {problem['cause']} ({problem['code']})"
        yield f"  remedy     {problem['remedy']}"
    last, interval, ttl = state["last_keepalive_epoch"], state["keepalive_interval_seconds"], state["ttl_seconds"]
    accepted = _ago(last) if last else "never"
    yield f"keepalive    last accepted {accepted}, every {interval:g} s, forgotten after {ttl:g} s"
    yield f"next         {state['next_action']} {_ago(state['next_epoch'])}"
    stale = "" if state["gpu_stale_seconds"] is None else f", read {int(state['gpu_stale_seconds'])} s ago"
    yield f"GPUs         {int(state['free_gpu_count'])} free of {int(state['gpu_count'])}{stale}"
    for finding in state.get("gpu_findings", []):
        yield f"  GPU {int(finding['gpu']):<6} {finding['text']} ({finding['check']})"
    for name, why in sorted(state["unreadable"].items()):
        yield f"  unreadable {name}: {why}"
    for name in ("register", "keepalive"):
        if name in state["sent"]:
            yield f"last sent    {name} {json.dumps(state['sent'][name], sort_keys=True)}"
    if state["reload_error"]:
        yield f"reload       refused: {state['reload_error']}"
    for entry in reversed(state["recent_problems"]):
        when = _ago(entry["last_epoch"])
        yield (
            f"problem      {entry['code']}, {entry['count']} times, last {when}: {entry['cause']}. {entry['remedy']}"
        )


def status(argv: Sequence[str] | None = None) -> int:
    """Tell how the running agent is. Return the exit status."""
    about = "Tell how the running agent is. Exit status: 0 ready, 1 not, 3 no agent."
    options = argparse.ArgumentParser(prog="beta9-agent status", description=about)
    options.add_argument("--json", action="store_true", help="the whole state file")
    usual = os.path.join(config.RUNTIME_DIRECTORY, config.STATE_NAME)
    options.add_argument("--state-file", default=usual, metavar="FILE", help="default: %(default)s")
    given = options.parse_args(argv)
    try:
        state = state_file.read(given.state_file)
        text = json.dumps(state, indent=2) if given.json else "\n".join(events.clean(line) for line in _lines(state))
        alive = state["status"] == "ready" and os.path.isdir(f"/proc/{int(state['pid'])}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        found = f"no state of an agent in {given.state_file}: {error}"
        print(f"beta9-agent status: {found}. Is it running? systemctl status beta9-agent", file=sys.stderr)
        return 3
    print(text)
    return 0 if alive else 1


def facts(argv: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return what an agent with these options finds on this host, and what is wrong as a list of texts."""
    packages: dict[str, str] = {}
    found: dict[str, Any] = {"agent_version": __version__, "python": platform.python_version(), "packages": packages}
    wrong: list[str] = []
    for name in ("httpx", "psutil", "pynvml"):
        try:
            __import__(name)
            packages[name] = "loads"
        except ImportError as error:
            packages[name] = str(error)
            wrong.append(f"package {name}: {error}")
    try:
        settings = config.from_arguments(argv)
    except protocol.InvalidField as error:
        found["settings"] = str(error)
        return found, wrong + [str(error)]
    if packages["psutil"] != "loads" or packages["httpx"] != "loads":
        return found, wrong
    from .metrics import Machine  # only now: it needs the packages

    machine = Machine.of(settings)
    found.update(settings="valid", gateway_url=settings.gateway_url, has_k3s_token=bool(settings.cluster_token()))
    found["metrics"] = machine.metrics()
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
    return found, wrong + [f"{name}: {why}" for name, why in sorted(machine.troubles.items())]


def doctor(argv: Sequence[str] | None = None) -> int:
    """Tell what an agent finds on this host. Return the exit status."""
    options = argparse.ArgumentParser(
        prog="beta9-agent doctor",
        description="Tell what an agent finds on this host, without asking the gateway. Other options are the agent's.",
        epilog=f"Without options: the settings of {config.ENV_FILE} and the service's credentials, which only "
        f"root can read.",
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
        print(f"{name:<14} {events.clean(value if isinstance(value, str) else json.dumps(value, sort_keys=True))}")
    for text in wrong or ["nothing"]:
        print(f"{'wrong':<14} {events.clean(text)}")
    return 1 if wrong else 0
