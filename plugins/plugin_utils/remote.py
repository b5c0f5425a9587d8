# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one way by which the collection runs a module on a host: within a time limit, and believing nothing that comes
back but the values that the module documents, in their types.

A module's result is written by whoever is root on the host. ansible-core acts on some of its keys (ansible_facts sets
variables, add_host and add_group change the inventory, ansible_stats the statistic), so what is not documented is
dropped here.
"""

from __future__ import annotations

import re
import signal
import sys
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Optional

from ansible import constants as C
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.vars import load_extra_vars
from ansible_collections.beta9.workers.plugins.plugin_utils import claims, plain, returns, trust

Kept = Optional[Dict[str, type]]
Checked = Optional[Callable[[Dict[str, Any]], Dict[str, Any]]]
LIMIT_SECONDS = 300
# Ansible's words when it waits in vain for sudo to ask for a password, and what that mostly is
PROMPT = "waiting for privilege escalation prompt"
SUDO_RS = (
    "Ansible does not recognize the prompt of sudo-rs, the sudo of Ubuntu 26.04: use a user that needs no password for "
    "sudo, or set ansible_become_exe to sudo.ws, the other sudo."
)
# Of modules that install: a package manager on a slow mirror, a driver that is compiled
LIMITS = {
    "host_packages": 3600,
    "host_initramfs": 1800,
    "k3s_install": 3600,
    "agent_install": 900,
    "k3s_remove": 900,
    "machine_drain": 900,
    "gpu_acceptance": 1800,
}
# What any module may say besides its own
COMMON = {
    "changed": bool, "failed": bool, "skipped": bool, "msg": str, "code": str, "cause": str, "remedy": str,
    "retryable": bool, "rc": int, "stdout": str, "stderr": str, "module_stdout": str, "module_stderr": str,
    "exception": str, "skip_reason": str, "warnings": list, "diff": object, "invocation": dict,
}  # fmt: skip


class TooLate(BaseException):
    """Nothing came back. No connection plugin may take it for an error of its own."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TooLate when the body takes longer."""

    def ring(_number: int, _frame: Any) -> None:
        raise TooLate

    before = signal.signal(signal.SIGALRM, ring)
    left, _interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)  # of a timeout that the task has
        signal.signal(signal.SIGALRM, before)


def documented(module: str, found: Any, keep: Kept = None, check: Checked = None) -> dict[str, Any]:
    """Return the documented part of a module's result. One whose values are of other types is a failure.

    found: what the module returned. keep: {name: type} where that is not what a module of this collection documents.
    check: raises ValueError where a value has another form; by default that of claims.CHECKS. A module that says that
    it failed is not believed more than others.
    """
    wanted = dict(COMMON, **(returns.RETURNS[module] if keep is None else keep))
    found = {name: found[name] for name in wanted if name in found} if isinstance(found, dict) else {}
    if isinstance(found.get("warnings"), list):
        found["warnings"] = [_warning(entry) for entry in found["warnings"][:20]]
    found = plain.data(found)
    wrong = [name for name, value in found.items() if value is not None and not _fits(value, wanted[name])]
    if wrong:
        return malformed(
            module, f"expected {', '.join(f'{name} ({wanted[name].__name__})' for name in wrong)}, found other types"
        )
    found = {name: value for name, value in found.items() if value is not None or name not in COMMON}
    check = check or (claims.CHECKS.get(module) if keep is None else None)
    try:
        return check(found) if check else found
    except ValueError as error:
        return malformed(module, str(error))


def malformed(module: str, what: str) -> dict[str, Any]:
    """Return the result of a module whose host sent something else than the module returns."""
    return {
        "failed": True,
        "changed": False,
        "code": "result_malformed",
        "msg": f"result of module {module}: {what} in what the host sent",
    }


def _warning(entry: Any) -> str:
    """Return a warning as text; from ansible-core 2.19 on a module's warnings arrive as objects."""
    return str(entry if isinstance(entry, str) else getattr(getattr(entry, "event", None), "msg", ""))


