# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at the GPUs on the worker, and at their driver."""

from __future__ import annotations

import json
import os
import re
from typing import Any, Callable

from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.module_utils.nvidia import gpu_health, gpu_host, gpu_record
from ansible_collections.beta9.workers.plugins.module_utils.health import xids
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import (
    Context,
    Ran,
    Unknown,
    bad,
    not_applicable,
    ok,
    warn,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import agent
from ansible_collections.beta9.workers.plugins.module_utils.health.records import Observation

PODS = re.compile(r"kubepods")
MISMATCH = re.compile(r"version mismatch", re.I)  # NVML says it in several words, and nvidia-smi in its own


def gpu(probe: Callable[[Context, int, int], Observation]) -> Callable[[Context], Observation]:
    """Leave a host alone that has no GPU and is not expected to have one."""

    def run(context: Context) -> Observation:
        expected, present = context.config["gpus"], context.shared("pci", linux.nvidia_pci_count)
        if not expected and not present:
            return not_applicable("no NVIDIA device, and none expected")
        return probe(context, expected if expected is not None else present, present)

    run.__doc__ = probe.__doc__
    return run


@gpu
def pci(_context: Context, expected: int, present: int) -> Observation:
    """U01: the bus."""
    return (
        ok(f"{present}", gpu_count=present)
        if present >= expected
        else bad("", f"{present}, expected {expected}", gpu_count=present)
    )


def runner(context: Context, timeout: float) -> gpu_host.Run:
    """Return a function that runs a command as gpu_host wants it: (exit status or None at its time limit, output)."""

    def run(command: list[str]) -> tuple[int | None, str]:
        try:
            ran = context.run(*command, timeout=timeout, hangs=True)
        except Unknown:
            return 127, ""
        return ran.status, ran.output

    return run


@gpu
def driver(context: Context, _expected: int, _present: int) -> Observation:
    """U02: what is loaded, and what is installed."""
    loaded, nouveau = gpu_host.loaded_version(), gpu_host.nouveau_loaded()
    module = gpu_host.module_on_disk(runner(context, 3.0))
    library, _path = gpu_host.library_version()
    if not loaded:
        if nouveau:
            return bad("nouveau", "loaded: nouveau")
        found = (
            f"loaded: neither nvidia nor nouveau; on disk: module {module['version'] or 'none'}, library "
            f"{library or 'none'}"
        )
        if not module["version"]:
            return bad("no_module" if library else "not_installed", found)
        return bad("secure_boot" if gpu_host.secure_boot() and not module["signer"] else "not_loaded", found)
    for code, version in (("mismatch", module["version"]), ("library", library)):
        if version and loaded != "unknown" and version != loaded:
            return bad(code, f"loaded {loaded}, installed {version}")
    return ok(loaded)


def listed(context: Context) -> Ran:
    """Return what nvidia-smi -L said. Unknown when there is no nvidia-smi."""
    return context.shared("nvidia-smi -L", lambda: context.run("nvidia-smi", "-L", timeout=9, hangs=True))


@gpu
def smi(context: Context, _expected: int, present: int) -> Observation:
    """U03: nvidia-smi within ten seconds."""
    try:
        ran = listed(context)
    except Unknown:
        return bad("missing", "nvidia-smi is not installed")
    if ran.status is None:
        return bad("hang", "nvidia-smi did not end within 9 s")
    if ran.status != 0:
        code = (
            "mismatch"
            if MISMATCH.search(ran.output)
            else "driver"
            if "communicate with the NVIDIA driver" in ran.output
            else ""
        )
        return bad(code, f"nvidia-smi ended with {ran.status}", ran.output)
    count = len(re.findall(r"^GPU \d+:", ran.output, re.M))
    if count < present:
        return bad("count", f"nvidia-smi shows {count}, the bus {present}", ran.output)
    return ok(f"{count} GPUs", gpu_count=records.offered_gpus(count))


@gpu
def cuda(context: Context, _expected: int, present: int) -> Observation:
    """U04: cuInit and the number of devices, in a child process: a driver that crashes takes only that with it."""
    answer = gpu_host.cuda_devices(runner(context, 12))
    if answer["error"]:
        code = {802: "fabric", 803: "mismatch", 100: "count"}.get(answer["code"], "")
        if answer["code"] is None:
            code = answer["why"] if answer["why"] in ("hang", "missing") else ""
        return bad(code, answer["error"])
    # a GPU that is cut up counts as one slice in CUDA
    if answer["count"] < present and "MIG" not in listed(context).output:
        return bad("count", f"CUDA sees {answer['count']} devices, the bus {present}")
    return ok(f"{answer['count']} devices{compiler(context)}")


def compiler(context: Context) -> str:
    """Return the version of nvcc for information: programs bring their own CUDA."""
    try:
        found = re.search(r"release ([\d.]+)", context.run("nvcc", "--version", timeout=2, hangs=True).output)
    except Unknown:
        return ""
    return f", nvcc {found.group(1)}" if found else ""


def asked(context: Context) -> Ran:
    """Return what NVML told the agent's own Python of all GPUs, as the command that asked it. One start for all
    checks."""
    if not os.path.exists(agent.PYTHON):
        raise Unknown("the agent is not installed")
    program = gpu_health.__loader__.get_source(gpu_health.__name__)  # type: ignore[union-attr]  # of a file or a zip
    return context.shared(
        "nvml", lambda: context.run(agent.PYTHON, "-I", "-", timeout=9, stdin=program, hangs=True, apart=True)
    )


def reading(context: Context) -> dict[str, Any]:
    """Return the reading of gpu_health. Unknown where NVML does not answer, of which U05 tells."""
    ran = asked(context)
    if ran.status != 0:
        raise Unknown("NVML does not answer to the agent's Python: see U05")
    return json.loads(ran.output)


@gpu
def nvml(context: Context, _expected: int, present: int) -> Observation:
    """U05: NVML through the agent's own Python."""
    ran = asked(context)
    if ran.status is None:
        return bad("hang", "NVML did not answer within 9 s")
    if ran.status != 0:
        code = "package" if "No module named" in ran.errors else "mismatch" if MISMATCH.search(ran.errors) else ""
        return bad(code, (ran.errors.strip().splitlines() or ["no answer"])[-1], ran.errors)
    count = len(json.loads(ran.output)["gpus"])
    return ok(f"{count} GPUs") if count >= present else bad("count", f"NVML sees {count}, the bus {present}")


@gpu
def xid(context: Context, _expected: int, _present: int) -> Observation:
    """U08: the kernel's log of this boot. The gravest one gives the cause."""
    ran = context.run("journalctl", "-k", "-b", "--no-pager", "-o", "cat", "-q", "-g", "NVRM: Xid")
    found = re.findall(r"NVRM: Xid.*", ran.output)
    if not found:
        return ok("none since boot")
    numbers = {int(number) for number in re.findall(r"NVRM: Xid \([^)]*\): (\d+)", ran.output)}
    code = xids.code_of(numbers)
    text = f"{len(found)} Xid errors since boot{': ' + xids.text(numbers) if numbers else ''}"
    return (
        ok(text + ". NVIDIA's catalogue asks for nothing")
        if code == "ignore"
        else bad(code, text, "\n".join(found[-4:]))
    )


def judged(check: str) -> Callable[[Context], Observation]:
    """U09 to U22: what NVML tells of every GPU, as gpu_health judges it."""

    @gpu
    def run(context: Context, _expected: int, _present: int) -> Observation:
        seen = reading(context)
        findings = [finding for finding in gpu_health.findings(seen) if finding.check == check]
        if findings:
            text = "; ".join(f"GPU {finding.gpu} {finding.text}" for finding in findings)
            return (warn if findings[0].severity == gpu_health.WARN else bad)(
                findings[0].code, text, gpus=sorted({finding.gpu for finding in findings})
            )
        told = gpu_health.reporting(seen, check)
        return ok(f"{int(told)} GPUs") if told else not_applicable("no GPU of this host reports it")

    run.__doc__ = judged.__doc__
    return run


@gpu
def pcie(context: Context, _expected: int, _present: int) -> Observation:
    """U16: the links of the GPUs that compute just now; a GPU that is idle slows its link down on purpose."""
    seen = reading(context)
    if not any(map(gpu_health.in_use, seen["gpus"])):
        return not_applicable("no GPU computes just now, and an idle one slows its link down on purpose")
    return judged("U16")(context)


def in_pod(pid: int) -> bool | None:
    """Return whether a process is a pod's; None where it has ended, or is of another PID namespace."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="replace") as stream:
            return bool(PODS.search(stream.read()))
    except OSError:
        return None


def name_of(pid: int) -> str:
    """Return the name of a process."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return "?"


@gpu
def processes(context: Context, _expected: int, _present: int) -> Observation:
    """U23: who computes on the GPUs."""
    found = []
    for one in reading(context)["gpus"]:
        strangers = [pid for pid in one.get("processes") or () if in_pod(pid) is False]
        if strangers:
            found.append(f"GPU {one['index']}: {', '.join(f'{name_of(pid)} ({pid})' for pid in strangers)}")
    return warn("", "; ".join(found)) if found else ok("no process outside pods")


def bound(context: Context) -> Observation:
    """U24: GPUs that are bound to a driver for virtual machines, which U01 does not count."""
    away, present = gpu_host.given_away(), context.shared("pci", linux.nvidia_pci_count)
    expected = context.config["gpus"]
    if not away:
        return ok("none is given away") if present else not_applicable("no NVIDIA device")
    text = ", ".join(f"{name}: {why}" for name, why in sorted(away.items()))
    if expected is not None and present < expected:
        return bad("", f"{text}; {present} of {expected} GPUs are left to this host")
    return ok(f"given to virtual machines: {text}")


@gpu
def accepted(_context: Context, _expected: int, _present: int) -> Observation:
    """U25: what the last acceptance found, and whether a GPU that failed is offered all the same."""
    record = gpu_record.kept()
    if not record:
        return not_applicable("no acceptance was made")
    failed = [one for one in record["gpus"] if one["outcome"] == gpu_record.FAILED]
    ids = records.gpu_ids()
    named = set(ids.split(","))
    shown = [one for one in failed if not ids or named & {one["uuid"], str(one.get("device"))}]
    if shown:
        text = "; ".join(f"GPU {one.get('device')}: {', '.join(map(str, one.get('reasons', [])))}" for one in shown)
        return bad("failed", text)
    if record.get("driver") != gpu_host.loaded_version():
        return warn("outdated", f"accepted with driver {record.get('driver')}, loaded {gpu_host.loaded_version()}")
    passed = sum(one["outcome"] == gpu_record.PASSED for one in record["gpus"])
    return ok(f"{int(passed)} passed{f', {len(failed)} failed and are not offered' if failed else ''}")


PROBES = {
    "U01": pci,
    "U02": driver,
    "U03": smi,
    "U04": cuda,
    "U05": nvml,
    "U08": xid,
    **{
        check: judged(check)
        for check in ("U09", "U10", "U11", "U12", "U13", "U14", "U15", "U17", "U18", "U19", "U20", "U21", "U22")
    },
    "U16": pcie,
    "U23": processes,
    "U24": bound,
    "U25": accepted,
}
