#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: nvidia_host
short_description: Read which NVIDIA GPUs a host has, and the state of their driver
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Inspects the PCI bus, the driver that is loaded and the one that is installed, how it came there, and all that
    decides what may be done about it. Changes nothing.
  - Without a GPU on the bus nothing else is inspected, which makes it cheap on hosts that have none.
  - No command is waited for longer than ten seconds. A sick driver makes commands hang.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.reads]
options:
  verify:
    description:
      - Also call C(cuInit) and count the devices in a child process, and fail if the driver is not usable - not loaded,
        not all GPUs seen, persistence mode off, fabric manager of another version or not running.
    type: bool
    default: false
  persistence:
    description: With O(verify=true), whether persistence mode has to be on.
    type: bool
    default: true
  fabric_manager:
    description: With O(verify=true), whether the fabric manager has to run. By default if there are NVSwitches.
    type: bool
"""

EXAMPLES = r"""
- name: Read the state of the GPUs
  beta9.workers.nvidia_host:
  register: gpus

- name: See that CUDA works
  beta9.workers.nvidia_host:
    verify: true
"""

RETURN = r"""
facts:
  description: What was found. Versions are empty strings where there is none.
  returned: always
  type: dict
  sample:
    system: debian 12
    system_base: debian 12
    system_family: debian
    manager: apt
    kernel: 6.1.0-28-amd64
    kernel_package: amd64
    gpus: [{address: "0000:01:00.0", device: "0x2330"}]
    nvswitches: 0
    loaded: 580.95.05
    nouveau: false
    module: {version: 580.95.05, flavour: open, signer: "", path: /lib/modules/6.1.0-28-amd64/updates/dkms/nvidia.ko}
    library: {version: 580.95.05, path: /usr/lib/x86_64-linux-gnu/libnvidia-ml.so.580.95.05, how: package}
    other_kernels: []
    packages: {libnvidia-ml1: 580.95.05-1}
    held: [libnvidia-ml1]
    secure_boot: false
    persistence_unit: true
    persistence: true
    fabric_manager: {active: false, version: ""}
    cdi_devices: 2
cuda:
  description: What C(cuInit) answered.
  returned: with O(verify=true) and a GPU
  type: dict
  sample: {code: 0, count: 1, error: ""}
