#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: agent_status
short_description: Wait until the agent reports the machine as ready, or why it is not
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Runs on the worker. Reads what the running agent writes to its state file, and what systemd says of its unit.
  - Ends at once when the agent reports a problem that waiting can't resolve, a refused token for example.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: Looks once, and reports instead of failing.
  diff_mode:
    support: full
    description: Shows the stored host name before and after, where the machine had to be registered again.
  idempotent:
    support: full
    description: A machine that is ready, and stored as it should be, is left alone.
options:
  wait_seconds:
    description: Longest time to wait.
    type: int
    default: 60
  hostname:
    description:
      - The host name that the gateway should have for this machine, where it takes names as they are registered. A
        stored name changes only when the machine is registered, so one that differs, because the gateway was in another
        mode before, lets the agent register again. Fails where the gateway stores another name then as well. Not
        verified when left out.
    type: str
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

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.agent import records, service
from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, protocol

DIRECT_MODE = (
    "Set tailscale.directRedisHost in the gateway's configuration and restart the gateway, then onboard again. Where "
    "beta9_k3s is true the gateway needs a tailnet of its own as well. See the guide connection-modes."
)


def ready_machines() -> list[dict[str, Any]] | None:
    """Return the pool's ready machines as this machine's own token sees them now, None where its settings are
    incomplete. Raises GatewayError."""
    settings = records.agent_settings()
    try:
        url = f"{settings['BETA9_GATEWAY_SCHEME']}://{settings['BETA9_GATEWAY_HOST']}:{settings['BETA9_GATEWAY_PORT']}"
        token = api.read_token(os.path.join(records.CREDENTIALS_DIR, "machine_token"))
        tls: dict[str, Any] = {
            name: settings.get(f"BETA9_{name.upper()}") for name in ("ca_path", "client_cert", "client_key")
        }
        client = api.GatewayClient(url, token, timeout=5, retries=0, **tls)
        return client.list_ready(
            settings["BETA9_POOL_NAME"], settings.get("BETA9_PROVIDER_NAME", protocol.PROVIDER_DEFAULT)
        )
    except (KeyError, protocol.InvalidField):
        return None


def hostname_of(machines: list[dict[str, Any]] | None) -> str | None:
    """Return the host name that the gateway has of this machine, or None where it does not list it."""
    own = records.agent_settings().get("BETA9_MACHINE_ID")
    return next((machine["hostname"] for machine in machines or () if machine["id"] == own), None)


def asked() -> tuple[list[dict[str, Any]] | None, dict[str, Any]]:
    """Return (ready machines, {}), or (None, problem) where the gateway refuses the token now: the keepalive that it
    accepted last can be a minute old. Where it does not answer, nothing more is known than the agent told."""
    try:
        return ready_machines(), {}
    except api.GatewayError as error:
        refused = error.problem if error.problem.code in api.REFUSED_TOKEN else None
    return None, {
        "status": "degraded",
        "code": refused.code,
        "cause": refused.cause,
        "remedy": refused.remedy,
    } if refused else {}


def register_again(module: AnsibleModule, before: str | None, seconds: float) -> tuple[bool, dict[str, Any]] | None:
    """Let the agent register where the gateway has another host name of it. Return (whether ready, result keys), or
    None where all is well."""
    expected = module.params["hostname"]
    if before is None or before == expected:
        return None
    module.run_command(["systemctl", "reload", records.AGENT_UNIT], check_rc=True)
    ready, result = service.wait_ready(module, seconds)
    after = hostname_of(asked()[0]) if ready else None
    if after not in (None, expected):
        cause = f"the gateway stores {after}, and can't reach this host by that name"
        return False, dict(result, code="hostname_suffix", cause=cause, remedy=DIRECT_MODE)
    return ready, dict(result, changed=True, diff={"before": before + "\n", "after": expected + "\n"})


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "wait_seconds": {"type": "int", "default": 60},
            "hostname": {"type": "str"},
        },
        supports_check_mode=True,
    )
    seconds = 0 if module.check_mode else module.params["wait_seconds"]
    ready, result = service.wait_ready(module, seconds)
    if ready and not module.check_mode:
        machines, refused = asked()
        ready, result = not refused, dict(result, **refused)
        if ready and module.params["hostname"]:
            ready, result = register_again(module, hostname_of(machines), seconds) or (ready, result)
    if ready or module.check_mode:
        module.exit_json(**dict({"changed": False}, **result))
    module.fail_json(
        msg=f"expected the agent to be ready within {int(seconds)} s, found {result['status']}: {result['cause']}. "
        f"{result['remedy']}",
        **result,
    )


if __name__ == "__main__":
    main()
