# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one run of every gateway module: fetch, compare, apply.

A module gives a plan. The runner makes the client, calls the plan (reads only), applies its change unless in check mode, and
turns errors into one failure with a stable code.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import gateway, protocol


class Plan(NamedTuple):
    """What is (before), what shall be (after), and how to get there. apply returns more result keys; None: nothing to do."""

    before: dict[str, Any]
    after: dict[str, Any]
    apply: Callable[[], dict[str, Any]] | None
    result: dict[str, Any]

    @property
    def changed(self):
        """Whether applying makes a difference. A keepalive is always sent, but only matters when the status changes."""
        return self.apply is not None and self.before != self.after


def run(argument_spec, make_plan, **constraints):
    """Run a module whose plan is make_plan(client, params) -> Plan."""
    module = AnsibleModule(argument_spec=dict(gateway.GATEWAY_ARGUMENT_SPEC, **argument_spec), supports_check_mode=True, **constraints)
    try:
        plan = make_plan(gateway.client_from_params(module.params), module.params)
        result = dict(plan.result)
        if plan.apply and not module.check_mode:
            result.update(plan.apply())
    except gateway.GatewayError as error:
        problem = error.problem
        module.fail_json(msg=str(error), code=problem.code, cause=problem.cause, remedy=problem.remedy, retryable=problem.retryable)
    except protocol.InvalidField as error:
        module.fail_json(
            msg=str(error), code="invalid_field", cause="%s is not %s" % (error.field, error.expected), remedy="Correct %s." % error.field, retryable=False
        )
    module.exit_json(changed=plan.changed, diff={"before": plan.before, "after": plan.after}, **result)


def run_info(argument_spec, fetch, **constraints):
    """Run a module that only reads: fetch(client, params) returns its result keys."""
    run(argument_spec, lambda client, params: Plan({}, {}, None, fetch(client, params)), **constraints)
