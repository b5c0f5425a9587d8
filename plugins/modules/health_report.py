#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: health_report
short_description: Name the root causes in what was seen of one host
version_added: "0.1.0"
description:
  - Joins the observations of M(beta9.workers.worker_health) from both sides with the controller's own, and tells failures from
    consequences.
author:
  - beta9.workers authors (@beta9)
options:
  worker:
    description: Result of M(beta9.workers.worker_health) on the worker.
    type: dict
    required: true
  gateway:
    description: Its result on the gateway's side.
    type: dict
    default: {}
  listed:
    description: Result of M(beta9.workers.machine_info).
    type: dict
    default: {}
  settings:
    description: The host's settings in the inventory, C(pool), C(gateway_url), C(connection) and C(hostname).
    type: dict
    required: true
  only:
    description: Ids of the checks to judge.
    type: list
    elements: str
    default: []
  skip:
    description: Ids of checks to leave out.
    type: list
    elements: str
    default: []
  accept:
    description: Known failures as C(id) and C(reason), which become warnings.
    type: list
    elements: dict
    default: []
attributes:
  check_mode:
    support: full
    description: The action changes no host.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: full
    description: The action changes no host.
notes:
  - An action that runs on the controller and makes no connection.
"""

EXAMPLES = r"""
- name: Name the root causes
  beta9.workers.health_report:
    worker: "{{ seen }}"
    settings: {pool: gpu, connection: autossh}
"""

RETURN = r"""
host:
  description: Inventory name.
  returned: always
  type: str
outcome:
  description: V(healthy), V(unhealthy), V(unknown) where it could not tell, or V(unreachable).
  returned: always
  type: str
message:
  description: Why it could not tell, or could tell less.
  returned: always
  type: str
verdicts:
  description: What each check means, root causes marked.
  returned: always
  type: list
  elements: dict
  sample:
    - {id: T01, status: fail, root: true, because: [], cause: no tunnel runs, remedy: systemctl restart beta9-tunnel, found: the unit is inactive}
"""
