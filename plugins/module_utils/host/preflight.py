# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: facts of a host in, problems out; problems of many hosts in, text out."""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.beta9.workers.plugins.module_utils.host import systems

MIN_PYTHON = "3.10"  # of this host, for the agent
DISK_PATH = "/opt"  # where the disk space is needed
MAX_NAMES = 10  # hosts that a message names
# Where systemd does not run: what that is, and what to do
INITS = {
    "": ("none running", "Use a host that was booted with systemd."),
    "wsl": (
        "none running, in the Windows Subsystem for Linux",
        "Write systemd=true below [boot] in /etc/wsl.conf, run wsl --shutdown in Windows, and start it again.",
    ),
    "lxc": (
        "another first process, in an LXC container",
        "Make the container from an image that starts systemd, or onboard the host it runs on.",
    ),
}
CONTAINER = ("another first process, in a container (%s)", "Onboard the host that the container runs on.")


def problem(what: str, expected: str, found: object, remedy: str) -> dict[str, Any]:
    """Return one problem. what names the variable or the part of the host."""
    return {"what": what, "expected": expected, "found": str(found), "remedy": remedy}


def lines(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return {host: [problem]} as lines of text: each problem once, with the hosts that have it."""
    hosts_of: dict[tuple[str, ...], list[str]] = {}
    for host, entries in found.items():
        for entry in entries:
            key = tuple(str(entry[name]) for name in ("what", "expected", "found", "remedy"))
            hosts_of.setdefault(key, []).append(host)
    text = []
    for number, (key, hosts) in enumerate(hosts_of.items(), 1):
        text.append(f"{number}. {key[0]}: expected {key[1]}, found {key[2]}.")
        text.append(f"   {key[3]}")
        text.append(f"   on {names(hosts, len(found))}")
    return text


def names(hosts: list[str], total: int) -> str:
    """Return the names of hosts in words, few of many."""
    if len(hosts) == total > 1:
        return f"all {total} hosts"
    return ", ".join(hosts[:MAX_NAMES]) + (f" and {len(hosts) - MAX_NAMES} more" if len(hosts) > MAX_NAMES else "")


def problems(params: dict[str, Any], facts: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every problem of a host. Those of its variables are found on the controller (plugin_utils/settings.py)."""
    return list(_of_host(params, facts))


def warnings(facts: dict[str, Any]) -> list[str]:
    """Return what a person should know of a host that can be onboarded all the same."""
    found = []
    if facts["system_how"] == "like":
        base = facts["system_base"] or facts["system_family"]
        found.append(
            f"{facts['system']} is not in the support matrix: it is treated as {base}, which it says it is made of."
        )
    if facts["container"] == "wsl" and facts["systemd"]:
        found.append(
            "This is the Windows Subsystem for Linux: its GPUs are not on a PCI bus and are not seen, and it ends "
            "with the Windows session."
        )
    if facts["tegra"]:
        found.append(
            "This is an NVIDIA Jetson: its GPU is part of the chip, not on a PCI bus, and is not seen. It can be a "
            "machine without GPUs."
        )
    return found


def _of_system(params: dict[str, Any], facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is wrong with the system itself. Without params["systems"], the further ones that are accepted, only
    its init is judged."""
    if not facts["systemd"]:
        found, remedy = INITS.get(facts["container"]) or (CONTAINER[0] % facts["container"], CONTAINER[1])
        yield problem("init system", "systemd", found, remedy)
    if params["systems"] is None:
        return
    if facts["system_how"] not in ("table", "like") and not {facts["system"], facts["system"].partition(" ")[0]} & set(
        params["systems"]
    ):
        yield problem("operating system", f"one of {systems.words()}", facts["system"], facts["system_remedy"])
    if facts["architecture"] not in systems.ARCHITECTURES:
        expected = " or ".join(systems.ARCHITECTURES)
        yield problem(
            "architecture",
            expected,
            facts["architecture"],
            "Use another host: the agent's packages are built for these alone.",
        )
    if facts["usr_read_only"]:
        remedy = (
            f"Use a system whose packages are installed one by one, like {systems.SYSTEMS[0].name}: none can be "
            f"installed here."
        )
        yield problem(
            "/usr",
            "a file system that can be written to",
            "one that is mounted read-only, as on image-based systems",
            remedy,
        )
    if facts["manager"] not in ("apt", "dnf"):
        remedy = "Use one of %s: what dnf5 would do is not read from it here." if facts["manager"] else "Use one of %s."
        yield problem("package manager", "apt, or dnf 4", facts["manager"] or "neither", remedy % systems.words())


def _of_host(params: dict[str, Any], facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from _of_system(params, facts)
    if (
        systems.numbers(facts["python"]) < systems.numbers(MIN_PYTHON)
        and not facts["agent_python"]
        and not facts["agent_python_package"]
    ):
        remedy = "Install a newer Python beside it, as /usr/bin/python3.12: the agent is installed with that."
        yield problem("Python", f"{MIN_PYTHON} or newer", facts["python"], remedy)
    if facts["interpreter_hidden"]:
        remedy = (
            "Point ansible_python_interpreter at a Python of the system, like /usr/bin/python3: the agent is "
            "installed with it, and its unit sees no homes."
        )
        yield problem(
            "Python", "an interpreter outside of /home, /root, /run/user and /tmp", facts["interpreter"], remedy
        )
    if facts["noexec"]:
        remedy = f"Mount it without noexec: mount -o remount,exec {DISK_PATH}, and the same in /etc/fstab."
        yield problem(DISK_PATH, "a file system whose programs may be run", "one that is mounted noexec", remedy)
    if not facts["root"]:
        yield problem(
            "privileges",
            "root, or a user that may sudo",
            "an unprivileged user",
            "Connect as root, or set ansible_become=true and give the user sudo rights.",
        )
    if facts["memory_mib"] < params["min_memory_mib"]:
        yield problem(
            "memory",
            f"{params['min_memory_mib']} MiB",
            f"{facts['memory_mib']} MiB",
            "Add memory, or lower preflight_min_memory_mib.",
        )
    if facts["disk_free_mib"] < params["min_disk_mib"]:
        yield problem(
            "disk",
            f"{params['min_disk_mib']} MiB free at {DISK_PATH}",
            f"{facts['disk_free_mib']} MiB",
            "Free some space, or lower preflight_min_disk_mib.",
        )
    skew = facts["epoch"] - params["controller_epoch"]
    if params["controller_epoch"] and abs(skew) > params["max_clock_skew_seconds"]:
        yield problem(
            "clock",
            f"within {params['max_clock_skew_seconds']} s of the controller's",
            f"{int(skew):+d} s",
            "Start time synchronisation: timedatectl set-ntp true.",
        )
    for name, addresses in sorted(facts["resolved"].items()):
        if not addresses:
            yield problem(
                "name resolution",
                f"an address for {name}",
                "none",
                "Correct the host's DNS or /etc/hosts, or use an address in the inventory.",
            )
    wanted = (params["settings"] or {}).get("gpus")
    if wanted and not facts["gpu_pci_count"]:
        yield problem(
            "GPUs",
            f"{wanted} (beta9_gpus)",
            "none on the PCI bus",
            "Correct beta9_gpus, or check the host's hardware and BIOS.",
        )
    for listener in facts["tunnel_listeners"]:
        if listener["process"] not in ("ssh", None):
            yield problem(
                f"port {params['tunnel_port']}",
                "free, or held by the tunnel's ssh",
                f"{listener['process']} (pid {listener['pid']}) listens on {listener['address']}",
                "Stop that program, or choose another local_port in autossh_forwards.",
            )
