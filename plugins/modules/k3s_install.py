#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_install
short_description: Install a verified release of k3s, or upgrade to a newer one
version_added: "0.2.0"
description:
  - Internal to the roles of this collection.
  - Takes the program, and where asked the images, from a release of k3s that is served at a URL or was copied to the
    host. Every file has to have the checksum of the release's own list, and is put in place by rename.
  - An upgrade stops k3s, keeps program, database and configuration aside, and starts the new program.
    M(beta9.workers.k3s_ready) decides whether it stays. Containers that run are left alone by it.
  - Refuses to go back to an older version, and to leave out a minor version.
  - What is in place is known from a record of checksum, size and time. A second run needs no network.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
attributes:
  check_mode:
    support: full
    description: Says whether something would be installed. Nothing is downloaded.
  diff_mode:
    support: full
    description: Shows the version before and after, and the names of files.
options:
  version:
    description: Release to have, as C(v1.36.2+k3s1).
    type: str
    required: true
  artifact_url:
    description: Where the releases are. A file's address is this, the version, and its name in the release.
    type: str
  binary_sha256:
    description: Checksum that the program has to have besides that of the release's list.
    type: str
  insecure_mirror:
    description: Whether files may come over plain http without a checksum from elsewhere.
    type: bool
    default: false
  images:
    description: Whether to put the release's archive of images in place, for hosts that reach no registry.
    type: bool
    default: false
  extra_images:
    description: Further archives of images, found beside the release's files.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: File name, ending as C(.tar), C(.tar.gz) or C(.tar.zst).
        type: str
        required: true
      sha256:
        description: Its checksum.
        type: str
        required: true
  checksums:
    description:
      - Text of the release's list of checksums, for a release that is on the controller. With it nothing is downloaded.
        Files that are missing are named in RV(needed) with the place to copy them to, and the module is called again
        when they are there.
    type: str
  ca_path:
    description: CA certificates to trust at O(artifact_url).
    type: path
"""

EXAMPLES = r"""
- name: Install k3s
  beta9.workers.k3s_install:
    version: v1.36.2+k3s1
    artifact_url: https://mirror.example.com/k3s
"""

RETURN = r"""
previous:
  description: The version that was installed before; empty when there was none.
  returned: success
  type: str
needed:
  description: Files to copy before the module is called again.
  returned: success
  type: list
  elements: dict
  sample: [{name: k3s, dest: /usr/local/bin/.k3s.beta9-new/k3s}]
code:
  description: Stable code of the failure.
  returned: failure
  type: str
cause:
  description: The problems found.
  returned: failure
  type: str
remedy:
  description: What to do.
  returned: failure
  type: str
"""

import os
import platform
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles, turn
from ansible_collections.beta9.workers.plugins.module_utils.k3s import installer


def staged(path: str) -> str:
    """Return where a file waits until it is verified: on the same file system as its place.

    The program waits under its own name, in a directory: it answers --version with the name that it is run by.
    """
    place = os.path.join(os.path.dirname(path), "." + os.path.basename(path) + installer.STAGED)
    return os.path.join(place, os.path.basename(path)) if path == installer.BINARY else place


def desired(params: dict[str, Any]) -> dict[str, str]:
    """Return {path: name in the release} of all files that shall be in place."""
    names = installer.release(platform.machine())
    files = {installer.BINARY: names["binary"]}
    if params["images"]:
        files[os.path.join(installer.IMAGES_DIR, names["images"])] = names["images"]
    for entry in params["extra_images"]:
        if "/" in entry["name"] or not entry["name"].endswith((".tar", ".tar.gz", ".tar.zst")):
            remedy = "Correct k3s_extra_images."
            raise installer.Refused(
                "k3s_images",
                "k3s_extra_images",
                "file names that end in .tar, .tar.gz or .tar.zst",
                entry["name"],
                remedy,
            )
        files[os.path.join(installer.IMAGES_DIR, entry["name"])] = entry["name"]
    return files


def missing(params: dict[str, Any], files: dict[str, str]) -> list[str]:
    """Return the paths whose content is not what it shall be."""
    known = installer.record()
    desired = {entry["name"]: entry["sha256"].lower() for entry in params["extra_images"]}
    if params["binary_sha256"]:
        desired[files[installer.BINARY]] = params["binary_sha256"].lower()
    desired.update(installer.parse_sums(params["checksums"] or ""))
    found = []
    for path, name in files.items():
        right = known.get("files", {}).get(path, {}).get("sha256")
        current = known.get("version") == params["version"] or name in desired
        if not (current and installer.in_place(path, known) and desired.get(name, right) == right):
            found.append(path)
    if known.get("version") != params["version"]:
        found = list(files)  # another release has other images by the same name
    return found


def checksums(params: dict[str, Any], files: dict[str, str], paths: list[str]) -> dict[str, str]:
    """Return {path: SHA-256} for the files to put in place."""
    own = {entry["name"]: entry["sha256"].lower() for entry in params["extra_images"]}
    if params["checksums"] is not None:
        source, sums = "k3s_airgap_dir", installer.parse_sums(params["checksums"])
    else:
        source, sums = params["artifact_url"], {}
        for path in paths:
            pinned = own.get(files[path]) or (params["binary_sha256"] if path == installer.BINARY else "")
            installer.check_mirror(source, files[path], pinned, params["insecure_mirror"])
        if any(files[path] not in own for path in paths):
            sums = installer.fetch_sums(
                source, params["version"], installer.release(platform.machine())["sums"], params["ca_path"]
            )
    pins = {files[installer.BINARY]: params["binary_sha256"]}
    return {
        path: own.get(files[path]) or installer.expected_sum(sums, files[path], pins.get(files[path]), source)
        for path in paths
    }


def make_directories(paths: list[str]) -> None:
    """Make the missing parent directories. k3s keeps its server's secrets in a directory that only root may enter."""
    for path, mode in (
        ("/var/lib/rancher/k3s", 0o755),
        ("/var/lib/rancher/k3s/server", 0o700),
        ("/var/lib/rancher/k3s/server/manifests", 0o700),
    ):
        secretfiles.make_directory(path, mode)
    for path in paths:
        secretfiles.make_directory(os.path.dirname(path))
        if path == installer.BINARY:
            folder = os.path.dirname(staged(path))
            if os.path.isfile(folder):  # what an interrupted run of an earlier release of this collection left
                os.unlink(folder)
            secretfiles.make_directory(folder, 0o700)


