#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: health_summary
short_description: Summarise the health of all hosts of a run
version_added: "0.1.0"
description:
  - Returns one table with each root cause once, and writes it as text, JSON, JUnit and a self-contained HTML page.
  - Sets the statistic C(beta9_health), which AWX keeps as artefact, with C(outcome) and the ids of C(roots) by host. It contains no secret.
author:
  - beta9.workers authors (@beta9)
options:
  results:
    description: The entries in RV(beta9.workers.health_report#module:hosts).
    type: list
    elements: dict
    required: true
  started:
    description: When the run began, in seconds since 1970.
    type: float
    required: true
  directory:
    description: Directory on the controller for the files. None are written without it.
    type: path
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
- name: Summarise
  beta9.workers.health_summary:
    results: "{{ ansible_play_hosts_all | map('extract', hostvars, 'health') }}"
    started: 1790000000
    directory: build/health
"""

RETURN = r"""
msg:
  description: The table.
  returned: always
  type: str
files:
  description: The files that were written.
  returned: always
  type: list
  elements: str
health_summary:
  description: Outcome by host, and root causes with their hosts.
  returned: always
  type: dict
"""
