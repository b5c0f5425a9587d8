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
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
attributes:
  diff_mode:
    support: none
    description: The content is a secret.
options:
  name:
    description: Name of the Secret.
    type: str
    default: beta9-gateway
  namespace:
    description: Namespace of the Secret, and of what the gateway does.
    type: str
    default: default
  path:
    description: File to write, mode 0600 in a directory of mode 0700.
    type: path
    default: /etc/beta9/credentials/k3s_token
  manifest:
    description:
      - Manifest of the service account and its rights. It is applied when they are not as they have to be, because k3s
        itself applies a manifest only when the file changed.
    type: path
    default: /var/lib/rancher/k3s/server/manifests/beta9-gateway.yaml
  renew:
    description:
      - Whether to make another service account of the same name, whose token is another one. The one before is refused
        from then on. A Secret that is made again for the same account would hold the same token.
      - A host without a k3s that this collection installed is left alone.
    type: bool
    default: false
  wait_seconds:
    description: Longest time to wait. k3s deploys manifests some seconds after they were written.
    type: int
    default: 60
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
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles, turn
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api, installer

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
    words = ["get", "secret", module.params["name"], "-n", module.params["namespace"], "-o", "json"]
    rc, out, err = installer.kubectl(module, *words)
    if rc:
        return None, f"no Secret {module.params['name']}: {api.complaint(err)}"
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
    if not os.path.exists(module.params["manifest"]):
        return ""
    rc, _out, err = installer.kubectl(module, "apply", "-f", module.params["manifest"])
    return f"the manifest is not applied: {api.complaint(err)}" if rc else ""


def revoke(module: AnsibleModule) -> None:
    """Delete the service account. A Secret alone that is made again holds the same token; another account's token is
    another one."""
    name = module.params["name"]
    rc, _out, err = installer.kubectl(
        module,
        "delete",
        "serviceaccount/" + name,
        "secret/" + name,
        "-n",
        module.params["namespace"],
        "--ignore-not-found",
        "--timeout=20s",
    )
    if rc:
        remedy = "Check journalctl -u k3s -n 50, and run again. The previous token is still valid."
        cause = f"expected that the service account can be deleted, found: {api.complaint(err)}"
        module.fail_json(msg=f"k3s service account: {cause}. {remedy}", code="k3s_token", cause=cause, remedy=remedy)


def denied(token: str, namespace: str) -> str:
    """Return what k3s would refuse this token, as text; empty when it refuses nothing of the gateway's work."""
    missing = []
    for verb, group, resource in NEEDS:
        attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
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
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "beta9-gateway"},
            "namespace": {"type": "str", "default": "default"},
            "path": {"type": "path", "default": "/etc/beta9/credentials/k3s_token"},
            "manifest": {"type": "path", "default": installer.MANIFESTS_DIR + "/beta9-gateway.yaml"},
            "renew": {"type": "bool", "default": False},
            "wait_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    turn.take(module)
    params = module.params
    if module.check_mode and not os.path.exists(installer.BINARY):
        module.exit_json(changed=True)
    if params["renew"] and not os.path.isdir(installer.STATE_DIR):
        module.exit_json(changed=False)
    if module.check_mode and params["renew"]:
        module.exit_json(changed=True)
    deadline = time.monotonic() + (0 if module.check_mode else params["wait_seconds"])
    old, refused, applied = None, "", module.check_mode
    if params["renew"]:
        old, _found = read(module)
        revoke(module)
    while True:
        token, found = read(module)
        if token:
            module.no_log_values.add(token)
            found = "the token is still the old one" if token == old else denied(token, params["namespace"])
        if not found or time.monotonic() >= deadline:
            break
        if not applied:
            refused = apply(module)
            applied = not refused
        time.sleep(0.5)
    found = found and (refused or found)
    if module.check_mode and not token:
        module.exit_json(changed=not os.path.exists(params["path"]))
    if not token or found and not module.check_mode:
        remedy = (
            f"Check k3s kubectl get serviceaccount,role,rolebinding,secret -n {params['namespace']}, and "
            f"journalctl -u k3s -n 50."
        )
        cause = f"expected a token that may do what the gateway does within {params['wait_seconds']} s, found: {found}"
        return module.fail_json(
            msg=f"k3s service account: {cause}. {remedy}", code="k3s_token", cause=cause, remedy=remedy
        )
    changed = secretfiles.ensure_directory(os.path.dirname(params["path"]), module.check_mode)
    changed |= secretfiles.write(params["path"], token, 0o600, module.check_mode)
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
