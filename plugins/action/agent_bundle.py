# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from typing import Any

from ansible_collections.beta9.workers.plugins.plugin_utils import in_process


class ActionModule(in_process.InProcess):
    """Build with the Python that runs ansible-playbook."""

    def execute(self, module: Any, params: dict[str, Any]) -> dict[str, Any]:
        return module.execute(params, self._task.check_mode)
