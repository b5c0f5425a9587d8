# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at the machine: its token, the gateway's answers to it, and the agent that keeps it."""

from __future__ import annotations

import glob
import hashlib
import hmac
import itertools
import json
import os
import re
import stat
import time

from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, units
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Unknown, bad, ok, warn
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import tunnel
from ansible_collections.beta9.workers.plugins.module_utils.health.probes.evidence import (
    JOURNALD,
    SETTLED_SECONDS,
    crash_loop,
    explanation,
    restarts_within,
    unit_of,
)

UNIT = "beta9-agent.service"
# always called with -I: the current directory must not lend a package that the service would not find
PYTHON = "/opt/beta9-agent/current/bin/python"
AGENT_INSPECT = (
    "import sys; print('python %d.%d' % sys.version_info[:2], flush=True); import httpx, psutil, pynvml, "
    "beta9_agent.agent; "
    "print('packages', flush=True); from beta9_agent.__main__ import main; sys.exit(main(['--dry-run']))"
)
PACKAGES = ("httpx", "psutil", "pynvml")
CONFIGURATION = "/etc/beta9"
AGENT_DIRECTORY = "/opt/beta9-agent"
KEPT = ("/var/lib/beta9", "/var/lib/beta9-k3s")
UNIT_FILES = ("/etc/systemd/system/beta9-*", "/etc/systemd/system/beta9-*.d/*")
SETTINGS = records.AGENT_SETTINGS_PATH
WRITTEN = (
    "/etc",
    CONFIGURATION,
    "/opt",
    "/var",
    "/var/lib",
    "/var/lib/private",
    *KEPT,
    "/var/lib/rancher",
    "/var/log",
    "/var/tmp",
    "/tmp",
    "/run",
)
FULL_BYTES, FULL_INODES, FULL_SHARE = 16 * 1024 * 1024, 100, 0.05  # what is left of both, and no more than this share
TOKEN_FILE = os.path.join(records.CREDENTIALS_DIR, "machine_token")
STATE_FILE = "/run/beta9-agent/state.json"
FLAPPING_SECONDS = 1800
HIDDEN = ("/home/", "/root/", "/run/user/")  # by the unit's ProtectHome
LOOP_SECONDS = 60.0  # longer than this, and it is not between two crashes of a loop
STARTING_SECONDS = 10.0  # what an agent may take until it says how it is
PAYLOAD_FIELDS = ("machine_id", "hostname", "pool_name", "provider_name", "cpu", "memory", "gpu_count", "private_ip")


def token_of(context):
    """Return the machine's token, which is a secret from here on; None when there is none."""

    def read():
        token = (context.read(TOKEN_FILE) or "").strip()
        if token:
            context.secrets.append(token)
        return token or None

    return context.shared("token", read)


def state_of(context):
    """Return what the running agent says of itself, {} when it says nothing."""

    return context.shared("agent state", lambda: context.agent_state(STATE_FILE))


def ready_list(context):
    """Return the ready machines of the pool as the machine's own token sees them. Read-only."""
    config = context.config
    token = token_of(context)
    if not token:
        raise Unknown("the machine's token is not on this host")
    return context.shared(
        "ready list", lambda: tunnel.client_of(context, token=token).list_ready(config["pool"], config["provider"])
    )


def token(context):
    """A01: an authorised call that changes nothing."""
    if not token_of(context):
        return bad("missing", f"{TOKEN_FILE} does not exist or is empty")
    try:
        ready_list(context)
        return ok("accepted", owner=owner_of(context))
    except api.GatewayError as error:
        if error.problem.code in api.REFUSED_TOKEN:
            return bad(error.problem.code, error.problem.cause, str(error), owner=owner_of(context))
        raise Unknown(f"the gateway did not judge the token: {error.problem.cause}") from None


def owner_of(context):
    """Return a keyed hash of the token, to compare with the gateway's without showing either. The key is the run's."""
    key = context.config.get("nonce")
    return (
        hmac.new(key.encode(), token_of(context).encode(), hashlib.sha256).hexdigest()
        if key and token_of(context)
        else None
    )


def keepalive_route(context):
    """A02: an empty keepalive is refused by a gateway that has the route."""
    value = token_of(context)
    if not value:
        raise Unknown("the machine's token is not on this host")
    try:
        tunnel.client_of(context, token=value).keepalive({})
    except api.GatewayError as error:
        if error.problem.code == "route_missing":
            return bad("", f"POST {protocol.MACHINE_API}/keepalive is answered 404")
        if error.problem.code in ("field_missing", "payload_invalid", "internal_error"):
            return ok("the route is there")
        raise Unknown(f"could not tell: {error.problem.cause}") from None
    return ok("the route is there")


def proof(context):
    """Return the state of the running agent where it proves what a new one would find, else None.

    It does where it is ready, has loaded all its packages, and was started after the last change of all that it was
    started with: settings, token, interpreter, packages. A start of another one costs more than all other probes
    together.
    """

    def read():
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


