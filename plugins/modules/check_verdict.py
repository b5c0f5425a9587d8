#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: check_verdict
short_description: Show the verdict of one check, or of a host, as one task
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Fails for a check that failed, with cause and remedy. Skips one that is blocked or not applicable.
  - Without O(id) it ends the checks of a host. One that is healthy goes on, one that is not healthy fails, and one that
    could not be judged counts as unreachable. So C(ansible-playbook) ends with 0 when every host is healthy, with 2
    when hosts are not, and with 4 when there are hosts of which it could not tell.
author:
  - beta9.workers authors (@beta9)
options:
  id:
    description: Id of the check. That of the host if left out.
    type: str
  health:
    description: The host's entry in RV(beta9.workers.health_report#module:hosts).
    type: dict
    required: true
extends_documentation_fragment: [beta9.workers.attributes.reads]
notes:
  - An action that runs on the controller and makes no connection.
"""

EXAMPLES = r"""
- name: T01 exactly one supervised tunnel runs
  beta9.workers.check_verdict:
    id: T01
    health: "{{ found.hosts[inventory_hostname] }}"

- name: Fail hosts that are not healthy
  beta9.workers.check_verdict:
    health: "{{ found.hosts[inventory_hostname] }}"
"""

RETURN = r"""
status:
  description: The verdict.
  returned: with O(id), when the check was part of the run
  type: str
  sample: pass
msg:
  description: What was found, in one line.
  returned: without O(id), and where a check failed
  type: str
"""
