# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether GPUs do what may be expected of their models: runs gpu_program for each alone, for all at once and between
them, judges, and remembers.

A model has an expectation where one was measured, or where NVIDIA publishes a figure for it. What a GPU has to reach is
a share of that, chosen with care not to refuse a GPU that is well; it is no figure of NVIDIA's. Bandwidths are in GB/s.
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time
from typing import Any, Callable, Dict, List, Optional

from ansible_collections.beta9.workers.plugins.module_utils.nvidia import gpu_program, gpu_record
from ansible_collections.beta9.workers.plugins.module_utils.health import engine

# The least of what this program measured on one such GPU each, idle before, driver 580.159.04 (docs/guides/gpus.md)
MEASURED = {
    "NVIDIA H100 80GB HBM3": {"device_to_device": 2927, "gflops": 4047},
    "NVIDIA H200": {"device_to_device": 4101, "gflops": 4046},
}
MEASURED_SHARE = 0.8
# Bandwidth of the memory of others as NVIDIA's data sheets have it, by the name that the driver gives
PUBLISHED = {
    "NVIDIA A100-SXM4-80GB": 2039,
    "NVIDIA A40": 696,
    "NVIDIA L4": 300,
    "NVIDIA L40": 864,
    "NVIDIA L40S": 864,
}
MEMORY_SHARE = 0.6  # of the published bandwidth: a copy within the GPU
LINK_SHARE = 0.6  # of what the link of this host carries: a copy from or to the host
PEER_SHARE = 0.7  # of the median of the GPUs of one model on this host, where there are at least three
BETWEEN_SHARE = 0.5  # likewise, for copies to and from other GPUs: which of them are far away differs
# What PCIe carries in one direction, GB/s a lane by GT/s: 8b/10b up to the second generation, then 128b/130b
LANES = {2.5: 0.25, 5.0: 0.5, 8.0: 0.985, 16.0: 1.969, 32.0: 3.938, 64.0: 7.563}
ALONE_SECONDS, TOGETHER_SECONDS = {"quick": 1.0, "full": 10.0}, {"quick": 2.0, "full": 60.0}
BETWEEN_SECONDS = {"quick": 0.02, "full": 0.5}  # for each copy, of which eight GPUs have 56
BUDGET_SECONDS = {"quick": 240.0, "full": 1200.0}  # with GPUs that hang; without, a small part of it
CHILD_SECONDS = {"quick": 25.0, "full": 180.0}
DCGM_SECONDS = 900.0
# what can be expected, and its unit
EXPECTED = {"device_to_device": "GB/s", "host_to_device": "GB/s", "device_to_host": "GB/s", "gflops": "GFLOP/s"}

# run(command, seconds, stdin) -> (exit status or None at the time limit, output)
Run = Callable[[List[str], float, Optional[str]], Any]


class CannotTry(Exception):
    """No GPU can be tried. The text says why."""


def run(command: List[str], seconds: float, stdin: Optional[str] = None) -> Any:
    """Run a command within a time limit."""
    ran = engine.run_command(command, seconds, stdin, apart=True)
    return ran.status, ran.output if ran.output else ran.errors


def _program(runner: Run, arguments: List[str], seconds: float) -> Any:
    """Return what gpu_program prints, {"error"} where it prints nothing."""
    source = gpu_program.__loader__.get_source(gpu_program.__name__)  # type: ignore[union-attr]
    status, output = runner([sys.executable, "-I", "-"] + arguments, seconds, source)
    if status is None:
        return {"error": f"did not end within {int(seconds)} s: the driver hangs"}
    try:
        return json.loads(output)
    except ValueError:
        return {"error": f"ended with {status}: {(output.strip().splitlines() or ['nothing'])[-1][:200]}"}


def busy(runner: Run) -> List[str]:
    """Return the UUIDs of the GPUs that compute for somebody."""
    try:
        _status, output = runner(["nvidia-smi", "--query-compute-apps=gpu_uuid", "--format=csv,noheader"], 15.0, None)
    except OSError:
        return []
    return sorted({line.strip() for line in output.splitlines() if line.startswith("GPU-")})


def listed(runner: Run, wanted: str = "") -> List[Dict[str, Any]]:
    """Return the GPUs to try, of all or of those that beta9_gpu_ids names. Raises CannotTry."""
    found = _program(runner, ["list"], 30.0)
    if isinstance(found, dict):
        raise CannotTry(f"CUDA does not list the GPUs: {found['error']}")
    names = {name.strip() for name in wanted.split(",") if name.strip()}
    return [gpu for gpu in found if not names or names & {str(gpu["device"]), gpu["uuid"]}]


