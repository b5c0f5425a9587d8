# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import secrets
import time
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.validation import check_type_list
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, engine
from ansible_collections.beta9.workers.plugins.plugin_utils import health_observe, trust

FEW_HOSTS = 4  # so many logins at once are within any sshd's MaxStartups


class ActionModule(ActionBase):
    """Run the module; where the account may not become root, run it again as it is: it tells less, and says so.

    A host that stops answering meanwhile is unreachable soon after the probes' deadline.
    """

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        trust.require_own_variables(task_vars)
        started = time.time()
        few = len(task_vars.get("ansible_play_batch") or []) <= FEW_HOSTS
        arguments = dict({"nonce": secrets.token_hex(16), "login": few, "asked": started}, **self._task.args)
        if {"gateway", "redis_url"} & set(arguments):
            raise AnsibleActionFail("gateway, redis_url: expected in no task, they are internal to health_report")
        arguments["connection"] = arguments.get("connection") or connections.DEFAULT
        probes = self.probes(arguments)
        try:
            seconds = float(arguments.get("deadline_seconds", 20)) + (engine.CANARY_SECONDS if "G10" in probes else 0)
        except ValueError:
            raise AnsibleActionFail(
                f"deadline_seconds: expected a number of seconds, found {arguments['deadline_seconds']}"
            ) from None
        seen = health_observe.observe(self, "worker", dict(arguments, probes=probes), task_vars, seconds)
        settings = dict(
            arguments.get("inventory") or {},
            connection=arguments["connection"],
            k3s=boolean(arguments.get("k3s") or False, strict=False),
        )
        return dict(seen, started=started, nonce=str(arguments["nonce"]), settings=settings)

    def probes(self, arguments: dict[str, Any]) -> dict[str, float]:
        """Return {id: its longest time in seconds} of the probes to run."""
        only, skip = check_type_list(arguments.get("only") or []), check_type_list(arguments.get("skip") or [])
        unknown = catalog.unknown_ids(only + skip)
        if unknown:
            raise AnsibleActionFail(f"only, skip: expected ids of checks (T01, A01, ...), found {', '.join(unknown)}")
        active = boolean(arguments.get("active", False), strict=False) and not self._task.check_mode
        of_workers = [
            check for check in catalog.CHECKS if check.side == catalog.WORKER and (active or not check.active)
        ]
        found = [
            check
            for check in of_workers
            if connections.gives(arguments.get("connection", connections.DEFAULT), check.builds_on)
        ]
        return {check.id: check.timeout_seconds for check in found if catalog.asked_for(check.id, only, skip)}
