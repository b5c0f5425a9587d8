#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: health_report
short_description: Name the root causes in what was seen of hosts
version_added: "0.1.0"
description:
  - Joins the observations of M(beta9.workers.worker_health) from both sides with the controller's own, and tells failures from
    consequences. Run it once for all hosts of a play.
author:
  - beta9.workers authors (@beta9)
options:
  hosts:
    description: Inventory names of the workers.
    type: list
    elements: str
    required: true
  variable:
    description: Name of the variable that holds each host's result of M(beta9.workers.worker_health).
    type: str
    required: true
  gateway:
    description: Result of M(beta9.workers.worker_health) on the gateway's side.
    type: dict
    default: {}
  listed:
    description: Result of M(beta9.workers.gateway_listing).
    type: dict
    default: {}
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
- name: Look at the workers
  beta9.workers.worker_health:
  register: seen
  ignore_unreachable: true

- name: Name the root causes
  beta9.workers.health_report:
    hosts: "{{ ansible_play_hosts }}"
    variable: seen
  run_once: true
  register: found
"""

RETURN = r"""
hosts:
  description:
    - An entry a host. C(outcome) is V(healthy), V(unhealthy), V(unknown) where it could not tell, or V(unreachable).
    - C(message) is why it could not tell, or could tell less. C(verdicts) has what each check means, root causes marked.
  returned: always
  type: dict
  sample:
    gpu-07:
      host: gpu-07
      outcome: unhealthy
      message: ""
      verdicts:
        - {id: T01, status: fail, root: true, because: [], cause: no tunnel runs, remedy: systemctl restart beta9-tunnel}
"""
