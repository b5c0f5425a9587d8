#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_reachable
short_description: Wait until the gateway answers on this host, and report why if it does not
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Asks the gateway's health route, without a token, until it answers or the time is over.
  - If it does not answer, inspects the tunnel's unit, its journal and who holds its port, and names the cause.
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: full
    description: The module never changes anything. In check mode it asks once and reports instead of failing.
  diff_mode:
    support: none
    description: There is nothing to compare.
  idempotent:
    support: full
    description: The module never changes anything.
options:
  url:
    description: The gateway's HTTP port as this host reaches it.
    type: str
    required: true
  unit:
    description: The tunnel's unit, if the connection uses one.
    type: str
  wait_seconds:
    description: Longest time to wait.
    type: int
    default: 30
  ca_path:
    description: File of CA certificates to trust.
    type: path
  client_cert:
    description: Certificate to show to a gateway that demands one.
    type: path
  client_key:
    description: Key of O(client_cert).
    type: path
"""

EXAMPLES = r"""
- name: Verify the tunnel
  beta9.workers.gateway_reachable:
    url: http://127.0.0.1:1994
    unit: beta9-tunnel.service
"""

RETURN = r"""
reachable:
  description: Whether the gateway answered that it is well.
  returned: always
  type: bool
cause:
  description: Why not, as far as it is known.
  returned: when it did not
  type: str
"""

import time
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, units
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import messages
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, remedies

LATELY_SECONDS = 120.0
# What the unit, its ssh and the tunnel's far end can tell, as in the checks
CAUSES = {
    **catalog.BY_ID["T08"].causes,
    **catalog.BY_ID["T01"].causes,
    **{code: catalog.BY_ID["T04"].causes[code] for code in ("target_refused", "target_denied")},
}


def ask(client: api.GatewayClient) -> protocol.Problem | None:
    """Return None when the gateway is well, else the problem."""
    try:
        client.health()
        return None
    except api.GatewayError as error:
        return error.problem


def why(module: AnsibleModule, problem: protocol.Problem) -> tuple[str, str]:
    """Return (cause, remedy) with what the host knows beyond the failed request."""
    name, port = module.params["unit"], urlsplit(module.params["url"]).port
    listeners = linux.listeners(port)
    foreign = [entry for entry in listeners if entry["process"] not in ("ssh", None)]
    if name and foreign:
        return (
            f"port {port} is held by {foreign[0]['process']} (pid {foreign[0]['pid']}), not by the tunnel",
            "Stop that program, or choose another port in autossh_forwards.",
        )
    code, line = of_unit(units.of_module(module), name, bool(listeners)) if name else ("", "")
    if not code:
        return problem.cause, problem.remedy
    cause, remedy = CAUSES[code]
    return f"{cause} ({line})", remedies.text(remedies.fill(remedy._asdict(), remedies.PLACEHOLDERS, {}))


def of_unit(run: units.Run, name: str, up: bool) -> tuple[str, str]:
    """Return (code of CAUSES, what shows it) of why the tunnel's unit lets nothing through; empty where it does not
    tell.

    Its state comes first. Then what its ssh said: in the present start, for what was repaired before is no cause now.
    One that systemd starts again and again, and that is not up, has said why in the start that ended last.
    """
    unit = units.read(run, name)
    if unit.exec_code:
        return unit.exec_code, f"{name} ended with {unit.exit_status}"
    failing = unit.restarts > 0 and not up
    try:
        text = units.last_run(run, name, unit, LATELY_SECONDS) + "\n" if failing else ""
        text += units.journal(run, name, unit, seconds=LATELY_SECONDS)
    except units.Unreadable:
        text = ""
    known = messages.explain(text)
    if known and known.code in CAUSES:
        return known.code, units.without_times(known.line)
    return (
        ("failing", f"started again {unit.restarts} times, it ended with {unit.exit_status}") if failing else ("", "")
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "unit": {"type": "str"},
            "wait_seconds": {"type": "int", "default": 30},
            **{name: {"type": "path"} for name in ("ca_path", "client_cert", "client_key")},
        },
        supports_check_mode=True,
    )
    tls = {name: module.params[name] for name in ("ca_path", "client_cert", "client_key")}
    client = api.GatewayClient(module.params["url"], timeout=5, retries=0, **tls)
    deadline = time.monotonic() + (0 if module.check_mode else module.params["wait_seconds"])
    problem = ask(client)
    while problem and time.monotonic() < deadline:
        time.sleep(0.3)
        problem = ask(client)
    if not problem:
        return module.exit_json(changed=False, reachable=True)
    cause, remedy = why(module, problem)
    if module.check_mode:
        module.exit_json(changed=False, reachable=False, cause=cause, remedy=remedy)
    module.fail_json(
        msg=f"expected the gateway's health answer at {module.params['url']} within "
        f"{module.params['wait_seconds']} s, found: {cause}. {remedy}",
        reachable=False,
        code=problem.code,
        cause=cause,
        remedy=remedy,
    )


if __name__ == "__main__":
    main()
