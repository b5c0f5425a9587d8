"""What a host's owner did to it: modes, owners, credentials that are none, a proxy. Onboarding repairs it, and says so in check mode."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.e2e.test_1_onboard import recap
from tests.e2e.test_9_gateway_hosts import flat

PLAYBOOKS = ("prepare_gateway", "onboard_worker", "health_check", "heal_worker", "rotate_token", "upgrade_agent", "offboard_worker")
LOOK = """cd /etc/beta9; stat -c '%a %U %n' . tunnel tunnel/ssh_config credentials credentials/* /etc/ansible/facts.d/beta9.fact | sort -k3"""
SPOIL = """
    chmod 777 /etc/beta9 /etc/beta9/credentials; chmod 700 /etc/beta9/tunnel; chmod 600 /etc/beta9/tunnel/ssh_config
    chmod 666 /etc/beta9/credentials/*; chown nobody /etc/beta9/credentials/* /etc/beta9/tunnel/known_hosts; chmod 777 /etc/ansible/facts.d"""


def changes(output, worker):
    return recap(output)[worker]["changed"]


@pytest.mark.long
def test_wrong_modes_and_owners_are_repaired(onboarded):
    worker = onboarded.workers[0]
    before = onboarded.sh(worker, LOOK)
    onboarded.sh(worker, SPOIL)
    onboarded.sh(onboarded.gateway, "chmod 640 /etc/ssh/beta9-tunnel/authorized_keys; chmod 700 /etc/ssh/beta9-tunnel")
    assert onboarded.sh(worker, LOOK) != before
    status, output = onboarded.play("onboard_worker.yml", "-l", worker, "--check", "--diff")
    assert status == 0 and changes(output, worker) >= 3 and "mode or owner wrong" in output, output
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)
    assert status == 0 and changes(output, worker) >= 3, output
    assert onboarded.sh(worker, LOOK) == before
    assert onboarded.sh(onboarded.gateway, "stat -c '%a %U' /etc/ssh/beta9-tunnel/authorized_keys /etc/ssh/beta9-tunnel") == "644 root\n755 root"
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)
    assert status == 0 and changes(output, worker) == 0, output


@pytest.mark.long
@pytest.mark.parametrize(
    "damage",
    [
        ": > /etc/beta9/credentials/machine_token",
        "truncate -s 7 /etc/beta9/credentials/machine_token",
        "printf canary-of-another-machine > /etc/beta9/credentials/machine_token",
        ": > /etc/beta9/credentials/tunnel_key",
        ": > /etc/ansible/facts.d/beta9.fact",
    ],
)
def test_credentials_that_are_none_are_replaced(onboarded, damage):
    worker = onboarded.workers[0]
    onboarded.sh(worker, "systemctl stop beta9-agent; " + damage)
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)
    assert status == 0, output
    assert onboarded.machines()[onboarded.machine_id(worker)] == "ready"
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)
    assert status == 0 and changes(output, worker) == 0, output


@pytest.mark.long
def test_proxy_in_the_environment_of_a_worker(onboarded):
    """A proxy that leads nowhere: nothing that is asked on the worker goes there."""
    worker = onboarded.workers[0]
    lines = ["%s=http://127.0.0.1:9" % name for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")]
    lines += ["LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8", "TMPDIR=/nowhere", "PYTHONPATH=/nowhere", "PIP_USER=1", "PIP_REQUIRE_VIRTUALENV=1"]
    onboarded.sh(worker, "cp /etc/environment /root/environment 2>/dev/null; cat >> /etc/environment <<'END'\n%s\nEND\n" % "\n".join(lines))
    onboarded.sh(worker, "rm -rf /opt/beta9-agent; systemctl stop beta9-agent")
    try:
        status, output = onboarded.play("onboard_worker.yml", "-l", worker, health=True, ANSIBLE_SSH_ARGS="-o ControlMaster=no")
        assert status == 0, output
        assert json.loads(onboarded.sh(worker, "cat /run/beta9-agent/state.json"))["status"] == "ready"
    finally:
        onboarded.sh(worker, "mv /root/environment /etc/environment 2>/dev/null || : > /etc/environment")


@pytest.mark.long
def test_upgrade_of_the_distribution_takes_the_python_away(onboarded):
    """The packages are those of a Python that is gone: onboarding installs the agent again, and the machine is ready."""
    worker = onboarded.workers[0]
    onboarded.sh(worker, "cd /opt/beta9-agent/current/lib && mv python3.* python3.1; systemctl restart --no-block beta9-agent; sleep 2")
    assert "No module named" in onboarded.sh(worker, "journalctl -u beta9-agent -n 20 --no-pager")
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)
    assert status == 0 and changes(output, worker) > 0, output
    assert json.loads(onboarded.sh(worker, "cat /run/beta9-agent/state.json"))["status"] == "ready"
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)
    assert status == 0 and changes(output, worker) == 0, output


@pytest.mark.long
def test_interpreter_in_a_home_and_opt_without_programs_are_refused(onboarded):
    worker = onboarded.workers[0]
    onboarded.sh(worker, "mkdir -p /root/python/bin && cp $(readlink -f /usr/bin/python3) /root/python/bin/python3; mount -t tmpfs -o noexec none /opt")
    try:
        status, output = onboarded.play("onboard_worker.yml", "-l", worker, "-e", "ansible_python_interpreter=/root/python/bin/python3")
    finally:
        onboarded.sh(worker, "umount /opt")
    assert status == 2 and changes(output, worker) == 0, output
    assert "found /root/python/bin/python3" in flat(output) and "mounted noexec" in flat(output), output


@pytest.mark.long
def test_interpreter_for_all_hosts_is_none_of_the_controllers(onboarded):
    """-e goes before everything, also for what is done on localhost: that has no such program."""
    path = "/usr/local/lib/only-there/python3"
    for host in (onboarded.gateway, *onboarded.workers):
        onboarded.sh(host, f"mkdir -p $(dirname {path}); ln -sf /usr/bin/python3 {path}")
    assert not pathlib.Path(path).exists()
    others = set(onboarded.machines()) - {onboarded.machine_id(worker) for worker in onboarded.workers}  # of hosts that lost their facts
    for playbook in PLAYBOOKS:
        status, output = onboarded.play(playbook + ".yml", "-e", "ansible_python_interpreter=" + path)
        assert status == 0, (playbook, output)
    assert set(onboarded.machines()) <= others  # which the gateway forgets in time


@pytest.mark.long
def test_directories_of_everybody_without_programs(onboarded):
    """As hardening guides have /tmp, /var/tmp and /dev/shm: packages, agent and tunnel are installed all the same."""
    worker, places = onboarded.workers[0], "/tmp /var/tmp /dev/shm"
    onboarded.clean([worker])
    onboarded.sh(worker, "rm -rf /opt/beta9-agent; DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge autossh >/dev/null 2>&1; true")
    onboarded.sh(worker, f"for place in {places}; do mount -t tmpfs -o mode=1777,nosuid,nodev,noexec none $place; done")
    try:
        status, output = onboarded.play("onboard_worker.yml", "-l", worker, health=True)
        assert status == 0 and onboarded.machines()[onboarded.machine_id(worker)] == "ready", output
        status, output = onboarded.play("onboard_worker.yml", "-l", worker)
        assert status == 0 and changes(output, worker) == 0, output
    finally:
        onboarded.sh(worker, f"systemctl stop beta9-agent; umount {places}; systemctl start beta9-agent")


UPGRADE = """
    exec >/var/log/upgrade.log 2>&1; set -e; export DEBIAN_FRONTEND=noninteractive
    grep -rl bookworm /etc/apt/sources.list /etc/apt/sources.list.d | xargs sed -i s/bookworm/trixie/g
    apt-get -q update
    for step in upgrade dist-upgrade autoremove; do
        apt-get -q -y -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold $step
    done"""


@pytest.mark.long
def test_upgrade_of_the_distribution_itself(onboarded):
    """Debian 12 becomes Debian 13 on the worker, by apt: its Python is gone, and onboarding installs the agent again."""
    worker = onboarded.workers[0]
    before = onboarded.machine_id(worker)
    onboarded.sh(worker, UPGRADE + "\nsystemctl restart beta9-tunnel; systemctl restart --no-block beta9-agent; sleep 5")
    assert onboarded.sh(worker, ". /etc/os-release; echo $VERSION_ID; test -e /usr/bin/python3.11 || echo gone") == "13\ngone"
    status, output = onboarded.play("health_check.yml", "-l", worker)
    assert status != 0 and "onboard_worker.yml" in output, output
    status, output = onboarded.play("onboard_worker.yml", "-l", worker, health=True)
    assert status == 0 and onboarded.machine_id(worker) == before and onboarded.machines()[before] == "ready", output
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)
    assert status == 0 and changes(output, worker) == 0, output
