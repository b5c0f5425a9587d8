# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one run of every gateway module: fetch, compare, apply.

A module gives a plan. The runner makes the client, calls the plan (reads only), applies its change unless in check
mode, and turns errors into one failure with a stable code.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, protocol


class Plan(NamedTuple):
    """What is (before), what shall be (after), and how to get there. apply returns more result keys; None: nothing to
    do."""

    before: dict[str, Any]
    after: dict[str, Any]
    apply: Callable[[], dict[str, Any]] | None
    result: dict[str, Any]

    @property
    def changed(self) -> bool:
        """Whether applying makes a difference. A keepalive is always sent, but only matters when the status changes."""
        return self.apply is not None and self.before != self.after


OWNER_SPEC = {
    "prove_owner": {"type": "bool", "default": False},
    "confirmed": {"type": "bool", "default": False},
    "token_mark": {"type": "str", "no_log": False},
    "k3s_mark": {"type": "str", "no_log": False},
}


class NotProven(protocol.InvalidField):
    """A machine that a host names is not shown to be that host's."""

    code = "machine_not_proven"
    remedy = "If it is this host's all the same, confirm it: -e beta9_machine_confirmed=true"


def require_owner(client: api.GatewayClient, params: dict[str, Any], machine: dict[str, Any] | None) -> str:
    """Return "" where a machine may be changed, else why it is left alone: whose it is can't be told, but it ends by
    itself.

    machine: as client.list_machines has it, None where the gateway does not have it. Raises NotProven where it is
    another host's, as far as the gateway knows, or where it is at work and nothing tells whose it is.
    """
    if not params["prove_owner"] or params["confirmed"] or not machine:
        return ""
    marks = [mark for mark in (params["token_mark"], params["k3s_mark"]) if mark]
    try:
        owned = client.owned(machine["id"], machine["pool"], machine["provider"], marks)
    except api.NotFoundError:  # a gateway without these routes
        owned = None
    if owned:
        return ""
    if owned is None and machine["status"] != "ready":
        return (
            f"machine {machine['id']} is {machine['status']} and stays at the gateway until it expires by itself: "
            "whose it is can be seen of ready machines only. To delete it now: -e beta9_machine_confirmed=true"
        )
    found = (
        "nothing that tells whose it is" if owned is None else "another token on this host than the gateway has for it"
    )
    raise NotProven(
        f"machine {machine['id']}",
        "this host's machine, as the token on the host proves",
        f"{found}. Nothing of it was changed. {NotProven.remedy}",
    )


def specification(argument_spec: dict[str, Any]) -> dict[str, Any]:
    """Return the whole argument spec of a gateway module."""
    return dict(api.GATEWAY_ARGUMENT_SPEC, **argument_spec)


def failure(error: api.GatewayError | protocol.InvalidField) -> dict[str, Any]:
    """Return the result of a module that an error ended."""
    told = {"msg": str(error), "failed": True, "changed": False}
    if isinstance(error, api.GatewayError):
        problem = error.problem
        told.update(code=problem.code, cause=problem.cause, remedy=problem.remedy, retryable=problem.retryable)
    else:
        told.update(code=getattr(error, "code", "invalid_field"), cause=f"{error.field} is not {error.expected}")
        told.update(remedy=getattr(error, "remedy", f"Correct {error.field}."), retryable=False)
    return told


def execute(
    make_plan: Callable[[api.GatewayClient, dict[str, Any]], Plan], params: dict[str, Any], check_mode: bool
) -> dict[str, Any]:
    """Return the result of a module whose plan is make_plan(client, params). An error of the gateway or of a parameter
    is a failed result."""
    try:
        client = api.client_from_params(params)
        plan = make_plan(client, params)
        result = dict(plan.result)
        if plan.apply and not check_mode:
            result.update(plan.apply())
    except (api.GatewayError, protocol.InvalidField) as error:
        return failure(error)
    if client.dropped:
        result["warnings"] = [protocol.dropped_words(client.dropped)]
    return dict(result, changed=plan.changed, diff={"before": plan.before, "after": plan.after})


def run(
    argument_spec: dict[str, Any],
    make_plan: Callable[[api.GatewayClient, dict[str, Any]], Plan],
    **constraints: Any,
) -> None:
    """Run as a module: argument_spec from specification()."""
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=True, **constraints)
    result = execute(make_plan, module.params, module.check_mode)
    if result.pop("failed", False):
        result.pop("changed")
        module.fail_json(**result)
    module.exit_json(**result)


def reads(
    fetch: Callable[[api.GatewayClient, dict[str, Any]], dict[str, Any]],
) -> Callable[[api.GatewayClient, dict[str, Any]], Plan]:
    """Return the plan of a module that only reads: fetch(client, params) returns its result keys."""
    return lambda client, params: Plan({}, {}, None, fetch(client, params))
