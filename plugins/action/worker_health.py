# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import secrets
import time

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.beta9.workers.plugins.plugin_utils import health_look

JOB_SECONDS = 60  # of G10


class ActionModule(ActionBase):
    """Run the module; where the account may not become root, run it again as it is: it tells less, and says so.

    A host that stops answering meanwhile is unreachable soon after the probes' deadline.
    """

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        started = time.time()
        arguments = dict({"nonce": secrets.token_hex(16)}, **self._task.args)
        seconds = float(arguments.get("deadline_seconds", 20))
        if boolean(arguments.get("active", False), strict=False):
            seconds += JOB_SECONDS
        return dict(health_look.look(self, arguments, task_vars, seconds), started=started, nonce=arguments["nonce"])
