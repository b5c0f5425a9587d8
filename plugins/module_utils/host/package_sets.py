# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sets of packages of one version, with apt or dnf: what is installed, what would happen, make it so, hold it.

    Manager   installed() has(name, version) available(name) simulate(specs) fetch(specs) install(specs) held()
    hold(names) release(names) repair()
      Apt
      Dnf

run is a function (command list) -> (exit status, standard output, standard error). Errors are PackageError with all
that a person needs to know.
"""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any, Callable, Union

from ansible_collections.beta9.workers.plugins.module_utils.host import package_locks

LOCKED = re.compile(r"Could not get lock|Unable to (?:acquire|lock)|is locked by another process")
# Nothing that a package's scripts run may ask, or restart services that are not this collection's
ENVIRONMENT = {
    "LC_ALL": "C",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBIAN_PRIORITY": "critical",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
    "NEEDRESTART_SUSPEND": "1",
    "NEEDRESTART_MODE": "l",
    "APT_LISTCHANGES_FRONTEND": "none",
    "UCF_FORCE_CONFFOLD": "1",
}
VERSIONLOCK = "/etc/dnf/plugins/versionlock.list"
UNITS = {"B": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3, "k": 1024, "M": 1024**2, "G": 1024**3}


class PackageError(Exception):
    """What was expected, what was found, what to do."""

    def __init__(self, what: str, expected: str, found: str, remedy: str) -> None:
        super().__init__()
        self.text = f"{what}: expected {expected}, found {found}. {remedy}"

    def note(self, text: str) -> None:
        """Add what else a person should know."""
        self.text = (self.text + " " + text).strip()

    def __str__(self) -> str:
        return self.text


class StillBusy(PackageError):
    """Somebody else did not end in the time there was: to try again at once is of no use."""


def parted(entry: str) -> tuple[str, str]:
    """Return (name, version) of a package as it is asked for: "name", or "name=version" for one of several versions
    beside each other."""
    name, _equals, version = entry.partition("=")
    return name, version


def of_branch(full: str, branch: str) -> bool:
    """Return whether a package's version (3:580.95.05-1) is of a branch (580)."""
    return (full.partition(":")[2] or full).startswith(branch + ".")


def is_version(full: str, desired: str) -> bool:
    """Return whether a package's version (2:580.95.05-1) is the desired one (580.95.05, or exactly that)."""
    plain = full.partition(":")[2] or full
    return full == desired or plain == desired or plain.startswith(desired + "-")


def size(text: str, pattern: str) -> int:
    """Return the bytes that a line like 'Need to get 3,456 kB' or 'Installed size: 12 M' tells, or 0."""
    match = re.search(pattern + r"\s*([\d.,]+)\s*(B|kB|MB|GB|k|M|G)\b", text)
    return int(float(match.group(1).replace(",", "")) * UNITS[match.group(2)]) if match else 0


def tail(text: str, lines: int = 6) -> str:
    """Return the last lines that say something."""
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(said[-lines:])


def await_boot(seconds: float) -> None:
    """Wait until cloud-init, where it works on this host, has ended, or raise StillBusy."""
    if not package_locks.wait(seconds, package_locks.booting):
        return
    remedy = "Check it: cloud-init status --long. Then run again, or give it more time (beta9_package_lock_seconds)."
    raise StillBusy("cloud-init", f"its end within {int(seconds)} s", "that it still runs", remedy)