def measure(
    runner: Run, gpus: List[Dict[str, Any]], mode: str, clock: Callable[[], float] = time.monotonic
) -> Dict[str, Dict[str, Any]]:
    """Return {uuid: {"alone": what gpu_program found, "together": the same while all others were tried, "between": its
    copies from and to others}}."""
    end = clock() + BUDGET_SECONDS[mode]
    found: Dict[str, Dict[str, Any]] = {gpu["uuid"]: {} for gpu in gpus}

    def one(gpu: Dict[str, Any], phase: str, seconds: float) -> None:
        left = min(CHILD_SECONDS[mode], end - clock())
        answer: Dict[str, Any] = {"error": "there was no time left"}
        if left > 0:
            answer = _program(runner, [str(gpu["device"]), f"{seconds:g}"], left)
        found[gpu["uuid"]][phase] = answer

    for gpu in gpus:
        one(gpu, "alone", ALONE_SECONDS[mode])
    healthy = [gpu for gpu in gpus if "error" not in found[gpu["uuid"]]["alone"]]
    if len(healthy) > 1:
        threads = [threading.Thread(target=one, args=(gpu, "together", TOGETHER_SECONDS[mode])) for gpu in healthy]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left = min(CHILD_SECONDS[mode], end - clock())
        copies = _between(runner, [gpu["device"] for gpu in healthy], mode, left)
        for gpu in healthy:
            found[gpu["uuid"]]["between"] = [
                entry for entry in copies if gpu["device"] in (entry["source"], entry["target"])
            ]
    return found


def _between(runner: Run, devices: List[int], mode: str, seconds: float) -> List[Dict[str, Any]]:
    """Return the copies between GPUs. Where there is no answer, each has the error."""
    arguments = ["between", ",".join(map(str, devices)), f"{BETWEEN_SECONDS[mode]:g}"]
    answer = _program(runner, arguments, seconds) if seconds > 0 else {"error": "there was no time left"}
    if isinstance(answer, list):
        return answer
    return [dict(answer, source=one, target=other) for one in devices for other in devices if one != other]


def expectation(
    gpu: Dict[str, Any], link: Dict[str, float], overrides: Dict[str, Dict[str, float]]
) -> Dict[str, float]:
    """Return the least figures of a GPU: the operator's word, else of its model and of its link; {} where there is
    none."""
    found = {name: MEASURED_SHARE * value for name, value in MEASURED.get(gpu["name"], {}).items()}
    if gpu["name"] in PUBLISHED:
        found["device_to_device"] = MEMORY_SHARE * PUBLISHED[gpu["name"]]
    lane = LANES.get(link.get("max_speed", 0))
    if lane:
        found["host_to_device"] = found["device_to_host"] = LINK_SHARE * lane * link["max_width"]
    return dict(found, **{name: float(value) for name, value in overrides.get(gpu["name"], {}).items()})


def _wrong(found: Dict[str, Any], when: str) -> List[str]:
    """Return what went wrong, whatever the speed."""
    if "error" in found:
        return [f"{when}: {found['error']}"]
    words = (
        ("memory_wrong", "memory does not keep what is written"),
        ("copies_wrong", "a copy differs"),
        ("products_wrong", "a matrix product is wrong"),
    )
    return [f"{when}: {text}" for name, text in words if found.get(name)]


def _slow(found: Dict[str, Any], least: Dict[str, float]) -> List[str]:
    reasons = []
    for name, unit in EXPECTED.items():
        if name in least and found[name] < least[name]:
            text = "%s: expected at least %.1f %s, found %.1f"
            reasons.append(text % (name.replace("_", " "), least[name], unit, found[name]))
    link = found.get("link") or {}
    if link and (link["speed"] < link["max_speed"] or link["width"] < link["max_width"]):
        reasons.append(
            f"PCIe under load: expected {link['max_speed']:g} GT/s x{link['max_width']:g}, found {link['speed']:g} "
            f"GT/s x{link['width']:g}"
        )
    return reasons


def judge(
    gpus: List[Dict[str, Any]], found: Dict[str, Dict[str, Any]], overrides: Dict[str, Dict[str, float]]
) -> List[Dict[str, Any]]:
    """Return each GPU with "outcome", "reasons", "measured" and "expected"."""
    results = []
    for gpu in gpus:
        alone, together = found[gpu["uuid"]]["alone"], found[gpu["uuid"]].get("together")
        reasons = _wrong(alone, "alone") + (_wrong(together, "all at once") if together else [])
        least = expectation(gpu, alone.get("link") or {}, overrides)
        if "error" not in alone:
            reasons += _slow(alone, least)
        measured = {name: round(alone[name], 1) for name in (*EXPECTED, "allocated_mib", "products") if name in alone}
        copies = [entry for entry in found[gpu["uuid"]].get("between", ()) if "error" not in entry]
        if copies:
            measured["between_gpus"] = round(statistics.median(entry["gb_s"] for entry in copies), 1)
            measured["direct_copies"] = sum(entry["direct"] for entry in copies)
        results.append(
            dict(
                gpu,
                outcome=gpu_record.PASSED,
                reasons=reasons,
                measured=measured,
                expected={name: round(value, 1) for name, value in least.items()},
            )
        )
    blamed = blame([entry for gpu in gpus for entry in found[gpu["uuid"]].get("between", ())])
    for result in results:
        result["reasons"] += _behind(result, results) + blamed.get(result["device"], [])
        result["outcome"] = gpu_record.FAILED if result["reasons"] else gpu_record.PASSED
    return results


