#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: agent_install
short_description: Install a version of the agent beside the others, and switch to it
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Installs a bundle of M(beta9.workers.agent_bundle) into a virtual environment of its own, without internet and
    without pip on the host, lets it check itself, and switches the link C(current) to it in one step.
  - A version that is installed already is only switched to. Versions other than the new and the one before are removed.
  - Where a file below C(/opt/beta9-agent) is not root's, or others may write to it, all versions are removed and this
    one is installed again.
  - With O(switch=false) the version is brought beside the one that runs, for M(beta9.workers.agent_switch).
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
options:
  version:
    description: Version to have, as M(beta9.workers.agent_bundle) names it.
    type: str
    required: true
  bundle:
    description:
      - File of the bundle on this host. Removed when the version is installed.
      - Without it nothing is installed, and RV(bundle_needed) says whether it is needed. That saves copying it to hosts
        that have the version. Where it is, there is then the directory C(/opt/beta9-agent/incoming) to copy it to, for
        root alone.
    type: path
  sha256:
    description: Digest of the bundle as its maker has it. Needed with O(bundle), and compared before anything of the
      file is used.
    type: str
  switch:
    description: Whether to let the link point to the version.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Install the agent
  beta9.workers.agent_install:
    version: 0.1.0-1f0c5e9a7b21
    bundle: /opt/beta9-agent/incoming/agent.tar
    sha256: "{{ bundles.x86_64.sha256 }}"
"""

RETURN = r"""
bundle_needed:
  description: Whether the version is not installed yet, and no bundle was given.
  returned: success
  type: bool
previous:
  description: The version that was current before.
  returned: success
  type: str
"""

import hashlib
import os
import re
import shutil
import stat
import sys
import tarfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.agent import records, service
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, secretfiles, turn

INCOMING = "incoming"
MEMBER = re.compile(r"(requirements\.txt|wheels/[A-Za-z0-9_][A-Za-z0-9_.+-]*\.whl)\Z")
SYSTEMD = "/run/systemd/system"
# What of the unit's sandbox an interpreter may not survive
SANDBOX = (
    "DynamicUser=yes",
    "ProtectHome=yes",
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "PrivateUsers=yes",
    "MemoryDenyWriteExecute=yes",
)


def run(module: AnsibleModule, what: str, command: list[str]) -> str:
    """Run one step of the installation, and fail with its last words."""
    rc, out, err = module.run_command(command, environ_update={"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1"})
    if rc:
        words = " ".join((err or out).strip().splitlines()[-3:])
        module.fail_json(
            msg=f"the agent could not be installed: expected {what} to succeed, found: {words}",
            code="agent_not_installed",
            rc=rc,
        )
    return out


def requirements(locked: str, own: str) -> str:
    """Return what pip shall install: what the bundle is locked to but pip, which the agent has no use for, and the
    agent's own wheel."""
    entries = re.findall(r"^[\w.-]+==(?:.*\\\n)*.*\n", locked, re.M)
    with open(own, "rb") as stream:
        digest = hashlib.sha256(stream.read()).hexdigest()
    return "".join(entry for entry in entries if not entry.startswith("pip==")) + f"{own} --hash=sha256:{digest}\n"


def foreign(directory: str) -> str:
    """Return why what is installed can't be trusted, or an empty string: root runs it, so nobody else may own it or
    write to it."""
    if not os.path.lexists(directory):
        return ""
    for path in linux.tree(directory):
        status = os.lstat(path)
        if status.st_uid != os.geteuid():
            return f"{path} belongs to uid {status.st_uid}"
        if not stat.S_ISLNK(status.st_mode) and status.st_mode & 0o022:
            return f"{path} has mode {stat.S_IMODE(status.st_mode):04o}"
    return ""


def discard(directory: str, trouble: str) -> None:
    """Remove all versions where somebody else had a hand in them."""
    if trouble:
        (os.unlink if os.path.islink(directory) or not os.path.isdir(directory) else shutil.rmtree)(directory)


