# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: nvidia_plan
short_description: What is to be done about a host's NVIDIA driver, and what prevents it
version_added: "0.1.0"
description:
  - Internal to the roles and playbooks of this collection.
  - Chooses source, branch and kernel module flavour by the generation of the GPUs. A driver that works is left alone.
author:
  - beta9.workers authors (@beta9)
positional: system, desired
options:
  _input:
    description: RV(beta9.workers.nvidia_host#module:facts).
    type: dict
    required: true
  system:
    description: The variables of the distribution, from role P(beta9.workers.nvidia#role). None where it is not
      supported.
    type: dict
  desired:
    description: The variables of the role, without their prefix.
    type: dict
    required: true
"""

EXAMPLES = r"""
plan: "{{ host.facts | beta9.workers.nvidia_plan(system, desired) }}"
"""

RETURN = r"""
_value:
  description: C(action) (V(none), V(keep), V(install) or V(upgrade)), C(text) for people, C(problems), and what to
    install from where.
  type: dict
"""

from typing import Callable

from ansible_collections.beta9.workers.plugins.module_utils.nvidia import driver


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable]:
        return {"nvidia_plan": driver.plan, "nvidia_pending_reboot": driver.pending_reboot}
