#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_step
short_description: Run a module of ansible.builtin on a host, and validate what it returns
version_added: "0.2.0"
description:
  - Internal to the roles of this collection.
  - Whoever is root on a host writes the results of the modules that run there, and ansible-core acts on some of their
    keys, wherever they come from. C(ansible_facts) sets variables, C(add_host) changes the inventory. This runs a
    module within a time limit and drops all but C(changed), C(failed), C(msg), C(diff) and the like.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: As the module.
  diff_mode:
    support: full
    description: As the module.
  idempotent:
    support: full
    description: As the module.
options:
  module:
    description: Name of the module in ansible.builtin.
    type: str
    required: true
    choices: [command, copy, file, get_url, package, systemd_service, template, unarchive, user]
  arguments:
    description: The module's options.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Ensure the tunnel's user
  beta9.workers.host_step:
    module: user
    arguments:
      name: beta9-tunnel
      system: true
"""

RETURN = r"""
stdout:
  description: What a command wrote.
  returned: with module command
  type: str
stderr:
  description: What a command wrote to its standard error.
  returned: with module command
  type: str
rc:
  description: Exit status of a command.
  returned: with module command
  type: int
"""
