# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says of itself: read-only, standard library, one function per fact.

Each function returns a plain value or raises OSError / ValueError. Units are in the names.
"""

from __future__ import annotations

import glob
import os
import re
import socket
import struct
import time
from typing import Any, Iterable, Iterator

PCI = "/sys/bus/pci/devices"
GIVEN_AWAY = ("vfio-pci", "pci-stub", "xen-pciback")  # drivers that hold a device for virtual machines
HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")
PACKAGE_SETS_DIR = "/var/lib/beta9/package-sets"  # what module host_packages began and did not end


def package_manager(root: str = "/usr/bin") -> str:
    """Return apt, dnf or dnf5, whichever this host has, or an empty string."""
    found = next(
        (
            name
            for name, program in (("apt", "apt-get"), ("dnf", "dnf"), ("dnf5", "dnf5"))
            if os.path.exists(os.path.join(root, program))
        ),
        "",
    )
    return "dnf5" if found == "dnf" and is_dnf5(root) else found


def is_dnf5(root: str = "/usr/bin") -> bool:
    """Return whether dnf is dnf5, which says other things than dnf 4 and has another library."""
    return os.path.basename(os.path.realpath(os.path.join(root, "dnf"))) == "dnf5"


def os_release(*paths: str) -> dict[str, str]:
    """Return the keys of os-release(5), unquoted; {} where there is no such file."""
    for path in paths or ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                rows = [line.strip().partition("=") for line in stream if not line.startswith("#")]
        except OSError:
            continue
        return {key: value.strip("\"'") for key, equals, value in rows if equals}
    return {}


def container() -> str:
    """Return which container this system runs in (docker, podman, lxc), wsl, or an empty string."""
    if "microsoft" in os.uname().release.lower():
        return "wsl"
    # systemd writes it down; without systemd the container's first process was told
    for path, pattern in (
        ("/run/systemd/container", r"([a-z][a-z0-9-]*)\s*\Z"),
        ("/proc/1/environ", r"(?:\A|\0)container=([a-z][a-z0-9-]*)(?:\0|\Z)"),
    ):
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                found = re.search(pattern, stream.read(65536))
        except OSError:
            continue
        if found:
            return found.group(1)
    return next(
        (name for name, path in (("docker", "/.dockerenv"), ("podman", "/run/.containerenv")) if os.path.exists(path)),
        "",
    )


def tegra(path: str = "/proc/device-tree/compatible") -> bool:
    """Return whether this is one of NVIDIA's systems on a chip (Jetson), whose GPU is on no PCI bus."""
    try:
        with open(path, "rb") as stream:
            return any(name.startswith(b"nvidia,tegra") for name in stream.read(4096).split(b"\0"))
    except OSError:
        return False


def read_only(path: str) -> bool:
    """Return whether a file system is mounted so that nothing can be written to it."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def memory_mib(path: str = "/proc/meminfo") -> int:
    """Return the installed memory that the kernel can use, in MiB."""
    with open(path, encoding="ascii") as stream:
        for line in stream:
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) // 1024
    raise ValueError(f"no MemTotal in {path}")


def disk_free_mib(path: str) -> int:
    """Return the space free for unprivileged users below path (its nearest existing parent), in MiB."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize // (1024 * 1024)


def source_address(peer: str) -> str | None:
    """Return the address this host would use to reach peer, or None without a route. No packet is sent."""
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((peer, 9))
        except OSError:
            return None
        return probe.getsockname()[0]


def listeners(port: int | None) -> list[dict[str, Any]]:
    """Return who listens on a TCP port: a list of {"address", "uid", "process", "pid"}; process is None if it can't be
    read.

    uid is that of the account that opened the socket, as the kernel keeps it.
    """
    sockets = {}
    for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for fields in _listening(path):
            address, _colon, hex_port = fields[1].rpartition(":")
            if int(hex_port, 16) == port:
                words = [struct.pack("=I", int(address[i : i + 8], 16)) for i in range(0, len(address), 8)]
                sockets[fields[9]] = {"address": socket.inet_ntop(family, b"".join(words)), "uid": int(fields[7])}
    owners = _socket_owners(set(sockets)) if sockets else {}
    return [dict(seen, **owners.get(inode, {"process": None, "pid": None})) for inode, seen in sorted(sockets.items())]


def _listening(path: str) -> Iterator[list[str]]:
    """Yield the rows of sockets that listen, of a table that has these first (proc_net_tcp.rst in the kernel's
    documentation). The others are not asked for, because the kernel walks all its buckets for them."""
    try:
        with open(path, "rb", buffering=150) as stream:  # about a row
            next(stream)
            for row in stream:
                fields = row.decode("ascii").split()
                if fields[3] != "0A":
                    return
                yield fields
    except (OSError, StopIteration):
        return


