"""A host for probes, made of what real hosts answered: units, processes, listeners, commands and files, each of which a test may change."""

from __future__ import annotations

import time

from ansible_collections.beta9.workers.plugins.module_utils import host, units
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import evidence, tunnel

MACHINE = {"machine_id": "1a2b3c4d", "pool": "gpu", "provider": "generic", "gateway_url": "http://127.0.0.1:1994", "connection": "autossh", "k3s": False}
# ssh -G -F /etc/beta9/tunnel/ssh_config gateway, of OpenSSH 9.2, without what no probe reads
SSH_G = """user beta9-tunnel
hostname 192.0.2.10
port 22
exitonforwardfailure yes
stricthostkeychecking true
serveraliveinterval 15
serveralivecountmax 3
localforward [127.0.0.1]:1994 [localhost]:31994
remoteforward [127.77.113.65]:6443 [127.0.0.1]:6443
"""
AUTOSSH = ["/usr/lib/autossh/autossh", "-M", "0", "-N", "-F", "/etc/beta9/tunnel/ssh_config", "gateway"]
SSH = ["/usr/bin/ssh", "-N", "-F", "/etc/beta9/tunnel/ssh_config", "gateway"]


def unit(seconds=600.0, **changes):
    """Return a unit that has been active for so many seconds."""
    since = int(units.monotonic_us() - seconds * 1e6)
    values = {"load": "loaded", "active": "active", "sub": "running", "main_pid": 416, "restart": "always", "result": "success"}
    return units.Unit(started_us=since, active_us=since, invocation="abc", **values)._replace(**changes)


class Host(engine.Context):
    """A context on a host whose tunnel is up and whose agent is ready."""

    def __init__(self, monkeypatch, config=None, **units_changed):
        super().__init__(dict(MACHINE, **(config or {})))
        self.answers = {"ssh -G": (0, SSH_G), "journalctl": (0, "")}
        self.files, self.asked = {"/etc/beta9/tunnel/ssh_config": "x", "/etc/beta9/credentials/tunnel_key": "x"}, []
        self.units = {"beta9-tunnel.service": unit(), "beta9-agent.service": unit(main_pid=486), evidence.JOURNALD: unit(main_pid=28)}
        self.units.update({name.replace("_", "-") + ".service": value for name, value in units_changed.items()})
        self.processes = [(416, 1, AUTOSSH), (421, 416, SSH)]
        self.listening = [{"address": "127.0.0.1", "process": "ssh", "pid": 421}]
        self.ages = {421: 600.0}
        monkeypatch.setattr(host, "processes", lambda: iter(self.processes))
        monkeypatch.setattr(host, "listeners", lambda port: self.listening)
        monkeypatch.setattr(host, "process_age_seconds", lambda pid: self.ages.get(pid))
        monkeypatch.setattr(units, "readable", lambda journald, paths=(): _readable(journald))
        monkeypatch.setattr(tunnel, "knock", self.knock)
        self.knocks = []  # an exception, or None, a request; the last one is for all that follow

    def knock(self, context, timeout=2.0, padding=0):
        self.asked.append(("knock", padding))
        found = self.knocks.pop(0) if len(self.knocks) > 1 else self.knocks[0] if self.knocks else None
        if found:
            raise found

    def run(self, *command, timeout=4.0, stdin=None, hangs=False):
        self.asked.append(command)
        if command[:2] == ("systemctl", "show"):
            return engine.Ran(0, "\n\n".join(_shown(name, value) for name, value in self.units.items()))
        name = command[0].rpartition("/")[2]
        answer = self.answers.get("%s %s" % (name, command[1]), self.answers.get(name))
        if answer is None:
            raise engine.Missing("%s is not installed" % name)
        return engine.Ran(*answer)

    def read(self, path):
        found = self.files.get(path)
        if isinstance(found, Exception):
            raise found
        return found


def _readable(journald):
    if journald and journald.active != "active":
        raise units.Unreadable("systemd-journald is %s" % journald.active)


def _shown(name, value):
    fields = zip(units.PROPERTIES.split(","), (name,) + tuple(value))
    order = ["Id", "LoadState", "ActiveState", "SubState", "MainPID", "NRestarts", "Restart", "Result", "ExecMainStatus"]
    order += ["ExecMainStartTimestampMonotonic", "ActiveEnterTimestampMonotonic", "InvocationID"]
    assert units.PROPERTIES.split(",") == order
    return "\n".join("%s=%s" % field for field in fields)


def journal(*lines, ago=5.0):
    """Return journalctl's output for lines that are so many seconds old: newest first."""
    return 0, "\n".join("%.6f w ssh[421]: %s" % (time.time() - ago, line) for line in reversed(lines))


def code(probe, context):
    """Return the code of a probe's observation, its outcome where it has none, or "unknown: why"."""
    try:
        seen = probe(context)
    except engine.Unknown as reason:
        return "unknown: %s" % reason
    return seen["code"] if seen["outcome"] in ("bad", "warn") else seen["outcome"]