class Apt:
    """apt-get and dpkg."""

    COMMON = [
        "-q",
        "--assume-yes",
        "--no-install-recommends",
        "-o",
        "DPkg::Lock::Timeout=120",
        "-o",
        "APT::Get::Show-User-Simulation-Note=false",
    ]
    # the set is held, also what it depends on: its holds must not keep it from being changed together (who else is
    # held, the module looks after)
    INSTALL = (
        COMMON
        + ["--ignore-hold"]
        + [
            "-o",
            "Dpkg::Options::=--force-confdef",
            "-o",
            "Dpkg::Options::=--force-confold",
            "--allow-change-held-packages",
            "--allow-downgrades",
        ]
    )
    download_path = "/var/cache/apt/archives"

    def __init__(self, run: Callable[..., tuple[int, str, str]], lock_seconds: int = 600) -> None:
        self.run, self.lock_seconds = run, lock_seconds

    def settle(self) -> None:
        """Wait for all who work on this host's packages, cloud-init among them, or raise PackageError that names who
        does not end."""
        deadline = time.monotonic() + self.lock_seconds
        await_boot(self.lock_seconds)
        found: package_locks.Holder | None = package_locks.wait(deadline - time.monotonic())
        if found:
            remedy = (
                f"Wait until it ends, or end it if it hangs: ps -fp {found.pid}. Then run again, or give it more "
                f"time (beta9_package_lock_seconds)."
            )
            raise StillBusy(
                "package manager",
                f"all of apt's locks free within {int(self.lock_seconds)} s",
                package_locks.describe(found),
                remedy,
            )

    def work(self, command: list[str]) -> tuple[int, str, str]:
        """Run what takes apt's locks. Return (exit status, standard output, standard error)."""
        deadline = time.monotonic() + self.lock_seconds
        while True:
            self.settle()
            rc, out, err = self.run(command)
            # somebody was quicker: an automatic update, or a boot that goes on
            if rc and LOCKED.search(err) and time.monotonic() < deadline:
                time.sleep(package_locks.PAUSE_SECONDS)
                continue
            return rc, out, err

    def installed(self) -> dict[str, str]:
        """Return {name: version} of everything that is installed."""
        _rc, out, _err = self.run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Version}\n"])
        rows = [line.split() for line in out.splitlines()]
        return {row[1]: row[2] for row in rows if len(row) == 3 and row[0] == "installed"}

    def has(self, name: str, version: str) -> bool:
        """Return whether this version is installed."""
        return self.installed().get(name) == version

    def repair(self, check_mode: bool) -> bool:
        """Finish what an interrupted run left half done. Return whether there was something."""
        _rc, out, _err = self.run(["dpkg", "--audit"])
        if not out.strip():
            return False
        if not check_mode:
            rc, out, err = self.work(["dpkg", "--configure", "--pending", "--force-confdef", "--force-confold"])
            if rc:
                rc, _out, err = self.work(["apt-get"] + self.INSTALL + ["--fix-broken", "install"])
            if rc:
                names = self.broken()
                remedy = (
                    f"Repair or remove {'it' if len(names) == 1 else 'them'} by hand, then run again: dpkg "
                    f"--configure {' '.join(names) or '--pending'}"
                )
                found = f"{', '.join(names) or 'some packages'} not configured: {tail(err or out)}"
                raise PackageError("packages of this host", "that what was interrupted can be finished", found, remedy)
        return True

    def broken(self) -> list[str]:
        """Return the names of the packages that are neither installed nor removed."""
        _rc, out, _err = self.run(["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\n"])
        rows = [line.split() for line in out.splitlines()]
        return [
            row[1] for row in rows if len(row) == 2 and row[0] not in ("installed", "not-installed", "config-files")
        ]

    def refresh(self) -> str:
        """Read the indexes. Return what went wrong; that one repository is away need not matter."""
        _rc, _out, err = self.work(["apt-get", "-q", "update"])
        return tail(err)

    def available(self, name: str) -> list[str]:
        """Return the versions of a package that can be installed, best first."""
        _rc, out, _err = self.run(["apt-cache", "policy", name])
        candidate = re.search(r"^  Candidate: (\S+)", out, re.M)
        _rc, out, _err = self.run(["apt-cache", "madison", name])
        versions = [line.split("|")[1].strip() for line in out.splitlines() if line.count("|") == 2]
        first = [candidate.group(1)] if candidate and candidate.group(1) != "(none)" else []
        return first + [version for version in versions if version not in first]

    @staticmethod
    def spec(name: str, version: str) -> str:
        """Return how a package of one version is asked for."""
        return f"{name}={version}" if version else name

    def simulate(self, specs: list[str]) -> dict[str, Any]:
        """Return {"install": {name: version}, "remove": [names], "download": bytes, "space": bytes} without changing
        anything."""
        rc, out, err = self.run(["apt-get"] + self.INSTALL + ["--simulate", "install"] + specs)
        if rc:
            raise PackageError(
                "packages",
                "that apt can install " + " ".join(specs),
                tail(out + err),
                "Look whether the repositories of this host have them: apt-cache policy",
            )
        found: dict[str, Any] = {
            "install": dict(re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+) ", out, re.M)),
            "remove": re.findall(r"^Remv (\S+)", out, re.M),
        }
        # the sizes are told only outside a simulation
        _rc, out, _err = self.run(
            ["apt-get"] + [word for word in self.INSTALL if word != "--assume-yes"] + ["--assume-no", "install"] + specs
        )
        space = size(out, "After this operation,") if "additional disk space" in out else 0
        return dict(found, download=size(out, r"Need to get (?:[\d.,]+ \w?B/)?"), space=space)

    def fetch(self, specs: list[str]) -> None:
        """Download, so that nothing is changed where the network or the disk fails."""
        rc, out, err = self.work(["apt-get"] + self.INSTALL + ["--download-only", "install"] + specs)
        if rc:
            raise PackageError(
                "download",
                "all packages",
                tail(err or out),
                "Nothing was installed. Give the host internet access, a proxy or a mirror, and free disk space.",
            )

    def install(self, specs: list[str]) -> None:
        """Install what was downloaded."""
        rc, out, err = self.work(["apt-get"] + self.INSTALL + ["--no-download", "install"] + specs)
        if rc:
            raise PackageError(
                "installation",
                "apt-get to succeed",
                tail(out + err, 10),
                "A module that did not build says why in /var/lib/dkms/*/*/build/make.log. Run again.",
            )

    def reinstall(self, names: list[str]) -> str:
        """Install packages again that are installed, because files of theirs are gone. Return what went wrong."""
        rc, out, err = self.work(["apt-get"] + self.INSTALL + ["--reinstall", "install"] + names)
        return tail(err or out) if rc else ""

    def held(self) -> set[str]:
        """Return the held packages."""
        _rc, out, _err = self.run(["apt-mark", "showhold"])
        return set(out.split())

    def hold(self, names: list[str]) -> None:
        """Keep packages at their version, together."""
        self.settle()
        self.run(["apt-mark", "hold"] + names, check_rc=True)


