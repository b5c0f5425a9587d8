# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent on a host: its versions side by side, the link that says which one runs, and what the running one says of
itself.

DIRECTORY/versions/VERSION/     one virtual environment each; .complete is its last file
DIRECTORY/current               link to the one that runs
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
import time
from typing import Any, Callable, TYPE_CHECKING

from ansible_collections.beta9.workers.plugins.module_utils.agent import records, statefile
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, units

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

MIN_PYTHON = (3, 10)
COMPLETE = ".complete"
IMPORTS = (
    "import importlib.util as u, beta9_agent, psutil; print(beta9_agent.__version__ if u.find_spec('httpx') and "
    "u.find_spec('pynvml') else '')"
)
# So many starts of its own accord, and a process is not just slow
CRASHES = 2


def interpreter(folder: str = "/usr/bin") -> str:
    """Return the Python that the agent is installed with: the one that runs this if it is new enough, else the system's
    newest; "" if there is none.

    RHEL 9 has Python 3.9 for itself, and newer ones beside it.
    """
    own = getattr(sys, "_base_executable", None) or sys.executable
    if sys.version_info[:2] >= MIN_PYTHON and not linux.hidden_from_units(own):
        return own
    names = {
        path: re.match(r"python3\.(\d+)$", os.path.basename(path))
        for path in glob.glob(os.path.join(folder, "python3.*"))
        if os.access(path, os.X_OK)
    }
    minors = {
        int(match.group(1)): path for path, match in names.items() if match and (3, int(match.group(1))) >= MIN_PYTHON
    }
    return minors[max(minors)] if minors else ""


def current(directory: str) -> str:
    """Return the version that the link points to, or an empty string."""
    try:
        return os.path.basename(os.readlink(os.path.join(directory, "current")))
    except OSError:
        return ""


def installed(directory: str, version: str, run_command: Callable[..., tuple[int, str, str]]) -> bool:
    """Return whether a version was installed to its end, and the unit can run it: its interpreter is there, in sight of
    the unit, finds this version's packages (an upgrade of the distribution takes them away with the interpreter)."""
    folder = os.path.join(directory, "versions", version)
    python = os.path.join(folder, "bin", "python")
    if (
        not os.path.exists(os.path.join(folder, COMPLETE))
        or not os.access(python, os.X_OK)
        or linux.hidden_from_units(python)
    ):
        return False
    rc, out, _err = run_command([python, "-I", "-c", IMPORTS])
    return rc == 0 and out.strip() == version.partition("-")[0]


def point(directory: str, version: str) -> None:
    """Let the link point to a version, in one step."""
    link = os.path.join(directory, ".current.new")
    if os.path.lexists(link):
        os.unlink(link)
    os.symlink(os.path.join("versions", version), link)
    os.replace(link, os.path.join(directory, "current"))


def prune(directory: str, keep: tuple[str, str]) -> None:
    """Remove all versions but those to keep."""
    for name in os.listdir(os.path.join(directory, "versions")):
        if name not in keep:
            shutil.rmtree(os.path.join(directory, "versions", name), ignore_errors=True)


def inspect(module: AnsibleModule) -> tuple[dict[str, Any], bool, dict[str, Any]]:
    """Return (state of the agent, whether it is settled, unit properties). The state of another process than the unit's
    is none."""
    _rc, out, _err = module.run_command(
        ["systemctl", "show", records.AGENT_UNIT, "--property=ActiveState,MainPID,Job,NRestarts,Result"], check_rc=True
    )
    properties = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
    state = statefile.of(records.AGENT_STATE)
    if str(state.get("pid")) != properties.get("MainPID"):
        state = {}
    return state, properties.get("ActiveState") == "active" and not properties.get("Job"), properties


def _ready(state: dict[str, Any]) -> bool:
    """Return whether the machine is ready, and not just about to be registered with other settings."""
    return state.get("status") == "ready" and state.get("next_action") != "register"


def wait_ready(module: AnsibleModule, seconds: float, crashes: int | None = None) -> tuple[bool, dict[str, Any]]:
    """Wait for READY and an accepted keepalive, or for what waiting can't resolve. Return (whether ready, result keys).

    The result has status, agent_version, gpu_count and machine_id where they are known, and code, cause and remedy of a
    problem. Where crashes are given, so many starts by systemd itself end the waiting.
    """
    deadline = time.monotonic() + seconds
    seen, first = None, None
    while True:
        state, settled, properties = inspect(module)
        problem = state.get("problem") or {}
        if _ready(state) and settled:
            break
        # twice the same from the same process, with no new try under way: not the last words of one that is about to be
        # restarted
        final = (
            problem
            and not problem["retryable"]
            and state.get("status") == "degraded"
            and seen == (state.get("pid"), problem["code"])
        )
        final = final and state.get("next_epoch", 0) > time.time()
        seen = (state.get("pid"), problem.get("code"))
        restarts = int(properties.get("NRestarts") or 0)
        first = min(restarts, restarts if first is None else first)  # a start by hand sets it back to 0
        if final or time.monotonic() >= deadline or (crashes and restarts - first >= crashes):
            break
        time.sleep(0.25)
    result: dict[str, Any] = {
        name: state[name] for name in ("agent_version", "gpu_count", "machine_id") if name in state
    }
    result.update(
        status=state.get("status", "stopped"),
        **{name: problem.get(name) for name in ("code", "cause", "remedy") if problem},
    )
    if _ready(state) and settled:
        return True, result
    journal = f"Read its journal: journalctl -u {records.AGENT_UNIT} -n 50"
    if not state:
        cause = (
            f"the agent does not run: {properties.get('ActiveState')}, "
            f"{' | '.join(units.said(units.of_module(module), records.AGENT_UNIT).splitlines()).rstrip('.')}"
        )
        result.update(code="agent_not_running", cause=cause, remedy=journal)
    result.setdefault("code", "agent_not_ready")
    result.setdefault("cause", "no keepalive was accepted yet")
    result.setdefault("remedy", journal)
    return False, result
