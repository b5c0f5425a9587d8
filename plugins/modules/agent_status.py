#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: agent_status
short_description: Wait until the agent says that the machine is ready, or why it is not
version_added: "0.1.0"
description:
  - Runs on the worker. Reads what the running agent writes to its state file, and what systemd says of its unit.
  - Ends at once when the agent reports a problem that waiting can't mend, a refused token for example.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: Looks once, and reports instead of failing.
  diff_mode:
    support: none
    description: The module never changes anything.
  idempotent:
    support: full
    description: The module never changes anything.
options:
  wait_seconds:
    description: Longest time to wait.
    type: int
    default: 60
  unit:
    description: The agent's unit.
    type: str
    default: beta9-agent.service
  state_file:
    description: What the agent writes.
    type: path
    default: /run/beta9-agent/state.json
"""

EXAMPLES = r"""
- name: Wait until the machine is ready
  beta9.workers.agent_status:
    wait_seconds: 60
"""

RETURN = r"""
status:
  description: The agent's status, or C(stopped) when it does not run.
  returned: always
  type: str
  sample: ready
agent_version:
  description: Version of the running agent.
  returned: when it runs
  type: str
gpu_count:
  description: Number of GPUs that it found.
  returned: when it runs
  type: int
code:
  description: Stable code of the problem, as in the gateway's classifier.
  returned: when there is one
  type: str
cause:
  description: What the problem is.
  returned: when there is one
  type: str
remedy:
  description: What to do.
  returned: when there is one
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import agent_unit


def main():
    module = AnsibleModule(
        argument_spec={
            "wait_seconds": {"type": "int", "default": 60},
            "unit": {"type": "str", "default": "beta9-agent.service"},
            "state_file": {"type": "path", "default": "/run/beta9-agent/state.json"},
        },
        supports_check_mode=True,
    )
    seconds = 0 if module.check_mode else module.params["wait_seconds"]
    ready, result = agent_unit.wait_ready(module, module.params["unit"], module.params["state_file"], seconds)
    if ready or module.check_mode:
        module.exit_json(changed=False, **result)
    module.fail_json(
        msg="expected the agent to be ready within %d s, found %s: %s. %s" % (seconds, result["status"], result["cause"], result["remedy"]), **result
    )


if __name__ == "__main__":
    main()
