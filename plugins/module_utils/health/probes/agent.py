# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at the agent that keeps the machine: its unit, its Python, its settings, and what it says of itself."""

from __future__ import annotations

import itertools
import json
import os
import re
import time
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Context, Unknown, bad, ok, warn
from ansible_collections.beta9.workers.plugins.module_utils.health.probes.evidence import (
    JOURNALD,
    SETTLED_SECONDS,
    crash_loop,
    explanation,
    restarts_within,
    unit_of,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, units

UNIT = records.AGENT_UNIT
# always called with -I: the current directory must not lend a package that the service would not find
PYTHON = records.AGENT_DIRECTORY + "/current/bin/python"
AGENT_INSPECT = (
    "import sys; print('python %d.%d' % sys.version_info[:2], flush=True); import httpx, psutil, pynvml, "
    "beta9_agent.agent; "
    "print('packages', flush=True); from beta9_agent.__main__ import main; sys.exit(main(['--dry-run']))"
)
PACKAGES = ("httpx", "psutil", "pynvml")
SETTINGS = records.AGENT_SETTINGS_PATH
TOKEN_FILE = os.path.join(records.CREDENTIALS_DIR, "machine_token")
K3S_TOKEN_FILE = os.path.join(records.CREDENTIALS_DIR, "k3s_token")
STATE_FILE = records.AGENT_STATE
FLAPPING_SECONDS = 1800
HIDDEN = ("/home/", "/root/", "/run/user/")  # by the unit's ProtectHome
LOOP_SECONDS = 60.0  # longer than this, and it is not between two crashes of a loop
STARTING_SECONDS = 10.0  # what an agent may take until it says how it is
PAYLOAD_FIELDS = ("machine_id", "hostname", "pool_name", "provider_name", "cpu", "memory", "gpu_count", "private_ip")


def secret_of(context: Context, path: str) -> str | None:
    """Return what a credential holds, which is a secret from here on; None when there is none."""

    def read() -> str | None:
        value = (context.read(path) or "").strip()
        if value:
            context.secrets.append(value)
        return value or None

    return context.shared("secret " + path, read)


def token_of(context: Context) -> str | None:
    """Return the machine's token."""
    return secret_of(context, TOKEN_FILE)


def state_of(context: Context) -> dict[str, Any]:
    """Return what the running agent says of itself, {} when it says nothing."""

    return context.shared("agent state", lambda: context.agent_state(STATE_FILE))


def proof(context: Context) -> dict[str, Any] | None:
    """Return the state of the running agent where it proves what a new one would find, else None.

    It does where it is ready, has loaded all its packages, and was started after the last change of all that it was
    started with: settings, token, interpreter, packages. A start of another one costs more than all other probes
    together.
    """

    def read() -> dict[str, Any] | None:
        state = state_of(context)
        try:
            unit = unit_of(context, UNIT)
        except Unknown:
            return None
        sound = state.get("status") == "ready" and not state.get("reload_error") and not state.get("gpu_problem")
        complete = set(PACKAGES) <= set(state.get("loaded") or ()) and "register" in (state.get("sent") or {})
        if not sound or not complete or state.get("pid") != unit.main_pid:
            return None
        interpreter = os.path.realpath(PYTHON)
        library = os.path.join(os.path.dirname(os.path.dirname(interpreter)), "lib", os.path.basename(interpreter))
        paths = [SETTINGS, TOKEN_FILE, os.path.dirname(os.path.dirname(PYTHON)), interpreter, library]
        if not all(map(os.path.exists, paths)):
            return None
        trees = itertools.chain(paths, linux.tree(os.path.realpath(paths[2])))
        return None if linux.changed_since(unit.started_us, trees) else state

    return context.shared("proof", read)


def inspect_agent(context: Context) -> tuple[re.Match[str] | None, bool, int | None, str]:
    """Return what the agent's own Python says: (version, whether its packages load, exit status, output after that).
    One start for all."""

    def read() -> tuple[re.Match[str] | None, bool, int | None, str]:
        environment = {}
        for line in (context.read(SETTINGS) or "").splitlines():
            name, equals, value = line.partition("=")
            if equals and name.startswith("BETA9_"):
                environment[name] = value
        token_of(context)
        words = ["=".join(entry) for entry in sorted(environment.items())]
        if os.path.exists(TOKEN_FILE):
            words.append("BETA9_TOKEN_FILE=" + TOKEN_FILE)
        ran = context.run("env", *words, PYTHON, "-I", "-c", AGENT_INSPECT, timeout=9)
        first, _newline, rest = ran.output.partition("\n")
        version = re.match(r"python (\d+)\.(\d+)$", first)
        loaded, packages_line, last = rest.partition("packages\n")
        return version, bool(packages_line), ran.status, (loaded + last if version else ran.output)

    return context.shared("agent inspection", read)


def dry_run(context: Context) -> tuple[int | None, str]:
    """Return (exit status, output) of the agent's dry run. Shared by A03, A04 and P07."""
    _version, loads, status, output = inspect_agent(context)
    if not loads:
        raise Unknown("the agent can't be started: see P03 and P04")
    return status, output


def payload(context: Context) -> Observation:
    """A03: the fields that the agent would register."""
    running = proof(context)
    status, output = (0, json.dumps({"register": running["sent"]["register"]})) if running else dry_run(context)
    if status != 0:
        text = output.strip().splitlines()
        match = re.search(r"beta9-agent: (\w+): expected .*", output)
        if match and match.group(1) in PAYLOAD_FIELDS:
            return bad("", match.group(0), "\n".join(text[-3:]))
        raise Unknown(f"the agent's dry run ended with {status}: {(text or [''])[-1][:200]}")
    try:
        fields = json.loads(output[output.index("{") :])["register"]
        protocol.register_payload(**dict(fields, token="not-shown"))
    except ValueError as error:
        return bad("", str(error))
    return ok(f"{fields['cpu']}, {fields['memory']}, {fields['gpu_count']} GPUs")


def settings(context: Context) -> Observation:
    """P07: whose settings these are, and the agent's own judgement of them."""
    config, given = context.config, records.agent_settings(SETTINGS)
    named = (("MACHINE_ID", "machine_id"), ("POOL_NAME", "pool"), ("PROVIDER_NAME", "provider"))
    others = [
        f"BETA9_{name}={given['BETA9_' + name]}"
        for name, key in named
        if given.get("BETA9_" + name, config[key]) != config[key]
    ]
    if others:
        return bad(
            "identity",
            f"{SETTINGS} has {', '.join(others)}; the host's machine is {config['machine_id']} of pool "
            f"{config['pool']}",
        )
    if proof(context):
        return ok("valid, in use")
    status, output = dry_run(context)
    if status == 2:
        return bad("", output.strip().splitlines()[-1][:300], output)
    if status != 0:
        raise Unknown(f"the agent's dry run ended with {status}: {output.strip()[-200:]}")
    return ok("valid")


def python(context: Context) -> Observation:
    """P03: the interpreter of the agent's environment, which the unit's sandbox must reach."""
    if not os.path.exists(PYTHON):
        gone = os.path.islink(PYTHON)
        return bad(
            "replaced" if gone else "missing",
            f"{PYTHON} {f'leads to {os.path.realpath(PYTHON)}, which is gone' if gone else 'does not exist'}",
        )
    if os.path.realpath(PYTHON).startswith(HIDDEN):
        return bad("home", f"{PYTHON} leads to {os.path.realpath(PYTHON)}")
    running = proof(context)
    if running:
        return ok(f"{running['python']}, in use")
    version, _loads, status, output = inspect_agent(context)
    if not version:
        return bad("", f"the interpreter ended with {status}", output)
    found = tuple(map(int, version.groups()))
    if found < (3, 10):
        return bad("old", f"Python {found[0]}.{found[1]}")
    library = os.path.join(os.path.dirname(os.path.dirname(PYTHON)), "lib", f"python{found[0]}.{found[1]}")
    if not os.path.isdir(library):
        return bad(
            "replaced",
            f"Python {found[0]}.{found[1]}, and there is no {library}: the environment was made with another Python",
        )
    return ok(f"{found[0]}.{found[1]}")


def packages(context: Context) -> Observation:
    """P04: loading what the agent loads."""
    if not os.path.exists(PYTHON):
        raise Unknown("the agent is not installed")
    if proof(context):
        return ok("httpx, psutil, nvidia-ml-py: in use")
    _version, loads, status, output = inspect_agent(context)
    if not loads:
        return bad("", (output.strip().splitlines() or [f"exit status {status}"])[-1], output)
    return ok("httpx, psutil, nvidia-ml-py")


def agents(machine_id: str) -> list[int]:
    """Return the pids of long-running agents of a machine. One whose id can't be told counts as well."""
    found = []
    for pid, _parent, words in linux.processes():
        if "beta9_agent" in words and not {"--dry-run", "--once", "--version", "status", "doctor", "reload"} & set(
            words
        ):
            given = words[words.index("--machine-id") + 1] if "--machine-id" in words[:-1] else machine_id
            if given == machine_id:
                found.append(pid)
    return found


def process(context: Context) -> Observation:
    """P01: the unit's state now, nothing beside it, and a loop that turns. The journal only explains."""
    unit = unit_of(context, UNIT)
    for load, code in (("masked", "masked"), ("not-found", "not_installed")):
        if unit.load == load:
            return bad(code, f"{UNIT} is {load}")
    if unit.active in ("inactive", "failed", "deactivating"):
        return bad(
            "stopped", f"the unit is {unit.active}{f', result {unit.result}' if unit.active == 'failed' else ''}"
        )
    if not unit.main_pid:
        found = f"systemd starts it again and again ({unit.restarts} times): it ended with {unit.exit_status}"
        return bad(unit.exec_code or "failing", found, last_words(context))
    others = [pid for pid in agents(context.config["machine_id"]) if pid != unit.main_pid]
    if others:
        return bad("duplicate", f"pid {', '.join(map(str, others))} beside the unit's {unit.main_pid}")
    status = context.read(f"/proc/{unit.main_pid}/stat") or ""
    if status.rpartition(")")[2].split()[:1] == ["T"]:
        return bad("frozen", f"pid {unit.main_pid} is stopped")
    looping = crash_loop(context, UNIT, LOOP_SECONDS)
    if looping:
        return bad("failing", looping, last_words(context))
    state = state_of(context)
    if state.get("pid") != unit.main_pid:
        if unit.age_seconds() < STARTING_SECONDS:
            raise Unknown(f"the agent was started {unit.age_seconds():.0f} s ago and has not said how it is")
        return bad(
            "frozen",
            f"pid {unit.main_pid} has said nothing of itself for {unit.age_seconds():.0f} s",
            last_words(context),
        )
    late = time.time() - (state.get("next_epoch") or time.time())
    if late > 60:
        return bad("frozen", f"what was due {late:.0f} s ago was not done")
    return ok(f"pid {unit.main_pid}, {state.get('status', 'starting')}")


def boot(context: Context) -> Observation:
    """P09: what systemd starts when the host boots. A unit that is not there is a matter of other checks."""
    names = (("agent", UNIT), ("tunnel", "beta9-tunnel.service"))
    states = [(code, name, unit_of(context, name).at_boot) for code, name in names]
    found = [entry for entry in states if entry[2] in ("disabled", "enabled-runtime")]
    if found:
        code = found[0][0] if len(found) == 1 else ""
        return warn(code, ", ".join(f"{name} is {state}" for _code, name, state in found))
    return ok("enabled")


def last_words(context: Context) -> str:
    """Return the end of what was said by and of the agent in the last minutes, whichever its start."""
    return units.without_times(explanation(context, UNIT, SETTLED_SECONDS, present_start=False), 12)


def restarts(context: Context) -> Observation:
    """P02: how often systemd had to start it again within the hour, where that is not over."""
    unit = unit_of(context, UNIT)
    journald = unit_of(context, JOURNALD)
    if journald.load != "not-found" and journald.active != "active":
        return warn("no_journal", f"systemd-journald is {'masked' if journald.load == 'masked' else journald.active}")
    if not unit.restarts:
        return ok("no restart")
    count = min(unit.restarts, restarts_within(context, UNIT, 3600.0))
    if count <= 3 or unit.age_seconds() > SETTLED_SECONDS:
        return ok(f"{count} restarts within the hour, up for {unit.age_seconds():.0f} s")
    journal = explanation(context, UNIT, 3600.0, present_start=False)
    if "Traceback (most recent call last)" in journal:
        return bad(
            "traceback", f"{count} restarts", units.without_times(journal[journal.rindex("Traceback (most") :], 12)
        )
    return bad("", f"{count} restarts", last_words(context))


def interval(context: Context) -> Observation:
    """P05: the interval that runs, and the age of the last accepted keepalive."""
    state = state_of(context)
    seconds = state.get("keepalive_interval_seconds")
    if seconds is None:
        raise Unknown("the agent reports no interval")
    if seconds >= protocol.KEEPALIVE_MAX_INTERVAL_SECONDS:
        return bad("", f"every {int(seconds)} s")
    last = state.get("last_keepalive_epoch")
    age = time.time() - last if last else None
    if age is not None and age > 2.5 * seconds + 15:
        return bad("late", f"the last keepalive was accepted {int(age)} s ago")
    return ok(f"every {int(seconds)} s{f', last {int(age)} s ago' if age is not None else ''}")


def log(context: Context) -> Observation:
    """P06: what the agent says is wrong now."""
    state = state_of(context)
    problem = state.get("problem")
    if problem:
        found = f"{problem['code']}: {problem['cause']}"
        code = problem["code"] if problem["code"] in protocol.CODES else ""
        return (
            warn(code, found, problem["remedy"])
            if state.get("status") == "ready"
            else bad(code, found, problem["remedy"])
        )
    return ok(state.get("status", "no state"))


def flapping(context: Context) -> Observation:
    """M06: registrations of the last half hour that nobody asked for."""
    times = state_of(context).get("registration_epochs")
    if times is None:
        raise Unknown("the agent reports no registrations")
    recent = [moment for moment in times if moment > time.time() - FLAPPING_SECONDS]
    found = f"{len(recent)} registrations in 30 minutes"
    return bad("", found) if len(recent) > 2 and max(recent) > time.time() - SETTLED_SECONDS else ok(found)


PROBES = {
    "A03": payload,
    "P01": process,
    "P02": restarts,
    "P03": python,
    "P04": packages,
    "P05": interval,
    "P06": log,
    "P07": settings,
    "P09": boot,
    "M06": flapping,
}
