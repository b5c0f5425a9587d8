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

import json
import time

from ansible.module_utils.basic import AnsibleModule


def look(module):
    """Return (state of the agent, whether it is settled, unit properties). The state of another process than the unit's is none."""
    _rc, out, _err = module.run_command(["systemctl", "show", module.params["unit"], "--property=ActiveState,MainPID,Job,NRestarts,Result"], check_rc=True)
    unit = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    try:
        with open(module.params["state_file"], encoding="utf-8") as stream:
            state = json.load(stream)
    except (OSError, ValueError):
        state = {}
    if str(state.get("pid")) != unit.get("MainPID"):
        state = {}
    return state, unit.get("ActiveState") == "active" and not unit.get("Job"), unit


def last_words(module):
    """Return the end of the unit's journal."""
    _rc, out, _err = module.run_command(["journalctl", "-u", module.params["unit"], "-n", "3", "--no-pager", "-o", "cat"])
    return " | ".join(out.strip().splitlines())


def main():
    module = AnsibleModule(
        argument_spec={
            "wait_seconds": {"type": "int", "default": 60},
            "unit": {"type": "str", "default": "beta9-agent.service"},
            "state_file": {"type": "path", "default": "/run/beta9-agent/state.json"},
        },
        supports_check_mode=True,
    )
    deadline = time.monotonic() + (0 if module.check_mode else module.params["wait_seconds"])
    seen = None
    while True:
        state, settled, unit = look(module)
        problem = state.get("problem") or {}
        if state.get("status") == "ready" and settled:
            break
        # twice the same from the same process: not the last words of one that is about to be restarted
        final = problem and not problem["retryable"] and state["status"] == "degraded" and seen == (state["pid"], problem["code"])
        seen = (state.get("pid"), problem.get("code"))
        if final or time.monotonic() >= deadline:
            break
        time.sleep(0.25)
    known = {name: state[name] for name in ("agent_version", "gpu_count", "machine_id") if name in state}
    result = dict(known, status=state.get("status", "stopped"), **{name: problem.get(name) for name in ("code", "cause", "remedy") if problem})
    if (result["status"] == "ready" and settled) or module.check_mode:
        module.exit_json(changed=False, **result)
    if not state:
        result.update(
            code="agent_not_running",
            cause="the agent does not run: %s, %s" % (unit.get("ActiveState"), last_words(module)),
            remedy="Read its journal: journalctl -u %s -n 50" % module.params["unit"],
        )
    result.setdefault("code", "agent_not_ready")
    result.setdefault("cause", "no keepalive was accepted yet")
    result.setdefault("remedy", "Read its journal: journalctl -u %s -n 50" % module.params["unit"])
    module.fail_json(
        msg="expected the agent to be ready within %d s, found %s: %s. %s"
        % (module.params["wait_seconds"], result["status"], result["cause"], result["remedy"]),
        **result,
    )


if __name__ == "__main__":
    main()
