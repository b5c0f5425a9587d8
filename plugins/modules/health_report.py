#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: health_report
short_description: Name the root causes of all hosts, in one table
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Asks the gateway as an operator, and checks its side from the host that the task is delegated to. Joins that with
    what M(beta9.workers.worker_health) saw on the workers, and tells failures from consequences. Run it once for all
    hosts of a play.
  - Returns one table with each root cause once, and writes it as text, JSON, JUnit and a self-contained HTML page.
  - Compares the run with the one before that wrote to the same O(directory), which causes are new, still there or gone.
  - Sets the statistic C(beta9_health), which AWX keeps as artefact, with C(outcome) and the ids of C(roots) by host,
    and a C(summary) with a line for each host that is not healthy, its root causes and remedies. It contains no secret.
  - A gateway that can't be asked is no failure. The checks that need it are unknown, and say why.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment:
  - beta9.workers.attributes.reads
  - beta9.workers.gateway
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
  gateway_side:
    description: Whether to check the gateway's side from the host that the task is delegated to.
    type: bool
    default: false
  redis_url:
    description: As O(beta9.workers.worker_health#module:redis_url).
    type: str
  kube:
    description: As O(beta9.workers.worker_health#module:gateway.kube).
    type: bool
    default: false
  kubeconfig:
    description: As O(beta9.workers.worker_health#module:gateway.kubeconfig).
    type: path
  namespace:
    description: As O(beta9.workers.worker_health#module:gateway.namespace).
    type: str
    default: beta9
  deadline_seconds:
    description: Longest time for all probes of the gateway's side together.
    type: float
    default: 20
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
    description: Known failures, which become warnings.
    type: list
    elements: dict
    default: []
    suboptions:
      id:
        description: Id of the check.
        type: str
        required: true
      reason:
        description: Why it is accepted.
        type: str
        required: true
  since:
    description: When the run began, in seconds since 1970. The beginning of the first check by default.
    type: float
  directory:
    description:
      - Directory on the controller for the files. None are written without it.
      - C(health.history.json) there is what the next run is compared with.
    type: path
notes:
  - An action that runs on the controller. It makes no connection unless O(gateway_side=true).
"""

EXAMPLES = r"""
- name: Check the workers
  beta9.workers.worker_health:
  register: seen
  ignore_unreachable: true

- name: Name the root causes
  beta9.workers.health_report:
    hosts: "{{ ansible_play_hosts }}"
    variable: seen
    directory: build/health
  run_once: true
  register: found
"""

RETURN = r"""
msg:
  description: The table.
  returned: always
  type: str
hosts:
  description:
    - An entry a host. C(outcome) is V(healthy), V(unhealthy), V(unknown) where it could not tell, or V(unreachable).
    - C(message) is why it could not tell, or could tell less. C(verdicts) has what each check means, root causes
      marked.
  returned: always
  type: dict
  sample:
    gpu-07:
      host: gpu-07
      outcome: unhealthy
      message: ""
      verdicts:
        - id: T01
          status: fail
          root: true
          because: []
          cause: no tunnel runs
          remedy: {where: worker, host: gpu-1, command: systemctl restart beta9-tunnel, prose: "", remediates: true}
roots:
  description: Root causes with C(id), C(cause) and their C(hosts).
  returned: always
  type: list
  elements: dict
files:
  description: The files that were written.
  returned: always
  type: list
  elements: str
since:
  description: O(since), or the beginning of the first check.
  returned: always
  type: float
"""
