"""Others who work on a host's packages are waited for, or named; a broken package of somebody else is named."""

from __future__ import annotations

import json
import socket
import subprocess
import time

import pytest

from tests.e2e.test_1_onboard import recap
from tests.e2e.test_9_inputs import said

pytestmark = pytest.mark.long
HOLD = """systemd-run -q --unit holder python3 -c "import fcntl, time; f = open('%s', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(%d)"; sleep 1"""


@pytest.fixture
def bare(testbed):
    """A worker without the tunnel's packages."""
    worker = testbed.workers[0]
    testbed.clean([worker])
    testbed.sh(worker, "systemctl stop holder 2>/dev/null; DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge autossh >/dev/null 2>&1; true")
    yield testbed, worker
    testbed.sh(worker, "systemctl stop holder 2>/dev/null; dpkg --purge --force-all theirs >/dev/null 2>&1; true")


@pytest.mark.parametrize("lock", ["/var/lib/apt/lists/lock", "/var/cache/apt/archives/lock", "/var/lib/dpkg/lock-frontend"])
def test_lock_that_stays_names_its_holder(bare, lock):
    bed, worker = bare
    bed.sh(worker, HOLD % (lock, 600))
    status, output = bed.play("onboard_worker.yml", "-l", worker, "-e", "beta9_package_lock_seconds=2")
    text = said(output)
    assert status == 2 and "%s held by" % lock in text and "python3" in text and "internet access" not in text, output


def test_lock_that_goes_is_waited_for(bare):
    bed, worker = bare
    bed.sh(worker, HOLD % ("/var/lib/apt/lists/lock", 25))
    status, output = bed.play("onboard_worker.yml", "-l", worker)
    assert status == 0, output


def test_broken_package_of_somebody_else_is_named(bare):
    bed, worker = bare
    bed.sh(
        worker,
        r"""
        mkdir -p /tmp/theirs/DEBIAN
        printf 'Package: theirs\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: x\n' > /tmp/theirs/DEBIAN/control
        printf '#!/bin/sh\nexit 1\n' > /tmp/theirs/DEBIAN/postinst; chmod 755 /tmp/theirs/DEBIAN/postinst
        dpkg-deb -b /tmp/theirs /tmp/theirs.deb >/dev/null; dpkg -i /tmp/theirs.deb >/dev/null 2>&1; true""",
    )
    status, output = bed.play("onboard_worker.yml", "-l", worker)
    assert status == 2 and "theirs not configured" in said(output) and "dpkg --configure theirs" in said(output), output


def test_program_that_is_gone_comes_back_once_its_lock_is_free(onboarded):
    """Its package is installed all the same: what installs it again waits for others, and names them, as the first installation does."""
    worker, lock = onboarded.workers[0], "/var/cache/apt/archives/lock"
    onboarded.sh(worker, "systemctl stop holder 2>/dev/null; rm /usr/bin/autossh; " + HOLD % (lock, 600))
    try:
        status, output = onboarded.play("onboard_worker.yml", "-l", worker, "--check")
        assert status == 0 and recap(output)[worker]["changed"] >= 1, output
        status, output = onboarded.play("onboard_worker.yml", "-l", worker, "-e", "beta9_package_lock_seconds=2")
        assert status == 2 and f"{lock} held by" in said(output) and onboarded.sh(worker, "ls /usr/bin/autossh 2>/dev/null", check=False) == "", output
        onboarded.sh(worker, "systemctl stop holder; " + HOLD % (lock, 25))
        status, output = onboarded.play("onboard_worker.yml", "-l", worker)
        assert status == 0 and recap(output)[worker]["changed"] >= 1 and onboarded.sh(worker, "ls /usr/bin/autossh"), output
    finally:
        onboarded.sh(worker, "systemctl stop holder 2>/dev/null; true")
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)
    assert status == 0 and recap(output)[worker]["changed"] == 0, output