def _socket_owners(inodes: set[str]) -> dict:
    """Map socket inodes to {"process", "pid"} by walking /proc; what may not be read is left out."""
    owners = {}
    for directory in glob.glob("/proc/[0-9]*/fd"):
        pid = directory.split("/")[2]
        try:
            for handle in os.listdir(directory):
                target = os.readlink(os.path.join(directory, handle))
                inode = target[len("socket:[") : -1] if target.startswith("socket:[") else None
                if inode in inodes:
                    with open(f"/proc/{pid}/comm", encoding="utf-8") as stream:
                        owners[inode] = {"process": stream.read().strip(), "pid": int(pid)}
        except OSError:
            continue  # the process ended, or belongs to somebody else
    return owners


def processes() -> Iterator[tuple[int, int, list[str]]]:
    """Yield (pid, parent pid, argv) of every process that has an argv and may be read."""
    for directory in glob.glob("/proc/[0-9]*"):
        try:
            with open(directory + "/cmdline", "rb") as stream:
                words = stream.read(65536).decode("utf-8", "replace").split("\0")
            with open(directory + "/stat", encoding="utf-8", errors="replace") as stream:
                parent = int(stream.read().rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue  # it ended meanwhile
        if words[0]:
            yield int(directory.rpartition("/")[2]), parent, [word for word in words if word]


def process_age_seconds(pid: int) -> float | None:
    """Return how long a process has been there, or None when it is not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
            ticks = int(stream.read().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))


def nvidia_pci_devices(root: str = PCI) -> Iterator[tuple[str, str]]:
    """Yield (address, class) of NVIDIA's devices on the PCI bus, in order, but of those that are given to virtual
    machines."""
    for path in sorted(glob.glob(os.path.join(root, "*"))):
        try:
            with open(os.path.join(path, "vendor"), encoding="ascii") as stream:
                vendor = stream.read().strip()
            with open(os.path.join(path, "class"), encoding="ascii") as stream:
                kind = stream.read().strip()
        except OSError:
            continue
        driver = os.path.basename(os.path.realpath(os.path.join(path, "driver")))
        if vendor == "0x10de" and driver not in GIVEN_AWAY:
            yield os.path.basename(path), kind


def nvidia_on_bus(root: str = PCI) -> bool:
    """Return whether anything on the PCI bus is NVIDIA's, also what is given to virtual machines."""
    for path in glob.glob(os.path.join(root, "*", "vendor")):
        try:
            with open(path, encoding="ascii") as stream:
                if stream.read().strip() == "0x10de":
                    return True
        except OSError:
            continue
    return False


def nvidia_pci_count(root: str = PCI) -> int:
    """Return the number of NVIDIA display or 3D controllers on the PCI bus that this host can use itself."""
    return sum(1 for _address, kind in nvidia_pci_devices(root) if kind.startswith("0x03"))


def hidden_from_units(path: str) -> bool:
    """Return whether a program, links followed, is where the sandbox of a unit hides it (ProtectHome, PrivateTmp)."""
    real = os.path.realpath(path)
    return real.startswith(HIDDEN)


def noexec(path: str) -> bool:
    """Return whether programs below path (its nearest existing parent) may not be run."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "/"
    return bool(os.statvfs(path).f_flag & os.ST_NOEXEC)


def boot_epoch() -> float:
    """Return when this host's init started, in seconds since 1970."""
    with open("/proc/stat", encoding="ascii") as stream:
        booted = int(re.findall(r"^btime (\d+)", stream.read(), re.M)[0])
    with open("/proc/1/stat", encoding="ascii") as stream:
        ticks = int(stream.read().rpartition(")")[2].split()[19])
    return booted + ticks / os.sysconf("SC_CLK_TCK")


def changed_since(moment_us: int, paths: Iterable[str]) -> str | None:
    """Return the first path that changed since a moment of the monotonic clock, as systemd gives it in microseconds, or
    None."""
    moment_epoch = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + moment_us / 1e6
    for path in paths:
        # ctime, not mtime: a file put in place by rename keeps the time at which it was written
        try:
            if os.lstat(path).st_ctime > moment_epoch:
                return path
        except OSError:
            continue  # it is not there
    return None


def tree(directory: str) -> Iterator[str]:
    """Yield a directory and all that is below it; what may not be read is left out."""
    yield directory
    folders = [directory]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    yield entry.path
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:
            continue
