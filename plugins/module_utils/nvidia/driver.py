# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: facts of a host with NVIDIA GPUs and the operator's desired state in, a plan or problems out.

Sources of the table: device ids and chips from Debian's pci.ids 0.0~2025.06.09; the branches that know a generation
from the *.ids lists of Debian's nvidia-detect 550.163.01 (470 knows Kepler and no Ada, 535 knows Ada and Hopper and no
Kepler, 550 knows no Blackwell); flavours from NVIDIA's driver installation guide (open modules need Turing or newer;
Blackwell and data-centre GPUs since Grace Hopper need them); 580 is the last branch for Maxwell, Pascal and Volta.
"""

from __future__ import annotations

import re
from typing import Any, Iterator, NamedTuple

from ansible_collections.beta9.workers.plugins.module_utils.host import preflight, systems

OPEN, CLOSED = "open", "closed"
NEWER = 9999
CLOSED_NEWEST = 619  # NVIDIA's installation guide of branch 620 has open modules alone


class Generation(NamedTuple):
    """One GPU generation: its PCI device ids, the oldest and newest driver branch known to drive it, its flavours, best
    first."""

    name: str
    ids: tuple
    oldest: int
    newest: int
    flavours: tuple


GENERATIONS = (
    Generation("kepler", ((0x0FA0, 0x103F), (0x1180, 0x11FF), (0x1280, 0x130B)), 418, 470, (CLOSED,)),
    Generation("maxwell", ((0x1340, 0x143F), (0x1617, 0x1667), (0x174D, 0x17FF)), 418, 580, (CLOSED,)),
    Generation("pascal", ((0x15C2, 0x15FF), (0x1725, 0x172F), (0x1B00, 0x1D80)), 418, 580, (CLOSED,)),
    Generation("volta", ((0x1D81, 0x1DFF),), 418, 580, (CLOSED,)),
    Generation("turing", ((0x1E02, 0x1FFF), (0x2182, 0x21FF)), 418, NEWER, (OPEN, CLOSED)),
    Generation("ampere", ((0x2080, 0x20FF), (0x2200, 0x22A2), (0x2414, 0x25FF)), 470, NEWER, (OPEN, CLOSED)),
    Generation("hopper", ((0x22A3, 0x23FF),), 535, NEWER, (OPEN, CLOSED)),
    Generation("ada", ((0x2681, 0x28FF),), 535, NEWER, (OPEN, CLOSED)),
    Generation("blackwell", ((0x2900, 0x3340),), 570, NEWER, (OPEN,)),
)
OLDER = Generation("older than Kepler", (), 0, 390, (CLOSED,))
UNKNOWN = Generation("newer than this table", (), 580, NEWER, (OPEN,))


def generation(device_id: str) -> Generation:
    """Return the generation of a PCI device id (0x2330)."""
    number = int(device_id, 16)
    for entry in GENERATIONS:
        if any(low <= number <= high for low, high in entry.ids):
            return entry
    return OLDER if number < 0x1340 else UNKNOWN


def branch_of(version: str) -> int:
    """Return 580 of "580.95.05", or 0."""
    match = re.match(r"(\d+)", version or "")
    return int(match.group(1)) if match else 0


def installed_version(facts: dict[str, Any]) -> str:
    """Return the version of what is on disk: of the kernel module, else of the libraries, else an empty string."""
    return facts["module"]["version"] or facts["library"]["version"]


def newer_kernels(facts: dict[str, Any]) -> list[str]:
    """Return the kernels, newer than the running one, that the driver's module is installed for."""
    return [kernel for kernel in facts["other_kernels"] if systems.numbers(kernel) > systems.numbers(facts["kernel"])]


