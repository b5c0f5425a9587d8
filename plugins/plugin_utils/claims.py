# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts claim, and what decides about something besides themselves: the controller's files, the gateway's
machines, a step for all.

Each function takes a module's result, of which the types of the top level are known, and returns what is well-formed of
it. It raises ValueError, with what was expected and found, where the rest would be of no use.
"""

from __future__ import annotations

import re
from typing import Any, Callable

from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from ansible_collections.beta9.workers.plugins.module_utils.host import systems
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, records
from ansible_collections.beta9.workers.plugins.plugin_utils import plain

WORD = re.compile(r"[a-z0-9_]{1,32}\Z")
SYSTEM = re.compile(r"[a-z0-9._-]{1,64}( [a-z0-9._-]{1,64})?\Z")
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}\Z")
MARK = re.compile(r"[0-9a-f]{8,64}:[0-9a-f]{64}\Z")
CODE = re.compile(r"[a-z0-9_]{0,64}\Z")
MAX_FOUND, MAX_EVIDENCE = 2000, 8192  # characters
JOINED = {
    "gpu_count": int,
    "owner": str,
    "target_port": int,
    "nodeport": int,
    "addresses": list,
    "certificate": str,
    "tunnel": dict,
}
# The facts of host_preflight that tasks read of each host, or of all hosts at once
PREFLIGHT = {
    "architecture": str, "system": str, "system_family": str, "system_base": str, "manager": str, "agent_python": str,
    "agent_python_package": str, "memory_mib": int, "gpu_pci_count": int,
    "machine": dict, "connections": list, "commands": dict, "packages_unfinished": list, "agent_settings": dict,
    "token_marks": dict, "has_token": bool,
    "host_id": str, "copied": bool, "agent_quiet_seconds": float,
}  # fmt: skip


def identity(found: Any) -> dict[str, Any]:
    """Return the well-formed machine that a host says it has: machine_id, pool, provider and, one level deep, replaces;
    {} where there is none."""
    try:
        machine = {
            "machine_id": protocol.machine_id(found["machine_id"]),
            "pool": protocol.pool_name(found["pool"]),
            "provider": protocol.provider_name(found.get("provider", protocol.PROVIDER_DEFAULT)),
        }
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}
    before = identity(dict(found["replaces"], replaces=None)) if isinstance(found.get("replaces"), dict) else {}
    return dict(machine, replaces=before) if before else machine


def host_preflight(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result with facts of the known types."""
    facts = result.get("facts")
    if facts is None:
        return result
    for name, kind in PREFLIGHT.items():
        if not isinstance(facts.get(name), kind):
            raise ValueError(f"facts.{name}: expected a {kind.__name__}, found {type(facts.get(name)).__name__}")
    if not WORD.match(facts["architecture"]):
        raise ValueError(f"facts.architecture: expected a name like x86_64, found {facts['architecture']!r}")
    _system(facts)
    marks = {name: mark for name, mark in facts["token_marks"].items() if isinstance(mark, str) and MARK.match(mark)}
    k3s_mark = facts.get("k3s_mark") if MARK.match(str(facts.get("k3s_mark"))) else ""
    texts = {name: value for name, value in facts["agent_settings"].items() if isinstance(value, str)}
    offered = [uuid for uuid in facts.get("gpu_offered") or [] if isinstance(uuid, str) and GPU_UUID.match(uuid)]
    known = dict(
        machine=identity(facts["machine"]),
        token_marks=marks,
        k3s_mark=k3s_mark,
        agent_settings=texts,
        gpu_offered=offered,
    )
    return dict(result, facts=dict(facts, **known))


GPU_UUID = re.compile(r"(GPU|MIG)-[0-9a-zA-Z/-]{1,64}\Z")
GPU_TEXTS, GPU_FIGURES = ("name", "uuid", "outcome"), ("measured", "expected")


