# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to look at the GPUs on the worker, and at their driver."""

from __future__ import annotations

import os
import re

from ansible_collections.beta9.workers.plugins.module_utils import gpu_host, host
from ansible_collections.beta9.workers.plugins.module_utils.health.engine import Unknown, bad, not_applicable, ok
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import machine

NVML_COUNT = "import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlDeviceGetCount())"
MISMATCH = re.compile(r"version mismatch", re.I)  # NVML says it in several ways, and nvidia-smi in its own
# NVIDIA's Xid catalogue, gravest first; what is left over is told without a meaning
XIDS = (("lost", {79}), ("memory", {48, 63, 64, 94, 95}))
XID_PROGRAM = {13, 31, 43, 45, 68, 109}  # as NVIDIA's device plugin counts them: errors of programs, not of the GPU


def gpu(probe):
    """Leave a host alone that has no GPU and is not expected to have one."""

    def run(context):
        expected, present = context.config["gpus"], context.shared("pci", host.nvidia_pci_count)
        if not expected and not present:
            return not_applicable("no NVIDIA device, and none expected")
        return probe(context, expected if expected is not None else present, present)

    run.__doc__ = probe.__doc__
    return run


@gpu
def pci(_context, expected, present):
    """U01: the bus."""
    return ok("%d" % present, gpu_count=present) if present >= expected else bad("", "%d, expected %d" % (present, expected), gpu_count=present)


def runner(context, timeout):
    """Return a function that runs a command as gpu_host wants it: (exit status or None at its time limit, output)."""

    def run(command):
        try:
            ran = context.run(*command, timeout=timeout, hangs=True)
        except Unknown:
            return 127, ""
        return ran.status, ran.output

    return run


@gpu
def driver(context, _expected, _present):
    """U02: what is loaded, and what is installed."""
    loaded, nouveau = gpu_host.loaded_version(), gpu_host.nouveau_loaded()
    module = gpu_host.module_on_disk(runner(context, 3.0))
    library, _path = gpu_host.library_version()
    if not loaded:
        if nouveau:
            return bad("nouveau", "loaded: nouveau")
        found = "loaded: neither nvidia nor nouveau; on disk: module %s, library %s" % (module["version"] or "none", library or "none")
        if not module["version"]:
            return bad("no_module" if library else "not_installed", found)
        return bad("secure_boot" if gpu_host.secure_boot() and not module["signer"] else "not_loaded", found)
    for code, version in (("mismatch", module["version"]), ("library", library)):
        if version and loaded != "unknown" and version != loaded:
            return bad(code, "loaded %s, installed %s" % (loaded, version))
    return ok(loaded)


def listed(context):
    """Return what nvidia-smi -L said. Unknown when there is no nvidia-smi."""
    return context.shared("nvidia-smi -L", lambda: context.run("nvidia-smi", "-L", timeout=9, hangs=True))


@gpu
def smi(context, _expected, present):
    """U03: nvidia-smi within ten seconds."""
    try:
        ran = listed(context)
    except Unknown:
        return bad("missing", "nvidia-smi is not installed")
    if ran.status is None:
        return bad("hang", "nvidia-smi did not end within 9 s")
    if ran.status != 0:
        code = "mismatch" if MISMATCH.search(ran.output) else "driver" if "communicate with the NVIDIA driver" in ran.output else ""
        return bad(code, "nvidia-smi ended with %d" % ran.status, ran.output)
    count = len(re.findall(r"^GPU \d+:", ran.output, re.M))
    return bad("count", "nvidia-smi shows %d, the bus %d" % (count, present), ran.output) if count < present else ok("%d GPUs" % count, gpu_count=count)


@gpu
def cuda(context, _expected, present):
    """U04: cuInit and the number of devices, in a child process: a driver that crashes takes only that with it."""
    answer = gpu_host.cuda_devices(runner(context, 12))
    if answer["error"]:
        code = {802: "fabric", 803: "mismatch", 100: "count"}.get(answer["code"], "")
        if answer["code"] is None:
            code = answer["why"] if answer["why"] in ("hang", "missing") else ""
        return bad(code, answer["error"])
    if answer["count"] < present and "MIG" not in listed(context).output:  # a GPU that is cut up counts as one slice in CUDA
        return bad("count", "CUDA sees %d devices, the bus %d" % (answer["count"], present))
    return ok("%d devices%s" % (answer["count"], compiler(context)))


def compiler(context):
    """Return the version of nvcc for information: programs bring their own CUDA."""
    try:
        found = re.search(r"release ([\d.]+)", context.run("nvcc", "--version", timeout=2, hangs=True).output)
    except Unknown:
        return ""
    return ", nvcc %s" % found.group(1) if found else ""


@gpu
def nvml(context, _expected, present):
    """U05: NVML through the agent's own Python."""
    if not os.path.exists(machine.PYTHON):
        raise Unknown("the agent is not installed")
    ran = context.run(machine.PYTHON, "-I", "-c", NVML_COUNT, timeout=9, hangs=True)
    if ran.status is None:
        return bad("hang", "NVML did not answer within 9 s")
    if ran.status != 0:
        code = "package" if "No module named" in ran.output else "mismatch" if MISMATCH.search(ran.output) else ""
        return bad(code, (ran.output.strip().splitlines() or ["no answer"])[-1], ran.output)
    count = int(ran.output.strip() or 0)
    return ok("%d GPUs" % count) if count >= present else bad("count", "NVML sees %d, the bus %d" % (count, present))


@gpu
def xid(context, _expected, _present):
    """U08: the kernel's log of this boot. The gravest one gives the cause."""
    ran = context.run("journalctl", "-k", "-b", "--no-pager", "-o", "cat", "-q", "-g", "NVRM: Xid")
    found = re.findall(r"NVRM: Xid.*", ran.output)
    if not found:
        return ok("none since boot")
    numbers = {int(number) for number in re.findall(r"NVRM: Xid \([^)]*\): (\d+)", ran.output)}
    code = next((code for code, group in XIDS if numbers & group), "")
    if numbers and numbers <= XID_PROGRAM:
        code = "program"
    text = ", ".join(str(number) for number in sorted(numbers))
    return bad(code, "%d Xid errors since boot%s" % (len(found), ": " + text if text else ""), "\n".join(found[-4:]))


PROBES = {
    "U01": pci,
    "U02": driver,
    "U03": smi,
    "U04": cuda,
    "U05": nvml,
    "U08": xid,
}
