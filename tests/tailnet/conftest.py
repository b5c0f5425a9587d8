"""A gateway host with headscale, and two workers that were onboarded over it. Skips, saying why, where the programs can't be had."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "b9ts"
STATE = ROOT / "build" / ("testbed-" + NAME)
BIN = pathlib.Path(sys.executable).parent


class Tailnet:
    """The hosts, and how to act on them that do not go through the product."""

    gateway, worker, other = NAME + "-gateway", NAME + "-worker1", NAME + "-worker2"

    def do(self, program, *arguments):
        """Run testbed.py or tailnet.py; return its output."""
        environment = dict(os.environ, B9_TESTBED=NAME, B9_HOSTNAME_MODE="tailnet")
        command = [sys.executable, str(ROOT / "tests/testbed" / program), *arguments]
        return subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True).stdout

    def sh(self, host, script, check=True):
        """Run a shell script in a host; return its output."""
        done = subprocess.run(["podman", "exec", "-i", host, "sh"], input=script, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, "%s: %s\n%s%s" % (host, script, done.stdout, done.stderr)
        return done.stdout.strip()

    def play(self, playbook, *arguments, limit=None, **variables):
        """Run a playbook with variables; return (exit status, output)."""
        variables.setdefault("beta9_onboard_health", False)
        command = [str(BIN / "ansible-playbook"), playbook, "-e", json.dumps(variables), *(["-l", limit] if limit else [])]
        for name in ("inventory.yml", "tailnet.yml"):
            command += ["-i", str(STATE / name)]
        command += arguments  # a further inventory comes last, and wins
        environment = dict(os.environ, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_NOCOLOR="1", PATH="%s:%s" % (BIN, os.environ["PATH"]))
        done = subprocess.run(command, cwd=ROOT, env=environment, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
        return done.returncode, done.stdout

    def onboard(self, *arguments, **variables):
        """Onboard the first worker, or those of limit."""
        variables.setdefault("limit", self.worker)
        return self.play("onboard_worker.yml", *arguments, **variables)

    def health(self, host, **variables):
        """Return {check: (status, code)} of what is not well on a host, and the ids of the root causes."""
        folder = STATE / "health"
        self.play("health_check.yml", limit=host, health_check_directory=str(folder), health_check_skip=["K05"], **variables)
        found = json.loads((folder / "health.json").read_text())["hosts"][0]
        return {entry["id"]: (entry["status"], entry["code"]) for entry in found["verdicts"]}, [entry["id"] for entry in found["verdicts"] if entry["root"]]

    def node(self, host):
        """Return tailscale's own status."""
        return json.loads(self.sh(host, "/usr/local/bin/tailscale status --json"))

    def nodes(self):
        """Return headscale's nodes by name."""
        return {entry["given_name"]: entry for entry in json.loads(self.sh(self.gateway, "headscale nodes list --output json"))}

    def machines(self):
        """Return {registered name: status} straight from Redis."""
        index = "provider:machine:generic:gpu:machine_index"
        text = self.sh(self.gateway, "for key in $(redis-cli smembers %s); do redis-cli hmget $key hostname status | paste -sd' '; done" % index)
        return dict(line.split() for line in text.splitlines() if len(line.split()) == 2)

    @contextlib.contextmanager
    def direct_gateway(self):
        """Let the gateway append nothing to the names of machines, as one with tailscale.directRedisHost: others may come without a tailnet."""
        self.append("direct")
        try:
            yield
        finally:
            self.append("tailnet")

    def append(self, mode):
        """Let the gateway store host names in one of its modes."""
        config = "/etc/beta9-gateway-double.json"
        script = f"""sed -i 's/"hostname_mode": *"[a-z]*"/"hostname_mode": "{mode}"/' {config} && grep -q '"hostname_mode": *"{mode}"' {config}"""
        self.sh(self.gateway, script + " && systemctl restart beta9-gateway-double && sleep 1")

    def key(self):
        """Return a fresh auth key."""
        return self.do("tailnet.py", "key").strip()

    def until(self, probe, seconds=30):
        """Wait until probe() is true; return its last value."""
        deadline = time.monotonic() + seconds
        while not probe() and time.monotonic() < deadline:
            time.sleep(0.5)
        return probe()


@pytest.fixture(scope="session")
def fresh():
    """Fresh hosts with a prepared gateway, or a skip that says why not."""
    bed = Tailnet()
    bed.do("testbed.py", "deps")
    available = subprocess.run([sys.executable, str(ROOT / "tests/testbed/tailnet.py"), "available"], capture_output=True, text=True, check=False)
    if available.returncode:
        pytest.skip(available.stdout.strip())
    if not os.environ.get("B9_KEEP"):
        bed.do("testbed.py", "down")
    bed.do("testbed.py", "up", "--workers", "2", "--tun")
    bed.do("tailnet.py", "up")
    bed.do("tailnet.py", "k3s")
    status, output = bed.play("prepare_gateway.yml")
    assert status == 0, output
    yield bed
    if not os.environ.get("B9_KEEP"):
        bed.do("testbed.py", "down")


@pytest.fixture
def tailnet(fresh):
    """Both workers ready by the tailnet."""
    status, output = fresh.onboard(limit="gpu-hosts")
    assert status == 0, output
    return fresh
