# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, machine_runner, protocol
from ansible_collections.beta9.workers.plugins.plugin_utils import remote, trust


class ActionModule(remote.WithSecret):
    """Create at the gateway (from here), store on the host (through the task's connection)."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        trust.require_own_variables(task_vars or {})
        _result, params = self.validate_argument_spec(
            argument_spec=dict(
                api.GATEWAY_ARGUMENT_SPEC,
                pool={"type": "str", "required": True},
                provider={"type": "str", "default": "generic"},
                replaces={"type": "dict", "default": {}},
                seen={"type": "str"},
            )
        )
        replaces = params["replaces"] or {}
        if self._task.check_mode:
            desired = {"machine_id": "(given by the gateway)", "pool": params["pool"], "provider": params["provider"]}
            return {"changed": True, "machine": {}, "diff": {"before": replaces, "after": desired}}
        try:
            client = api.client_from_params(params)
            return self._enrol(client, params, replaces, task_vars or {})
        except (api.GatewayError, protocol.InvalidField) as error:
            return machine_runner.failure(error)

    def _enrol(
        self, client: api.GatewayClient, params: dict[str, Any], replaces: dict[str, Any], task_vars: dict[str, Any]
    ) -> dict[str, Any]:
        created = client.create_machine(params["pool"])
        identity = {"machine_id": created["id"], "pool": params["pool"], "provider": params["provider"]}
        try:
            arguments = dict(identity, machine_token=created["registration_token"], seen=params["seen"])
            arguments["replaces"] = replaces if replaces.get("machine_id") else None
            stored = remote.run(self, "machine_credentials", arguments, task_vars)
        except BaseException:  # unreachable, interrupted, anything: the record must not be left over
            client.discard_machine(created)
            raise
        if stored.get("failed") or stored.get("unreachable"):
            client.discard_machine(created)
            return {
                "failed": True,
                "changed": False,
                "msg": (
                    f"machine {created['id']} was created and deleted again, because its credentials could not be "
                    f"stored on the host: {stored.get('msg', 'no reason given')}"
                ),
            }
        if stored.get("taken"):
            client.discard_machine(created)
            return self._of_another_run(stored["machine"], identity)
        # as it was made here, whatever the host says
        machine = dict(identity, replaces=replaces) if replaces.get("machine_id") else identity
        return {"changed": True, "machine": machine, "diff": {"before": replaces, "after": machine}}

    @staticmethod
    def _of_another_run(machine: dict[str, Any], identity: dict[str, str]) -> dict[str, Any]:
        """Return the result where another run gave the host a machine meanwhile: as good a one, if it is of the same
        pool."""
        if (machine.get("pool"), machine.get("provider")) == (identity["pool"], identity["provider"]):
            return {"changed": False, "machine": machine}
        return {
            "failed": True,
            "changed": False,
            "msg": f"another run: expected this host to get a machine of pool {identity['pool']}, found that it was "
            f"given one of "
            f"pool {machine.get('pool', '(none)')} meanwhile. Wait until that run ends, then run again.",
        }
