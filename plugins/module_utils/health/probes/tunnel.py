# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at the way from the worker to the gateway: process, listener, connection, health, options."""

from __future__ import annotations

import email.utils
import http.client
import re
import socket
import ssl
import time
from urllib.parse import urlsplit

from ansible_collections.beta9.workers.plugins.module_utils import gateway, host, protocol, tunnel
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Unknown, bad, ok

UNIT = "beta9-tunnel.service"
SSH_CONFIG = "/etc/beta9/tunnel/ssh_config"
CAUSE_CODES = (
    ("another host key", "host_key"),
    ("not the pinned one", "host_key"),
    ("does not accept", "refused_key"),
    ("listen address", "listen_taken"),
    ("SSH port", "no_route"),
    ("no route", "no_route"),
    ("can't be resolved", "no_route"),
)


def unit_of(context, name):
    """Return the properties of a systemd unit."""

    def read():
        ran = context.run(
            "systemctl", "show", name, "--property=LoadState,ActiveState,SubState,MainPID,NRestarts,Restart,ExecMainStartTimestampMonotonic,Result"
        )
        if ran.status != 0:
            raise Unknown("systemctl does not answer: %s" % ran.output.strip()[:200])
        return dict(line.split("=", 1) for line in ran.output.splitlines() if "=" in line)

    return context.shared("unit:" + name, read)


def journal_of(context, name, since="-24h", lines=2000):
    """Return a unit's journal as text, one message a line."""

    def read():
        ran = context.run("journalctl", "-u", name, "--since", since, "-n", str(lines), "--no-pager", "-o", "short-unix", "-q")
        if "insufficient permissions" in ran.output or "not seeing messages" in ran.output:
            raise Unknown("the journal of %s may not be read" % name)
        return ran.output

    return context.shared("journal:%s:%s" % (name, since), read)


def last_lines(text, count=4):
    """Return the last lines of a journal, without their time."""
    return "\n".join(re.sub(r"^[0-9.]+ \S+ ", "", line) for line in text.strip().splitlines()[-count:])


def options_of(context):
    """Return what ssh itself makes of the tunnel's configuration: option in lower case -> list of values."""

    def read():
        ran = context.run("ssh", "-G", "-F", SSH_CONFIG, "gateway")
        if context.read(SSH_CONFIG) is None:
            return {}
        if ran.status != 0:
            raise Unknown("ssh -G refuses the configuration: %s" % ran.output.strip()[:200])
        found = {}
        for line in ran.output.splitlines():
            name, _blank, value = line.partition(" ")
            found.setdefault(name.lower(), []).append(value)
        return found

    return context.shared("ssh options", read)


def agents_gateway(path="/etc/beta9/agent.env"):
    """Return the gateway's URL as the agent was given it, or the tunnel's where there is no agent."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = dict(line.strip().split("=", 1) for line in stream if "=" in line and not line.startswith("#"))
        return "%(BETA9_GATEWAY_SCHEME)s://%(BETA9_GATEWAY_HOST)s:%(BETA9_GATEWAY_PORT)s" % found
    except (OSError, KeyError):
        return "http://127.0.0.1:1994"


def local_port(context):
    """Return the port at which this host reaches the gateway."""
    parts = urlsplit(context.config["gateway_url"])
    return parts.port or (443 if parts.scheme == "https" else 80)


def options(context):
    """T06: what ssh makes of the configuration, and whether systemd brings it back."""
    found = options_of(context)
    if not found:
        return bad("", "%s does not exist" % SSH_CONFIG)
    faults = []
    interval, count = int(found.get("serveraliveinterval", ["0"])[0]), int(found.get("serveralivecountmax", ["3"])[0])
    if not 1 <= interval <= 60:
        faults.append("ServerAliveInterval %d" % interval)
    if count > 3:
        faults.append("ServerAliveCountMax %d" % count)
    if found.get("exitonforwardfailure", ["no"])[0] != "yes":
        faults.append("ExitOnForwardFailure no")
    if found.get("stricthostkeychecking", [""])[0] not in ("yes", "true"):
        faults.append("StrictHostKeyChecking %s" % found.get("stricthostkeychecking", ["?"])[0])
    restart = unit_of(context, UNIT).get("Restart")
    if restart != "always":
        faults.append("the unit's Restart=%s" % restart)
    return (
        bad("", ", ".join(faults))
        if faults
        else ok("ServerAliveInterval %d, ServerAliveCountMax %d, supervised" % (interval, count), target_port=target_port(context))
    )


def listeners_of(context):
    """Return host.listeners of the tunnel's port. Read once: finding the owners walks the open files of all processes."""
    port = local_port(context)
    return context.shared("listeners:%d" % port, lambda: host.listeners(port))