def pending_reboot(facts: dict[str, Any], policy: str = "if_needed") -> str:
    """Return why a reboot is due, or an empty string. Read from the host's state, never from what a run changed."""
    if not facts["gpus"]:
        return ""
    loaded, module, library = facts["loaded"], facts["module"]["version"], facts["library"]["version"]
    if loaded:
        other = next((version for version in (module, library) if version and version != loaded), "")
        if other:
            return f"the loaded driver is {loaded}, the installed one {other}"
        if policy == "always" and facts["installed_epoch"] > facts["boot_epoch"]:
            return f"driver {loaded} was installed after the last boot"
        return ""
    if module and facts["nouveau"]:
        return f"nouveau is loaded, the installed driver {module} is not"
    if not module and newer_kernels(facts):
        return f"the driver's module is built for kernel {', '.join(newer_kernels(facts))}, and {facts['kernel']} runs"
    return ""


def state(facts: dict[str, Any]) -> str:
    """Return working, pending (a reboot makes it work), idle (on disk, not loaded), broken (libraries without a
    module), or absent."""
    if pending_reboot(facts):
        return "pending"
    if facts["loaded"]:
        return "working"
    if facts["module"]["version"]:
        return "idle"
    return "broken" if facts["library"]["version"] or facts["other_kernels"] else "absent"


def plan(facts: dict[str, Any], system: dict[str, Any] | None, desired: dict[str, Any]) -> dict[str, Any]:
    """Return what is to be done, and what prevents it.

    facts: of module nvidia_host. system: the variables of the distribution, None when it is not supported. desired: the
    role's variables without their prefix. Returns {"action": none|keep|install|upgrade, "problems": [...], ...}.
    """
    found: dict[str, Any] = {
        "action": "none",
        "problems": [],
        "hold": [],
        "generations": sorted({generation(gpu["device"]).name for gpu in facts["gpus"]}),
        "text": "",
    }
    if not facts["gpus"]:
        found["text"] = "not applicable: no NVIDIA GPU on the PCI bus"
        if desired["required"]:
            found["problems"] = [
                preflight.problem(
                    "GPU",
                    "an NVIDIA GPU on the PCI bus (nvidia_required)",
                    "none",
                    "Check lspci -d 10de:, the VM's passthrough, power and seating.",
                )
            ]
        return found
    found["problems"] = list(_desired_problems(desired))
    now, foreign = state(facts), facts["library"]["how"] in ("run", "image")
    if now == "absent" or (now == "broken" and not foreign):
        found["action"] = "install"
    elif desired["upgrade"] and not foreign:
        found["action"] = "upgrade"
    else:
        found.update(action="keep", text=_kept(facts, now))
        if desired["upgrade"] or now == "broken":
            found["problems"].append(_foreign(facts, now))
    if found["action"] in ("install", "upgrade"):
        found.update(_choice(facts, system, desired, found["problems"]))
    prebuilt = found["action"] != "keep" or any(name.startswith("linux-modules-nvidia") for name in facts["packages"])
    if system and prebuilt and facts["kernel_package"]:
        found["hold"] = [_fill(name, 0, OPEN, facts) for name in system["hold"]]
    return found


def _kept(facts: dict[str, Any], now: str) -> str:
    words = {
        "run": "by NVIDIA's .run installer",
        "image": "with the image, by no package",
        "package": "from packages",
        "": "by unknown means",
    }
    text = (
        f"driver {installed_version(facts) or facts['loaded']} was installed {words[facts['library']['how']]} and "
        f"is left as it is"
    )
    notes = {
        "pending": "; reboot pending: " + pending_reboot(facts),
        "idle": "; it is not loaded",
        "broken": "; it has no module for kernel " + facts["kernel"],
    }
    return text + notes.get(now, "")


def _foreign(facts: dict[str, Any], now: str) -> dict[str, Any]:
    remedy = (
        "Remove it with nvidia-uninstall" if facts["library"]["how"] == "run" else "Remove it as the image's maker says"
    )
    expected = (
        "a module for the running kernel"
        if now == "broken"
        else "a driver from packages, to upgrade it (nvidia_upgrade)"
    )
    return preflight.problem(
        "driver",
        expected,
        _kept(facts, now),
        remedy + ", then run again; or fix it by hand and run without nvidia_upgrade.",
    )


