# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at the connection from the worker to the gateway: process, listener, connection, health, options."""

from __future__ import annotations

import email.utils
import http.client
import os
import re
import socket
import ssl
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible_collections.beta9.workers.plugins.module_utils import connections, exchange
from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, units
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import messages
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Context, Unknown, bad, ok
from ansible_collections.beta9.workers.plugins.module_utils.health.probes.evidence import (
    SETTLED_SECONDS,
    crash_loop,
    explanation,
    journal_of,
    unit_of,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation

UNIT = "beta9-tunnel.service"
SSH_CONFIG = "/etc/beta9/tunnel/ssh_config"
SSH = "/usr/bin/ssh"
KEY = os.path.join(records.CREDENTIALS_DIR, "tunnel_key")
CONNECTING_SECONDS = 5.0  # what ssh may take for a login
STAYS_SECONDS = 1.0  # one that logs in and is sent away is there for less
LOOP_SECONDS = 15.0  # the same of its unit: what autossh does not try again by itself ends at once
LATELY_SECONDS = 30.0  # autossh tries at least every 10 s: what it said before is over
LARGE_BYTES = 6000  # more than one packet of any usual link


class Refused(Unknown):
    """ssh itself refuses the tunnel's configuration."""


def options_of(context: Context) -> dict[str, list[str]]:
    """Return what ssh itself makes of the tunnel's configuration: option in lower case -> list of values."""

    def read() -> dict[str, list[str]]:
        ran = context.run("ssh", "-G", "-F", SSH_CONFIG, "gateway")
        if context.read(SSH_CONFIG) is None:
            return {}
        if ran.status != 0:
            raise Refused(f"ssh -G refuses the configuration: {ran.output.strip()[:200]}")
        found: dict[str, list[str]] = {}
        for line in ran.output.splitlines():
            name, _blank, value = line.partition(" ")
            found.setdefault(name.lower(), []).append(value)
        return found

    return context.shared("ssh options", read)


def agents_gateway(path: str = "/etc/beta9/agent.env") -> str:
    """Return the gateway's URL as the agent was given it, or the tunnel's where there is no agent."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = dict(line.strip().split("=", 1) for line in stream if "=" in line and not line.startswith("#"))
        return f"{found['BETA9_GATEWAY_SCHEME']}://{found['BETA9_GATEWAY_HOST']}:{found['BETA9_GATEWAY_PORT']}"
    except (OSError, KeyError):
        return "http://127.0.0.1:1994"


def local_port(context: Context) -> int:
    """Return the port at which this host reaches the gateway."""
    parts = urlsplit(context.config["gateway_url"])
    return parts.port or (443 if parts.scheme == "https" else 80)


def options(context: Context) -> Observation:
    """T06: what ssh makes of the configuration, and whether systemd brings it back."""
    try:
        found = options_of(context)
    except Refused as reason:
        return bad("", str(reason))
    if not found:
        return bad("", f"{SSH_CONFIG} does not exist")
    faults = []
    interval, count = int(found.get("serveraliveinterval", ["0"])[0]), int(found.get("serveralivecountmax", ["3"])[0])
    if not 1 <= interval <= 60:
        faults.append(f"ServerAliveInterval {int(interval)}")
    if count > 3:
        faults.append(f"ServerAliveCountMax {count}")
    if found.get("exitonforwardfailure", ["no"])[0] != "yes":
        faults.append("ExitOnForwardFailure no")
    if found.get("stricthostkeychecking", [""])[0] not in ("yes", "true"):
        faults.append(f"StrictHostKeyChecking {found.get('stricthostkeychecking', ['?'])[0]}")
    unit = unit_of(context, UNIT)
    if unit.load == "loaded" and unit.restart != "always":  # of one that is masked or gone T01 tells
        faults.append(f"the unit's Restart={unit.restart}")
    return (
        bad("", ", ".join(faults))
        if faults
        else ok(
            f"ServerAliveInterval {int(interval)}, ServerAliveCountMax {count}, supervised",
            target_port=target_port(context),
        )
    )


def listeners_of(context: Context) -> list[dict[str, Any]]:
    """Return host.listeners of the tunnel's port. Read once: finding the owners walks the open files of all
    processes."""
    port = local_port(context)
    return context.shared(f"listeners:{port}", lambda: linux.listeners(port))


def clients_of(context: Context) -> list[tuple[int, int, str]]:
    """Return forwarding_processes of the tunnel's port. Read once: a host may run thousands."""
    return context.shared("ssh clients", lambda: forwarding_processes(local_port(context)))


def forwarding_processes(port: int) -> list[tuple[int, int, str]]:
    """Return [(pid, parent, program)] of ssh clients that forward this local port, from /proc."""
    found = []
    for pid, parent, words in linux.processes():
        program = words[0].rpartition("/")[2]
        # `ssh -G` only shows options, and -W is a login that tries the connection: both are how a probe, or a person,
        # looks at the tunnel
        if (
            program in ("ssh", "autossh")
            and not {"-G", "-W"} & set(words)
            and (SSH_CONFIG in words or any(re.search(f"(^|[:L ]){port}:", word) for word in words[1:]))
        ):
            found.append((pid, parent, program))
    return found


def process(context: Context) -> Observation:
    """T01: the unit's state and its processes now, and no ssh beside it. The journal only explains."""
    unit, port = unit_of(context, UNIT), local_port(context)
    for state, code in (("masked", "masked"), ("not-found", "not_installed")):
        if unit.load == state:
            return bad(code, f"{UNIT} is {state}")
    foreign = [entry for entry in listeners_of(context) if entry["process"] not in ("ssh", None)]
    if foreign:
        # T02 is the one to tell
        raise Unknown("the tunnel can't run while {process} (pid {pid}) holds its port".format(**foreign[0]))
    if unit.active in ("inactive", "failed", "deactivating"):
        return bad(
            "stopped", f"the unit is {unit.active}{f', result {unit.result}' if unit.active == 'failed' else ''}"
        )
    gone = [path for path in dict.fromkeys((unit.program, SSH)) if path and not os.access(path, os.X_OK)]
    if gone and not sessions_of(clients_of(context)):
        return bad("program", f"{' and '.join(gone)} is not there, or may not be run")
    if not unit.main_pid:
        found = f"systemd starts it again and again ({unit.restarts} times): it ended with {unit.exit_status}"
        return _why(context, unit.exec_code or "failing", found, present_start=False)
    looping = crash_loop(context, UNIT, LOOP_SECONDS)
    if looping:
        return _why(context, "failing", looping, present_start=False)
    clients = clients_of(context)
    own = {unit.main_pid} | {pid for pid, parent, _program in clients if parent == unit.main_pid}
    sessions, listening = sessions_of(clients), listeners_of(context)
    others = [pid for pid in sessions if pid not in own]
    if others:
        return bad("duplicate", f"pid {', '.join(map(str, others))} forwards port {port} beside the unit")
    if connecting(sessions) or not sessions and unit.age_seconds() < CONNECTING_SECONDS:
        # one that is sent away ends at once, also after it has opened its port: look again
        time.sleep(STAYS_SECONDS)
        later = sessions_of(forwarding_processes(port))
        if sessions and not set(sessions) & set(later):
            return _why(context, "failing", f"ssh (pid {', '.join(map(str, sessions))}) ended at once")
        sessions, listening = later, linux.listeners(port)
    if not sessions:
        if unit.age_seconds() < 2 * STAYS_SECONDS:
            raise Unknown(f"the unit was started {unit.age_seconds():.1f} s ago, and its ssh not yet")
        return _why(context, "failing", f"{os.path.basename(unit.program) or 'autossh'} runs, its ssh does not")
    if not any(entry["process"] in ("ssh", None) for entry in listening):
        seen = _why(context, "failing", f"ssh (pid {sessions[0]}) runs, and has not opened port {port}")
        if connecting(sessions) and seen["code"] == "failing":
            raise Unknown(f"ssh (pid {sessions[0]}) is connecting")
        return seen
    return ok(f"pid {unit.main_pid}", pid=unit.main_pid)


def sessions_of(clients: list[tuple[int, int, str]]) -> list[int]:
    """Return the pids of ssh among the clients."""
    return [pid for pid, _parent, program in clients if program == "ssh"]


def connecting(sessions: list[int]) -> bool:
    """Return whether the tunnel's ssh was started so lately that it may still log in."""
    ages = map(linux.process_age_seconds, sessions)
    return any(age is not None and age < CONNECTING_SECONDS for age in ages)


def _why(context: Context, code: str, found: str, present_start: bool = True) -> Observation:
    """Return what the tunnel's own ssh says of its last minute: only what a login of another ssh (T08) can't see is a
    code of its own."""
    text = explanation(context, UNIT, LATELY_SECONDS, present_start)
    said = messages.explain(text)
    if said and code == "failing" and said.code in ("listen_refused", "port_taken", "config"):
        code = said.code
    return bad(code, found + (": " + units.without_times(said.line, 1) if said else ""), units.without_times(text))


def carries(context: Context) -> bool:
    """Return whether a request through the tunnel is answered within a moment, also one that needs several packets."""

    def read() -> bool:
        try:
            knock(context, timeout=1.5)
            return True
        except (OSError, http.client.HTTPException):
            return False

    return context.shared("carries", read)


class Login(NamedTuple):
    """What came of a login: a code of module_utils/tunnel/messages.py and the line that says so, all that was said, and
    whether ssh ended by itself."""

    code: str
    line: str
    output: str
    finished: bool


def login(context: Context, admission: bool = False) -> Login:
    """Return the Login of our own to the tunnel's target with the tunnel's key and options; its code is "" when it got
    there.

    It leaves no failed attempt in the gateway host's log, as a bare connection would, unless something is wrong.
    admission: end it when the account is let in, where a tunnel that carries shows all that comes behind.
    """

    def read() -> Login:
        ends = [target_of(value, local_port(context)) for value in options_of(context).get("localforward", [])]
        target = next((found for found in ends if found), None)
        if not target:
            raise Unknown(f"{SSH_CONFIG} has no LocalForward of port {local_port(context)}")
        if context.read(KEY) is None:
            raise Unknown(f"{KEY} does not exist")
        to = "{}:{}".format(*target)
        # 6 s: one whom hosts.deny names is kept waiting for 5 before sshd closes
        words = ["ssh", "-v", "-F", SSH_CONFIG, "-i", KEY, "-o", "ConnectTimeout=6", "-W", to, "gateway"]
        ran = context.run(*words, timeout=8, hangs=True, until=messages.ADMITTED if admission else "")
        said = messages.login_problem(ran.output, ran.status is not None)
        return Login(said.code if said else "", said.line if said else "", ran.output, ran.status is not None)

    return context.shared("admission" if admission else "login", read)


def gateway_ssh(context: Context) -> Observation:
    """T08: what the tunnel carries now; where it carries nothing, a login of our own at the gateway host."""
    found = options_of(context)
    if not found:
        raise Unknown(f"{SSH_CONFIG} does not exist")
    where = f"{found.get('hostname', ['?'])[0]} port {found.get('port', ['?'])[0]}"
    data: dict[str, Any] = {"tunnel": ends_of(found, local_port(context))}
    carrying = carries(context)
    if carrying:
        try:
            knock(context, timeout=2.0, padding=LARGE_BYTES)
        except socket.timeout:
            return bad("stalled", f"a small request is answered, one of {LARGE_BYTES} bytes is not", **data)
        except (OSError, http.client.HTTPException):
            pass  # answered: a gateway may refuse so long a header
        if not context.config.get("login"):
            return ok(f"{where}, in use", **data)
    tried = login(context, admission=carrying)
    if tried.code in ("target_refused", "target_denied", ""):
        return ok(f"a login at {where} gets through", **data)
    if carrying and (not tried.finished or tried.code == "closed"):  # a host under load, or many logins at once
        return ok(f"{where}, in use; a login beside it did not end in time", **data)
    return bad(tried.code, f"{where}: {tried.line}", "\n".join(tried.output.splitlines()[-12:]), **data)


def ends_of(options: dict[str, list[str]], port: int) -> dict[str, Any]:
    """Return what the gateway host has to know of the tunnel, of `ssh -G`: its target and listen address as host:port,
    sshd's port, the account."""
    targets = [target_of(value, port) for value in options.get("localforward", [])]
    target = next((f"{found[0]}:{found[1]}" for found in targets if found), "")
    listens = [re.match(r"\[?([0-9a-fA-F.:]+?)\]?:(\d+) ", value) for value in options.get("remoteforward", [])]
    listen = next((":".join(found.groups()) for found in listens if found), "")
    return {
        "target": target,
        "listen": listen,
        "port": (options.get("port") or ["22"])[0],
        "user": (options.get("user") or [""])[0],
    }


def listener(context: Context) -> Observation:
    """T02: who listens on the port."""
    port = local_port(context)
    found = listeners_of(context)
    if not found:
        if connecting(sessions_of(clients_of(context))):
            raise Unknown(f"nothing listens on port {port} yet: ssh is connecting")
        return bad("none", f"nothing listens on port {port}")
    owners = {entry["process"] for entry in found}
    if owners == {None}:
        raise Unknown(f"port {port} is in LISTEN; whose it is can only root see")
    foreign = [entry for entry in found if entry["process"] not in ("ssh", None)]
    if foreign:
        return bad("foreign", "{process} (pid {pid}) listens on {address}".format(**foreign[0]))
    return ok(f"ssh on {found[0]['address']}:{port}")


def connect(context: Context) -> Observation:
    """T03: a TCP connection."""
    parts = urlsplit(context.config["gateway_url"])
    try:
        with socket.create_connection((parts.hostname, local_port(context)), timeout=3):
            return ok(f"{parts.hostname}:{local_port(context)}")
    except socket.gaierror as error:
        return bad("dns", f"{parts.hostname}: {error.strerror}")
    except socket.timeout:
        return bad("timeout", f"{parts.hostname}:{local_port(context)} does not answer within 3 s")
    except OSError as error:
        return bad("refused", f"{parts.hostname}:{local_port(context)}: {error.strerror or error}")


def client_of(context: Context, timeout: int = 4, token: str | None = None) -> api.GatewayClient:
    """Return a client of the gateway as this host reaches it. Asks once: a check must not hide what fails now and
    then."""
    tls: dict[str, Any] = {name: context.config.get(name) for name in ("ca_path", "client_cert", "client_key")}
    try:
        return api.GatewayClient(context.config["gateway_url"], token, timeout=timeout, retries=0, **tls)
    except protocol.InvalidField as error:
        raise Unknown(str(error)) from None


def health(context: Context) -> Observation:
    """T04: the gateway's health route."""
    try:
        client_of(context, timeout=6).health()
        return ok("status ok")
    except api.GatewayError as error:
        code = error.problem.code
        if code in ("empty_reply", "connection_reset") and connections.gives(
            context.config["connection"], connections.TUNNEL
        ):
            code = _beyond(context) or code
        return bad(code, error.problem.cause, str(error))


def _beyond(context: Context) -> str:
    """Return what sshd says of the tunnel's target, where a login gets that far."""
    try:
        code = login(context).code
    except Unknown:
        return ""
    return code if code in ("target_refused", "target_denied") else ""


def _trusted(config: dict[str, Any]) -> ssl.SSLContext:
    """Return what TLS verifies and shows."""
    trusted = ssl.create_default_context(cafile=config.get("ca_path"))
    if config.get("client_cert"):
        trusted.load_cert_chain(config["client_cert"], config.get("client_key"))
    return trusted


def knock(context: Context, timeout: float = 2.0, padding: int = 0) -> str | None:
    """Make one connection and one request; return the answer's Date header. Raises OSError or HTTPException unless it
    is answered.

    padding: so many bytes more than the request needs.
    """
    url = context.config["gateway_url"].rstrip("/")
    trusted = None
    if url.startswith("https:"):  # the trust store is read once: that costs more than a request
        trusted = context.shared("trust store", lambda: _trusted(context.config))
    headers = {"X-Padding": "x" * padding} if padding else {}
    answer = exchange.exchange("GET", url + protocol.HEALTH_PATH, timeout, headers, tls=trusted)
    if answer.status != 200:
        raise http.client.HTTPException(f"HTTP {answer.status}")
    return answer.headers.get("Date")


def stability(context: Context) -> Observation:
    """T05: ten requests in a row, and how often the tunnel was lost."""
    failed, last = 0, ""
    for _attempt in range(10):
        try:
            knock(context)
        except (OSError, http.client.HTTPException) as error:
            failed, last = failed + 1, exchange.name_of(error)
    if failed == 10:
        raise Unknown(f"no request gets through now: {last}")
    if failed:
        return bad("probes", f"{failed} of 10 requests failed: {last}")
    if not connections.gives(context.config["connection"], connections.TUNNEL):
        return ok("10 of 10 requests")
    session = next(iter(sessions_of(clients_of(context))), None)
    steady = linux.process_age_seconds(session) if session else None
    if steady is not None and steady >= SETTLED_SECONDS:
        return ok(f"10 of 10 requests, the tunnel is up for {steady / 60:.0f} min")
    lost = messages.losses(journal_of(context, UNIT, 3600.0))
    if len(lost) > 3:
        return bad(
            "drops", f"the tunnel was lost {len(lost)} times in the last hour", units.without_times("\n".join(lost))
        )
    return ok(f"10 of 10 requests, {len(lost)} losses in the last hour")


def clock(context: Context) -> Observation:
    """C03: this host's clock against the gateway's Date header."""
    before = time.time()
    try:
        stamp = knock(context, timeout=4)
    except (OSError, http.client.HTTPException) as error:
        raise Unknown(f"the gateway gave no Date header: {error}") from None
    if not stamp:
        raise Unknown("the gateway sends no Date header")
    there = email.utils.parsedate_to_datetime(stamp).timestamp()
    if abs(before - there) <= 30:
        return ok(f"{before - there:+.0f} s")
    asked = context.config.get("asked")
    # a third clock tells which of the two is off
    code = "gateway" if asked and 2 * abs(before - asked) < abs(there - asked) else ""
    return bad(
        code,
        f"{before - there:+.0f} s against the gateway"
        + (f"; {before - asked:+.0f} s against the controller" if asked else ""),
    )


def reverse(context: Context) -> Observation:
    """V01: the forward of k3s in what ssh makes of the configuration."""
    found = options_of(context)
    if not found:
        return bad("", f"{SSH_CONFIG} does not exist")
    remote = [value for value in found.get("remoteforward", []) if re.search(r"\]?:6443\b|\b6443\b", value)]
    return ok(remote[0]) if remote else bad("", f"no RemoteForward of port 6443 in {SSH_CONFIG}")


def target_of(forward: str, port: int) -> tuple[str, int] | None:
    """Return (host, port) that a LocalForward of `ssh -G` leads to from a local port, or None when it is of another."""
    match = re.search(r"(\d+)\]? \[?(\S+?)\]?:(\d+)$", forward)
    return (match.group(2), int(match.group(3))) if match and int(match.group(1)) == port else None


def target_port(context: Context) -> int | None:
    """Return the port of the gateway host that the tunnel leads to, or None."""
    found = [target_of(value, local_port(context)) for value in options_of(context).get("localforward", [])]
    return next((target[1] for target in found if target), None)


PROBES = {
    "T06": options,
    "T08": gateway_ssh,
    "T01": process,
    "T02": listener,
    "T03": connect,
    "T04": health,
    "T05": stability,
    "C03": clock,
    "V01": reverse,
}