# What dnf 4 would do, asked of its own library by the Python that runs dnf: its tables break lines at 80 columns.
# Arguments: JSON on argv
LIBRARY = """
import json, sys
import dnf, dnf.exceptions, dnf.transaction
asked = json.loads(sys.argv[1])
with dnf.Base() as base:
    base.conf.read()
    base.conf.substitutions.update_from_etc(base.conf.installroot, varsdir=base.conf._get_value("varsdir"))
    base.conf.install_weak_deps = False
    base.init_plugins({"versionlock"})
    base.pre_configure_plugins()
    base.read_all_repos()
    base.configure_plugins()
    try:
        base.fill_sack()
        if "name" in asked:
            found = sorted(base.sack.query().available().filter(name=asked["name"]), reverse=True)
            answer = {"versions": [package.version + "-" + package.release for package in found]}
        else:
            unknown = []
            for spec in asked["specs"]:
                try:
                    base.install(spec)
                except dnf.exceptions.MarkingError:
                    unknown.append(spec)
            if unknown:
                raise dnf.exceptions.Error("no package matches " + ", ".join(unknown))
            base.resolve()
            answer = {"install": {}, "remove": [], "download": 0, "space": 0}
            for item in base.transaction:
                package = item.pkg
                if item.action in dnf.transaction.FORWARD_ACTIONS:
                    answer["install"][package.name] = package.version + "-" + package.release
                    answer["download"] += package.downloadsize
                    answer["space"] += package.installsize
                elif item.action in (dnf.transaction.PKG_REMOVE, dnf.transaction.PKG_OBSOLETED):
                    answer["remove"].append(package.name)
            answer["remove"] = sorted(set(answer["remove"]) - set(answer["install"]))
    except dnf.exceptions.Error as error:
        answer = {"error": str(error)}
print(json.dumps(answer))
"""