"""

import glob
import os
import platform
import re
from typing import Any, Iterator

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, preflight, systems
from ansible_collections.beta9.workers.plugins.module_utils.nvidia import gpu_host
from ansible_collections.beta9.workers.plugins.module_utils.health import engine

COMMAND_SECONDS = 10
SECURE_BOOT_KEYS = ("/var/lib/shim-signed/mok/MOK.der", "/var/lib/dkms/mok.pub")
UNITS = ("/etc/systemd/system/%s.service", "/usr/lib/systemd/system/%s.service", "/lib/systemd/system/%s.service")
CDI_FILES = ("/etc/cdi/nvidia.yaml", "/var/run/cdi/nvidia.yaml")
PACKAGES = re.compile(
    r"(lib)?(xnv|cuda|nvidia)|kmod-nvidia|linux-modules-nvidia|firmware-nvidia|xserver-xorg-video-nvidia"
)


def run(command: list[str]) -> tuple[int | None, str]:
    """Run a command; return (exit status or None at its time limit, output)."""
    ran = engine.run_command(command, COMMAND_SECONDS)
    return ran.status, ran.output


def packages() -> tuple[dict[str, str], list[str], list[str]]:
    """Return ({name: version}, [held names]) of the NVIDIA packages, and the kernel flavours (generic-hwe-24.04) that
    are kept up to date."""
    found, held, kernels = {}, [], []
    status, output = run(
        ["dpkg-query", "--show", "--showformat=${Package} ${Version} ${db:Status-Want} ${db:Status-Status}\n"]
    )
    for line in output.splitlines() if status == 0 else ():
        words = line.split()
        if len(words) == 4 and words[3] == "installed" and re.match(r"linux-image-[a-z]", words[0]):
            kernels.append(words[0][len("linux-image-") :])
        if len(words) == 4 and words[3] == "installed" and PACKAGES.match(words[0]):
            found[words[0]] = words[1]
            held += [words[0]] if words[2] == "hold" else []
    if not found and status != 0:
        status, output = run(["rpm", "--query", "--all", "--queryformat", "%{NAME} %{VERSION}-%{RELEASE}\n"])
        found = dict(line.split() for line in output.splitlines() if PACKAGES.match(line)) if status == 0 else {}
        try:
            with open("/etc/dnf/plugins/versionlock.list", encoding="utf-8") as stream:
                locks = stream.read()
        except OSError:
            locks = ""
        held = [name for name in found if re.search(f"^{re.escape(name)}-\\d", locks, re.M)]
    return found, sorted(held), sorted(kernels, key=len, reverse=True)


def cdi_devices() -> int:
    """Return the number of devices in the CDI specification."""
    for path in CDI_FILES:
        try:
            with open(path, encoding="utf-8") as stream:
                return len(gpu_host.cdi_names(stream.read()))
        except OSError:
            continue
    return 0


def key_enrolled(secure: bool | None) -> bool:
    """Return whether the key that signs the host's own modules is enrolled; False where Secure Boot is off or there is
    no such key."""
    if not secure:
        return False
    return any(
        os.path.exists(path) and "is already enrolled" in run(["mokutil", "--test-key", path])[1]
        for path in SECURE_BOOT_KEYS
    )


def gather() -> dict[str, Any]:
    """Return the facts of this host."""
    found = systems.identify(linux.os_release())
    gpus, switches = gpu_host.pci_devices()
    kernel = platform.release()
    facts = {
        "system": found.name,
        "system_base": found.system.name if found.system else "",
        "system_family": found.family,
        "architecture": platform.machine(),
        "kernel": kernel,
        "manager": linux.package_manager(),
        "gpus": gpus,
        "nvswitches": switches,
    }
    if not gpus:
        return facts
    version, library = gpu_host.library_version()
    module, secure = gpu_host.module_on_disk(run), gpu_host.secure_boot()
    names, held, kernels = packages()
    loaded = gpu_host.loaded_version()
    persistent = run(["nvidia-smi", "--query-gpu=persistence_mode", "--format=csv,noheader"]) if loaded else (1, "")
    stamps = [os.stat(path).st_ctime for path in (module["path"], library) if path and os.path.exists(path)]
    facts.update(
        loaded=loaded,
        nouveau=gpu_host.nouveau_loaded(),
        module=module,
        other_kernels=gpu_host.other_kernels(kernel),
        library={"version": version, "path": library, "how": gpu_host.installed_how(run, library)},
        kernel_package=next((name for name in kernels if name.split("-")[0] in kernel), ""),
        packages=names,
        held=held,
        secure_boot=secure,
        secure_boot_key_enrolled=key_enrolled(secure),
        boot_epoch=linux.boot_epoch(),
        installed_epoch=max(stamps + [0]),
        persistence_unit=any(os.path.exists(path % "nvidia-persistenced") for path in UNITS),
        persistence=persistent[0] == 0 and set(persistent[1].split()) == {"Enabled"},
        fabric_manager={
            "active": run(["systemctl", "is-active", "--quiet", "nvidia-fabricmanager"])[0] == 0,
            "version": (re.findall(r"\d+\.\d+[.\d]*", run(["nv-fabricmanager", "--version"])[1]) + [""])[0]
            if glob.glob("/usr/bin/nv-fabricmanager")
            else "",
        },
        cdi_devices=cdi_devices(),
    )
    return facts


def faults(facts: dict[str, Any], cuda: dict[str, Any], params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return what keeps the GPUs from being used."""
    fabric = facts["nvswitches"] > 0 if params["fabric_manager"] is None else params["fabric_manager"]
    manager = facts["fabric_manager"]
    if not facts["loaded"]:
        yield preflight.problem(
            "driver",
            "loaded",
            "nouveau is loaded instead" if facts["nouveau"] else "not loaded",
            "modprobe nvidia; dmesg | grep -i nvrm",
        )
        return
    if fabric and not (manager["active"] and manager["version"] == facts["loaded"]):
        found = f"version {manager['version'] or 'unknown'}, {'active' if manager['active'] else 'not active'}"
        yield preflight.problem(
            "fabric manager", f"active, version {facts['loaded']}", found, "systemctl status nvidia-fabricmanager"
        )
    if cuda["error"]:
        yield preflight.problem("CUDA", "cuInit to answer 0", cuda["error"], "nvidia-smi; dmesg | grep -i nvrm")
    elif cuda["count"] < 1:
        yield preflight.problem("CUDA", "at least one device", "none", "nvidia-smi; dmesg | grep -i xid")
    if params["persistence"] and not facts["persistence"]:
        yield preflight.problem(
            "persistence mode", "enabled on every GPU", "not", "systemctl status nvidia-persistenced"
        )


def seen(facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return problems of the number of GPUs. A GPU that is cut up (MIG) counts as one here as well."""
    status, output = run(["nvidia-smi", "-L"])
    count = len(re.findall(r"^GPU \d+:", output, re.M))
    if status is None:
        yield preflight.problem(
            "nvidia-smi",
            "an answer",
            f"none within {int(COMMAND_SECONDS)} s: the driver hangs",
            "dmesg | grep -i xid; reboot",
        )
    elif status != 0 or count < len(facts["gpus"]):
        found = f"{count}" if status == 0 else (output.strip().splitlines() or [f"exit status {status}"])[0]
        yield preflight.problem(
            "GPUs in nvidia-smi", f"{len(facts['gpus'])}, as on the PCI bus", found, "nvidia-smi; dmesg | grep -i xid"
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "verify": {"type": "bool", "default": False},
            "persistence": {"type": "bool", "default": True},
            "fabric_manager": {"type": "bool"},
        },
        supports_check_mode=True,
    )
    facts = gather()
    if not module.params["verify"] or not facts["gpus"]:
        module.exit_json(changed=False, facts=facts)
    cuda = gpu_host.cuda_devices(run)
    problems = list(faults(facts, cuda, module.params))
    problems += list(seen(facts)) if facts["loaded"] else []
    if problems:
        text = "; ".join(
            f"{entry['what']}: expected {entry['expected']}, found {entry['found']}. {entry['remedy']}"
            for entry in problems
        )
        module.fail_json(msg="the GPUs can't be used yet: " + text, facts=facts, cuda=cuda, problems=problems)
    module.exit_json(changed=False, facts=facts, cuda=cuda)


if __name__ == "__main__":
    main()
