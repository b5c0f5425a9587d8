#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: k3s_token
short_description: Ensure the agent has the token of the gateway's service account
version_added: "0.2.0"
description:
  - Internal to the roles of this collection.
  - Waits until k3s has filled the service account's token Secret and grants what the gateway does, as k3s itself judges
    the token, and writes the token to a file that only root may read. The token appears in no result.
  - Applies role P(beta9.workers.k3s#role)'s manifest of the account where its rights are not as they have to be,
    because k3s itself applies one only when the file changed.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
attributes:
  diff_mode:
    support: none
    description: The content is a secret.
options:
  renew:
    description:
      - Whether to make another service account of the same name, whose token is another one. The one before is refused
        from then on. A Secret that is made again for the same account would hold the same token.
      - A host without a k3s that this collection installed is left alone.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Ensure the gateway's token is stored
  beta9.workers.k3s_token:
"""

RETURN = r"""
code:
  description: Stable code of the failure.
  returned: failure
  type: str
cause:
  description: What was seen.
  returned: failure
  type: str
remedy:
  description: What to do.
  returned: failure
  type: str
"""

import base64
import json
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles, turn
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api, installer

NAME = "beta9-gateway"  # of account and Secret
NAMESPACE = "default"  # theirs, and where the gateway makes its Jobs
PATH = os.path.join(records.CREDENTIALS_DIR, "k3s_token")
MANIFEST = os.path.join(installer.MANIFESTS_DIR, NAME + ".yaml")
WAIT_SECONDS = 60  # k3s deploys manifests some seconds after they were written
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
NEEDS = (
    ("create", "batch", "jobs"),
    ("get", "batch", "jobs"),
    ("list", "batch", "jobs"),
    ("delete", "batch", "jobs"),
    ("list", "", "pods"),
)


def read(module: AnsibleModule) -> tuple[str | None, str]:
    """Return (token or None, why there is none)."""
    rc, out, err = installer.kubectl(module, "get", "secret", NAME, "-n", NAMESPACE, "-o", "json")
    if rc:
        return None, f"no Secret {NAME}: {api.complaint(err)}"
    try:
        token = (json.loads(out).get("data") or {}).get("token")
        return (
            (protocol.token(base64.b64decode(token).decode("ascii")), "")
            if token
            else (None, "the Secret holds no token yet")
        )
    except (ValueError, protocol.InvalidField):
        return None, "the Secret's token can't be read"


def apply(module: AnsibleModule) -> str:
    """Have the manifest applied now, and return why it was not or an empty string. k3s itself applies a manifest only
    when it changed."""
    if not os.path.exists(MANIFEST):
        return ""
    rc, _out, err = installer.kubectl(module, "apply", "-f", MANIFEST)
    return f"the manifest is not applied: {api.complaint(err)}" if rc else ""


def revoke(module: AnsibleModule) -> None:
    """Delete the service account. A Secret alone that is made again holds the same token; another account's token is
    another one."""
    things = ["serviceaccount/" + NAME, "secret/" + NAME, "-n", NAMESPACE]
    rc, _out, err = installer.kubectl(module, "delete", *things, "--ignore-not-found", "--timeout=20s")
    if rc:
        remedy = "Check journalctl -u k3s -n 50, and run again. The previous token is still valid."
        cause = f"expected that the service account can be deleted, found: {api.complaint(err)}"
        module.fail_json(msg=f"k3s service account: {cause}. {remedy}", code="k3s_token", cause=cause, remedy=remedy)


def denied(token: str) -> str:
    """Return what k3s would refuse this token, as text; empty when it refuses nothing of the gateway's work."""
    missing = []
    for verb, group, resource in NEEDS:
        attributes = {"namespace": NAMESPACE, "verb": verb, "group": group, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        try:
            status, answer = api.ask("POST", REVIEWS, token, review)
        except OSError as error:
            return f"k3s did not judge the token: {error}"
        if status not in (200, 201):
            return f"k3s answers the token with {status}"
        if not answer.get("status", {}).get("allowed"):
            missing.append(f"{verb} {resource}")
    return "it may not " + ", ".join(missing) if missing else ""


def main() -> None:
    module = AnsibleModule(argument_spec={"renew": {"type": "bool", "default": False}}, supports_check_mode=True)
    turn.take(module)
    renew = module.params["renew"]
    if module.check_mode and not os.path.exists(installer.BINARY):
        module.exit_json(changed=True)
    if renew and not os.path.isdir(installer.STATE_DIR):
        module.exit_json(changed=False)
    if module.check_mode and renew:
        module.exit_json(changed=True)
    deadline = time.monotonic() + (0 if module.check_mode else WAIT_SECONDS)
    old, refused, applied = None, "", module.check_mode
    if renew:
        old, _found = read(module)
        revoke(module)
    while True:
        token, found = read(module)
        if token:
            module.no_log_values.add(token)
            found = "the token is still the old one" if token == old else denied(token)
        if not found or time.monotonic() >= deadline:
            break
        if not applied:
            refused = apply(module)
            applied = not refused
        time.sleep(0.5)
    found = found and (refused or found)
    if module.check_mode and not token:
        module.exit_json(changed=not os.path.exists(PATH))
    if not token or found and not module.check_mode:
        remedy = (
            f"Check k3s kubectl get serviceaccount,role,rolebinding,secret -n {NAMESPACE}, and journalctl -u k3s -n 50."
        )
        cause = f"expected a token that may do what the gateway does within {WAIT_SECONDS} s, found: {found}"
        return module.fail_json(
            msg=f"k3s service account: {cause}. {remedy}", code="k3s_token", cause=cause, remedy=remedy
        )
    changed = secretfiles.ensure_directory(os.path.dirname(PATH), module.check_mode)
    changed |= secretfiles.write(PATH, token, 0o600, module.check_mode)
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
