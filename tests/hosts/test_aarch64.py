"""The agent's bundle for aarch64, installed by its module with Debian's Python for arm64 under QEMU (long)."""

from __future__ import annotations

import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

import ansible
import pytest

from tests import seen
from tests.conftest import ROOT

COLLECTION = ROOT / "collections/ansible_collections/beta9/workers"
REGISTER = pathlib.Path("/proc/sys/fs/binfmt_misc/register")
HANDLER = "beta9-aarch64"
MAGIC = rb"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = rb"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
HOW = "Debian 12's Python for arm64, emulated by QEMU; the bundle's own wheels"


def run(*words, **more):
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, **more).stdout


@pytest.fixture(scope="module")
def emulated():
    """Let this kernel run programs for aarch64, by itself or by QEMU."""
    if platform.machine() == "aarch64":
        yield
        return
    if not REGISTER.exists():
        subprocess.run(
            ["mount", "-t", "binfmt_misc", "binfmt_misc", str(REGISTER.parent)], check=False, capture_output=True
        )
    if not REGISTER.exists() or os.geteuid() or not shutil.which("mmdebstrap"):
        pytest.skip("programs of another architecture are run by QEMU here only with root, binfmt_misc and mmdebstrap")
    if not shutil.which("qemu-aarch64-static"):
        run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "qemu-user-static")
    REGISTER.write_bytes(
        b":%s:M::%s:%s:%s:F" % (HANDLER.encode(), MAGIC, MASK, shutil.which("qemu-aarch64-static").encode())
    )
    yield
    (REGISTER.parent / HANDLER).write_text("-1")


@pytest.fixture(scope="module")
def root(emulated, tmp_path_factory):
    """A directory with a userland for aarch64, Ansible's own modules and this collection."""
    folder = tmp_path_factory.mktemp("aarch64")
    archive, found = folder / "root.tar", folder / "root"
    words = [
        "--quiet",
        "--variant=extract",
        "--architectures=arm64",
        "--include=python3,libpython3-stdlib,libc-bin,coreutils,dash",
    ]
    run("mmdebstrap", *words, "bookworm", archive)
    found.mkdir()
    run("tar", "-x", "-C", found, "--exclude=./dev/*", "-f", archive)
    run("cp", "-a", "/dev/null", "/dev/urandom", found / "dev")
    lib = found / "srv/lib"
    shutil.copytree(pathlib.Path(ansible.__file__).parent / "module_utils", lib / "ansible/module_utils")
    (lib / "ansible/__init__.py").touch()  # as Ansible sends it to hosts
    for name in ("modules", "module_utils"):
        shutil.copytree(COLLECTION / "plugins" / name, lib / "ansible_collections/beta9/workers/plugins" / name)
    return found


def module(name, root=None, **params):
    """Run a module here, or in the root of another architecture."""
    words = [sys.executable, COLLECTION / f"plugins/modules/{name}.py"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "collections"))
    if root:
        words = [
            "chroot",
            root,
            "/usr/bin/python3",
            f"/srv/lib/ansible_collections/beta9/workers/plugins/modules/{name}.py",
        ]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "/srv/lib"}
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": params})
    done = subprocess.run(
        [str(word) for word in words], input=arguments, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip(), done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_bundle_is_installed_and_the_agent_starts(root, request, tmp_path):
    seen.say(
        request,
        ("aarch64", "the agent's bundle built here, installed by its module; its packages load, the agent starts", HOW),
    )
    built = module("agent_bundle", source=str(ROOT / "agent_src"), architectures=["aarch64"], cache=str(tmp_path))
    bundle = built["bundles"]["aarch64"]
    shutil.copy(bundle["path"], root / "srv/bundle.tar")
    found = module("agent_install", root, version=bundle["version"], bundle="/srv/bundle.tar", sha256=bundle["sha256"])
    assert found.get("changed") is True, found
    python = f"/opt/beta9-agent/versions/{bundle['version']}/bin/python"
    assert (
        run("chroot", root, python, "-I", "-c", "import platform, psutil, httpx; print(platform.machine())").strip()
        == "aarch64"
    )
    assert bundle["version"].split("-")[0] in run("chroot", root, python, "-I", "-m", "beta9_agent", "--version")
    again = module("agent_install", root, version=bundle["version"])
    assert again.get("changed") is False and again["bundle_needed"] is False, again
