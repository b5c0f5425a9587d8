#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: tailscale_info
short_description: Read whether Tailscale is installed on a host, and the state of its node
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Reads C(tailscale version), C(tailscale status --json) and the node's settings. Changes nothing.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.reads]
"""

EXAMPLES = r"""
- name: Read the state of the tailnet on the gateway host
  beta9.workers.tailscale_info:
  register: tailnet
"""

RETURN = r"""
version:
  description: Version of the installed program. Empty when there is none.
  returned: always
  type: str
  sample: 1.94.1
node:
  description: The node. C(state) is V(NoDaemon) where tailscaled does not answer.
  returned: always
  type: dict
  sample: {state: Running, name: gpu-01, dns_name: gpu-01.tail1234.ts.net, address: 100.64.0.3, online: true}
path:
  description: Where the program is. Empty when there is none.
  returned: always
  type: str
nft:
  description: Whether nftables is installed.
  returned: always
  type: bool
system:
  description: The operating system, as far as a package repository depends on it. For one that is made of another, that
    one.
  returned: always
  type: dict
  sample: {id: debian, codename: bookworm, major: "12"}
over_tailnet:
  description: Whether Ansible itself came in over the tailnet.
  returned: always
  type: bool
peers:
  description: Addresses of the nodes that this one may see.
  returned: always
  type: list
  elements: str
joined_by_us:
  description: Whether the node's login was made by M(beta9.workers.tailscale_node).
  returned: always
  type: bool
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, systems
from ansible_collections.beta9.workers.plugins.module_utils.tailscale import cli, tailnet


def main() -> None:
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    program = cli.Program(module)
    status, prefs = program.read()
    release = linux.os_release()
    found = systems.identify(release)
    module.exit_json(
        changed=False,
        version=program.version(),
        path=program.path or "",
        nft=os.access("/usr/sbin/nft", os.X_OK),
        system={
            "id": found.family,
            "codename": found.system.mark if found.system else release.get("VERSION_CODENAME", ""),
            "major": (found.system.release if found.system else release.get("VERSION_ID", "")).partition(".")[0],
        },
        node=tailnet.node(status, prefs)
        if status
        else {"state": "NoDaemon", "name": "", "dns_name": "", "address": "", "addresses": [], "online": False},
        over_tailnet=cli.over_tailnet(),
        peers=sorted(
            address
            for peer in ((status or {}).get("Peer") or {}).values()
            for address in peer.get("TailscaleIPs") or []
        ),
        joined_by_us=os.path.exists(cli.JOINED),
    )


if __name__ == "__main__":
    main()