def inspect_agent(context):
    """Return what the agent's own Python says: (version, whether its packages load, exit status, output after that).
    One start for all."""

    def read():
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
        version, _newline, rest = ran.output.partition("\n")
        version = re.match(r"python (\d+)\.(\d+)$", version)
        loaded, packages_line, last = rest.partition("packages\n")
        return version, bool(packages_line), ran.status, (loaded + last if version else ran.output)

    return context.shared("agent inspection", read)


def dry_run(context):
    """Return (exit status, output) of the agent's dry run. Shared by A03, A04 and P07."""
    _version, loads, status, output = inspect_agent(context)
    if not loads:
        raise Unknown("the agent can't be started: see P03 and P04")
    return status, output


def payload(context):
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


def settings(context):
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


def register(context):
    """A04 (active): a real registration, with the facts of the agent's dry run."""
    try:
        state = _register(context)
    except api.GatewayError as error:
        return bad(error.problem.code, error.problem.cause, str(error))
    return ok(state.status)


def _register(context):
    def call():
        status, output = dry_run(context)
        if status != 0:
            raise Unknown(f"the agent's dry run ended with {status}")
        fields = json.loads(output[output.index("{") :])["register"]
        k3s = context.read(os.path.join(records.CREDENTIALS_DIR, "k3s_token"))
        fields["token"] = (k3s or token_of(context) or "").strip()
        return tunnel.client_of(context, timeout=8, token=token_of(context)).register(fields)

    return context.shared("register", call)


def keepalive(context):
    """A05 (active): a real keepalive, after the registration of A04 where that is run as well."""
    if "A04" in context.config["probes"]:
        try:
            _register(context)
        except api.GatewayError:
            pass  # A04 tells
    config = context.config
    body = protocol.keepalive_payload(
        config["machine_id"], config["pool"], config["provider"], state_of(context).get("agent_version", "health-check")
    )
    try:
        state = tunnel.client_of(context, token=token_of(context)).keepalive(body)
    except api.GatewayError as error:
        return bad(error.problem.code, error.problem.cause, str(error))
    return ok(state.status) if state.status == "ready" else bad("", f"status {state.status}")


def listed(context):
    """M01: the pool's ready machines have this one."""
    config = context.config
    try:
        machines = ready_list(context)
    except api.GatewayError as error:
        raise Unknown(f"the gateway gave no list: {error.problem.cause}") from None
    mine = next((machine for machine in machines if machine["id"] == config["machine_id"]), None)
    if not mine:
        return bad(
            "", f"machine {config['machine_id']} is not among the {len(machines)} ready ones of pool {config['pool']}"
        )
    return ok(f"ready, last keepalive {mine['last_keepalive']}", gpu_count=mine["gpu_count"], hostname=mine["hostname"])


def python(context):
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


def packages(context):
    """P04: loading what the agent loads."""
    if not os.path.exists(PYTHON):
        raise Unknown("the agent is not installed")
    if proof(context):
        return ok("httpx, psutil, nvidia-ml-py: in use")
    _version, loads, status, output = inspect_agent(context)
    if not loads:
        return bad("", (output.strip().splitlines() or [f"exit status {status}"])[-1], output)
    return ok("httpx, psutil, nvidia-ml-py")


def _owned(paths):
    """Return {code: faults} of the paths: what belongs to another account than root, may be used by others, or is an
    empty secret."""
    faults = {}
    for path in paths:
        try:
            found = os.lstat(path)
        except OSError:
            continue  # it is not there, or went away meanwhile
        secret = path.startswith(records.CREDENTIALS_DIR)
        if found.st_uid != 0:
            faults.setdefault("owner", []).append(f"{path} belongs to uid {found.st_uid}")
        elif not stat.S_ISLNK(found.st_mode) and found.st_mode & (0o077 if secret else 0o022):
            faults.setdefault("mode", []).append(f"{path} has mode {stat.S_IMODE(found.st_mode):04o}")
        elif secret and path != TOKEN_FILE and stat.S_ISREG(found.st_mode) and not found.st_size:
            faults.setdefault("empty", []).append(f"{path} is empty")
    return faults


def _told(faults):
    texts = list(itertools.chain(*faults.values()))
    return bad(next(iter(faults)), "; ".join(texts[:10]) + (f"; and {len(texts) - 10} more" if len(texts) > 10 else ""))


def credentials(context):
    """C04: owners and modes of what the collection wrote, and that no key or token is empty. A01 tells of the machine's
    token."""
    faults = _owned(sorted(linux.tree(CONFIGURATION)))
    if faults:
        return _told(faults)
    if os.path.isdir(records.CREDENTIALS_DIR) and not os.access(records.CREDENTIALS_DIR, os.R_OK | os.X_OK):
        raise Unknown(f"{records.CREDENTIALS_DIR} may not be read: run with become")
    return ok("root's alone")