def unpack(bundle: str, sha256: str, target: str) -> None:
    """Unpack a bundle whose digest is the expected one. Raises ValueError. The file that is compared is the one that is
    unpacked."""
    handle = os.open(bundle, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError(f"{bundle}: expected a plain file")
        digest = hashlib.sha256()
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
        if digest.hexdigest() != sha256:
            raise ValueError(
                f"{bundle}: expected SHA-256 {sha256}, found {digest.hexdigest()}. Somebody else wrote this file, or "
                f"the copy broke"
            )
        stream.seek(0)
        with tarfile.open(fileobj=stream) as archive:
            for member in archive:
                if not (member.isfile() and MEMBER.match(member.name)):
                    raise ValueError(f"{bundle}: expected requirements.txt and wheels, found {member.name!r}")
                with open(os.path.join(target, member.name), "wb") as file:
                    shutil.copyfileobj(archive.extractfile(member), file)  # type: ignore[arg-type]  # of a plain file


def install(module: AnsibleModule, target: str, bundle: str, sha256: str) -> None:
    """Fill the version's directory. The mark of completeness comes last: an interrupted installation is started
    again."""
    shutil.rmtree(target, ignore_errors=True)
    wheels = os.path.join(target, "wheels")
    os.makedirs(wheels)
    try:
        unpack(bundle, sha256, target)
    except (OSError, ValueError, tarfile.TarError) as error:
        shutil.rmtree(target, ignore_errors=True)
        module.fail_json(msg=f"the agent could not be installed: {error}", code="agent_not_installed")
    interpreter = service.interpreter() or sys.executable  # which tells what is wrong with it
    run(module, "making a virtual environment", [interpreter, "-I", "-m", "venv", "--without-pip", target])
    python = os.path.join(target, "bin", "python")
    found = {name.split("-")[0]: os.path.join(wheels, name) for name in os.listdir(wheels)}
    pip = [
        python,
        "-I",
        os.path.join(found["pip"], "pip"),
        "--isolated",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        "--disable-pip-version-check",
    ]
    wanted = os.path.join(target, "wanted.txt")
    with open(os.path.join(target, "requirements.txt"), encoding="utf-8") as locked, open(
        wanted, "w", encoding="utf-8"
    ) as stream:
        stream.write(requirements(locked.read(), found["beta9_agent"]))
    run(module, "installing its wheels", pip + ["--find-links", wheels, "--require-hashes", "--requirement", wanted])
    sandbox = (
        ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"] + ["--property=" + word for word in SANDBOX]
        if os.path.exists(SYSTEMD)
        else []
    )
    run(module, "its self-check, as its unit runs it", sandbox + [python, "-I", "-m", "beta9_agent", "--version"])
    run(module, "loading its packages", [python, "-I", "-c", "import httpx, psutil, pynvml, beta9_agent.agent"])
    shutil.rmtree(wheels)
    with open(os.path.join(target, service.COMPLETE), "w", encoding="ascii"):
        pass


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "bundle": {"type": "path"},
            "sha256": {"type": "str"},
            "switch": {"type": "bool", "default": True},
        },
        required_by={"bundle": ["sha256"]},
        supports_check_mode=True,
    )
    turn.take(module)
    version, directory, switch = module.params["version"], records.AGENT_DIRECTORY, module.params["switch"]
    trouble = foreign(directory)
    installed, previous = (
        not trouble and service.installed(directory, version, module.run_command),
        service.current(directory),
    )
    needed = not installed and not module.params["bundle"]
    result = {"bundle_needed": needed, "previous": previous}
    if needed and not module.check_mode:
        discard(directory, trouble)
        secretfiles.ensure_directory(os.path.join(directory, INCOMING))
        module.exit_json(changed=False, **result)
    other = switch and previous != version
    after = version if other else previous if installed else f"{previous}\n{version} beside it"
    before = f"{previous}, to be removed: {trouble}" if trouble else previous
    result.update(changed=not installed or other, diff={"before": before + "\n", "after": after + "\n"})
    if module.check_mode:
        module.exit_json(**result)
    os.umask(0o022)
    if not installed:
        discard(directory, trouble)
        install(module, os.path.join(directory, "versions", version), module.params["bundle"], module.params["sha256"])
    if other or (not installed and previous == version):
        # also the same one again: the link's age tells that the unit has to be restarted
        service.point(directory, version)
        if module.get_bin_path("systemctl"):  # the starts that failed were another installation's
            module.run_command(["systemctl", "reset-failed", records.AGENT_UNIT])
    if other:
        service.prune(directory, (version, previous))
    if module.params["bundle"]:
        secretfiles.remove([module.params["bundle"]])  # not its directory: another run may be about to copy there
    module.exit_json(**result)


if __name__ == "__main__":
    main()