def _fits(value: Any, kind: type) -> bool:
    if kind in (int, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is str:
        return isinstance(value, (str, int, float))
    return kind is object or isinstance(value, kind)


def run(
    action: ActionBase,
    module: str,
    arguments: dict[str, Any],
    task_vars: dict[str, Any],
    keep: Kept = None,
    limit: float | None = None,
) -> dict[str, Any]:
    """Run a module on the task's host within a time limit; return what it documents.

    module: a name of this collection, or with its own in front. keep: see documented(). limit: seconds; by default what
    the module's own waits come to, and some. A host that does not answer in time is unreachable; errors of the
    connection are raised.
    """
    waits = [
        str(arguments.get(name)) for name in ("wait_seconds", "gpu_wait_seconds", "timeout_seconds", "lock_seconds")
    ]
    task_vars = with_own_python(action, task_vars)
    seconds = limit or LIMITS.get(module, LIMIT_SECONDS) + sum(
        float(wait) for wait in waits if re.fullmatch(r"[0-9]+([.][0-9]+)?", wait)
    )
    name = module if "." in module else "beta9.workers." + module
    try:
        with within(seconds):
            return believed(action, module, lambda: _executed(action, name, arguments, task_vars), task_vars, keep)
    except AnsibleConnectionFailure as error:
        if PROMPT in str(error):  # Ansible waits for sudo's prompt, and sudo-rs has one of its own
            raise AnsibleConnectionFailure(f"{error} {SUDO_RS}") from error
        raise
    except TooLate:
        return {
            "changed": False,
            "unreachable": True,
            "msg": f"expected the host to answer module {module} within {seconds:.0f} s, found nothing",
        }


def with_own_python(action: ActionBase, task_vars: dict[str, Any]) -> dict[str, Any]:
    """Return a task's variables. Where it was delegated to the controller, modules run with the Python of
    ansible-playbook.

    -e ansible_python_interpreter goes before every other variable, and means the hosts of the inventory.
    """
    target = action._task.delegate_to  # pylint: disable=protected-access
    if target not in C.LOCALHOST or action._connection.transport != "local":  # pylint: disable=protected-access
        return task_vars
    if "ansible_python_interpreter" not in load_extra_vars(action._loader):  # pylint: disable=protected-access
        return task_vars
    delegated = task_vars.get("ansible_delegated_vars", {})
    own = dict(delegated.get(target, {}), ansible_python_interpreter=sys.executable)
    return dict(task_vars, ansible_delegated_vars=dict(delegated, **{target: own}))


def believed(
    action: ActionBase,
    module: str,
    execute: Callable[[], Any],
    task_vars: dict[str, Any],
    keep: Kept = None,
    check: Checked = None,
) -> dict[str, Any]:
    """Return the documented part of what execute() returns, see documented()."""
    trust.require_own_variables(task_vars)
    try:
        result = documented(module, execute(), keep, check)
    except RecursionError:
        return malformed(module, "expected a result, found JSON nested without end")
    key = getattr(action, "_discovered_interpreter_key", None)
    if key:  # found out by the controller: without it every task would ask again
        result["ansible_facts"] = {key: action._discovered_interpreter}  # pylint: disable=protected-access
    return result


def _executed(action: ActionBase, name: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
    """Run a module, by way of its own action where it is one of ansible.builtin that has one."""
    if name.startswith("beta9."):
        return action._execute_module(name, arguments, task_vars=task_vars)  # pylint: disable=protected-access
    task = action._task.copy()
    task.action, task.args = name, arguments
    handler = action._shared_loader_obj.action_loader.get(
        name,
        task=task,
        connection=action._connection,
        play_context=action._play_context,
        loader=action._loader,
        templar=action._templar,
        shared_loader_obj=action._shared_loader_obj,
    )
    if handler:
        return handler.run(task_vars=task_vars)
    return action._execute_module(name, arguments, task_vars=task_vars)  # pylint: disable=protected-access


class OnHost(ActionBase):
    """A module of this collection that runs on a host: the one that the task names."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_diff = True
    _supports_async = False

    def module(self) -> str:
        """Return the module's name, without the collection's."""
        return self._task.action.rpartition(".")[2]

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        result.update(run(self, self.module(), self._task.args, task_vars or {}))
        if not result.get("unreachable"):
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result


class Pipelined(ActionBase):
    """An action that passes a secret to a module: on its standard input, so that no file of either side has it."""

    def _is_pipelining_enabled(self, module_style: str, wrap_async: bool = False) -> bool:
        return pipelined(self) or super()._is_pipelining_enabled(module_style, wrap_async)


class WithSecret(Pipelined, OnHost):
    """A module of this collection that runs on a host, and whose arguments hold a secret."""


def pipelined(action: ActionBase) -> bool:
    """Return whether the connection passes a module on standard input, whatever the operator's settings say."""
    connection = action._connection  # pylint: disable=protected-access
    become = connection.become.name if connection.become else ""
    return connection.has_pipelining and become.rpartition(".")[2] != "su"
