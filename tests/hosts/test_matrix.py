"""Every kind of gateway host with every kind of worker: the life of a machine from onboarding to offboarding (long)."""

from __future__ import annotations

import os

import pytest

from tests import seen
from tests.e2e.conftest import NAME, Testbed
from tests.e2e.test_1_onboard import recap
from tests.e2e.test_5_upgrade_rotate import sources

GATEWAYS = os.environ.get("B9_GATEWAYS", "debian12 debian13 socket newest").split()
WORKERS = os.environ.get("B9_WORKERS", "debian12 debian13 umask proxy newest el9").split()
LIFE = "onboarding, second run, check mode, health, healing, rotation, upgrade, offboarding"
SYSTEMS = {
    "debian12": ("debian 12", LIFE, "a container that boots systemd, as root"),
    "debian13": ("debian 13", LIFE, "a container that boots systemd, with sudo"),
    "umask": ("debian 12", LIFE, "a container that boots systemd, umask 077"),
    "proxy": ("debian 12", LIFE, "a container that boots systemd, http_proxy in /etc/environment"),
    "newest": ("debian testing", LIFE, "a container that boots systemd, with sudo-rs and uutils"),
    "el9": ("rhel 9", LIFE, "Debian 12 that says it is Rocky Linux 9.6, with dnf 4.14 instead of apt"),
}
# As the workers' gateway host, by the name of the parameter
AS_GATEWAY = "gateway host of workers of every kind: " + LIFE
GATEWAY_HOSTS = {
    "debian12": ("debian 12", AS_GATEWAY, "a container that boots systemd, its sshd"),
    "debian13": ("debian 13", AS_GATEWAY, "a container that boots systemd, its sshd"),
    "socket": ("debian 13", AS_GATEWAY, "a container that boots systemd, its sshd started by ssh.socket"),
    "newest": ("debian testing", AS_GATEWAY, "a container that boots systemd, its sshd"),
}


@pytest.fixture(autouse=True)
def _seen(request):
    seen.say(request, *(SYSTEMS[kind] for kind in WORKERS))
    if len(WORKERS) == len(SYSTEMS):
        seen.say(request, GATEWAY_HOSTS[request.node.callspec.params["bed"]])


@pytest.fixture(scope="module", params=GATEWAYS)
def bed(request):
    """One gateway host, and a worker of each kind."""
    found = Testbed()
    found.workers = tuple(f"{NAME}-worker{number}" for number in range(1, len(WORKERS) + 1))
    found.do("deps")
    found.do("down")
    found.do("up", "--gateway", request.param, *(word for kind in WORKERS for word in ("--worker", kind)))
    yield found
    if not os.environ.get("B9_KEEP"):
        found.do("down")


def changes(output, hosts):
    """Return how many tasks changed something, by host."""
    rows = recap(output)
    return {host: rows[host]["changed"] for host in hosts}


def nothing(hosts):
    return dict.fromkeys(hosts, 0)


def test_gateway_host_is_prepared_once(bed):
    for again in (False, True):
        status, output = bed.play("prepare_gateway.yml")
        assert status == 0, output
        assert bool(changes(output, [bed.gateway])[bed.gateway]) is not again, output


def test_onboarding_and_its_check(bed):
    status, output = bed.play("onboard_worker.yml", "--check")
    assert status == 0 and not bed.machines(), output
    status, output = bed.play("onboard_worker.yml", health=True)
    assert status == 0, output
    assert sorted(bed.machines().values()) == ["ready"] * len(bed.workers), output


def test_units_are_well_formed(bed, request):
    """To this host's own systemd."""
    for kind, worker in zip(WORKERS, bed.workers):
        version = bed.sh(worker, "systemctl --version").split()[1]
        seen.say(request, (SYSTEMS[kind][0], "the collection's units, by systemd-analyze verify", f"systemd {version}"))
        assert bed.sh(worker, "systemd-analyze verify --man=no /etc/systemd/system/beta9-*.service 2>&1") == ""


def test_second_run_changes_nothing(bed):
    for more in ([], ["--check"]):
        status, output = bed.play("onboard_worker.yml", *more)
        assert status == 0 and changes(output, bed.workers) == nothing(bed.workers), output


def test_health(bed):
    status, output = bed.play("health_check.yml")
    assert status == 0 and changes(output, bed.workers) == nothing(bed.workers), output


def test_healing_of_a_tunnel_that_was_stopped(bed):
    for worker in bed.workers:
        bed.sh(worker, "systemctl stop beta9-tunnel")
    status, output = bed.play("heal_worker.yml")
    assert status == 0, output
    status, output = bed.play("health_check.yml")
    assert status == 0, output


def test_rotation(bed):
    before = [bed.machine_id(worker) for worker in bed.workers]
    status, output = bed.play("rotate_token.yml")
    assert status == 0, output
    after = [bed.machine_id(worker) for worker in bed.workers]
    assert not set(before) & set(after) and bed.machines() == dict.fromkeys(after, "ready"), output


def test_upgrade(bed, tmp_path_factory):
    status, output = bed.play("upgrade_agent.yml", "-e", f"agent_source={sources(tmp_path_factory, '98.0.0')}")
    assert status == 0, output
    for worker in bed.workers:
        assert bed.sh(worker, "basename $(readlink /opt/beta9-agent/current)").startswith("98.0.0-")


@pytest.mark.skipif("newest" not in WORKERS, reason="no worker has sudo-rs")
def test_sudo_that_asks_for_a_password(bed):
    """The prompt of sudo-rs is told of where Ansible does not know it; the other sudo works."""
    worker = bed.workers[WORKERS.index("newest")]
    bed.sh(worker, "cp -p /etc/sudoers.d/ops /root/sudoers; echo ops:secret | chpasswd; sed -i 's/NOPASSWD: *//' /etc/sudoers.d/ops")
    arguments = ["health_check.yml", "-l", worker, "-e", "ansible_become_password=secret"]
    try:
        status, output = bed.play(*arguments)
        assert status == 0 or "ansible_become_exe to sudo.ws" in " ".join(output.split()), output
        status, output = bed.play(*arguments, "-e", "ansible_become_exe=sudo.ws")
        assert status == 0, output
    finally:
        bed.sh(worker, "cp -p /root/sudoers /etc/sudoers.d/ops")


def test_offboarding(bed):
    status, output = bed.play("offboard_worker.yml")
    assert status == 0 and not bed.machines(), output
    for worker in bed.workers:
        assert bed.sh(worker, "ls -d /etc/beta9 /opt/beta9-agent /etc/systemd/system/beta9-* 2>/dev/null || true") == ""
    status, output = bed.play("offboard_worker.yml")
    assert status == 0 and changes(output, bed.workers) == nothing(bed.workers), output
