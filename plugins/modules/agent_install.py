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
  - Installs a bundle of M(beta9.workers.agent_bundle) into a virtual environment of its own, without internet and without
    pip on the host, lets it check itself, and switches the link C(current) to it in one step.
  - A version that is installed already is only switched to. Versions other than the new and the one before are removed.
  - With O(switch=false) the version is brought beside the one that runs, for M(beta9.workers.agent_switch).
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: Says whether the version would be installed or switched to.
  diff_mode:
    support: full
    description: Shows the version before and after.
  idempotent:
    support: full
    description: A version that is current is left alone.
options:
  version:
    description: Version to have, as M(beta9.workers.agent_bundle) names it.
    type: str
    required: true
  bundle:
    description:
      - File of the bundle on this host. Removed when it is installed.
      - Without it nothing is installed, and RV(bundle_needed) says whether it is needed. That saves copying it to hosts that
        have the version.
    type: path
  switch:
    description: Whether to let the link point to the version.
    type: bool
    default: true
  directory:
    description: Where the versions are.
    type: path
    default: /opt/beta9-agent
"""

EXAMPLES = r"""
- name: Install the agent
  beta9.workers.agent_install:
    version: 0.1.0-1f0c5e9a7b21
    bundle: /var/tmp/beta9-agent.tar
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
import sys
import tarfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import agent_unit


def run(module, what, command):
    """Run one step of the installation, and fail with its last words."""
    rc, out, err = module.run_command(command, environ_update={"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1"})
    if rc:
        words = " ".join((err or out).strip().splitlines()[-3:])
        module.fail_json(msg="the agent could not be installed: expected %s to succeed, found: %s" % (what, words), code="agent_not_installed", rc=rc)
    return out


def requirements(locked, own):
    """Return what pip shall install: what the bundle is locked to but pip, which the agent has no use for, and the agent's own wheel."""
    entries = re.findall(r"^[\w.-]+==(?:.*\\\n)*.*\n", locked, re.M)
    with open(own, "rb") as stream:
        digest = hashlib.sha256(stream.read()).hexdigest()
    return "".join(entry for entry in entries if not entry.startswith("pip==")) + "%s --hash=sha256:%s\n" % (own, digest)


def install(module, target, bundle):
    """Fill the version's directory. The mark of completeness comes last: an interrupted installation is started again."""
    shutil.rmtree(target, ignore_errors=True)
    wheels = os.path.join(target, "wheels")
    os.makedirs(wheels)
    with tarfile.open(bundle) as archive:
        for member in archive.getmembers():
            if not member.isfile() or member.name.startswith("/") or ".." in member.name:
                module.fail_json(msg="bundle: expected plain files, found %s" % member.name)
        archive.extractall(target)
    run(module, "making a virtual environment", [sys.executable, "-I", "-m", "venv", "--without-pip", target])
    python = os.path.join(target, "bin", "python")
    found = {name.split("-")[0]: os.path.join(wheels, name) for name in os.listdir(wheels)}
    pip = [python, "-I", os.path.join(found["pip"], "pip"), "--isolated", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    wanted = os.path.join(target, "wanted.txt")
    with open(os.path.join(target, "requirements.txt"), encoding="utf-8") as locked, open(wanted, "w", encoding="utf-8") as stream:
        stream.write(requirements(locked.read(), found["beta9_agent"]))
    run(module, "installing its wheels", pip + ["--find-links", wheels, "--require-hashes", "--requirement", wanted])
    run(module, "its self-check", [python, "-I", "-m", "beta9_agent", "--version"])
    run(module, "loading its packages", [python, "-I", "-c", "import httpx, psutil, pynvml, beta9_agent.agent"])
    shutil.rmtree(wheels)
    with open(os.path.join(target, agent_unit.COMPLETE), "w", encoding="ascii"):
        pass


def main():
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "bundle": {"type": "path"},
            "switch": {"type": "bool", "default": True},
            "directory": {"type": "path", "default": "/opt/beta9-agent"},
        },
        supports_check_mode=True,
    )
    version, directory, switch = (module.params[name] for name in ("version", "directory", "switch"))
    installed, previous = agent_unit.installed(directory, version), agent_unit.current(directory)
    needed = not installed and not module.params["bundle"]
    result = {"bundle_needed": needed, "previous": previous}
    if needed and not module.check_mode:
        module.exit_json(changed=False, **result)
    other = switch and previous != version
    after = version if other else previous if installed else "%s\n%s beside it" % (previous, version)
    result.update(changed=not installed or other, diff={"before": previous + "\n", "after": after + "\n"})
    if module.check_mode:
        module.exit_json(**result)
    os.umask(0o022)
    if not installed:
        install(module, os.path.join(directory, "versions", version), module.params["bundle"])
    if other:
        agent_unit.point(directory, version)
        agent_unit.prune(directory, (version, previous))
    if module.params["bundle"] and os.path.exists(module.params["bundle"]):
        os.unlink(module.params["bundle"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
