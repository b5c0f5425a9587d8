#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: check_verdict
short_description: Show the verdict of one check as one task
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Fails for a check that failed, with cause and remedy. Skips one that is blocked or not applicable.
author:
  - beta9.workers authors (@beta9)
options:
  id:
    description: Id of the check.
    type: str
    required: true
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
    health: "{{ report.health }}"
"""

RETURN = r"""
status:
  description: The verdict.
  returned: when the check was part of the run
  type: str
  sample: pass
"""
