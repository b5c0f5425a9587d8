# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one table of the systems that workers may have, and which of them a host's os-release(5) is.

A system is added by one row here, and by the driver's packages in roles/nvidia/vars (ubuntu.yml, debian-12.yml, ...).
"""

from __future__ import annotations

import re
from typing import Mapping, NamedTuple

ARCHITECTURES = ("x86_64", "aarch64")
WORD = re.compile(r"[a-z0-9._-]{1,64}\Z")
# whose packages a system without a row of its own has, by the names in its ID_LIKE
FAMILIES = (("ubuntu", "ubuntu"), ("debian", "debian"), ("rhel", "rhel"), ("centos", "rhel"), ("fedora", "rhel"))


class System(NamedTuple):
    """One release of a family of systems."""

    family: str  # debian, ubuntu or rhel: the names of packages and files
    release: str  # VERSION_ID; in the RHEL family what is before its dot
    names: tuple[str, ...]  # ID of those that are supported
    mark: str  # by which derivatives say what they are made of: a codename, or PLATFORM_ID
    manager: str  # apt, or dnf for dnf 4
    python: str  # package of a Python that the agent can run with, where python3 is too old; else empty
    ssh: str  # unit of sshd, as it is installed
    initramfs: str  # what makes the images that the kernel boots with

    @property
    def name(self) -> str:
        """Return family and release in words."""
        return f"{self.family} {self.release}"


EL = ("rhel", "rocky", "almalinux")
SYSTEMS = (
    System("debian", "12", ("debian",), "bookworm", "apt", "", "ssh.service", "initramfs-tools"),
    System("debian", "13", ("debian",), "trixie", "apt", "", "ssh.service", "initramfs-tools"),
    System("ubuntu", "22.04", ("ubuntu",), "jammy", "apt", "", "ssh.service", "initramfs-tools"),
    System("ubuntu", "24.04", ("ubuntu",), "noble", "apt", "", "ssh.socket", "initramfs-tools"),
    System("ubuntu", "26.04", ("ubuntu",), "resolute", "apt", "", "ssh.socket", "dracut"),
    System("rhel", "9", EL, "platform:el9", "dnf", "python3.12", "sshd.service", "dracut"),
    System("rhel", "10", EL, "platform:el10", "dnf", "", "sshd.service", "dracut"),
)


class Found(NamedTuple):
    """What a host is."""

    name: str  # "linuxmint 22.3", or only "arch" where it has no version
    family: str  # "" if nothing that is known
    system: System | None  # its row, or the one that it is made of
    how: str  # table: by its own name; like: made of one, as it says itself; other: another release of one; or empty


def words() -> str:
    """Return the systems of the table, for people."""
    return ", ".join(f"{name} {system.release}" for system in SYSTEMS for name in system.names)


def identify(release: Mapping[str, str]) -> Found:
    """Return what a host is, by the keys of os-release(5). Values that are no words are not taken over."""
    own = _word(release.get("ID", "")) or "unknown"
    version = _word(release.get("VERSION_ID", "")) or _word(release.get("VERSION_CODENAME", ""))
    name = f"{own} {version}".strip()
    for system in SYSTEMS:
        if (
            own in system.names
            and (version if system.family != "rhel" else version.partition(".")[0]) == system.release
        ):
            return Found(name, system.family, system, "table")
    known = next((system.family for system in SYSTEMS if own in system.names), "")
    if known:
        return Found(name, known, None, "other")
    like = release.get("ID_LIKE", "").split()
    family = next((family for word, family in FAMILIES if word in like), "")
    marks = {release.get(key) for key in ("UBUNTU_CODENAME", "DEBIAN_CODENAME", "PLATFORM_ID")} | (
        {release.get("VERSION_CODENAME")} if family else set()
    )
    base = next((system for system in SYSTEMS if system.mark in marks), None)
    family = base.family if base else family
    return Found(name, family, base, "like" if family else "")


def remedy(release: Mapping[str, str]) -> str:
    """Return what to do about a host whose system is none of the table."""
    own, version = release.get("ID", ""), numbers(release.get("VERSION_ID", ""))
    rows = [system for system in SYSTEMS if own in system.names]
    if rows and version and version < numbers(rows[0].release):
        return (
            f"Upgrade the host to {own} {rows[0].release} or newer: this release is too old for the agent and for "
            f"current drivers."
        )
    if rows and version > numbers(rows[-1].release):
        return "Upgrade this collection, or add the system to preflight_systems at your own risk."
    return "Reinstall the host with a supported system, or add this one to preflight_systems at your own risk."


def numbers(text: str) -> list[int]:
    """Return the numbers in a version, to compare it with another."""
    return [int(number) for number in re.findall(r"\d+", text)]


def _word(text: str) -> str:
    return text if WORD.match(text) else ""