class Dnf:
    """dnf 4 and rpm, with the versionlock plugin."""

    download_path = "/var/cache/dnf"

    def __init__(self, run: Callable[..., tuple[int, str, str]], lock_seconds: int = 600) -> None:
        self.run, self.lock_seconds = run, lock_seconds  # dnf waits for its lock itself

    def _ask(self, **asked: Any) -> dict[str, Any]:
        """Return what dnf's library answers."""
        try:
            with open("/usr/bin/dnf", encoding="utf-8", errors="replace") as stream:
                python = re.findall(r"\A#! *(/\S+)", stream.readline())[0]
        except (OSError, IndexError):
            raise PackageError(
                "dnf", "dnf 4 in /usr/bin/dnf", "none that a Python runs", "Use one of the supported systems."
            ) from None
        rc, out, err = self.run([python, "-c", LIBRARY, json.dumps(asked)])
        try:
            return json.loads(out.strip().splitlines()[-1])
        except (IndexError, ValueError):
            return {"error": tail(err or out) or f"exit status {rc}"}

    def installed(self) -> dict[str, str]:
        _rc, out, _err = self.run(["rpm", "--query", "--all", "--queryformat", "%{NAME} %{VERSION}-%{RELEASE}\n"])
        return dict(line.split() for line in out.splitlines() if len(line.split()) == 2)

    def has(self, name: str, version: str) -> bool:
        """Return whether this version is installed, perhaps beside others, as kernels are."""
        return self.run(["rpm", "--query", "--quiet", f"{name}-{version}"])[0] == 0

    def repair(self, check_mode: bool) -> bool:
        return False  # rpm's transactions are its own affair: a half-done one shows as a package that is missing

    def refresh(self) -> str:
        await_boot(self.lock_seconds)
        rc, _out, err = self.run(["dnf", "-q", "makecache"])
        return tail(err) if rc else ""

    def available(self, name: str) -> list[str]:
        """Return the versions of a package that can be installed, newest first."""
        return self._ask(name=name).get("versions", [])

    @staticmethod
    def spec(name: str, version: str) -> str:
        return f"{name}-{version}" if version else name

    def reset(self, stream: str) -> None:
        """Take back the choice of a module's stream."""
        self.run(["dnf", "-q", "--assumeyes", "module", "reset", stream.partition(":")[0]])

    def enable(self, stream: str) -> bool:
        """Enable a module stream (nvidia-driver:580-open), which also keeps updates on its branch. Return whether it
        was not."""
        module, _colon, name = stream.partition(":")
        try:
            with open(f"/etc/dnf/modules.d/{module}.module", encoding="utf-8") as file:
                text = file.read()
        except OSError:
            text = ""
        if re.search(f"^stream={re.escape(name)}$", text, re.M) and re.search(r"^state=enabled$", text, re.M):
            return False
        self.reset(stream)
        rc, out, err = self.run(["dnf", "-q", "--assumeyes", "module", "enable", stream])
        if rc:
            raise PackageError(
                "module stream", stream, tail(err or out), f"dnf module list {module} shows those that there are."
            )
        return True

    def _dnf(self, words: list[str], specs: list[str]) -> tuple[int, str, str]:
        return self.run(
            ["dnf", "--setopt=install_weak_deps=False", "--disableplugin=versionlock", "--assumeyes"]
            + words
            + ["install"]
            + specs
        )

    def simulate(self, specs: list[str]) -> dict[str, Any]:
        found = self._ask(specs=specs)
        if "error" in found:
            words = " ".join(found["error"].split())
            remedy = (
                "dkms is in EPEL: enable that repository."
                if "dkms" in words
                else "Look whether the repositories of this host have them: dnf list --all"
            )
            raise PackageError("packages", "that dnf can install " + " ".join(specs), words, remedy)
        return found

    def fetch(self, specs: list[str]) -> None:
        rc, out, err = self._dnf(["--downloadonly"], specs)
        if rc:
            raise PackageError(
                "download",
                "all packages",
                tail(err or out),
                "Nothing was installed. Give the host internet access, a proxy or a mirror.",
            )

    def install(self, specs: list[str]) -> None:
        rc, out, err = self._dnf([], specs)
        if rc:
            raise PackageError(
                "installation", "dnf to succeed", tail(err.strip() or out, 10), "Fix what it reports, and run again."
            )

    def reinstall(self, names: list[str]) -> str:
        await_boot(self.lock_seconds)
        rc, out, err = self.run(["dnf", "-q", "--assumeyes", "reinstall"] + names)
        return tail(err.strip() or out) if rc else ""

    def held(self) -> set[str]:
        """Return the packages that are locked to the version that is installed."""
        try:
            with open(VERSIONLOCK, encoding="utf-8") as stream:
                locks = re.findall(r"^(.+)-(?:\d+:)?([^-:]+-[^-]+?)\.(?:\*|\w+)$", stream.read(), re.M)
        except OSError:
            return set()
        installed = self.installed()
        return {name for name, version in locks if installed.get(name) == version}

    def hold(self, names: list[str]) -> None:
        # a lock on an older version would stay beside the new one
        self.run(["dnf", "-q", "versionlock", "delete"] + names)
        self.run(["dnf", "-q", "versionlock", "add"] + names, check_rc=True)


def room(paths_and_bytes: list[tuple[str, int]]) -> None:
    """Raise PackageError where a file system has less free than what shall go there; several paths may be on one."""
    needs: dict[int, list[Any]] = {}
    for path, wanted in paths_and_bytes:
        while not os.path.exists(path):
            path = os.path.dirname(path)
        device = os.stat(path).st_dev
        needs.setdefault(device, [path, 0])[1] += wanted
    for path, wanted in needs.values():
        stat = os.statvfs(path)
        free = stat.f_bavail * stat.f_frsize
        if free < wanted:
            raise PackageError(
                "disk",
                f"{wanted // 10**6 + 1} MB free at {path}",
                f"{free // 10**6} MB",
                "Free some space. Nothing was installed.",
            )


Manager = Union[Apt, Dnf]
MANAGERS: dict[str, Callable[..., Manager]] = {"apt": Apt, "dnf": Dnf}