def bring(params: dict[str, Any], files: dict[str, str], digests: dict[str, str]) -> None:
    """Have every file staged and verified."""
    for path, digest in digests.items():
        target = staged(path)
        if params["checksums"] is None:
            installer.fetch(
                installer.url_of(params["artifact_url"], params["version"], files[path]),
                target,
                digest,
                params["ca_path"],
            )
        else:
            installer.verify(target, digest)
        os.chmod(target, 0o755 if path == installer.BINARY else 0o644)


def keep_aside(version: str) -> None:
    """Copy what an upgrade changes. The directory appears under its name only when it is complete."""
    partial = installer.PREVIOUS + ".partial"
    for path in (partial, installer.PREVIOUS):
        shutil.rmtree(path, ignore_errors=True)
    try:
        secretfiles.ensure_directory(partial)
        shutil.copy2(installer.BINARY, os.path.join(partial, "k3s"))
        for source, name in ((installer.DATABASE_DIR, "db"), (installer.CONFIG_DIR, "config.yaml.d")):
            if os.path.isdir(source):
                shutil.copytree(source, os.path.join(partial, name), symlinks=True)
        secretfiles.write(os.path.join(partial, "version"), version)
    except (OSError, shutil.Error) as error:
        shutil.rmtree(partial, ignore_errors=True)
        found = getattr(error, "strerror", None) or str(error)[:200]
        remedy = f"Free some space there, and run again. {version} goes on running."
        raise installer.Refused(
            "k3s_write", installer.STATE_DIR, f"room to keep program and database of {version} aside", found, remedy
        ) from None
    os.rename(partial, installer.PREVIOUS)


def switch(module: AnsibleModule, version: str, digests: dict[str, str], previous: str | None) -> None:
    """Put the files in place; k3s stands still while its program and database change."""
    binary = staged(installer.BINARY)
    if installer.BINARY in digests:
        rc, out, err = module.run_command([binary, "--version"])
        if rc or installer.told_version(out) != version:
            words = (out.strip() or err.strip() or "nothing").splitlines()
            raise installer.Refused(
                "k3s_program",
                f"the program of {version}",
                "that it runs and tells this version",
                words[0][:200],
                "Complete the mirror.",
            )
    upgrade = installer.BINARY in digests and previous not in (None, version) and os.path.exists(installer.UNIT_FILE)
    if upgrade:
        module.run_command(["systemctl", "stop", installer.UNIT], check_rc=True)
    try:
        if upgrade and previous:
            keep_aside(previous)
        for path in digests:
            os.replace(staged(path), path)
        known = {
            path: entry["sha256"] for path, entry in installer.record().get("files", {}).items() if os.path.exists(path)
        }
        installer.remember(version, dict(known, **digests))
    finally:  # the old one, where there was no room to keep it aside
        if upgrade:
            module.run_command(["systemctl", "--no-block", "start", installer.UNIT], check_rc=True)


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do it; raises k3s.Refused."""
    params = module.params
    files = desired(params)
    installer.version_key(params["version"])
    previous = installer.installed_version(module.run_command)
    installer.check_step(previous, params["version"])
    paths = missing(params, files)
    result = {"changed": bool(paths), "previous": previous or "", "needed": []}
    result["diff"] = {
        "before": f"{previous or 'none'}\n",
        "after": "\n".join([params["version"], *paths, ""]) if paths else f"{previous}\n",
    }
    if params["checksums"] is not None:
        result["needed"] = [
            {"name": files[path], "dest": staged(path)} for path in paths if not os.path.exists(staged(path))
        ]
    if module.check_mode or not paths:
        return result
    digests = checksums(params, files, paths)
    make_directories(paths)
    if result["needed"]:
        return dict(result, changed=False)
    try:
        bring(params, files, digests)
        switch(module, params["version"], digests, previous)
    finally:
        secretfiles.remove([staged(path) for path in files])
        shutil.rmtree(os.path.dirname(staged(installer.BINARY)), ignore_errors=True)
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "str", "required": True},
            "artifact_url": {"type": "str"},
            "binary_sha256": {"type": "str"},
            "insecure_mirror": {"type": "bool", "default": False},
            "images": {"type": "bool", "default": False},
            "extra_images": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "sha256": {"type": "str", "required": True}},
            },
            "checksums": {"type": "str"},
            "ca_path": {"type": "path"},
        },
        required_one_of=[("artifact_url", "checksums")],
        supports_check_mode=True,
    )
    turn.take(module)
    try:
        module.exit_json(**run(module))
    except installer.Refused as refused:
        module.fail_json(**refused.result())
    except OSError as error:
        remedy = "Free some space, or repair that file system, and run again. Nothing was put in place."
        module.fail_json(
            **installer.Refused(
                "k3s_write",
                error.filename or "files",
                "room and the right to write",
                error.strerror or str(error),
                remedy,
            ).result()
        )


if __name__ == "__main__":
    main()