def forwarding_processes(port):
    """Return [(pid, parent, program)] of ssh clients that forward this local port, from /proc."""
    found = []
    for pid, parent, words in host.processes():
        program = words[0].rpartition("/")[2]
        # `ssh -G` only shows options: it is how another probe, or a person, looks at the configuration
        if program in ("ssh", "autossh") and "-G" not in words and (SSH_CONFIG in words or any(re.search(r"(^|[:L ])%d:" % port, word) for word in words[1:])):
            found.append((pid, parent, program))
    return found


def process(context):
    """T01: the unit, and no ssh beside it."""
    unit = unit_of(context, UNIT)
    clients = forwarding_processes(local_port(context))
    if unit.get("LoadState") == "not-found":
        return bad("stopped", "beta9-tunnel.service is not installed")
    journal = journal_of(context, UNIT, "-10min", 60)
    starts = sum(1 for _pid, _parent, program in clients if program == "ssh")
    foreign = [entry for entry in listeners_of(context) if entry["process"] not in ("ssh", None)]
    if foreign:
        raise Unknown("the tunnel can't run while %(process)s (pid %(pid)s) holds its port" % foreign[0])  # T02 is the one to tell
    main = int(unit.get("MainPID") or 0)
    if not main:
        return _why(journal, "stopped" if unit.get("ActiveState") in ("inactive", "failed") else "failing", "the unit is %s" % unit.get("ActiveState"))
    own = {main} | {pid for pid, parent, _program in clients if parent == main}
    others = [pid for pid, _parent, program in clients if pid not in own and program == "ssh"]
    if others:
        return bad("duplicate", "pid %s forwards port %d beside the unit" % (", ".join(map(str, others)), local_port(context)))
    if not starts:
        return _why(journal, "failing", "autossh runs, its ssh does not")
    if not any(entry["process"] == "ssh" for entry in listeners_of(context)):
        recent = [line for line in journal.splitlines() if float(line.split(" ", 1)[0] or 0) > time.time() - 60] if journal else []
        if tunnel.explain("\n".join(recent)):
            return _why("\n".join(recent), "failing", "ssh runs, and does not get through")
    return ok("pid %d" % main, pid=main)


def _why(journal, code, found):
    known = tunnel.explain(journal)
    if known:
        code = next((code for words, code in CAUSE_CODES if words in known[0]), code)
    return bad(code, found + (": " + known[0] if known else ""), last_lines(journal))


def listener(context):
    """T02: who listens on the port."""
    port = local_port(context)
    found = listeners_of(context)
    if not found:
        return bad("none", "nothing listens on port %d" % port)
    owners = {entry["process"] for entry in found}
    if owners == {None}:
        raise Unknown("port %d is in LISTEN; whose it is can only root see" % port)
    foreign = [entry for entry in found if entry["process"] not in ("ssh", None)]
    if foreign:
        return bad("foreign", "%(process)s (pid %(pid)s) listens on %(address)s" % foreign[0])
    return ok("ssh on %s:%d" % (found[0]["address"], port))


