# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says of its NVIDIA GPUs and their driver: read-only, standard library, one function per fact.

run is a function (command list) -> (exit status or None at its time limit, output): a sick driver makes commands hang.
"""

from __future__ import annotations

import glob
import os
import re
from typing import Any, Callable, Iterable

from ansible_collections.beta9.workers.plugins.module_utils.host import linux

MODULES = "/sys/module"
LIBRARIES = (
    "/usr/lib/*-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib/*-linux-gnu/nvidia/current/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
    "/usr/lib/libnvidia-ml.so.1",
    "/usr/local/lib/libnvidia-ml.so.1",
)
Run = Callable[["list[str]"], "tuple[int | None, str]"]
VERSION = re.compile(r"\.so\.(\d+\.\d+(?:\.\d+)*)$")
# in a child process: a driver that crashes or hangs takes only that with it
CUDA_INIT = (
    "import ctypes, os; os.environ.pop('CUDA_VISIBLE_DEVICES', None); cuda = ctypes.CDLL('libcuda.so.1'); code = "
    "cuda.cuInit(0); count = ctypes.c_int(); cuda.cuDeviceGetCount(ctypes.byref(count)); print(code, count.value)"
)
CUDA_ERRORS = {
    "100": "no device",
    "101": "invalid device",
    "802": "system not ready: the fabric manager does not run, or is of another version",
    "803": "driver and CUDA library are of different versions",
    "999": "unknown error",
}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def pci_devices(root: str = linux.PCI) -> tuple[list[dict[str, Any]], int]:
    """Return (gpus, nvswitches): NVIDIA's display controllers as {"address", "device"}, and the number of its bridges
    of class 0680."""
    found = list(linux.nvidia_pci_devices(root))
    gpus = [address for address, kind in found if kind.startswith("0x03")]
    devices = [
        {"address": address, "device": _read(os.path.join(root, address, "device")) or "0xffff"} for address in gpus
    ]
    return devices, sum(1 for _address, kind in found if kind.startswith("0x0680"))


def given_away(root: str = linux.PCI) -> dict[str, str]:
    """Return {address: driver} of the GPUs that are bound to a driver that hands them to virtual machines."""
    found = {}
    for path in sorted(glob.glob(os.path.join(root, "*"))):
        driver = os.path.basename(os.path.realpath(os.path.join(path, "driver")))
        is_gpu = _read(os.path.join(path, "vendor")) == "0x10de" and _read(os.path.join(path, "class")).startswith(
            "0x03"
        )
        if is_gpu and driver in linux.GIVEN_AWAY:
            found[os.path.basename(path)] = driver
    return found


def loaded_version(root: str = MODULES) -> str:
    """Return the version of the loaded driver; "unknown" if it is loaded and does not tell; an empty string if it is
    not loaded."""
    if not os.path.isdir(os.path.join(root, "nvidia")):
        return ""
    return _read(os.path.join(root, "nvidia", "version")) or "unknown"


def nouveau_loaded(root: str = MODULES) -> bool:
    """Return whether nouveau drives the GPUs."""
    return os.path.isdir(os.path.join(root, "nouveau"))


def library_version(patterns: Iterable[str] = LIBRARIES) -> tuple[str, str]:
    """Return (version, path) of the driver's user-space library on disk, or two empty strings."""
    for pattern in patterns:
        for path in sorted(glob.glob(pattern)):
            real = os.path.realpath(path)
            match = VERSION.search(real)
            if match and os.path.exists(real):
                return match.group(1), real
    return "", ""


