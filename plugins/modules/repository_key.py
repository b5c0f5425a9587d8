#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: repository_key
short_description: Trust a package repository's signing key only if its fingerprint is the expected one
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Fetches a key file, computes the fingerprints of all keys in it, and goes on only if each of them is the expected one. What is put
    in place is a file written from the packets that were read, so that the package manager sees no key that was not compared.
  - A file that is in place with the expected keys is left alone and nothing is fetched. Needs no gpg.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: Fetches and compares the key, and does not write it.
  diff_mode:
    support: full
    description: Shows the fingerprints.
  idempotent:
    support: full
    description: A file with the expected keys is left alone.
options:
  url:
    description: Where the key file is.
    type: str
    required: true
  fingerprint:
    description: The fingerprint, 40 hex digits. Blanks are ignored.
    type: str
    required: true
  path:
    description: Where to put the file. It is binary where its name ends with C(.gpg), and armoured otherwise.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Trust the repository's key
  beta9.workers.repository_key:
    url: https://pkgs.tailscale.com/stable/debian/bookworm.noarmor.gpg
    fingerprint: 2596 A99E AAB3 3821 893C 0A79 458C A832 957F 5868
    path: /usr/share/keyrings/tailscale-archive-keyring.gpg
"""

RETURN = r"""
fingerprints:
  description: Of the keys in the file.
  returned: always
  type: list
  elements: str
"""


from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import fetch_url
from ansible_collections.beta9.workers.plugins.module_utils import openpgp, secretfiles

KEY_BYTES = 1024 * 1024


def shaped(key, path):
    """Return the bytes of a key as the file at this path has them."""
    return key.binary if path.endswith(".gpg") else key.armour


def present(path):
    """Return the fingerprints of a key file that was written here, an empty list for any other file."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(KEY_BYTES + 1)
        key = openpgp.Key(content)
    except (OSError, openpgp.NotAKey):
        return []
    return key.fingerprints if shaped(key, path) == content else []


def fetch(module, url):
    """Return the content behind a URL."""
    answer, info = fetch_url(module, url, timeout=30)
    if info["status"] not in (200, -1) or answer is None:
        module.fail_json(msg="%s: expected a key file, found %s. Check the URL, and the network path to it." % (url, info["msg"]))
    return answer.read(KEY_BYTES)


def main():
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "fingerprint": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    wanted, path = module.params["fingerprint"].replace(" ", "").upper(), module.params["path"]
    before = present(path)
    if before and set(before) == {wanted}:
        module.exit_json(changed=bool(secretfiles.ensure_kept({path: 0o644}, module.check_mode)), fingerprints=before)
    content = fetch(module, module.params["url"])
    try:
        key = openpgp.Key(content)
    except openpgp.NotAKey as error:
        module.fail_json(msg="%s: expected a key file, found %s." % (module.params["url"], error))
    found = key.fingerprints
    if set(found) != {wanted}:
        module.fail_json(
            msg="%s: expected the key %s and no other, found %s. Nothing was trusted. Find out why before you change the fingerprint."
            % (module.params["url"], wanted, ", ".join(found) or "none"),
            fingerprints=found,
        )
    if not module.check_mode:
        secretfiles.write(path, shaped(key, path), 0o644)
    module.exit_json(changed=True, fingerprints=found, diff={"before": "\n".join(before), "after": "\n".join(found) + "\n"})


if __name__ == "__main__":
    main()