# A package of somebody else that was left unconfigured and asks a question, a service whose program was replaced, and a needrestart that
# restarts such services by itself, as Ubuntu's does
ASKING = r"""
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
apt-get -qq update && apt-get -qq -y install --no-install-recommends needrestart debconf >/dev/null 2>&1
echo '$nrconf{restart} = "a";' > /etc/needrestart/conf.d/test.conf
cp /usr/bin/sleep /usr/local/bin/old-service
printf '[Service]\nExecStart=/usr/local/bin/old-service infinity\n' > /etc/systemd/system/old-service.service
systemctl daemon-reload; systemctl restart old-service; sleep 1
rm /usr/local/bin/old-service; cp /usr/bin/sleep /usr/local/bin/old-service
mkdir -p /tmp/theirs/DEBIAN; cd /tmp/theirs/DEBIAN
printf 'Package: theirs\nVersion: 1\nArchitecture: all\nDepends: debconf\nMaintainer: x <x@example.com>\nDescription: x\n' > control
printf 'Template: theirs/question\nType: string\nDefault: quiet\nDescription: What?\n' > templates
printf '#!/bin/sh\nset -e\n. /usr/share/debconf/confmodule\ndb_fset theirs/question seen false\ndb_input critical theirs/question || true\ndb_go\n' > postinst
printf 'db_get theirs/question\necho "$RET" > /root/answered\n' >> postinst
chmod 755 postinst; dpkg-deb -b /tmp/theirs /tmp/theirs.deb >/dev/null; dpkg --unpack /tmp/theirs.deb >/dev/null
echo 'debconf debconf/frontend select Teletype' | debconf-set-selections
systemctl show -P MainPID old-service"""


def test_nobody_is_asked_and_no_foreign_service_restarted(bare):
    """With a terminal, as without pipelining: there is nobody who would answer at it."""
    bed, worker = bare
    before = bed.sh(worker, ASKING)
    try:
        status, output = bed.play("onboard_worker.yml", "-l", worker, ANSIBLE_PIPELINING="0")
        assert status == 0, output
        assert bed.sh(worker, "cat /root/answered; systemctl show -P MainPID old-service") == f"quiet\n{before}"
        bed.sh(worker, "needrestart -r a >/dev/null 2>&1 </dev/null; true")  # so it would have been
        assert bed.sh(worker, "systemctl show -P MainPID old-service") != before
    finally:
        bed.sh(
            worker,
            """systemctl stop old-service; rm -f /root/answered /usr/local/bin/old-service /etc/systemd/system/old-service.service
            DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge needrestart >/dev/null 2>&1; systemctl daemon-reload""",
        )


# cloud-init itself, at the first boot of an instance whose user data takes a while; here its module for the locale has an error before
FIRST_BOOT = r"""set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update && apt-get -qq -y install --no-install-recommends cloud-init >/dev/null 2>&1
mkdir -p /var/lib/cloud/seed/nocloud; cd /var/lib/cloud/seed/nocloud
printf 'instance-id: first\n' > meta-data
cat > user-data <<'END'
#cloud-config
preserve_hostname: true
disable_root: false
ssh_deletekeys: false
ssh_genkeytypes: []
users: []
runcmd:
  - [sh, -c, 'sleep SECONDS; date +%s > /root/booted']
END
printf 'datasource_list: [NoCloud]\nnetwork: {config: disabled}\n' > /etc/cloud/cloud.cfg.d/99-test.cfg
rm -rf /var/lib/cloud/instance /var/lib/cloud/instances /root/booted"""


def until(probe, seconds=60):
    """Wait until probe() finds something."""
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def answers(bed, worker):
    """Return whether a host's sshd answers the controller."""
    address = json.loads(bed.inventory.read_text())["all"]["children"]["gpu-hosts"]["hosts"][worker]["ansible_host"]
    try:
        socket.create_connection((address, 22), 2).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(("seconds", "patience"), [(45, 600), (300, 2)], ids=["ends", "hangs"])
def test_first_boot_of_a_cloud_host(bare, seconds, patience):
    """Installing waits for cloud-init's end, or names it."""
    bed, worker = bare
    bed.sh(worker, FIRST_BOOT.replace("SECONDS", str(seconds)))
    subprocess.run(["podman", "restart", "--time", "5", worker], check=True, capture_output=True)
    until(lambda: bed.sh(worker, "test -e /run/cloud-init/status.json && echo yes", check=False) == "yes")
    until(lambda: answers(bed, worker))
    assert bed.sh(worker, "test -e /run/cloud-init/result.json || echo boots") == "boots"
    try:
        status, output = bed.play("onboard_worker.yml", "-l", worker, "-e", f"beta9_package_lock_seconds={patience}")
        if patience < seconds:
            assert status == 2 and "cloud-init: expected its end within 2 s" in said(output) and "cloud-init status --long" in said(output), output
            assert "internet access" not in output and bed.sh(worker, "command -v autossh", check=False) == "", output
        else:
            assert status == 0, output
            assert int(bed.sh(worker, "cat /root/booted")) <= int(bed.sh(worker, "stat -c %Z /usr/bin/autossh")), output
    finally:
        bed.sh(
            worker,
            """systemctl stop cloud-final 2>/dev/null; DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge cloud-init >/dev/null 2>&1
            rm -rf /run/cloud-init /var/lib/cloud /etc/cloud /root/booted""",
        )