def _desired_problems(desired: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if not re.match(r"\d{3}$", str(desired["branch"])):
        yield preflight.problem(
            "nvidia_branch", "a driver branch like 580", desired["branch"] or "nothing", "Correct nvidia_branch."
        )
    if desired["version"] and branch_of(desired["version"]) != branch_of(str(desired["branch"])):
        yield preflight.problem(
            "nvidia_version",
            f"a version of branch {desired['branch']}",
            desired["version"],
            "Set nvidia_branch and nvidia_version to the same branch.",
        )


def _choice(
    facts: dict[str, Any], system: dict[str, Any] | None, desired: dict[str, Any], problems: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return source, branch, flavour and packages; append to problems what prevents it."""
    if system is None or facts["architecture"] not in system["architectures"]:
        supported = (
            f"one of {systems.words()}" if system is None else "architecture " + " or ".join(system["architectures"])
        )
        problems.append(
            preflight.problem(
                "NVIDIA driver",
                supported,
                f"{facts['system']} on {facts['architecture']}",
                "Install the driver by hand (a working one is left as it is), or set beta9_nvidia: false.",
            )
        )
        return {}
    source = desired["source"] or system["source"]
    if source not in system["sources"]:
        problems.append(
            preflight.problem(
                "nvidia_source", f"one of {', '.join(sorted(system['sources']))}", source, "Correct nvidia_source."
            )
        )
        return {}
    chosen = system["sources"][source]
    # a distribution's own archive holds one branch: nvidia_branch can't change that
    branch = int(chosen["branch"] or desired["branch"] if re.match(r"\d{3}$", str(desired["branch"])) else 0)
    kinds = [generation(gpu["device"]) for gpu in facts["gpus"]]
    flavour = _flavour(kinds, desired["flavour"], branch, problems)
    for kind in sorted(set(kinds)):
        if branch and not kind.oldest <= branch <= kind.newest:
            problems.append(_wrong_branch(kind, branch, source, chosen))
    if facts["secure_boot"] and not chosen["signed"] and not facts["secure_boot_key_enrolled"]:
        problems.append(_secure_boot(system))
    names = chosen["packages"][flavour]
    packages = [
        _fill(name, branch, flavour, facts)
        for name in names
        if facts["kernel_package"] or "{kernel_package}" not in name
    ]
    if fabric(facts, desired):
        name = desired["fabric_manager_package"] or chosen["fabric_manager"]
        if name:
            packages.append(_fill(name, branch, flavour, facts))
        else:
            problems.append(
                preflight.problem(
                    "fabric manager",
                    "a package of it, because there are NVSwitches",
                    f"none known for {facts['system']} from source {source}",
                    "Set nvidia_fabric_manager_package, or another nvidia_source.",
                )
            )
    repository = {
        key: _fill(value, branch, flavour, facts) if isinstance(value, str) else value
        for key, value in chosen["repository"].items()
    }
    repository.update({key: value for key, value in desired["repository"].items() if value})
    if repository.get("key_url") and not repository["key_fingerprint"]:
        problems.append(
            preflight.problem(
                "nvidia_repository_key_fingerprint",
                f"the fingerprint of the key at {repository['key_url']}",
                "none: this collection could not confirm it",
                "Take it from NVIDIA, by another way than the key itself, and set it.",
            )
        )
    return {
        "source": source,
        "branch": str(branch),
        "flavour": flavour,
        "packages": packages,
        "version": desired["version"],
        "only_branch": "" if chosen["branch"] else str(branch),
        "pin": desired["version"] or str(branch) if chosen["pin"] else desired["version"],
        "stream": _fill(chosen["stream"][flavour], branch, flavour, facts) if chosen["stream"] else "",
        "repository": repository if chosen["repository"] else {},
        "text": f"{', '.join(sorted({kind.name for kind in kinds}))} driver {desired['version'] or branch}, "
        f"{flavour} kernel modules, from {source}",
    }


def _flavour(kinds: list[Generation], desired: str, branch: int, problems: list[dict[str, Any]]) -> str:
    """Return the flavour that drives all GPUs, preferring the open one where each allows it."""
    common = [flavour for flavour in (OPEN, CLOSED) if all(flavour in kind.flavours for kind in kinds)]
    names = ", ".join(sorted({kind.name for kind in kinds}))
    if not common:
        problems.append(
            preflight.problem(
                "GPUs",
                "GPUs that one driver can serve",
                names,
                "Take the older or the newer GPUs out: no kernel modules serve both.",
            )
        )
    elif desired == CLOSED and OPEN in common and branch > CLOSED_NEWEST:
        problems.append(
            preflight.problem(
                "nvidia_flavour", "open, the only flavour since branch 620", CLOSED, "Unset nvidia_flavour."
            )
        )
    elif desired and desired not in common:
        problems.append(
            preflight.problem(
                "nvidia_flavour", " or ".join(common) + " for " + names, desired, "Unset nvidia_flavour, or correct it."
            )
        )
    return desired or (common or [OPEN])[0]


def _wrong_branch(kind: Generation, branch: int, source: str, chosen: dict[str, Any]) -> dict[str, Any]:
    known = f"{kind.oldest} to {kind.newest}" if kind.newest != NEWER else f"{kind.oldest} or newer"
    if chosen["branch"]:
        remedy = f"Source {source} has only branch {branch}: set another nvidia_source."
    elif kind.newest < 535:
        remedy = (
            "This GPU is too old for every branch that is still maintained: replace it, or install a driver by hand."
        )
    else:
        remedy = "Set nvidia_branch within that range."
    return preflight.problem(f"GPU generation {kind.name}", f"a driver of branch {known}", f"branch {branch}", remedy)


def _secure_boot(system: dict[str, Any]) -> dict[str, Any]:
    key = system["secure_boot_key"]
    return preflight.problem(
        "Secure Boot",
        "off, or the key that signs the host's own modules enrolled",
        f"on, and {key} is not enrolled: the kernel would refuse the driver",
        f"Either switch Secure Boot off in the firmware, or once, by hand: install dkms (it makes the key on its "
        f"first build; 'dkms generate_mok' makes it at once), run 'mokutil --import {key}' and choose a password, "
        f"reboot, choose 'Enroll MOK' on the console and type the password. Then run again.",
    )


def fabric(facts: dict[str, Any], desired: dict[str, Any]) -> bool:
    """Return whether the fabric manager belongs on this host."""
    return {"auto": facts["nvswitches"] > 0, "true": True, "false": False}[str(desired["fabric_manager"]).lower()]


def _devel(kernel: str) -> tuple[str, str]:
    """Return (package, version) of what modules of an EL kernel are built with: 5.14.0-503.el9.aarch64+64k needs
    kernel-64k-devel 5.14.0-503.el9."""
    version, _plus, variant = kernel.partition("+")
    return f"kernel-{variant}-devel" if variant else "kernel-devel", version.rpartition(".")[0]


def _fill(text: str, branch: int, flavour: str, facts: dict[str, Any]) -> str:
    """Fill in a package name or address of the distribution's variables."""
    devel, kernel_version = _devel(facts["kernel"])
    return text.format(
        kernel_devel=devel,
        kernel_version=kernel_version,
        branch=branch,
        open="-open" if flavour == OPEN else "",
        kernel=facts["kernel"],
        kernel_package=facts["kernel_package"],
        architecture=facts["architecture"],
        cuda_architecture={"aarch64": "sbsa"}.get(facts["architecture"], facts["architecture"]),
        debian_architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(facts["architecture"], facts["architecture"]),
    )
