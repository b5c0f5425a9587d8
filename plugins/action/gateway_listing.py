# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible.plugins.action import ActionBase
from ansible_collections.beta9.workers.plugins.module_utils import gateway, protocol


class ActionModule(ActionBase):
    """Ask the gateway for its machines and pools, from the controller's own process. A gateway that does not answer is no failure."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _result, params = self.validate_argument_spec(argument_spec=dict(gateway.GATEWAY_ARGUMENT_SPEC, retries={"type": "int", "default": 0}))
        if not params["token"] and not params["token_file"]:
            return {"changed": False, "why": "no admin token was given (beta9_admin_token_file)"}
        try:
            client = gateway.client_from_params(params)
            return {"changed": False, "machines": client.list_machines(), "pools": client.list_pools(), "why": ""}
        except (gateway.GatewayError, protocol.InvalidField, OSError) as error:
            return {"changed": False, "why": str(error)}