def blame(copies: List[Dict[str, Any]]) -> Dict[int, List[str]]:
    """Return {device: what is wrong} for copies between GPUs: as few GPUs as explain all copies that failed, and both
    where it can't be told which of two it is."""
    wrong = {
        (entry["source"], entry["target"]): entry.get("error", "the copy differs")
        for entry in copies
        if entry.get("error") or entry.get("wrong")
    }
    found: Dict[int, List[str]] = {}
    while wrong:
        touched = [device for pair in wrong for device in pair]
        most = max(map(touched.count, touched))
        for device in sorted(device for device in set(touched) if touched.count(device) == most):
            pairs = sorted(pair for pair in wrong if device in pair)
            names = ", ".join(f"{source} to {target}" for source, target in pairs)
            found[device] = [f"between GPUs: {names}: {wrong[pairs[0]]}"]
        wrong = {pair: why for pair, why in wrong.items() if not found.keys() & set(pair)}
    return found


def _behind(result: Dict[str, Any], results: List[Dict[str, Any]]) -> List[str]:
    """Return in what a GPU is far behind those of its model on this host."""
    reasons = []
    for name, share in (("device_to_device", PEER_SHARE), ("gflops", PEER_SHARE), ("between_gpus", BETWEEN_SHARE)):
        values = [
            other["measured"][name]
            for other in results
            if other["name"] == result["name"] and name in other["measured"]
        ]
        if len(values) > 2 and result["measured"].get(name, 1e12) < share * statistics.median(values):
            reasons.append(
                f"{name.replace('_', ' ')}: found {result['measured'][name]:.1f}, where others of this model have "
                f"{statistics.median(values):.1f}"
            )
    return reasons


def dcgm_failures(output: str) -> List[str]:
    """Return the tests of dcgmi diag --json that failed, as texts. Raises ValueError for what is no answer of it."""
    document = json.loads(output[output.index("{") :])
    found = []

    def walk(node: Any, name: str) -> None:
        if isinstance(node, dict):
            name = str(node.get("name", name))
            if str(node.get("status", "")).lower() == "fail":
                who = node.get("gpu_ids", node.get("gpu_id", node.get("entity_id", "")))
                found.append(f"dcgmi diag: {name} failed{f' on GPU {who}' if who != '' else ''}")
            for value in node.values():
                walk(value, name)
        elif isinstance(node, list):
            for value in node:
                walk(value, name)

    walk(document, "?")
    return found


def diagnose(runner: Run) -> Optional[List[str]]:
    """Return what NVIDIA's own diagnosis finds wrong; None where it is not installed or does not answer."""
    try:
        _status, output = runner(["dcgmi", "diag", "--run", "2", "--json"], DCGM_SECONDS, None)
        return dcgm_failures(output)
    except (OSError, ValueError):
        return None


def accept(mode: str, wanted: str, overrides: Dict[str, Dict[str, float]], driver: str, runner: Run) -> Dict[str, Any]:
    """Try the GPUs. Return the record: {"mode", "driver", "epoch", "seconds", "gpus", "dcgm"}. Raises CannotTry."""
    start = time.monotonic()
    gpus, taken = listed(runner, wanted), busy(runner)
    idle = [gpu for gpu in gpus if gpu["uuid"] not in taken]
    results = judge(idle, measure(runner, idle, mode), overrides)
    in_use = [
        dict(gpu, outcome=gpu_record.IN_USE, reasons=["a program computes on it"], measured={}, expected={})
        for gpu in gpus
        if gpu["uuid"] in taken
    ]
    failures = diagnose(runner) if mode == "full" and idle and not taken else None
    for result in results:
        mine = [
            text
            for text in failures or ()
            if " on GPU " not in text or text.rpartition(" on GPU ")[2] == str(result["device"])
        ]
        result["reasons"] += mine
        result["outcome"] = gpu_record.FAILED if result["reasons"] else result["outcome"]
    dcgm = "not run" if failures is None else "passed" if not failures else "failed"
    everything = sorted(results + in_use, key=lambda gpu: gpu["device"])
    seconds = round(time.monotonic() - start, 1)
    return {
        "mode": mode,
        "driver": driver,
        "epoch": round(time.time()),
        "seconds": seconds,
        "dcgm": dcgm,
        "gpus": everything,
    }
