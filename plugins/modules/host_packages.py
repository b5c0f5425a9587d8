#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_packages
short_description: Ensure a set of packages is installed at one version, and held
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Installs what is missing of the set in one transaction. Before that it asks the package manager what would happen,
    whether it fits the disk, and downloads it all, so that what can fail fails while the host is as it was.
  - Holds every installed package that matches O(hold), so that the set is only updated as a whole, by O(upgrade) or
    O(version). apt's hold also keeps unattended-upgrades off.
  - The set is remembered until it is complete. A run that was killed half-way is finished by the next one, also if that
    does not name the packages any more.
  - In one call, because holds, versions and what would be removed can't be told by C(ansible.builtin.apt), which
    besides can't look ahead on a host without C(python3-apt).
author:
  - beta9.workers authors (@beta9)
attributes:
  check_mode:
    support: partial
    description: Nothing is changed.
    details: Says what the package manager would do. Where a repository is still to be added, the set is told without
      versions.
  diff_mode:
    support: full
    description: Shows the packages of the set with their versions.
  idempotent:
    support: full
    description: Packages that are there in the desired version, and held, are left alone.
options:
  manager:
    description: The package manager. By default the one that the host has. V(dnf5) is refused by name.
    type: str
    choices: [apt, dnf, dnf5]
  name:
    description: Name of the set.
    type: str
    required: true
  packages:
    description:
      - Names of packages, or C(name=version) for exactly that version where several can be installed beside each other,
        like those for a kernel.
      - Empty to only finish and hold what is installed.
    type: list
    elements: str
    default: []
  version:
    description: Version of those packages that have it, as C(580.95.05). At least one must. By default the newest when
      first installed.
    type: str
    default: ""
  branch:
    description:
      - Where no O(version) is given, the newest version that begins with this and a dot, of those packages that have
        one.
      - Those of O(packages) whose version O(hold_version) matches may come in no other branch.
    type: str
    default: ""
  upgrade:
    description: Whether to upgrade installed packages to the newest versions that repositories and pins allow.
    type: bool
    default: false
  stream:
    description: With O(manager=dnf), a module stream to enable first.
    type: str
    default: ""
  hold:
    description: Regular expression of names to hold, at their beginning. Empty to hold nothing.
    type: str
    default: ""
  hold_version:
    description: Regular expression of the versions to hold, at their beginning.
    type: str
    default: ""
  hold_names:
    description: More packages to hold, of any version, where they are installed.
    type: list
    elements: str
    default: []
  programs:
    description: Programs of O(packages). Where one of them is gone though its package is installed, O(packages) are
      installed again.
    type: list
    elements: str
    default: []
  removable:
    description: Regular expression of the packages that may be removed for the sake of the set, at their beginning.
    type: str
    default: (?!)
  lock_seconds:
    description: Longest time to wait for who works on the host's packages, cloud-init among them. dnf waits as long as
      it takes.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Have two packages, of any version, with their programs
  beta9.workers.host_packages:
    name: tunnel
    packages: [autossh, openssh-client]
    programs: [autossh, ssh]

- name: Install two packages of one version, and keep them so
  beta9.workers.host_packages:
    name: example
    packages: [example, example-data]
    version: "1.20.0"
    hold: example
"""

RETURN = r"""
packages:
  description: The set as it is installed, or would be. A package that would come with an unknown version has an empty
    one.
  returned: always
  type: dict
  sample: {example: 1.20.0-1}
held:
  description: Packages that were not held before.
  returned: always
  type: list
  elements: str
removed:
  description: Packages that were removed, or would be.
  returned: always
  type: list
  elements: str
waited:
  description: Whether it gave up because somebody else did not end in O(lock_seconds), so that to try again at once is
    of no use.
  returned: failure
  type: bool