def connect(context):
    """T03: a TCP connection."""
    parts = urlsplit(context.config["gateway_url"])
    try:
        with socket.create_connection((parts.hostname, local_port(context)), timeout=3):
            return ok("%s:%d" % (parts.hostname, local_port(context)))
    except socket.gaierror as error:
        return bad("dns", "%s: %s" % (parts.hostname, error.strerror))
    except socket.timeout:
        return bad("timeout", "%s:%d does not answer within 3 s" % (parts.hostname, local_port(context)))
    except OSError as error:
        return bad("refused", "%s:%d: %s" % (parts.hostname, local_port(context), error.strerror or error))


def client_of(context, timeout=4, token=None):
    """Return a client of the gateway as this host reaches it. Asks once: a check must not hide what fails now and then."""
    try:
        return gateway.GatewayClient(context.config["gateway_url"], token, ca_path=context.config.get("ca_path"), timeout=timeout, retries=0)
    except protocol.InvalidField as error:
        raise Unknown(str(error)) from None


def health(context):
    """T04: the gateway's health route."""
    try:
        client_of(context, timeout=6).health()
        return ok("status ok")
    except gateway.GatewayError as error:
        return bad(error.problem.code, error.problem.cause, str(error))


def knock(context, timeout=2):
    """Make one connection and one request; return the answer's Date header. Raises OSError or HTTPException unless it is answered."""
    parts = urlsplit(context.config["gateway_url"])
    if parts.scheme == "https":  # the trust store is read once: that costs more than a request
        trusted = context.shared("trust store", lambda: ssl.create_default_context(cafile=context.config.get("ca_path")))
        connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=timeout, context=trusted)
    else:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request("GET", protocol.HEALTH_PATH)
        answer = connection.getresponse()
        answer.read(65536)
        if answer.status != 200:
            raise http.client.HTTPException("HTTP %d" % answer.status)
        return answer.headers.get("Date")
    finally:
        connection.close()


def stability(context):
    """T05: ten requests in a row, and how often the tunnel was lost."""
    failed, last = 0, ""
    for _attempt in range(10):
        try:
            knock(context)
        except (OSError, http.client.HTTPException) as error:
            failed, last = failed + 1, gateway.transport_name(error)
    if failed == 10:
        raise Unknown("no request gets through now: %s" % last)
    if failed:
        return bad("probes", "%d of 10 requests failed: %s" % (failed, last))
    if context.config["connection"] != "autossh":
        return ok("10 of 10 requests")
    lost = re.findall(
        r"Timeout, server .* not responding|Connection to .* closed by remote host|client_loop: send disconnect|Connection reset by", journal_of(context, UNIT)
    )
    if len(lost) > 3:
        return bad("drops", "the tunnel was lost %d times in 24 hours" % len(lost), "\n".join(lost[-4:]))
    return ok("10 of 10 requests, %d losses in 24 hours" % len(lost))


def clock(context):
    """C03: this host's clock against the gateway's Date header."""
    before = time.time()
    try:
        stamp = knock(context, timeout=4)
    except (OSError, http.client.HTTPException) as error:
        raise Unknown("the gateway gave no Date header: %s" % error) from None
    if not stamp:
        raise Unknown("the gateway sends no Date header")
    skew = before - email.utils.parsedate_to_datetime(stamp).timestamp()
    return bad("", "%+.0f s against the gateway" % skew) if abs(skew) > 30 else ok("%+.0f s" % skew)


def reverse(context):
    """V01: the forward of k3s in what ssh makes of the configuration."""
    found = options_of(context)
    if not found:
        return bad("", "%s does not exist" % SSH_CONFIG)
    remote = [value for value in found.get("remoteforward", []) if re.search(r"\]?:6443\b|\b6443\b", value)]
    return ok(remote[0]) if remote else bad("", "no RemoteForward of port 6443 in %s" % SSH_CONFIG)


def target_port(context):
    """Return the port of the gateway host that the tunnel leads to, or None."""
    for value in options_of(context).get("localforward", []):
        match = re.search(r"(\d+)\]? \[?\S+?\]?:(\d+)$", value)
        if match and int(match.group(1)) == local_port(context):
            return int(match.group(2))
    return None


PROBES = {"T06": options, "T01": process, "T02": listener, "T03": connect, "T04": health, "T05": stability, "C03": clock, "V01": reverse}
