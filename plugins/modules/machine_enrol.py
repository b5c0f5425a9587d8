#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: machine_enrol
short_description: Create a machine for a host and install its credentials in one step
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Creates a machine at the gateway from the controller, and writes its token and identity on the host. The token
    appears in no result.
  - The machine that the host had before stays at the gateway, and its credentials on the host, until
    M(beta9.workers.machine_credentials) is told how it went.
  - When the host can't take the credentials, the machine that was just made is deleted again and its token revoked.
  - Always creates. Whether a machine is needed is decided by role P(beta9.workers.machine#role).
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment:
  - beta9.workers.gateway
options:
  pool:
    description: Name of the pool.
    type: str
    required: true
  provider:
    description: Name of the provider.
    type: str
    default: generic
  replaces:
    description: The machine that this one takes the place of, as the host's fact has it, with C(machine_id) and
      C(pool).
    type: dict
    default: {}
  seen:
    description:
      - Id of the machine that the host had when it was decided that it needs another one, empty for none.
      - Given, and another run gave the host one meanwhile, the one that was made here is deleted again and RV(machine)
        is the other run's.
    type: str
attributes:
  check_mode:
    support: full
    description: Says that a machine would be created.
  diff_mode:
    support: full
    description: Shows the identity before and after.
  idempotent:
    support: none
    description: Every call creates a machine, unless another run was quicker (O(seen)).
notes:
  - An action. The gateway is called from the controller. The admin token is never on the host.
"""

EXAMPLES = r"""
- name: Create a machine and store its credentials
  beta9.workers.machine_enrol:
    gateway_url: http://gateway.example.com:31994
    token_file: /etc/beta9/admin_token
    pool: gpu
"""

RETURN = r"""
machine:
  description: The identity that the host holds now, without secrets.
  returned: success
  type: dict
  sample: {machine_id: 1165a9b6, pool: gpu, provider: generic}
"""
