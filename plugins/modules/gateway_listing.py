#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_listing
short_description: What the operator's token shows of a gateway, if anything
version_added: "0.1.0"
description:
  - Returns machines and pools in one step, and says why where they can't be had. Never fails, so that a health check can go on.
  - To list machines or pools in a play of your own use M(beta9.workers.machine_info) or M(beta9.workers.pool_info).
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment:
  - beta9.workers.gateway
attributes:
  check_mode:
    support: full
    description: The action only reads.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: full
    description: The action only reads.
notes:
  - An action that runs on the controller and makes no connection to a host.
"""

EXAMPLES = r"""
- name: Ask the gateway as an operator
  beta9.workers.gateway_listing:
    gateway_url: http://gateway.example.com:31994
    token_file: ~/.beta9/admin_token
  register: listed
"""

RETURN = r"""
machines:
  description: As RV(beta9.workers.machine_info#module:machines).
  returned: when the gateway answered
  type: list
  elements: dict
pools:
  description: As RV(beta9.workers.pool_info#module:pools).
  returned: when the gateway answered
  type: list
  elements: dict
why:
  description: Why nothing is returned. Empty when the gateway answered.
  returned: always
  type: str
"""
