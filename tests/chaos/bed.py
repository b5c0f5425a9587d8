"""The hosts of the chaos, how to act on them, and the look from outside: the gateway's own log and Redis, never the product."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shlex
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAULT_KEY = "double:fault"


WATCH = """
'pool-watch'
import redis, time
db, last = redis.Redis(decode_responses=True), None
while True:
    number = sum(db.hget(key, 'status') == 'ready' for key in db.smembers('provider:machine:generic:gpu:machine_index'))
    if number != last:
        print(time.time(), number)
    last = number
    time.sleep(0.05)
"""


def accepted_keepalive(line):
    """Return whether a line of the gateway's log is a keepalive that a gateway in its right mind accepted."""
    return line["path"].endswith("/machine/keepalive") and line["status"] == 200 and not line.get("fault")


class Bed:
    """A testbed by its name: one gateway host and two workers. worker is the one that things happen to."""

    def __init__(self, name, interval, ttl):
        self.name, self.interval, self.ttl = name, interval, ttl
        self.state = ROOT / "build" / ("testbed-" + name)
        self.work = ROOT / "build" / "chaos"
        self.worker, self.other, self.gateway = name + "-worker1", name + "-worker2", name + "-gateway"
        self.workers = (self.worker, self.other)
        self.secrets, self.outputs = set(), []

    # -- acting --

    def testbed(self, *words):
        environment = dict(os.environ, B9_TESTBED=self.name, B9_STATE_TTL_SECONDS=str(self.ttl))
        subprocess.run([sys.executable, str(ROOT / "tests/testbed/testbed.py"), *words], check=True, env=environment)

    def sh(self, host, script, check=True):
        """Run a shell script in a host; return its output."""
        done = subprocess.run(["podman", "exec", "-i", host, "sh"], input=script, capture_output=True, text=True, check=False)
        if check and done.returncode:
            raise RuntimeError("%s: %s\n%s%s" % (host, script, done.stdout, done.stderr))
        return done.stdout.strip()

    def net(self, host, command, check=True):
        """Run a command of this machine (ip, iptables) in the network of a host."""
        pid = subprocess.run(["podman", "inspect", "--format", "{{.State.Pid}}", host], capture_output=True, text=True, check=True).stdout.strip()
        subprocess.run(["nsenter", "-t", pid, "-n", *shlex.split(command)], check=check, capture_output=True)

    def podman(self, *words):
        subprocess.run(["podman", *words], check=True, capture_output=True)

    def fault(self, *faults):
        """Switch these faults of the gateway double on, and all others off."""
        self.sh(self.gateway, "redis-cli set %s %s" % (FAULT_KEY, shlex.quote(json.dumps(list(faults)))) if faults else "redis-cli del " + FAULT_KEY)

    def command(self, playbook, *limits, options=(), **variables):
        """Return the command line of a playbook."""
        command = [str(pathlib.Path(sys.executable).parent / "ansible-playbook"), "-i", str(self.state / "inventory.yml"), playbook, *options]
        command += ["-l", ",".join(limits)] if limits else []
        return command + ["-e", json.dumps(dict(variables, agent_keepalive_interval=self.interval, beta9_onboard_health=False))]

    def environment(self):
        """Return the environment of a playbook."""
        return dict(os.environ, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_COLLECTIONS_PATH=str(ROOT / "collections"), ANSIBLE_NOCOLOR="1")

    def play(self, *words, **variables):
        """Run a playbook, as command() has it; return (exit status, output)."""
        done = subprocess.run(
            self.command(*words, **variables), cwd=ROOT, env=self.environment(), text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.outputs.append(done.stdout)
        self.learn_secrets()
        return done.returncode, done.stdout

    def equip(self):
        """Give the worker a GPU, as a double, and a clock of the agent's own."""
        self.work.mkdir(parents=True, exist_ok=True)
        library = self.work / "libnvidia-double.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, ROOT / "tests/doubles/gpu/nvidia_double.c"], check=True)
        self.podman("cp", str(library), self.worker + ":/usr/local/lib/libnvidia-ml.so.1")
        self.sh(
            self.worker,
            """
            ldconfig; printf 'gpus=2\\nbusy=1\\nnvml=0\\n' > /etc/beta9-gpu-double; echo +0 > /etc/beta9-faketime
            [ -e /usr/lib/*/faketime/libfaketimeMT.so.1 ] ||
                { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends libfaketime; } >/dev/null 2>&1""",
        )

    def calm(self):
        """Undo what an interrupted run may have left."""
        self.fault()
        self.net(self.worker, "ip route flush type blackhole", check=False)
        for host in (self.worker, self.gateway):
            self.net(host, "iptables -F")
        self.sh(self.worker, "rm -f /etc/systemd/system/beta9-agent.service.d/chaos-clock.conf; systemctl daemon-reload")
        self.sh(self.gateway, "systemctl start redis-server beta9-gateway-double; systemctl stop trap 2>/dev/null; true")

    def start(self):
        """From nothing to two ready machines."""
        self.testbed("deps")
        self.testbed("up", "--workers", "2")
        self.calm()
        self.equip()
        for playbook, limit in (("prepare_gateway.yml", self.gateway), ("onboard_worker.yml", "all")):
            status, output = self.play(playbook, limit)
            if status:
                sys.exit(output)

    # -- looking --

    def identity(self, host):
        return json.loads(self.sh(host, "cat /etc/ansible/facts.d/beta9.fact"))["machine_id"]

    def learn_secrets(self):
        """Remember every token that there ever was."""
        self.secrets.add((self.state / "admin_token").read_text().strip())
        for host in self.workers:
            self.secrets.update(self.sh(host, "cat /etc/beta9/credentials/machine_token* 2>/dev/null; true", check=False).split())

    def agent(self, host):
        """Return what the agent says of itself, {} when it says nothing."""
        try:
            return json.loads(self.sh(host, "cat /run/beta9-agent/state.json", check=False))
        except ValueError:
            return {}

    def unit(self, host):
        text = self.sh(host, "systemctl show beta9-agent -p ActiveState,SubState,NRestarts,MainPID,MemoryCurrent", check=False)
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def peak_rss_mib(self, host):
        """Return the most memory that the agent's process ever had, in MiB."""
        text = self.sh(host, "sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$(systemctl show beta9-agent -p MainPID --value)/status", check=False)
        return round(int(text) / 1024, 1) if text.isdigit() else None

    def requests(self):
        """Return the gateway's log since the last call of forget()."""
        lines = self.sh(self.gateway, "cat /var/log/beta9-gateway-double.log 2>/dev/null", check=False).splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def forget(self):
        """Truncate the gateway's log."""
        self.sh(self.gateway, ": > /var/log/beta9-gateway-double.log")

    def records(self):
        """Return {machine id: status} of the pool, straight from Redis."""
        lines = self.sh(
            self.gateway,
            """for key in $(redis-cli smembers provider:machine:generic:gpu:machine_index); do
                redis-cli hmget $key machine_id status | tr '\\n' ' '; echo; done""",
            check=False,
        ).splitlines()
        return {fields[0]: fields[1] for fields in map(str.split, lines) if len(fields) == 2}

    @contextlib.contextmanager
    def pool(self):
        """Watch how many machines the gateway has as ready, 20 times a second. Yields a list of (seconds, number), filled at the end."""
        stretches, started = [], time.time()
        watch = subprocess.Popen(["podman", "exec", "-i", self.gateway, "python3", "-u", "-c", WATCH], stdout=subprocess.PIPE, text=True)
        try:
            yield stretches
        finally:
            self.sh(self.gateway, "pkill -f pool-watch", check=False)
            changes = [(float(moment), int(number)) for moment, number in map(str.split, watch.communicate()[0].splitlines())]
            assert changes and changes[0][0] - started < 10, "the watch did not start"
            for (moment, number), (later, _number) in zip(changes, changes[1:] + [(time.time(), 0)]):
                stretches.append((later - moment, number))

    def wait_ready(self, hosts, since, seconds):
        """Wait until each host is ready: a keepalive of its machine was accepted after since, Redis says ready, and its unit is up.

        Return the seconds from since to the last host's first accepted keepalive, or None.
        """
        deadline = time.time() + seconds
        identities = {host: self.identity(host) for host in hosts}
        while time.time() < deadline:
            accepted = {}
            for line in self.requests():
                if accepted_keepalive(line) and line["time"] > since:
                    accepted.setdefault(line["machine_id"], line["time"])
            records = self.records()
            if all(identity in accepted and records.get(identity) == "ready" for identity in identities.values()):
                if all(self.unit(host)["ActiveState"] == "active" for host in hosts):
                    return max(accepted[identity] for identity in identities.values()) - since
            time.sleep(0.5)
        return None

    def secrets_found(self):
        """Search every secret in what playbooks printed and on all hosts: journals, command lines, environments, files. Return the places."""
        secrets = sorted(self.secrets)
        places = ["playbook output %d" % number for number, text in enumerate(self.outputs) if any(secret in text for secret in secrets)]
        script = """
            cat > /dev/shm/secrets <<'END'
%s
END
            count() { [ "$2" = 0 ] || echo "$1:$2"; }
            count journal $(journalctl --no-pager -o export | grep -acF -f /dev/shm/secrets)
            count command-lines $(cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -acF -f /dev/shm/secrets)
            count environments $(cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' ' | grep -acF -f /dev/shm/secrets)
            grep -rlaF -f /dev/shm/secrets /etc /opt /run /tmp /var /root /home 2>/dev/null |
                grep -vE '^/etc/beta9/credentials/|^/run/credentials/|^/run/beta9-agent/credentials/|^/var/lib/redis/|^/etc/beta9-gateway-double.token'
            rm /dev/shm/secrets""" % "\n".join(secrets)
        for host in self.workers + (self.gateway,):
            places += ["%s %s" % (host, line) for line in self.sh(host, script, check=False).splitlines()]
        return places
