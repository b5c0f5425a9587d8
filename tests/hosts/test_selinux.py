"""SELinux in enforcing mode: a real kernel, a real sshd in sshd_session_t, and what the product says of both (long).

The kernel and the tools are Debian's; the policy rules TCP ports alone, as that of the RHEL family does
(tests/hosts/selinux/policy.cil).
"""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess

import pytest

from tests import seen
from tests.conftest import ROOT
from tests.testbed import testbed

HERE = pathlib.Path(__file__).parent / "selinux"
PACKAGES = ["qemu-system-x86", "cpio"]
UNPACKED = ["linux-image-cloud-amd64", "secilc", "libsepol2"]
INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts; mount -t devpts devpts /dev/pts
mount -t tmpfs run /run; mount -t selinuxfs selinuxfs /sys/fs/selinux
python3 /srv/guest.py
echo o > /proc/sysrq-trigger; sleep 9
"""
LEFT_OUT = ["usr/share/doc", "usr/share/locale", "usr/share/man", "var/cache", "var/lib/apt"]


def run(*words, **more):
    return subprocess.run(words, check=True, capture_output=True, text=True, **more).stdout


def packages(folder):
    """Unpack Debian's packages: a kernel with SELinux, and the compiler of policies."""
    names = [name for name in UNPACKED if name != UNPACKED[0]]
    names += re.findall(r"Depends: (linux-image-6\S+)", run("apt-cache", "depends", UNPACKED[0]))
    run("apt-get", "download", *names, cwd=folder)
    for archive in folder.glob("*.deb"):
        run("dpkg", "-x", str(archive), str(folder))


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the guest tells."""
    if not shutil.which("apt-get"):
        pytest.skip("the kernel and QEMU are Debian's")
    run("apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES)
    folder = tmp_path_factory.mktemp("selinux")
    tools, root = folder / "tools", folder / "root"
    tools.mkdir()
    root.mkdir()
    packages(tools)
    testbed.build("gateway-debian13")
    container = run("podman", "create", testbed.image_tag("gateway-debian13"), "true").strip()
    try:
        words = [f"--exclude={path}" for path in LEFT_OUT]
        subprocess.run(f"podman export {container} | tar -x -C {root} {' '.join(words)}", shell=True, check=True)
    finally:
        run("podman", "rm", container)
    for path in (*HERE.iterdir(), *tools.glob("usr/bin/secilc")):
        shutil.copy(path, root / ("srv" if path.parent == HERE else "usr/bin"))
    for path in tools.glob("*/x86_64-linux-gnu/libsepol.so.2"):
        shutil.copy(path, root / "usr/lib/x86_64-linux-gnu")
    shutil.copytree(
        ROOT / "plugins/module_utils", root / "srv/collections/ansible_collections/beta9/workers/plugins/module_utils"
    )
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    image, (kernel,) = folder / "guest.img", tools.glob("boot/vmlinuz*")
    subprocess.run(f"cd {root} && find . | cpio -o -H newc --quiet > {image}", shell=True, check=True)
    words = "-accel tcg -cpu max -m 2048 -nographic -no-reboot".split()
    options = "console=ttyS0 security=selinux selinux=1 panic=1 quiet"
    output = run(
        "qemu-system-x86_64", *words, "-kernel", str(kernel), "-initrd", str(image), "-append", options, timeout=900
    )
    result = re.search(r"RESULT (\{.*\})", output)
    assert result, output[-3000:]
    return json.loads(result.group(1))


@pytest.fixture(autouse=True)
def _seen(request):
    how = "a virtual machine: Debian's kernel, enforcing, OpenSSH 10; the policy rules TCP ports as the RHEL family's does"
    seen.say(
        request, ("SELinux on the gateway host", "what sshd is denied is named with the command that allows it", how)
    )


def test_without_enforcement_nothing_is_found(said):
    assert said["not enforcing"] == [] and said["permissive"] == []


def test_what_the_policy_denies_is_named_before_a_worker_meets_it(said):
    (problem,) = said["refused"]
    assert problem["what"] == "SELinux" and "sshd_session_t" in problem["expected"]
    assert (
        problem["found"]
        == "its policy refuses name_bind on TCP 6443 (unreserved_port_t), name_connect on TCP 31994 (unreserved_port_t)"
    )
    assert problem["remedy"].endswith("> /root/beta9-tunnel.cil && semodule -i /root/beta9-tunnel.cil")


def test_it_is_what_a_tunnel_meets(said):
    assert (
        "remote port forwarding failed for listen port 6443" in said["tunnel_refused"]["said"]
        and not said["tunnel_refused"]["listens"]
    )
    assert "open failed: connect failed: open failed" in said["login_refused"]


def test_the_rule_of_the_remedy_is_enough(said):
    assert (
        said["allowed"] == []
        and said["tunnel_allowed"]["listens"]
        and said["tunnel_allowed"]["domain"] == "system_u:system_r:sshd_session_t:s0"
    )
    assert "connect failed: Connection refused" in said["login_allowed"]
