"""A host as RHEL 9 is: Python 3.9 for the system and for Ansible, dnf that brings another for the agent, no autossh (long)."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest

from tests import seen
from tests.conftest import ROOT
from tests.e2e.conftest import NAME, Testbed
from tests.hosts.test_matrix import changes, nothing

PYTHON = sorted(pathlib.Path.home().glob(".pyenv/versions/3.9.*"))
WORKER = f"{NAME}-worker1"
# python3.real is the only Python but the one that Ansible uses, until dnf links python3.12 to it
PREPARE = """set -e
cat > /root/build_repository.py
python3 /root/build_repository.py /srv/rpm
printf '[base]\\nname=base\\nbaseurl=file:///srv/rpm/base\\ngpgcheck=0\\n' > /etc/yum.repos.d/base.repo
mv /usr/bin/python3.11 /usr/bin/python3.real; ln -sf python3.real /usr/bin/python3
echo /opt/python3.9/lib > /etc/ld.so.conf.d/python3.9.conf; ldconfig; /opt/python3.9/bin/python3 -c 'import ssl'
"""


@pytest.fixture(scope="module")
def bed():
    if not PYTHON:
        pytest.skip("no Python 3.9 is here to be the system's")
    found = Testbed()
    found.workers = (WORKER,)
    found.do("deps")
    found.do("down")
    found.do("up", "--worker", "el9")
    subprocess.run(["podman", "cp", str(PYTHON[-1]), f"{WORKER}:/opt/python3.9"], check=True, capture_output=True)
    program = (ROOT / "tests/doubles/rpm/build_repository.py").read_text()
    subprocess.run(["podman", "exec", "-i", WORKER, "bash", "-c", PREPARE], input=program, text=True, check=True, capture_output=True)
    inventory = json.loads(found.inventory.read_text())
    inventory["all"]["children"]["gpu-hosts"]["hosts"][WORKER]["ansible_python_interpreter"] = "/opt/python3.9/bin/python3"
    found.inventory.write_text(json.dumps(inventory, indent=1))
    status, output = found.play("prepare_gateway.yml")
    assert status == 0, output
    yield found
    if not os.environ.get("B9_KEEP"):
        found.do("down")


@pytest.fixture(autouse=True)
def _seen(request):
    how = "Debian 12 that says it is Rocky Linux 9.6, with Python 3.9, and dnf 4.14 that installs a double of python3.12"
    seen.say(request, ("rhel 9", "onboarding with a Python for the agent, second run, check mode, lost tunnel", how))


def test_agent_gets_a_python_of_its_own(bed):
    status, output = bed.play("onboard_worker.yml", "--check")
    assert status == 0 and "Install a Python that the agent runs with" in output and not bed.machines(), output
    assert bed.sh(WORKER, "rpm -q python3.12", check=False) == "package python3.12 is not installed"
    status, output = bed.play("onboard_worker.yml", health=True)
    assert status == 0 and list(bed.machines().values()) == ["ready"], output
    assert bed.sh(WORKER, "readlink /opt/beta9-agent/current/bin/python").endswith("python3.12")


def test_second_run_changes_nothing(bed):
    for more in ([], ["--check"]):
        status, output = bed.play("onboard_worker.yml", *more)
        assert status == 0 and changes(output, bed.workers) == nothing(bed.workers), output


def test_systemd_alone_brings_ssh_back(bed):
    assert bed.sh(WORKER, "command -v autossh || true") == ""
    bed.sh(WORKER, "systemctl kill --signal KILL --kill-whom main beta9-tunnel; sleep 6")
    status, output = bed.play("health_check.yml")
    assert status == 0, output


def test_health_names_the_gateway_hosts_sshd(bed):
    bed.sh(bed.gateway, "systemctl stop ssh.socket ssh 2>/dev/null; pkill -f 'sshd: beta9'; true")
    try:
        bed.sh(WORKER, "for _ in $(seq 30); do journalctl -u beta9-tunnel -n 3 | grep -q refused && exit 0; sleep 1; done; exit 1")
        status, output = bed.play("health_check.yml")
    finally:
        bed.sh(bed.gateway, "systemctl start ssh")
    assert status != 0 and "nothing listens on port 22 of the gateway host" in output, output
