# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Made by tools/generate.py from the documentation of the modules. Do not edit.
from __future__ import annotations

from ansible_collections.beta9.workers.plugins.plugin_utils import remote

ActionModule = remote.OnHost
