#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: health_gate
short_description: Fail where a host is not healthy
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Ends a health check. A healthy host goes on, one that is not healthy fails.
  - A host that could not be judged counts as unreachable. So C(ansible-playbook) ends with 0 when every host is
    healthy, with 2 when hosts are not, and with 4 when there are hosts of which it could not tell.
author:
  - beta9.workers authors (@beta9)
options:
  health:
    description: The host's entry in RV(beta9.workers.health_report#module:hosts).
    type: dict
    required: true
extends_documentation_fragment: [beta9.workers.attributes.reads]
notes:
  - An action that runs on the controller and makes no connection.
"""

EXAMPLES = r"""
- name: Fail hosts that are not healthy
  beta9.workers.health_gate:
    health: "{{ found.hosts[inventory_hostname] }}"
"""

RETURN = r"""
msg:
  description: What was found, in one line.
  returned: always
  type: str
"""
