#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_artifacts
short_description: Read a directory with the files of a k3s release, for hosts without internet
version_added: "0.2.0"
description:
  - Runs on the controller. Verifies the files in the directory against the release's own list of checksums, once for all hosts.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: The module never changes anything.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: full
    description: The module never changes anything.
options:
  directory:
    description:
      - Directory with the release's files under their own names, C(k3s), C(sha256sum-amd64.txt) and C(k3s-airgap-images-amd64.tar.zst)
        for x86_64, and with those of O(extra_images).
    type: path
    required: true
  architectures:
    description: CPU architectures of the hosts, as C(uname -m) names them.
    type: list
    elements: str
    required: true
  extra_images:
    description: Further archives of images, with their checksums.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: File name.
        type: str
        required: true
      sha256:
        description: Its checksum.
        type: str
        required: true
"""

EXAMPLES = r"""
- name: Read the release
  beta9.workers.k3s_artifacts:
    directory: files/k3s-v1.36.2
    architectures: [x86_64]
  delegate_to: localhost
"""

RETURN = r"""
sums:
  description: Checksums by architecture and file name, of the files that are in the directory and right.
  returned: success
  type: dict
  sample: {x86_64: {k3s: 8c3e4681e914a0b1df69824fca9e88c39e802afb0f36c13ec8f2a74066473d61}}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import k3s


def listed(directory, name):
    """Return the checksums of one list."""
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as stream:
            return k3s.parse_sums(stream.read())
    except OSError as error:
        remedy = "Download it from the release's page, beside the other files."
        raise k3s.Refused("k3s_checksum_list", "k3s_airgap_dir", "the release's list %s in %s" % (name, directory), error.strerror, remedy) from None


def read(params):
    """Return {architecture: {name: SHA-256}}; raises k3s.Refused."""
    found = {}
    for architecture in params["architectures"]:
        names = k3s.release(architecture)
        sums = dict(listed(params["directory"], names["sums"]), **{entry["name"]: entry["sha256"].lower() for entry in params["extra_images"]})
        found[architecture] = {}
        for name in [names["binary"], names["images"]] + [entry["name"] for entry in params["extra_images"]]:
            path = os.path.join(params["directory"], name)
            if not os.path.exists(path):
                raise k3s.Refused("k3s_artifact", "k3s_airgap_dir", "%s in %s" % (name, params["directory"]), "no such file", "Download it there.")
            digest = k3s.digest_of(path)
            if k3s.expected_sum(sums, name, None, params["directory"]) != digest:
                remedy = "The file was damaged or belongs to another release: download it again."
                raise k3s.Refused("k3s_checksum", path, "SHA-256 %s" % sums[name], digest, remedy)
            found[architecture][name] = digest
    return found


def main():
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "architectures": {"type": "list", "elements": "str", "required": True},
            "extra_images": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": {"type": "str", "required": True}, "sha256": {"type": "str", "required": True}},
            },
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, sums=read(module.params))
    except k3s.Refused as refused:
        module.fail_json(**refused.result())


if __name__ == "__main__":
    main()
