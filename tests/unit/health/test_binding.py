"""Check, probe, codes, cause, remedy, heal and fault belong together: each of them that stands alone fails here."""

from __future__ import annotations

import ast
import inspect
import pathlib
import re

import pytest
import yaml
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import units
from ansible_collections.beta9.workers.plugins.module_utils.nvidia import gpu_health
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import messages
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, control, gateway, join, worker
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import gateway_host, gateway_side, tailnet

from tests.faults.catalog import FAULTS

ROOT = pathlib.Path(__file__).parents[3]
WORKER = worker.probes_of({"connection": "tailscale", "k3s": True, "gpus": 1})
REMOTE = dict(WORKER, **gateway.PER_MACHINE, **gateway_side.ONCE)
# Checks that are made on the controller, of settings, lists, and what both sides saw
LOCAL = {"C01": control, "C02": control, "U06": join, "M05": join, "G04": join}
GATEWAY_CODES = set(protocol.CODES)
SSH_CODES = {code for code, _words in messages.SIGNATURES} | {"account_refused", "key_refused", "cut", "timeout", "name", "silent", "stalled", "slow"}
# Codes that a probe passes on from a table instead of naming them
PASSED_ON = {
    "T01": set(units.EXEC_CODES.values()) | {"listen_refused", "port_taken", "config"},
    "P01": set(units.EXEC_CODES.values()),
    "T08": SSH_CODES,
    "T09": set(gateway_host.CODES.values()) | {"keys_file", "settings"},
    "T04": GATEWAY_CODES | {"target_refused", "target_denied"},
    "A01": GATEWAY_CODES,
    "A04": GATEWAY_CODES,
    "A05": GATEWAY_CODES,
    "P06": GATEWAY_CODES,
    **{check: {rule.code for rule in gpu_health.RULES if rule.check == check} for check in {rule.check for rule in gpu_health.RULES}},
}
# Codes of SSH that only the worker's own tunnel, and never a login of the health check, or only another check ends with
ELSEWHERE = {"T08": {"listen_refused", "port_taken", "target_refused", "target_denied"}}
# Causes that can't be had on a test host, and are held against recorded inputs of real ones instead (tests/unit)
RECORDED = {"U02", "U03", "U04", "U05", "U08", "V03", "V04", "V05"}


def reached(function):
    """Return the source trees of a probe and of all of its module that it calls."""
    module = inspect.getmodule(inspect.unwrap(function))
    known = {node.name: node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.FunctionDef)}
    found, left = {}, [function.__name__ if function.__name__ in known else _name_of(function, known)]
    while left:
        name = left.pop()
        if name in known and name not in found:
            found[name] = known[name]
            left += [node.func.id for node in ast.walk(known[name]) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return found.values()


def _name_of(function, known):
    """Return the name of a probe that a decorator wrapped."""
    return next(name for name, node in known.items() if ast.get_docstring(node) == function.__doc__)


def codes_of(function):
    """Return the codes that a probe names itself."""
    found = set()
    for tree in reached(function):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("bad", "warn", "_why") and node.args:
                position = 1 if node.func.id == "_why" else 0
                found |= _values(node.args[position])
    return found


def _values(node):
    """Return the texts that an expression may come to, as far as it names them."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, ast.IfExp):
        return _values(node.body) | _values(node.orelse)
    return set().union(*map(_values, node.values)) if isinstance(node, ast.BoolOp) else set()


def words_of(function):
    """Return all words in a probe: what is no code of bad() may come from a table of its own."""
    return {node.value for tree in reached(function) for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("check", catalog.CHECKS, ids=lambda check: check.id)
def test_check_has_a_probe(check):
    assert (check.id in REMOTE) != (check.id in LOCAL)


def test_probe_has_a_check():
    assert set(REMOTE) - {"nodeport"} | set(LOCAL) == set(catalog.BY_ID)


def test_every_remote_probe_is_on_the_side_of_its_check():
    assert {name for name in WORKER if catalog.BY_ID[name].side != catalog.WORKER} == set()
    assert {name for name in gateway.PER_MACHINE if catalog.BY_ID[name].side != catalog.GATEWAY} == set()


@pytest.mark.parametrize("name", sorted(set(REMOTE) - {"nodeport"}))
def test_code_has_a_cause(name):
    missing = codes_of(REMOTE[name]) - set(catalog.BY_ID[name].causes)
    assert not missing - ELSEWHERE.get(name, set()) - GATEWAY_CODES


@pytest.mark.parametrize("name", sorted(set(REMOTE) - {"nodeport"}))
def test_cause_has_a_code(name):
    causes, named = set(catalog.BY_ID[name].causes) - {""}, words_of(REMOTE[name])
    if inspect.getmodule(inspect.unwrap(REMOTE[name])) is tailnet or name in RECORDED:
        return
    assert causes <= named | PASSED_ON.get(name, set()), "no probe ever says so"


def test_ssh_code_has_a_cause():
    assert SSH_CODES - ELSEWHERE["T08"] <= set(catalog.BY_ID["T08"].causes)
    assert {"listen_refused", "port_taken"} <= set(catalog.BY_ID["T01"].causes)
    assert {"target_refused", "target_denied"} <= set(catalog.BY_ID["T04"].causes)


def test_heal_is_done_by_a_task():
    tasks = yaml.safe_load((ROOT / "playbooks" / "heal_worker.yml").read_text(encoding="utf-8"))
    conditions = " ".join(re.findall(r"'(\w+)'", str(tasks)))
    assert {check.heal for check in catalog.CHECKS if check.heal} <= set(conditions.split())


def test_check_has_a_fault_and_a_fault_a_check():
    assert {fault.root for fault in FAULTS} == set(catalog.BY_ID)
    for fault in FAULTS:
        assert not fault.code or fault.code in catalog.BY_ID[fault.root].causes, fault.name


@pytest.mark.parametrize("name", ["T01", "T08", "T09", "G11", "C03", "C04", "C05", "K04", "P01", "P03", "P07", "P02"])
def test_cause_has_a_fault_or_a_reason(name):
    reasons = {
        "T01": {"sandbox", "folder", "config", "port_taken", ""},  # of systemd: tests/unit/health/test_evidence.py
        "T08": {"config", ""},  # of ssh: tests/unit/tunnel/test_tunnel.py
        "T09": {"include", "keys_file", "selinux", ""},  # SELinux: tests/hosts/test_selinux.py, with a kernel that enforces
        "G11": {"timeout", "name", ""},
        "C03": set(),
        "C04": {""},
        "C05": {""},
        "K04": set(),
        "P01": {"sandbox", "folder", "credential", "account", "program", ""},
        "P03": {"old", ""},
        "P07": set(),
        "P02": {"traceback"},
    }
    faults = {fault.code for fault in FAULTS if fault.root == name}
    assert set(catalog.BY_ID[name].causes) - faults <= reasons[name]


def test_no_decision_rests_on_words_that_a_code_has():
    """Rewording a cause changes no diagnosis: nothing but the place that writes it down knows it."""
    causes = {entry.cause for entry in protocol.CODES.values()} | {cause for check in catalog.CHECKS for cause, _remedy in check.causes.values()}
    for path in (ROOT / "plugins").rglob("*.py"):
        if path.name == "protocol.py" or path.parent.name == "checks":
            continue
        compared = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Compare)]
        words = {node.value for tree in compared for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        words -= {"provider not implemented"}  # of the gateway's log
        assert not [word for word in words if len(word.split()) > 2 and any(word in cause for cause in causes)], path
