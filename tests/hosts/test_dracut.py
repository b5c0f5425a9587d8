"""Real dracut, which Ubuntu 26.04 has for initramfs-tools: what keeps nouveau away gets into the image (long)."""

from __future__ import annotations

import json
import pathlib
import subprocess

import ansible
import pytest

from tests import seen
from tests.conftest import ROOT
from tests.testbed import testbed

HOST = f"{testbed.NAME}-dracut"
CONF = "/etc/modprobe.d/beta9-nvidia-nouveau.conf"
MODULE = "/srv/lib/ansible_collections/beta9/workers/plugins/modules/host_initramfs.py"


def sh(script):
    done = subprocess.run(
        ["podman", "exec", "-i", HOST, "bash"], input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def host(tmp_path_factory):
    """A container of the newest Debian with a kernel of its own."""
    testbed.build("newest")
    words = [*testbed.limits(), "--network", "host", testbed.image_tag("newest"), "sleep", "infinity"]
    subprocess.run(["podman", "run", "--detach", "--name", HOST, *words], check=True, capture_output=True)
    try:
        sh("""export DEBIAN_FRONTEND=noninteractive
            apt-get -o Acquire::Check-Valid-Until=false -qq update
            apt-get -qq install -y --no-install-recommends dracut linux-image-cloud-amd64 >/dev/null 2>&1
            mkdir -p /srv/lib/ansible""")
        for source, target in (
            (pathlib.Path(ansible.__file__).parent / "module_utils", "/srv/lib/ansible/module_utils"),
            (ROOT / "plugins", "/srv/lib/ansible_collections/beta9/workers/plugins"),
        ):
            sh(f"mkdir -p {target}; touch /srv/lib/ansible/__init__.py")
            subprocess.run(["podman", "cp", f"{source}/.", f"{HOST}:{target}"], check=True, capture_output=True)
        yield
    finally:
        subprocess.run(["podman", "rm", "--force", "--time", "0", HOST], check=False, capture_output=True)


def rebuild(check=False):
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"files": [CONF], "_ansible_check_mode": check}})
    return json.loads(sh(f"PYTHONPATH=/srv/lib python3 {MODULE} <<< '{arguments}'").splitlines()[-1])


@pytest.mark.parametrize("away", ["", "/usr/sbin/update-initramfs"], ids=["with-update-initramfs", "dracut-alone"])
def test_blacklist_reaches_the_image(request, away):
    seen.say(
        request,
        ("dracut", "the driver's settings get into the image", "dracut of Debian testing itself, with its kernel"),
    )
    if away:
        sh(f"mv {away} /root/")
    sh(f"sleep 1; mkdir -p /etc/modprobe.d; echo 'blacklist nouveau' > {CONF}")
    assert rebuild(check=True)["changed"] and rebuild()["changed"] and not rebuild()["changed"]
    assert "beta9-nvidia-nouveau.conf" in sh("lsinitrd /boot/initrd.img-* 2>/dev/null")
