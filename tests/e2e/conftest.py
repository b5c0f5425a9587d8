"""Real hosts for the end-to-end tests: a gateway host and two workers of their own, beside the demo's."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests.awx import fixtures

awx, project = fixtures.awx, fixtures.project
ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = os.environ.get("B9_TESTBED", "b9t")
STATE = ROOT / "build" / ("testbed-" + NAME)
BIN = pathlib.Path(sys.executable).parent


class Testbed:
    """The hosts, and how to act on them and to look at them that do not go through the product."""

    __test__ = False
    workers = (NAME + "-worker1", NAME + "-worker2")
    gateway = NAME + "-gateway"
    inventory = STATE / "inventory.yml"
    root = ROOT

    def do(self, *arguments):
        """Run the testbed's own command."""
        subprocess.run([sys.executable, str(ROOT / "tests/testbed/testbed.py"), *arguments], check=True, env=dict(os.environ, B9_TESTBED=NAME))

    def sh(self, host, script, check=True):
        """Run a shell script in a host; return its output."""
        done = subprocess.run(["podman", "exec", "-i", host, "sh"], input=script, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, "%s: %s\n%s%s" % (host, script, done.stdout, done.stderr)
        return done.stdout.strip()

    def command(self, playbook, *arguments, alone=False, programs=BIN):
        """Return the command line of a playbook; alone: without the testbed's inventory, because another one is given; programs: of which Ansible."""
        return [str(programs / "ansible-playbook"), *([] if alone else ["-i", str(self.inventory)]), playbook, *arguments]

    def environment(self, **more):
        """Return the environment of a playbook."""
        return {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "PATH": "%s:%s" % (BIN, os.environ["PATH"]), **more}

    def play(self, playbook, *arguments, health=False, alone=False, programs=BIN, **environment):
        """Run a playbook; return (exit status, output). Onboarding ends with the health check only where it is asked for."""
        if playbook == "onboard_worker.yml" and not health:
            arguments += ("-e", "beta9_onboard_health=false")
        done = subprocess.run(
            self.command(playbook, *arguments, alone=alone, programs=programs),
            cwd=ROOT,
            env=self.environment(**environment),
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=900,
        )
        return done.returncode, done.stdout

    def machines(self, pool="gpu"):
        """Return {machine id: status} straight from Redis."""
        lines = self.sh(
            self.gateway,
            """
            for key in $(redis-cli smembers provider:machine:generic:%s:machine_index); do redis-cli hmget $key machine_id status | tr '\\n' ' '; echo; done
        """
            % pool,
        ).splitlines()
        return {fields[0]: fields[1] for fields in map(str.split, lines) if len(fields) == 2}

    def requests(self):
        """Return the gateway's log of requests."""
        return [json.loads(line) for line in self.sh(self.gateway, "cat /var/log/beta9-gateway-double.log 2>/dev/null || true").splitlines()]

    def writes(self):
        """Return how many requests of the controller changed something. Agents post too, but only register and keepalive."""
        return len([line for line in self.requests() if line["method"] in ("POST", "DELETE") and "/gateway/" in line["path"]])

    def machine_id(self, worker):
        """Return the id that a worker holds, or an empty string."""
        text = self.sh(worker, "cat /etc/ansible/facts.d/beta9.fact 2>/dev/null || echo '{}'")
        return json.loads(text).get("machine_id", "")

    def clean(self, workers=None):
        """Make the workers bare again, except for installed packages, and empty the gateway. Named workers: only these, and nothing else."""
        for worker in workers or self.workers:
            self.sh(
                worker,
                """
                systemctl disable --now beta9-agent beta9-tunnel 2>/dev/null
                rm -rf /etc/beta9 /etc/ansible/facts.d/beta9.fact /etc/systemd/system/beta9-*.service /var/lib/private/beta9-agent /var/lib/beta9-agent
                systemctl daemon-reload; userdel beta9-tunnel 2>/dev/null; true""",
            )
        if workers is None:
            self.sh(self.gateway, "rm -f /etc/ssh/beta9-tunnel/authorized_keys; redis-cli flushall >/dev/null")


def known_tokens(bed, identity):
    """Return how many tokens the gateway has of a machine."""
    script = "for key in $(redis-cli --scan --pattern 'double:token:*'); do redis-cli hget $key machine_id; done"
    return bed.sh(bed.gateway, f"{script} | grep -c {identity} || true")


def pytest_configure(config):
    config.addinivalue_line("markers", "long: left out of `make test`; `make e2e` runs it")


@pytest.fixture(scope="session")
def testbed():
    """Fresh hosts with a prepared gateway."""
    bed = Testbed()
    bed.do("deps")
    if not os.environ.get("B9_KEEP"):
        bed.do("down")
    bed.do("up", "--workers", "2", "--gateway", "debian13")  # molecule has the Debian 12 one
    status, output = bed.play("prepare_gateway.yml")
    assert status == 0, output
    yield bed
    if not os.environ.get("B9_KEEP"):
        bed.do("down")


@pytest.fixture
def onboarded(testbed):
    """The same hosts, both ready."""
    status, output = testbed.play("onboard_worker.yml")
    assert status == 0, output
    return testbed