def module_on_disk(run: Run, kernel: str | None = None) -> dict[str, Any]:
    """Return {"version", "flavour", "signer", "path"} of the driver's module for a kernel (the running one), all empty
    when there is none."""
    empty = {"version": "", "flavour": "", "signer": "", "path": ""}
    # Debian calls it nvidia-current and has "nvidia" as an alias, which modinfo knows only for the running kernel
    for name in ("nvidia", "nvidia-current", "nvidia-current-open"):
        status, output = run(["modinfo"] + (["-k", kernel] if kernel else []) + [name])
        if status is None or status == 127:
            return empty
        fields = dict(re.findall(r"^(version|license|signer|filename): +(.*)$", output, re.M))
        if status == 0 and re.match(r"\d+\.", fields.get("version", "")):
            flavour = "open" if "GPL" in fields.get("license", "") else "closed"
            return {
                "version": fields["version"],
                "flavour": flavour,
                "signer": fields.get("signer", ""),
                "path": fields.get("filename", ""),
            }
    return empty


def other_kernels(running: str, root: str = "/lib/modules") -> list[str]:
    """Return the kernels besides the running one that have a module of the driver."""
    found = set()
    for directory in glob.glob(os.path.join(root, "*")):
        if os.path.basename(directory) == running:
            continue
        for pattern in (
            "updates/dkms",
            "updates",
            "extra",
            "extra/*",
            "kernel/nvidia*",
            "kernel/drivers/video/nvidia*",
            "weak-updates/*",
        ):
            if glob.glob(os.path.join(directory, pattern, "nvidia.ko*")) or glob.glob(
                os.path.join(directory, pattern, "nvidia-current*.ko*")
            ):
                found.add(os.path.basename(directory))
    return sorted(found)


def installed_how(run: Run, library: str) -> str:
    """Return package, run or image: who put the driver's library there. An empty string when there is none."""
    if not library:
        return ""
    if os.path.exists("/usr/bin/nvidia-uninstall") or os.path.exists("/usr/bin/nvidia-installer"):
        return "run"
    for command in (["dpkg-query", "--search", library], ["rpm", "--query", "--file", library]):
        if run(command)[0] == 0:
            return "package"
    return "image"


def secure_boot(path: str = "/sys/firmware/efi/efivars") -> bool | None:
    """Return whether the firmware enforces Secure Boot; False without UEFI; None when it can't be told."""
    if not os.path.isdir("/sys/firmware/efi"):
        return False
    for name in glob.glob(os.path.join(path, "SecureBoot-*")):
        try:
            with open(name, "rb") as stream:
                return stream.read()[4:5] == b"\x01"  # four bytes of attributes come first
        except OSError:
            break
    return None


def cdi_names(text: str) -> list[str]:
    """Return the devices that a CDI specification, as nvidia-ctk writes it, names."""
    part = re.search(r"^devices:(.*?)(?=^\S|\Z)", text.replace("\n- ", "\n  - "), re.M | re.S)
    return [name.strip("\"'") for name in re.findall(r"^\s+(?:- )?name: (\S+)", part.group(1) if part else "", re.M)]


def cuda_devices(run: Run, python: str = "/usr/bin/python3") -> dict[str, Any]:
    """Return {"code", "count", "error", "why"} of cuInit in a child process.

    code is None when it can't be called or does not end. why: hang, missing (no libcuda) or other, empty when cuInit
    answered.
    """
    status, output = run([python if os.path.exists(python) else "python3", "-I", "-c", CUDA_INIT])
    if status is None:
        return {"code": None, "count": 0, "error": "cuInit does not end: the driver hangs", "why": "hang"}
    match = re.match(r"(\d+) (\d+)$", output.strip())
    if status != 0 or not match:
        last = (output.strip().splitlines() or [f"exit status {status}"])[-1]
        why = "missing" if "libcuda" in last else "other"
        return {"code": None, "count": 0, "error": f"cuInit can't be called: {last}", "why": why}
    code, count = match.groups()
    error = (
        "" if code == "0" else f"cuInit answers error {code}{f' ({CUDA_ERRORS[code]})' if code in CUDA_ERRORS else ''}"
    )
    return {"code": int(code), "count": int(count), "error": error, "why": ""}
