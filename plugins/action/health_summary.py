# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import time

from ansible.plugins.action import ActionBase
from ansible_collections.beta9.workers.plugins.plugin_utils import health_reports


class ActionModule(ActionBase):
    """One summary of all hosts of a run, on the screen and in files. Runs on the controller only."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        _result, params = self.validate_argument_spec(
            argument_spec={
                "results": {"type": "list", "elements": "dict", "required": True},
                "started": {"type": "float", "required": True},
                "directory": {"type": "path"},
            }
        )
        results = [{name: entry[name] for name in ("host", "outcome", "message", "verdicts")} for entry in params["results"]]
        results.sort(key=lambda entry: entry["host"])
        run = {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(params["started"])), "seconds": round(time.time() - params["started"], 1)}
        files = []
        if params["directory"]:
            os.makedirs(params["directory"], mode=0o755, exist_ok=True)
            for name, text in health_reports.render(results, run).items():
                path = os.path.join(params["directory"], name)
                with open(path + ".new", "w", encoding="utf-8") as stream:
                    stream.write(text)
                os.replace(path + ".new", path)
                files.append(path)
        roots = [
            {"id": identity, "cause": cause, "hosts": [host for host, _verdict in hosts]} for identity, cause, hosts in health_reports.grouped_roots(results)
        ]
        found = {}
        for root in roots:
            for host in root["hosts"]:
                found.setdefault(host, []).append(root["id"])
        artefact = {"outcome": {entry["host"]: entry["outcome"] for entry in results}, "roots": roots}
        return {
            "changed": False,
            "msg": health_reports.table(results),
            "files": files,
            "health_summary": artefact,
            # by host, so that a later batch or a second look adds to it, and replaces what it looked at again
            "ansible_stats": {
                "data": {"beta9_health": {"outcome": artefact["outcome"], "roots": {host: found.get(host, []) for host in artefact["outcome"]}}},
                "per_host": False,
                "aggregate": True,
            },
        }
