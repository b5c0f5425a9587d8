"""Others who work on a host's packages are waited for, or named; a broken package of somebody else is named."""

from __future__ import annotations

import pytest

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