"""

import json
import os
import re
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, package_sets, secretfiles, turn


class Record:
    """What a run asked the package manager for, kept until it is done."""

    def __init__(self, name: str) -> None:
        self.path = os.path.join(linux.PACKAGE_SETS_DIR, name + ".json")

    def read(self) -> dict[str, Any]:
        try:
            with open(self.path, encoding="utf-8") as stream:
                return dict(json.load(stream))
        except (OSError, ValueError):
            return {}

    def write(self, asked: dict[str, str]) -> None:
        secretfiles.write(self.path, json.dumps(asked) + "\n", 0o644)

    def forget(self) -> None:
        secretfiles.remove([self.path])
        secretfiles.remove_empty(linux.PACKAGE_SETS_DIR, 2)  # also those that a run left that was killed in between


def to_install(manager: package_sets.Manager, params: dict[str, Any], installed: dict[str, str]) -> dict[str, str]:
    """Return {name: version} to ask the package manager for: what is missing or of another version than desired. "" is
    any version."""
    found, some, names = {}, False, []
    for name, version in map(package_sets.parted, params["packages"]):
        if not version:
            names.append(name)
        elif not manager.has(name, version):
            found[name] = version
    for name in names:
        version = ""
        if params["version"]:
            if package_sets.is_version(installed.get(name, ""), params["version"]):
                some = True
                continue
            versions = manager.available(name)
            version = next((entry for entry in versions if package_sets.is_version(entry, params["version"])), "")
            some = some or bool(version)
        elif params["branch"] and (name not in installed or params["upgrade"]):
            version = next(
                (entry for entry in manager.available(name) if package_sets.of_branch(entry, params["branch"])), ""
            )
            if version and version == installed.get(name):
                continue
        if version or name not in installed or params["upgrade"]:
            found[name] = version
    if params["version"] and names and not some:
        listed = ", ".join(sorted({version for name in names for version in manager.available(name)})) or "none at all"
        raise package_sets.PackageError(
            params["name"], "version " + params["version"], listed, "Choose one of these, or a repository that has it."
        )
    return found


def judge(
    manager: package_sets.Manager,
    params: dict[str, Any],
    asked: dict[str, str],
    installed: dict[str, str],
    outlook: dict[str, Any],
) -> None:
    """Raise PackageError unless what would happen is what was asked for, and nothing else."""
    lost = [
        name
        for name, version in asked.items()
        if name not in outlook["install"] and (name not in installed or version and not manager.has(name, version))
    ]
    if lost:
        found = f"that {', '.join(lost)} is neither installed nor would be"
        raise package_sets.PackageError(
            params["name"], "all packages of the set", found, "Look whether the repositories of this host have them."
        )
    foreign = [name for name in outlook["remove"] if not re.match(params["removable"], name)]
    if foreign:
        raise package_sets.PackageError(
            params["name"],
            "that no other package has to go",
            f"that {', '.join(foreign)} would be removed",
            "Remove them by hand if they are not needed.",
        )
    others = sorted(
        name
        for name in manager.held() & set(outlook["install"])
        if not re.match(params["hold"] or "(?!)", name) and name not in params["hold_names"]
    )
    if others:
        release = "apt-mark unhold" if isinstance(manager, package_sets.Apt) else "dnf versionlock delete"
        raise package_sets.PackageError(
            params["name"],
            "that no package held by somebody else changes",
            f"that {', '.join(others)} would",
            "Release them by hand: " + release,
        )
    strange = sorted(
        f"{name} {version}"
        for name, version in outlook["install"].items()
        if params["branch"] and name in asked and re.match(params["hold_version"] or "(?!)", version)
        if not package_sets.of_branch(version, params["branch"])
    )
    if strange:
        found = f"that {', '.join(strange)} would come"
        remedy = "The repository has another branch in its place: choose one that it has."
        raise package_sets.PackageError(params["name"], f"packages of branch {params['branch']} alone", found, remedy)


def install(
    module: AnsibleModule, manager: Any, record: Record, installed: dict[str, str]
) -> tuple[dict[str, str], list[str], bool]:
    """Bring the set to what is desired. Return ({name: version} that comes, removed names, changed)."""
    params, trouble = module.params, ""
    begun = record.read()
    try:
        if not begun and not to_install(manager, params, installed):
            return {}, [], False
    except package_sets.PackageError:
        pass  # perhaps only not known yet
    if not module.check_mode:
        trouble = manager.refresh()
    # versions of a stream show only then
    enabled = bool(params["stream"]) and not module.check_mode and manager.enable(params["stream"])
    try:
        asked = dict(begun, **to_install(manager, params, installed))
        specs = [manager.spec(name, version) for name, version in sorted(asked.items())]
        outlook = manager.simulate(specs)
    except package_sets.PackageError as error:
        if module.check_mode:  # its repository is still to be added
            return (
                {
                    name: version
                    for name, version in map(package_sets.parted, params["packages"])
                    if name not in installed
                },
                [],
                True,
            )
        if enabled:
            manager.reset(params["stream"])
        error.note("Reading the indexes: " + trouble if trouble else "")
        raise
    judge(manager, params, asked, installed, outlook)
    if not outlook["install"] and not outlook["remove"]:
        return {}, [], False
    package_sets.room([(manager.download_path, outlook["download"]), ("/usr", outlook["space"])])
    if not module.check_mode:
        manager.fetch(specs)
        record.write(asked)
        manager.install(specs)
        there = manager.installed()
        missing = [
            name for name, version in asked.items() if not (manager.has(name, version) if version else name in there)
        ]
        if missing:
            raise package_sets.PackageError(
                params["name"], "all packages of the set", f"that {', '.join(missing)} is missing", "Run again."
            )
    return outlook["install"], outlook["remove"], True


def restore(module: AnsibleModule, manager: package_sets.Manager) -> bool:
    """Install the packages of the set again where programs of theirs are gone. Return whether they were."""
    params = module.params

    def gone() -> list:
        return [name for name in params["programs"] if not module.get_bin_path(name)]

    if not gone():
        return False
    if module.check_mode:
        return True
    trouble = manager.refresh()
    trouble = manager.reinstall(params["packages"]) or trouble
    lost = gone()
    if lost:
        found = f"that {', '.join(lost)} is still missing{': ' + trouble if trouble else ''}"
        remedy = (
            f"Install {', '.join(params['packages'])} again by hand, and look whether something removes or hides "
            f"its programs."
        )
        raise package_sets.PackageError(params["name"], "the programs of its packages", found, remedy)
    return True


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "manager": {"type": "str", "choices": ["apt", "dnf", "dnf5"]},
            "name": {"type": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "version": {"type": "str", "default": ""},
            "branch": {"type": "str", "default": ""},
            "upgrade": {"type": "bool", "default": False},
            "stream": {"type": "str", "default": ""},
            "hold": {"type": "str", "default": ""},
            "hold_version": {"type": "str", "default": ""},
            "hold_names": {"type": "list", "elements": "str", "default": []},
            "programs": {"type": "list", "elements": "str", "default": []},
            "removable": {"type": "str", "default": "(?!)"},
            "lock_seconds": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    turn.take(module, module.params["lock_seconds"])
    params = module.params
    module.run_command_environ_update = package_sets.ENVIRONMENT
    record = Record(params["name"])
    try:
        name = params["manager"] or linux.package_manager()
        if name == "dnf" and linux.is_dnf5():
            name = "dnf5"
        if name == "dnf5":
            raise package_sets.PackageError(
                "package manager", "apt, or dnf 4", "dnf5", f"Install {' '.join(params['packages'])} by hand."
            )
        if not name:
            raise package_sets.PackageError(
                "package manager",
                "apt-get or dnf in /usr/bin",
                "neither",
                f"Install {' '.join(params['packages'])} by hand.",
            )
        manager = package_sets.MANAGERS[name](module.run_command, params["lock_seconds"])
        # what others left half done is theirs, unless it prevents ours
        repaired = manager.repair(module.check_mode) if record.read() or params["packages"] else False
        before, names = manager.installed(), [package_sets.parted(entry)[0] for entry in params["packages"]]
        coming, removed, changed = install(module, manager, record, before)
        restored = not (changed and module.check_mode) and restore(module, manager)
        after = dict(before, **coming) if module.check_mode else manager.installed()
        keep = [
            name
            for name in after
            if params["hold"] and re.match(params["hold"], name) and re.match(params["hold_version"], after[name] or "")
        ]
        keep += [name for name in params["hold_names"] if name in after]
        missing = sorted(set(keep) - manager.held()) if keep else []
        if missing and not module.check_mode:
            manager.hold(missing)
    except package_sets.PackageError as error:
        module.fail_json(msg=str(error), waited=isinstance(error, package_sets.StillBusy))
    if not module.check_mode:
        record.forget()
    shown = sorted(set(names) | set(coming) | set(removed) | set(missing))
    diff = {
        "before": "".join(f"{name} {before[name]}\n" for name in shown if name in before),
        "after": "".join(
            f"{name} {after[name]}{' held' if name in missing else ''}\n"
            for name in shown
            if name in after and name not in removed
        ),
    }
    module.exit_json(
        changed=bool(repaired or changed or restored or missing),
        packages={name: after[name] for name in names if name in after},
        held=missing,
        removed=removed,
        diff=diff,
    )


if __name__ == "__main__":
    main()