def disks(_context):
    """C05: the file systems that settings, state, logs, packages and programs are written to."""
    faults, seen = {}, set()
    for path in WRITTEN:
        try:
            found, device = os.statvfs(path), os.stat(path).st_dev
        except OSError:
            continue  # it is not there
        if device in seen and not found.f_flag & os.ST_RDONLY:
            continue
        seen.add(device)
        if found.f_flag & os.ST_RDONLY:
            faults.setdefault("read_only", []).append(f"{path} is mounted read-only")
        elif found.f_bavail * found.f_frsize < min(FULL_BYTES, found.f_blocks * found.f_frsize * FULL_SHARE):
            faults.setdefault("full", []).append(f"{path} has {found.f_bavail * found.f_frsize // 1024} KiB left")
        elif found.f_favail < found.f_files * FULL_SHARE and found.f_favail < FULL_INODES:
            faults.setdefault("inodes", []).append(f"{path} has {found.f_favail} inodes left")
    return _told(faults) if faults else ok(f"{len(seen)} file systems can be written")


def programs(context):
    """P08: owners and modes of the agent's programs, the units, the local fact, and what the collection keeps."""
    units_of_ours = [path for pattern in UNIT_FILES for path in glob.glob(pattern)]
    faults = _owned(
        itertools.chain(units_of_ours, [records.MACHINE_FACT_PATH], *map(linux.tree, (AGENT_DIRECTORY, *KEPT)))
    )
    programs_of_ours = any(
        text.startswith((AGENT_DIRECTORY + "/", AGENT_DIRECTORY + " ")) for text in itertools.chain(*faults.values())
    )
    return dict(_told(faults), code="programs" if programs_of_ours else "units") if faults else ok("root's alone")


def identity(context):
    """M07: what the gateway keeps of this machine is what this host registered, and nobody else sends its keepalives.

    The gateway's own time of the last keepalive is compared with the one that it told the agent: no clock of this host
    is in it.
    """
    config = context.config
    try:
        mine = next((machine for machine in ready_list(context) if machine["id"] == config["machine_id"]), None)
    except api.GatewayError as error:
        raise Unknown(f"the gateway gave no list: {error.problem.cause}") from None
    if not mine:
        raise Unknown("the gateway does not list the machine as ready")
    wanted = records.agent_settings(SETTINGS)
    for name, setting in (("hostname", "BETA9_HOSTNAME"), ("private_ip", "BETA9_PRIVATE_IP")):
        # a gateway may append its tailnet to what was registered: of that V05 tells
        if (
            wanted.get(setting)
            and mine[name] != wanted[setting]
            and not (name == "hostname" and mine[name].startswith(wanted[setting] + "."))
        ):
            return bad(name, f"{name} at the gateway is {mine[name] or 'empty'}, this host's is {wanted[setting]}")
    told = _told_last(context, mine["last_keepalive"])
    if told is not None and mine["last_keepalive"] is not None and mine["last_keepalive"] > told:
        return bad(
            "keepalive",
            f"the gateway had a keepalive {int(mine['last_keepalive'] - told)} s after the last one of this "
            f"host's agent",
        )
    return ok(f"{mine['hostname']}, {mine['private_ip']}")


def _told_last(context, listed):
    """Return the time of the agent's last keepalive as the gateway told it, None where the agent knows none.

    One that is on its way while the list is read is written down within moments: it is waited for.
    """
    for _try in range(12):
        told = context.agent_state(STATE_FILE).get("gateway_keepalive_epoch")
        if told is None or listed is None or told >= listed:
            break
        time.sleep(0.25)
    return told


def agents(machine_id):
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


def process(context):
    """P01: the unit's state now, nothing beside it, and a loop that turns. The journal only explains."""
    unit = unit_of(context, UNIT)
    for state, code in (("masked", "masked"), ("not-found", "not_installed")):
        if unit.load == state:
            return bad(code, f"{UNIT} is {state}")
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


def last_words(context):
    """Return the end of what was said by and of the agent in the last minutes, whichever its start."""
    return units.without_times(explanation(context, UNIT, SETTLED_SECONDS, present_start=False), 12)


def restarts(context):
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


def interval(context):
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


def log(context):
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


def flapping(context):
    """M06: registrations of the last half hour that nobody asked for."""
    times = state_of(context).get("registration_epochs")
    if times is None:
        raise Unknown("the agent reports no registrations")
    recent = [moment for moment in times if moment > time.time() - FLAPPING_SECONDS]
    found = f"{len(recent)} registrations in 30 minutes"
    return bad("", found) if len(recent) > 2 and max(recent) > time.time() - SETTLED_SECONDS else ok(found)


PROBES = {
    "C04": credentials,
    "C05": disks,
    "A01": token,
    "A02": keepalive_route,
    "A03": payload,
    "A04": register,
    "A05": keepalive,
    "M01": listed,
    "P01": process,
    "P02": restarts,
    "P03": python,
    "P04": packages,
    "P05": interval,
    "P06": log,
    "P07": settings,
    "P08": programs,
    "M06": flapping,
    "M07": identity,
}
