# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The GPUs, from the PCI bus to what a pod gets of them."""

from __future__ import annotations

from ansible_collections.beta9.workers.plugins.module_utils.health.checks.terms import (
    Check,
    JOIN,
    ONBOARD,
    REGISTER_AGAIN,
    SAFE,
)
from ansible_collections.beta9.workers.plugins.module_utils.health.remedies import (
    CONTROLLER,
    WORKER,
    first,
    inspect,
    person,
    repair,
)

ACCEPT = repair(
    CONTROLLER,
    "ansible-playbook accept_gpus.yml -l {host}",
    "Drain the machine first: a GPU that computes is left alone.",
)
REBOOT = repair(WORKER, "systemctl reboot")
KERNEL_GPU = "dmesg | grep -i -e xid -e nvrm || true"
CHECKS = (
    Check(
        "U01",
        "gpu.pci",
        "The expected NVIDIA devices are on the PCI bus",
        WORKER,
        "A GPU that the bus does not show can't be used by any software.",
        {
            "": (
                "fewer NVIDIA devices than expected are on the PCI bus",
                inspect(
                    WORKER,
                    "grep -l 0x10de /sys/bus/pci/devices/*/vendor",
                    "Check the passthrough of the virtual machine, power and seating.",
                ),
            )
        },
        explained_by=("U24",),
        component="gpu",
    ),
    Check(
        "U02",
        "gpu.driver",
        "The NVIDIA driver is loaded, in the version that is installed",
        WORKER,
        "nvidia-smi and every container with a GPU fail.",
        {
            "not_installed": ("no NVIDIA driver is installed", ONBOARD),
            "no_module": (
                "the driver's libraries are installed, and no kernel module for the running kernel",
                first(
                    "Remove what keeps the module from being built: /var/lib/dkms/nvidia*/*/build/make.log.", ONBOARD
                ),
            ),
            "not_loaded": ("the NVIDIA kernel module is installed and not loaded", repair(WORKER, "modprobe nvidia")),
            "secure_boot": (
                "Secure Boot is on and the NVIDIA kernel module is not signed: the kernel refuses it",
                person("Enroll the key that signs it (mokutil --import), or switch Secure Boot off in the firmware."),
            ),
            "nouveau": (
                "nouveau is loaded instead of the NVIDIA driver",
                first("Blacklist nouveau and rebuild the initramfs, or let onboarding do both.", ONBOARD),
            ),
            "mismatch": ("the loaded driver is another version than the installed one: a reboot is pending", REBOOT),
            "library": (
                (
                    "the loaded driver is another version than the installed libraries: the module was not rebuilt, or "
                    "a reboot is pending"
                ),
                REBOOT,
            ),
            "": ("the NVIDIA driver is not usable", ONBOARD),
        },
        ("U01",),
        component="gpu",
    ),
    Check(
        "U03",
        "gpu.smi",
        "nvidia-smi answers and shows every GPU",
        WORKER,
        "Agent and device plugin see what nvidia-smi sees.",
        {
            "hang": ("nvidia-smi does not end: the driver hangs", REBOOT),
            "missing": ("nvidia-smi is not installed", ONBOARD),
            "mismatch": ("the driver's libraries are of another version than the loaded driver", REBOOT),
            "driver": ("nvidia-smi does not reach the driver", inspect(WORKER, KERNEL_GPU)),
            "count": (
                "nvidia-smi shows fewer GPUs than the PCI bus",
                inspect(WORKER, KERNEL_GPU, "A GPU that fell off the bus needs a reboot or service."),
            ),
            "": ("nvidia-smi fails", inspect(WORKER, "nvidia-smi")),
        },
        ("U02",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U04",
        "gpu.cuda",
        "CUDA initialises",
        WORKER,
        "Programs in containers fail even where nvidia-smi works.",
        {
            "fabric": (
                "CUDA error 802: the fabric manager does not run, or is of another version than the driver",
                inspect(
                    WORKER,
                    "systemctl --no-pager status nvidia-fabricmanager || true",
                    "Install and start the fabric manager in the driver's version.",
                ),
            ),
            "mismatch": ("CUDA error 803: libcuda is of another version than the loaded driver", REBOOT),
            "missing": ("there is no libcuda.so.1", ONBOARD),
            "hang": ("cuInit does not end: the driver hangs", REBOOT),
            "count": ("CUDA sees fewer devices than the PCI bus", inspect(WORKER, KERNEL_GPU)),
            "": ("cuInit fails", inspect(WORKER, KERNEL_GPU)),
        },
        ("U03",),
        ("U09", "U19", "U21"),
        component="gpu",
        timeout_seconds=15.0,
    ),
    Check(
        "U05",
        "gpu.nvml",
        "The agent's Python reaches NVML",
        WORKER,
        "The agent registers the machine with gpu_count 0.",
        {
            "package": ("nvidia-ml-py is missing from the agent's environment", ONBOARD),
            "mismatch": ("the NVML library is of another version than the loaded driver", REBOOT),
            "hang": ("NVML does not answer: the driver hangs", REBOOT),
            "count": ("NVML sees fewer GPUs than the PCI bus", inspect(WORKER, KERNEL_GPU)),
            "": ("NVML does not answer to the agent's Python", inspect(WORKER, "nvidia-smi")),
        },
        ("P03",),
        ("U01", "U02", "U03", "P04"),
        component="gpu",
        timeout_seconds=10.0,
        heals={"package": "agent_install"},
        heal_class=SAFE,
    ),
    Check(
        "U06",
        "gpu.advertised",
        "The gateway knows as many GPUs as the host has",
        JOIN,
        "The gateway schedules GPU work elsewhere, or sends more than there is.",
        {"": ("the machine is registered with another number of GPUs than the host has", REGISTER_AGAIN)},
        ("U03", "C02"),
        ("U05", "U09", "U19"),
        component="gpu",
        heal="agent_restart",
        heal_class=SAFE,
    ),
    Check(
        "U07",
        "gpu.allocatable",
        "Kubernetes can allocate the GPUs",
        WORKER,
        "Pods that ask for a GPU stay pending.",
        {
            "": (
                "the node offers fewer nvidia.com/gpu than expected: device plugin or runtime class",
                inspect(
                    WORKER,
                    "k3s kubectl describe node",
                    "Device plugin or runtime class are missing, or the device plugin's pod does not run in "
                    "kube-system.",
                ),
            )
        },
        ("U03", "K04"),
        ("U09", "U12", "U19"),
        component="gpu+k3s",
        timeout_seconds=10.0,
    ),
    Check(
        "U08",
        "gpu.xid",
        "The driver reported no Xid error since boot",
        WORKER,
        "An Xid error points to a failing GPU, driver or program.",
        {
            "lost": (
                "a GPU fell off the bus (Xid 79)",
                first(
                    "Reboot. If it comes back, check power, temperature and seating, then have the GPU serviced.",
                    inspect(WORKER, KERNEL_GPU),
                ),
            ),
            "power": (
                "a GPU's auxiliary power is not connected (Xid 54)",
                inspect(WORKER, KERNEL_GPU, "Check the GPU's power cables; if they sit well, have it serviced."),
            ),
            "memory": (
                "GPU memory errors (Xid 48, 63, 64, 94, 95, 140, 156 or 157)",
                inspect(
                    WORKER, "nvidia-smi -q -d ECC,ROW_REMAPPER", "Reboot. If it comes back, have the GPU replaced."
                ),
            ),
            "reset": (
                "a GPU stopped and has to be reset (Xid 46, 62, 109, 110, 119, 120, 136, 143, 155 or 158)",
                inspect(
                    WORKER,
                    KERNEL_GPU,
                    "Drain the machine, then reset the GPU or reboot. If it comes back, contact the GPU's support.",
                ),
            ),
            "nvlink": (
                "NVLink errors (Xid 74 or 144 to 150)",
                inspect(
                    WORKER,
                    "nvidia-smi nvlink --status",
                    "Drain the machine and reboot. If it comes back on the same link, have the GPU or its "
                    "board serviced.",
                ),
            ),
            "program": (
                "programs made errors on the GPU (Xid 8, 11, 13, 25, 31, 32, 39, 43, 45, 68, 69 or 80)",
                inspect(WORKER, KERNEL_GPU, "Check the program whose process the message names."),
            ),
            "": (
                "the driver reported Xid errors",
                inspect(WORKER, KERNEL_GPU, "NVIDIA's Xid catalogue says what each number requires."),
            ),
        },
        ("U02",),
        ("U09", "U11", "U12", "U17", "U20", "U21"),
        component="gpu",
        severity="warn",
    ),
    Check(
        "U09",
        "gpu.answers",
        "Every GPU answers, and asks for no recovery",
        WORKER,
        "Nothing that is started on this GPU can go well.",
        {
            "lost": (
                "a GPU fell off the bus",
                REBOOT._replace(
                    prose="Drain the machine first. If it comes back, check power, temperature and seating, then have "
                    "the GPU serviced."
                ),
            ),
            "reset": (
                "a GPU has to be reset",
                REBOOT._replace(
                    prose="Drain the machine first. Where nothing uses the GPU, nvidia-smi --gpu-reset -i INDEX "
                    "does as well."
                ),
            ),
            "recovery": (
                "the driver asks for a recovery of a GPU",
                REBOOT._replace(
                    prose="Drain the machine first. Where it asks for a reset, nvidia-smi --gpu-reset -i INDEX "
                    "does as well."
                ),
            ),
            "": ("a GPU does not answer", inspect(WORKER, KERNEL_GPU)),
        },
        ("U05",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U10",
        "gpu.ecc_mode",
        "ECC is on where the GPU has it on by default",
        WORKER,
        "Errors of the memory stay unseen, and results may be wrong.",
        {
            "disabled": (
                "ECC of a GPU is switched off",
                first("Drain the machine, and reboot it after:", repair(WORKER, "nvidia-smi --ecc-config=1")),
            ),
            "pending": ("ECC of a GPU changes with the next reboot", REBOOT._replace(prose="Drain the machine first.")),
        },
        ("U05",),
        ("U09",),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U11",
        "gpu.ecc_errors",
        "No GPU had an uncorrectable memory error since its driver was loaded",
        WORKER,
        "Programs on the GPU were ended, or may have computed with wrong data.",
        {
            "": (
                "a GPU had uncorrectable memory errors",
                REBOOT._replace(prose="Drain the machine first. If they come back, have the GPU replaced."),
            ),
            "sram": (
                "a GPU's SRAM had more uncorrectable errors than NVIDIA allows",
                inspect(
                    WORKER,
                    "nvidia-smi -q -d ECC",
                    "Drain the machine and have the GPU replaced: this is what NVIDIA replaces GPUs for.",
                ),
            ),
        },
        ("U05",),
        ("U09", "U12"),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U12",
        "gpu.memory_repair",
        "No memory of a GPU waits for its repair",
        WORKER,
        "The GPU computes with memory that is known to be broken.",
        {
            "failed": (
                "a GPU has no spare rows left for broken memory",
                inspect(
                    WORKER,
                    "nvidia-smi -q -d ROW_REMAPPER",
                    "Drain the machine and have the GPU replaced: this is what NVIDIA replaces GPUs for.",
                ),
            ),
            "pending": (
                "a row of a GPU's memory is to be remapped when it is reset",
                REBOOT._replace(
                    prose="Drain the machine first. Where nothing uses the GPU, nvidia-smi --gpu-reset -i INDEX "
                    "does as well."
                ),
            ),
            "repair": (
                "a memory channel or a TPC of a GPU is to be replaced by a spare one when it is reset",
                REBOOT._replace(
                    prose="Drain the machine first. Where nothing uses the GPU, nvidia-smi --gpu-reset -i INDEX "
                    "does as well."
                ),
            ),
            "pages": (
                "a page of a GPU's memory is to be retired when the driver is loaded again",
                REBOOT._replace(prose="Drain the machine first."),
            ),
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U13",
        "gpu.throttle",
        "No GPU is slowed down by heat or by its power supply",
        WORKER,
        "What runs on the GPU takes longer than it should.",
        {
            "thermal": (
                "a GPU is slowed down because it is too hot",
                inspect(
                    WORKER,
                    "nvidia-smi -q -d TEMPERATURE,PERFORMANCE",
                    "Check fans, air flow and the temperature of the room.",
                ),
            ),
            "power_brake": (
                "a GPU is slowed down by the power brake: the server's power supply asks for it",
                inspect(
                    WORKER,
                    "nvidia-smi -q -d POWER,PERFORMANCE",
                    "Check power supplies and power limits of the server at its management controller.",
                ),
            ),
            "slowdown": (
                "a GPU is slowed down by its own hardware",
                inspect(WORKER, "nvidia-smi -q -d POWER,PERFORMANCE", "If it lasts, check power cables and supplies."),
            ),
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U14",
        "gpu.power_limit",
        "Every GPU may draw its default power",
        WORKER,
        "The GPU is slower under load than others of its model.",
        {
            "": (
                "the power limit of a GPU is below its default",
                inspect(
                    WORKER,
                    "nvidia-smi -q -d POWER",
                    "If it was not meant: nvidia-smi -i INDEX --power-limit=WATTS, and remove what sets it at boot.",
                ),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U15",
        "gpu.clocks",
        "No GPU's clock is set below its default",
        WORKER,
        "The GPU is slower under load than others of its model.",
        {
            "": (
                "the clock for programs of a GPU is set below its default",
                repair(
                    WORKER,
                    "nvidia-smi --reset-applications-clocks",
                    "Remove what sets it at boot. NVML does not report locked clocks (-lgc).",
                ),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U16",
        "gpu.pcie_link",
        "The PCIe links of GPUs that compute have full generation and width",
        WORKER,
        "Copies between host and GPU are slower than they should be.",
        {
            "": (
                "the PCIe link of a GPU is slower than GPU and slot allow",
                inspect(
                    WORKER,
                    "nvidia-smi --format=csv --query-gpu=index,"
                    "pcie.link.gen.current,pcie.link.gen.max,pcie.link.width.current,pcie.link.width.max",
                    "Check seating, riser and the slot's settings in the firmware.",
                ),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U17",
        "gpu.nvlink",
        "Every GPU has as many NVLinks up as others of its model, and none was recovered",
        WORKER,
        "Programs that use several GPUs are slow, or fail.",
        {
            "down": (
                "a GPU has fewer NVLinks up than others of its model",
                inspect(
                    WORKER,
                    "nvidia-smi nvlink --status",
                    "Drain the machine and reboot. If it stays, check bridges, or have the GPU or its board serviced.",
                ),
            ),
            "errors": (
                "links of a GPU were recovered after errors",
                inspect(
                    WORKER,
                    "nvidia-smi nvlink --errorcounters",
                    "If they go on, check bridges, or have the GPU or its board serviced.",
                ),
            ),
        },
        ("U05",),
        ("U09", "U21"),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U18",
        "gpu.persistence",
        "Persistence mode is on",
        WORKER,
        "The driver lets go of a GPU that nobody uses: the next program waits for seconds, and settings are lost.",
        {
            "": (
                "persistence mode of a GPU is off",
                repair(
                    WORKER,
                    "nvidia-smi --persistence-mode=1",
                    "For good, onboarding with beta9_nvidia has nvidia-persistenced do it.",
                ),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U19",
        "gpu.mig",
        "MIG is as it was set, and a GPU in MIG mode has instances",
        WORKER,
        "A GPU in MIG mode without instances can't be used.",
        {
            "empty": (
                "a GPU is in MIG mode and has no instance",
                inspect(
                    WORKER,
                    "nvidia-smi mig -lgi || true",
                    "Create instances (nvidia-smi mig -cgi PROFILE -C), or leave MIG mode (nvidia-smi -mig 0).",
                ),
            ),
            "pending": (
                "MIG mode of a GPU changes with its next reset",
                REBOOT._replace(prose="Drain the machine first."),
            ),
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U20",
        "gpu.firmware",
        "The GPU's firmware is of the driver's version",
        WORKER,
        "The GPU fails under load, or does not come up after the next reset.",
        {
            "": (
                "a GPU's system processor (GSP) runs firmware of another version than the driver",
                REBOOT._replace(prose="Drain the machine first."),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U21",
        "gpu.fabric",
        "GPUs with NVSwitch have joined their fabric",
        WORKER,
        "CUDA answers error 802, or programs on several GPUs are slow.",
        {
            "failed": (
                "a GPU could not join its NVLink fabric",
                inspect(
                    WORKER,
                    "systemctl --no-pager status nvidia-fabricmanager || true",
                    "Check the fabric manager's log, then drain the machine and reboot.",
                ),
            ),
            "not_started": (
                (
                    "a GPU is not in its NVLink fabric: the fabric manager does not run, or is of another version "
                    "than the driver"
                ),
                inspect(
                    WORKER,
                    "systemctl --no-pager status nvidia-fabricmanager || true",
                    "Install and start the fabric manager in the driver's version.",
                ),
            ),
            "in_progress": (
                "a GPU is still joining its NVLink fabric",
                inspect(
                    WORKER,
                    "systemctl --no-pager status nvidia-fabricmanager || true",
                    "If it lasts longer than some minutes, restart the fabric manager.",
                ),
            ),
            "degraded": (
                "a GPU has less bandwidth in its NVLink fabric than it should",
                inspect(
                    WORKER,
                    "nvidia-smi nvlink --status",
                    "Drain the machine and reboot. If it stays, have the GPU or its board serviced.",
                ),
            ),
        },
        ("U05",),
        ("U09",),
        component="gpu",
        timeout_seconds=10.0,
    ),
    Check(
        "U22",
        "gpu.peers",
        "GPUs with NVLink can read each other's memory",
        WORKER,
        "Programs on several GPUs copy through the host, and are slow.",
        {
            "disabled": (
                "access between GPUs is switched off by a setting of the driver",
                inspect(
                    WORKER,
                    "nvidia-smi topo -p2p r",
                    "Remove the registry key from the options of module nvidia in /etc/modprobe.d, and reboot.",
                ),
            ),
            "": (
                "GPUs with NVLink can't read each other's memory",
                inspect(
                    WORKER,
                    "nvidia-smi topo -p2p r",
                    "Check IOMMU and ACS in the firmware, and the virtual machine's passthrough.",
                ),
            ),
        },
        ("U05",),
        ("U09", "U17", "U21"),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U23",
        "gpu.processes",
        "Only pods compute on the GPUs",
        WORKER,
        "Memory and time of the GPU are lost to what the gateway does not know of.",
        {
            "": (
                "a process that belongs to no pod computes on a GPU",
                inspect(
                    WORKER,
                    "nvidia-smi --query-compute-apps=pid,process_name,used_memory --format=csv",
                    "Stop it, or leave its GPU out of beta9_gpu_ids.",
                ),
            )
        },
        ("U05",),
        ("U09",),
        component="gpu",
        severity="warn",
        timeout_seconds=10.0,
    ),
    Check(
        "U24",
        "gpu.bound",
        "No GPU that is expected here is bound to a driver for virtual machines",
        WORKER,
        "The host can't use a GPU that it has given away.",
        {
            "": (
                "a GPU is bound to vfio-pci or the like, and fewer than expected are left",
                inspect(
                    WORKER,
                    "ls -l /sys/bus/pci/drivers/vfio-pci || true",
                    "Remove its address or device id from the options of vfio-pci (kernel command line, "
                    "/etc/modprobe.d), or lower beta9_gpus.",
                ),
            )
        },
        component="gpu",
    ),
    Check(
        "U25",
        "gpu.accepted",
        "No GPU that failed its acceptance is offered",
        WORKER,
        "Work is given to a GPU that computes wrongly, or more slowly than its model should.",
        {
            "failed": (
                "a GPU that failed its acceptance is offered",
                first("Repair it, or set beta9_gpu_exclude_failed=true.", ACCEPT),
            ),
            "outdated": ("the driver changed after the GPUs' acceptance", ACCEPT),
        },
        ("U02",),
        ("U09", "U11", "U12", "U13", "U16"),
        component="gpu",
    ),
)
