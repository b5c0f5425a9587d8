#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: agent_bundle
short_description: Build the agent once, with all it needs, for hosts without internet
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Runs on the controller. Builds the agent's wheel, fetches the wheels that it needs with the versions and hashes of
    its C(requirements.txt), and keeps both in one file per CPU architecture.
  - The file is named by what went into it. What was built once is not built again, and needs no network.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: Builds nothing, and tells the version that would be built.
  diff_mode:
    support: none
    description: The result is a binary file.
  idempotent:
    support: full
    description: Nothing is built twice. A build in the cache is not a change of any host, so C(changed) is always
      false.
options:
  source:
    description: Directory of the agent's source.
    type: path
    required: true
  architectures:
    description: CPU architectures to build for, as C(uname -m) names them.
    type: list
    elements: str
    required: true
  cache:
    description: Directory to keep the files in.
    type: path
    default: ~/.cache/beta9-workers/agent
"""

EXAMPLES = r"""
- name: Build the agent
  beta9.workers.agent_bundle:
    source: agent_src
    architectures: [x86_64]
  delegate_to: localhost
"""

RETURN = r"""
bundles:
  description: What was built, by architecture.
  returned: success
  type: dict
  sample: {x86_64: {version: 0.1.0-1f0c5e9a7b21, path:
    ~/.cache/beta9-workers/agent/beta9-agent-0.1.0-1f0c5e9a7b21-x86_64.tar, sha256: 5f9c, built: false}}
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

SPEC = {
    "source": {"type": "path", "required": True},
    "architectures": {"type": "list", "elements": "str", "required": True},
    "cache": {"type": "path", "default": "~/.cache/beta9-workers/agent"},
}
PLATFORMS = {
    "x86_64": ["manylinux2014_x86_64", "manylinux_2_28_x86_64"],
    "aarch64": ["manylinux2014_aarch64", "manylinux_2_28_aarch64"],
}


def sources(directory: str) -> list[str]:
    """Return the files that decide what a bundle contains, sorted."""
    package = os.path.join(directory, "beta9_agent")
    files = [os.path.join(package, name) for name in os.listdir(package) if name.endswith(".py")]
    return sorted(files) + [
        os.path.join(directory, name) for name in ("README.md", "pyproject.toml", "requirements.txt")
    ]


def version_of(directory: str) -> str:
    """Return the agent's version with a digest of its sources: other sources are another version."""
    digest = hashlib.sha256()
    for path in sources(directory):
        with open(path, "rb") as stream:
            content = stream.read()
        digest.update(os.path.basename(path).encode() + b"\0" + hashlib.sha256(content).digest())
        if path.endswith("beta9_agent/__init__.py"):
            version = re.findall(rb'__version__ = "([^"]+)"', content)[0].decode()
    return f"{version}-{digest.hexdigest()[:12]}"


def digest(path: str) -> str:
    """Return the SHA-256 of a bundle, or an empty string where there is none yet."""
    try:
        with open(path, "rb") as stream:
            return hashlib.sha256(stream.read()).hexdigest()
    except FileNotFoundError:
        return ""


class NotBuilt(Exception):
    """The bundle could not be made."""


def pip(*arguments: str) -> None:
    """Run pip of this Python. Raises NotBuilt with its last words and what to do."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"] + list(arguments)
    environment = dict(os.environ, SOURCE_DATE_EPOCH="1700000000")
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise NotBuilt(
            f"the agent could not be built on the controller: expected '{' '.join(command[:6])}' to succeed, found: "
            f"{' '.join(words)}. The controller's Python needs pip, and a package index for the first build"
        )


def build(directory: str, architecture: str, path: str) -> None:
    """Make one bundle: wheels/, requirements.txt. Written beside its place, then moved there."""
    os.umask(0o022)  # a wheel keeps the modes of its files
    with tempfile.TemporaryDirectory() as work:
        source, wheels = os.path.join(work, "source"), os.path.join(work, "bundle", "wheels")
        os.makedirs(wheels)
        os.makedirs(os.path.join(source, "beta9_agent"))
        for name in sources(directory):  # copied, because protocol.py is a link and the source may be read-only
            shutil.copyfile(name, os.path.join(source, os.path.relpath(name, directory)))
        platforms = ["--platform=" + name for name in PLATFORMS[architecture]]
        requirements = os.path.join(source, "requirements.txt")
        pip(
            "download",
            "--quiet",
            "--only-binary=:all:",
            "--no-deps",
            "--require-hashes",
            "--python-version=3.10",
            "--implementation=cp",
            "--abi=abi3",
            "--abi=none",
            "--dest",
            wheels,
            "--requirement",
            requirements,
            *platforms,
        )
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", wheels, source)
        shutil.copyfile(requirements, os.path.join(work, "bundle", "requirements.txt"))
        partial = path + ".partial"
        with tarfile.open(partial, "w") as archive:
            for folder, _folders, names in sorted(os.walk(os.path.join(work, "bundle"))):
                for name in sorted(names):
                    full = os.path.join(folder, name)
                    entry = archive.gettarinfo(full, os.path.relpath(full, os.path.join(work, "bundle")))
                    entry.uid = entry.gid = entry.mtime = 0
                    entry.uname = entry.gname = ""
                    entry.mode = 0o644
                    with open(full, "rb") as stream:
                        archive.addfile(entry, stream)
        os.replace(partial, path)


def execute(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return the module's result."""
    directory, cache = params["source"], params["cache"]
    unknown = sorted(set(params["architectures"]) - set(PLATFORMS))
    if unknown:
        message = f"architectures: expected {' or '.join(sorted(PLATFORMS))}, found {', '.join(unknown)}"
        return {"failed": True, "changed": False, "msg": message, "code": "architecture_unknown"}
    version = version_of(directory)
    bundles = {}
    for architecture in params["architectures"]:
        path = os.path.join(cache, f"beta9-agent-{version}-{architecture}.tar")
        missing = not os.path.exists(path)
        if missing and not check_mode:
            os.makedirs(cache, exist_ok=True)
            with open(os.path.join(cache, ".lock"), "w", encoding="ascii") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not os.path.exists(path):
                    try:
                        build(directory, architecture, path)
                    except NotBuilt as error:
                        return {"failed": True, "changed": False, "msg": str(error), "code": "agent_not_built"}
        bundles[architecture] = {
            "version": version,
            "path": path,
            "sha256": digest(path),
            "built": missing and not check_mode,
        }
    return {"changed": False, "bundles": bundles}


def main() -> None:
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    result = execute(module.params, module.check_mode)
    if result.pop("failed", False):
        module.fail_json(**result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