def gpu_acceptance(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result with well-formed GPUs and UUIDs."""
    gpus = [_accepted(gpu) for gpu in result.get("gpus") or [] if isinstance(gpu, dict)]
    offered = [uuid for uuid in result.get("offered") or [] if isinstance(uuid, str) and GPU_UUID.match(uuid)]
    problems = [plain.text(problem, MAX_FOUND) for problem in result.get("problems") or [] if isinstance(problem, str)]
    return dict(result, offered=offered, problems=problems, **({"gpus": gpus} if "gpus" in result else {}))


def _accepted(gpu: dict[str, Any]) -> dict[str, Any]:
    """Return one GPU of an acceptance: texts, and figures by their names."""
    found: dict[str, Any] = {
        name: plain.text(gpu[name], 200) if isinstance(gpu.get(name), str) else "" for name in GPU_TEXTS
    }
    found["device"] = gpu["device"] if isinstance(gpu.get("device"), int) else -1
    found["reasons"] = [plain.text(reason, MAX_FOUND) for reason in gpu.get("reasons") or [] if isinstance(reason, str)]
    for table in GPU_FIGURES:
        figures = gpu[table] if isinstance(gpu.get(table), dict) else {}
        found[table] = {
            name: value for name, value in figures.items() if WORD.match(name) and isinstance(value, (int, float))
        }
    return found


def machine_credentials(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result with well-formed identities."""
    dropped: Any = result.get("dropped")
    found = dict(result, machine=identity(result.get("machine")))
    if not identity(dropped):
        return {name: value for name, value in found.items() if name != "dropped"}
    mark = dropped.get("token_mark")
    return dict(
        found,
        dropped=dict(identity(dropped), **({"token_mark": mark} if isinstance(mark, str) and MARK.match(mark) else {})),
    )


def _system(facts: dict[str, Any]) -> None:
    """Raise ValueError unless the system that a host says it has is a name, and what it is made of one of the table."""
    if not isinstance(facts.get("system"), str) or not SYSTEM.match(facts["system"]):
        raise ValueError(f"facts.system: expected a name like debian 12, found {facts.get('system')!r}")
    for name, known in (
        ("system_base", {row.name for row in systems.SYSTEMS}),
        ("system_family", {row.family for row in systems.SYSTEMS}),
    ):
        if facts.get(name) not in known | {""}:
            raise ValueError(
                f"facts.{name}: expected one of {', '.join(sorted(known))} or nothing, found {facts.get(name)!r}"
            )


def nvidia_host(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result where its system is one of the table, which names a file of the role."""
    facts = result.get("facts")
    if facts:
        _system(facts)
    return result


def k3s_preflight(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result where its files are names of files in a folder of the controller."""
    for name in (result.get("files") or {}).values():
        _file_name("files", name)
    return result


def k3s_install(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result where what the host asks for are names of files in a folder of the controller."""
    for entry in result.get("needed") or []:
        if not isinstance(entry, dict):
            raise ValueError(f"needed: expected name and dest, found {entry!r}")
        _file_name("needed", entry.get("name"))
        if not isinstance(entry.get("dest"), str):
            raise ValueError("needed: expected the dest of a file, found none")
    return result


def worker_health(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result with observations of the worker's own checks, each once, and an identity of short texts."""
    if "observations" not in result:
        return result
    found = dict(result, observations=observations(result["observations"], (catalog.WORKER,)))
    texts = {name: value for name, value in (found.get("identity") or {}).items() if isinstance(value, str)}
    return dict(found, identity={name: plain.text(value, 200) for name, value in texts.items()})


def gateway_side(result: dict[str, Any]) -> dict[str, Any]:
    """Return the result with observations of the gateway's side, of all machines and of each."""
    if "observations" not in result:
        return result
    sides = (catalog.GATEWAY,)
    machines = {name: observations(entries, sides) for name, entries in (result.get("machines") or {}).items()}
    return dict(result, observations=observations(result["observations"], sides), machines=machines)


def observations(found: Any, sides: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return well-formed observations of the checks that are looked at from these sides. Others are no business of who
    sent them."""
    if not isinstance(found, list):
        raise ValueError(f"observations: expected a list, found {type(found).__name__}")
    result = {}
    for entry in found:
        if not isinstance(entry, dict):
            raise ValueError(f"observations: expected mappings, found {type(entry).__name__}")
        identity = entry.get("id")
        if (
            not isinstance(identity, str)
            or (identity != "nodeport" or catalog.GATEWAY not in sides)
            and (identity not in catalog.BY_ID or catalog.BY_ID[identity].side not in sides)
        ):
            continue
        for name, kind in (("outcome", str), ("code", str), ("found", str), ("evidence", str), ("data", dict)):
            if not isinstance(entry.get(name, kind()), kind):
                raise ValueError(
                    f"observation {identity}: expected {name} to be a {kind.__name__}, found "
                    f"{type(entry[name]).__name__}"
                )
        seconds = entry.get("seconds", 0.0)
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise ValueError(f"observation {identity}: expected a number of seconds, found {type(seconds).__name__}")
        seen = records.observation(
            entry.get("outcome", ""),
            plain.text(entry.get("found", ""), MAX_FOUND),
            entry.get("code", "") if CODE.match(entry.get("code", "")) else "",
            plain.text(entry.get("evidence", ""), MAX_EVIDENCE),
            identity,
            float(seconds),
        )
        result[identity] = dict(seen, data=_joined(entry.get("data", {})))
    return list(result.values())


def _joined(found: dict[str, Any]) -> dict[str, Any]:
    """Return those data of an observation, in their types, that checks of two sides compare."""
    return {
        name: found[name]
        for name, kind in JOINED.items()
        if isinstance(found.get(name), kind) and not isinstance(found[name], bool)
    }


def _file_name(what: str, name: Any) -> None:
    if not isinstance(name, str) or not FILE_NAME.match(name):
        raise ValueError(f"{what}: expected the name of a file without a directory, found {str(name)[:80]!r}")


CHECKS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    check.__name__: check
    for check in (
        worker_health,
        host_preflight,
        gpu_acceptance,
        machine_credentials,
        nvidia_host,
        k3s_preflight,
        k3s_install,
    )
}
