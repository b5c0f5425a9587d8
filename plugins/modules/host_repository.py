#!/usr/bin/python
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: host_repository
short_description: Add a package repository to a host, if its signing key is the expected one
version_added: "0.1.0"
description:
  - Internal to the roles of this collection.
  - Fetches the signing key, compares the fingerprint of every key in it with the expected one, and looks for the
    repository's index, before anything is written. Then writes key, source and pin, and reads the index. If that fails,
    the files are as before.
  - The key file is written from the packets that were compared, so that the package manager sees no key that was not.
  - A repository that is configured already is not asked again, so that a second run needs no network.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment: [beta9.workers.attributes.keeps]
attributes:
  check_mode:
    support: full
    description: Says which files would change. Nothing is fetched.
options:
  manager:
    description: The package manager.
    type: str
    choices: [apt, dnf]
    required: true
  name:
    description: Name of the files, without suffix.
    type: str
    required: true
  url:
    description: Address of the repository.
    type: str
    required: true
  suite:
    description: With O(manager=apt), suites, separated by blanks. V(/) for a repository without a C(dists) tree.
    type: str
    default: /
  components:
    description: With O(manager=apt), components of the suites.
    type: list
    elements: str
    default: []
  signer_url:
    description: Where the signing key is.
    type: str
  fingerprint:
    description: Fingerprint of the signing key, 40 hexadecimal digits or more. Needed with O(signer_url).
    type: str
  signed:
    description: With O(manager=dnf), what the key signs, each package, the index of the repository, or both. apt always
      verifies the index.
    type: str
    choices: [packages, index, both]
    default: packages
  keyring:
    description: A key file that the host has already, instead of O(signer_url).
    type: path
  pin_version:
    description: With O(manager=apt), prefer this version, or versions that begin with it and a dot, of O(pin_packages),
      also over newer ones.
    type: str
    default: ""
  pin_packages:
    description: With O(manager=apt), names and patterns of packages, separated by blanks.
    type: str
    default: ""
  lock_seconds:
    description: With O(manager=apt), longest time to wait for who works on the host's packages.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Use a repository, signed by a key that we know
  beta9.workers.host_repository:
    manager: apt
    name: example
    url: https://packages.example.com/debian/
    signer_url: https://packages.example.com/key.asc
    fingerprint: 0123456789ABCDEF0123456789ABCDEF01234567
"""

RETURN = r"""
paths:
  description: Files that changed.
  returned: always
  type: list
  elements: str
fingerprints:
  description: What keys the key file holds.
  returned: when the key was fetched
  type: list
  elements: str
"""

import os
import re
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.beta9.workers.plugins.module_utils import grammar
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, openpgp, package_sets, secretfiles, turn

KEY_BYTES = 1024 * 1024


class Refused(Exception):
    """The repository may not be used: what, expected, found, remedy."""


def refuse(what: str, expected: str, found: str, remedy: str) -> NoReturn:
    raise Refused(f"{what}: expected {expected}, found {found}. Nothing was changed. {remedy}")


def fetch(url: str) -> bytes:
    """Return the bytes at a URL."""
    from ansible.module_utils.urls import open_url  # pylint: disable=import-outside-toplevel  # slow to load, and a second run needs it not

    try:
        with open_url(url, timeout=20, http_agent="beta9.workers") as answer:
            return answer.read(KEY_BYTES)
    except Exception as error:  # pylint: disable=broad-except  # open_url raises as many kinds as there are failures
        return refuse(
            url,
            "an answer",
            str(getattr(error, "reason", error)) or type(error).__name__,
            "Give the host internet access or a proxy (https_proxy), or name a mirror that it can reach.",
        )


def expected(params: dict[str, Any]) -> str:
    """Return the fingerprint without blanks, upper case."""
    text = re.sub(r"\s", "", params["fingerprint"] or "").upper()
    if not re.match(r"[0-9A-F]{40,64}$", text):
        found = params["fingerprint"] or "nothing"
        refuse(
            "fingerprint",
            "40 hexadecimal digits or more",
            found,
            "Take it from the repository's maker, by another way.",
        )
    return text


def right_key(data: bytes, wanted: str) -> openpgp.Key:
    """Return the openpgp.Key of a key file; Refused unless every key in it is the wanted one."""
    try:
        key = openpgp.Key(data)
    except openpgp.NotAKey as error:
        return refuse(
            "signing key", f"an OpenPGP key with fingerprint {wanted}", str(error), "Correct the key's address."
        )
    if set(key.fingerprints) != {wanted}:
        return refuse(
            "signing key",
            f"fingerprint {wanted}",
            ", ".join(key.fingerprints),
            "Do not trust this repository before its maker confirmed a new key by another way.",
        )
    return key


def installed(path: str, wanted: str) -> bool:
    """Return whether a key file is as this module writes it, with the wanted key."""
    content = read(path) or b""
    try:
        return right_key(content, wanted).armour == content
    except Refused:
        return False


def read(path: str) -> bytes | None:
    """Return a file's bytes, or None."""
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except FileNotFoundError:
        return None


def write(path: str, data: bytes | None) -> None:
    """Replace a file in one step; None removes it."""
    if data is None:
        if os.path.exists(path):
            os.unlink(path)
        return
    secretfiles.write(path, data, 0o644)


def check_values(params: dict[str, Any]) -> None:
    """Refuse a value that would say more in a file than it should."""
    words = [
        ("name", [params["name"]]),
        ("components", params["components"]),
        ("suite", [word for word in params["suite"].split() if word != "/"]),
    ]
    words += [("pin_version", [params["pin_version"]] if params["pin_version"] else [])]
    words += [("pin_packages", [word.replace("*", "x") for word in params["pin_packages"].split()])]
    try:
        for field, values in words:
            for value in values:
                grammar.word(value, field)
        grammar.repository_url(params["url"])
    except grammar.InvalidField as error:
        refuse(error.field, error.expected, error.found, "Correct it.")


def texts(params: dict[str, Any], key_path: str) -> dict[str, str]:
    """Return {path: text} of source and pin."""
    if params["manager"] == "dnf":
        checks = ["gpgcheck=0" if params["signed"] == "index" else "gpgcheck=1"] + (
            [] if params["signed"] == "packages" else ["repo_gpgcheck=1"]
        )
        lines = [
            f"[{params['name']}]",
            "name=" + params["name"],
            "baseurl=" + params["url"],
            "enabled=1",
            *checks,
            "gpgkey=file://" + key_path,
        ]
        return {
            f"/etc/yum.repos.d/{params['name']}.repo": "\n".join(["# Managed by Ansible (beta9.workers)", *lines, ""])
        }
    lines = ["Types: deb", "URIs: " + params["url"], "Suites: " + params["suite"]]
    lines += ["Components: " + " ".join(params["components"])] if params["components"] else []
    lines.append("Signed-By: " + key_path)
    found = {
        f"/etc/apt/sources.list.d/{params['name']}.sources": "\n".join(
            ["# Managed by Ansible (beta9.workers)", *lines, ""]
        )
    }
    if params["pin_version"] and params["pin_packages"]:
        # 1001: also over a newer version that is installed, so that the desired version is the one that comes
        records = [
            f"Explanation: Managed by Ansible (beta9.workers)\nPackage: {params['pin_packages']}\nPin: version "
            f"{pattern}\nPin-Priority: 1001\n"
            for pattern in (f"{params['pin_version']}.*", f"{params['pin_version']}-*")
        ]
        found["/etc/apt/preferences.d/" + params["name"]] = "\n".join(records)
    return found


def spelled(url: str) -> str:
    """Return the address with the values that the package manager gives its variables on this host."""
    machine = os.uname().machine
    values = {"$(ARCH)": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine), "$basearch": machine}
    values["$releasever"] = linux.os_release().get("VERSION_ID", "").partition(".")[0]
    return re.sub(r"\$(\(ARCH\)|basearch\b|releasever\b)", lambda match: values[match.group()], url)


def index_urls(params: dict[str, Any]) -> list[str]:
    """Return the addresses of the indexes."""
    base = spelled(params["url"]).rstrip("/") + "/"
    if params["manager"] == "dnf":
        return [base + "repodata/repomd.xml"]
    if params["suite"] == "/":
        return [base + "InRelease"]
    return [f"{base}dists/{suite}/InRelease" for suite in params["suite"].split()]


def read_index(module: AnsibleModule, params: dict[str, Any]) -> str:
    """Have the package manager read this repository's index, and no other. Return what went wrong.

    Refused where somebody else keeps the package manager busy.
    """
    if params["manager"] == "dnf":
        command = ["dnf", "--quiet", "--assumeyes", "makecache", "--disablerepo=*", "--enablerepo=" + params["name"]]
    else:
        command = [
            "apt-get",
            "-q",
            "update",
            "--error-on=any",
            "-o",
            "APT::Get::List-Cleanup=0",
            "-o",
            "Dir::Etc::sourceparts=-",
        ]
        command += ["-o", f"Dir::Etc::sourcelist=/etc/apt/sources.list.d/{params['name']}.sources"]

    def run(words: list[str], **options: Any) -> tuple[int, str, str]:
        return module.run_command(words, environ_update=package_sets.ENVIRONMENT, **options)

    work = package_sets.Apt(run, params["lock_seconds"]).work if params["manager"] == "apt" else run
    try:
        rc, out, err = work(command)
    except package_sets.PackageError as error:
        raise Refused(str(error)) from None
    if rc and "--error-on=any" in command and "not understood" in err:  # apt before 2.1
        rc, out, err = run([word for word in command if word != "--error-on=any"])
    return "" if rc == 0 else (err or out).strip()


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "manager": {"type": "str", "choices": ["apt", "dnf"], "required": True},
            "name": {"type": "str", "required": True},
            "url": {"type": "str", "required": True},
            "suite": {"type": "str", "default": "/"},
            "components": {"type": "list", "elements": "str", "default": []},
            "signer_url": {"type": "str"},
            "fingerprint": {"type": "str"},
            "signed": {"type": "str", "choices": ["packages", "index", "both"], "default": "packages"},
            "keyring": {"type": "path"},
            "pin_version": {"type": "str", "default": ""},
            "pin_packages": {"type": "str", "default": ""},
            "lock_seconds": {"type": "int", "default": 600},
        },
        required_one_of=[("signer_url", "keyring")],
        mutually_exclusive=[("signer_url", "keyring")],
        required_by={"signer_url": ["fingerprint"]},
        supports_check_mode=True,
    )
    turn.take(module)
    params = module.params
    directory = "/etc/apt/keyrings" if params["manager"] == "apt" else "/etc/pki/rpm-gpg"
    own_key, old_key = (f"{directory}/{params['name']}.{suffix}" for suffix in ("asc", "gpg"))
    more = {}
    try:
        check_values(params)
        key, key_path = None, params["keyring"]
        if key_path and not os.path.exists(key_path):
            refuse("keyring", key_path, "no such file", "Install the distribution's package of its archive keys.")
        if not key_path:
            key_path, wanted = own_key, expected(params)
            if not installed(own_key, wanted):
                key = b"" if module.check_mode else right_key(fetch(params["signer_url"]), wanted).armour
                more = {} if module.check_mode else {"fingerprints": [wanted]}
        desired: dict[str, bytes | None] = {path: text.encode() for path, text in texts(params, key_path).items()}
        pin = "/etc/apt/preferences.d/" + params["name"]
        if params["manager"] == "apt" and pin not in desired:
            desired[pin] = None
        if key is not None:
            desired.update({own_key: key, old_key: None})
        before = {path: read(path) for path in desired}
        changed = [path for path in desired if desired[path] != before[path]]
        if changed and not module.check_mode:
            new = changed != [pin]  # a pin alone needs no network
            for url in index_urls(params) if new else ():
                fetch(url)
            for path in changed:
                write(path, desired[path])
            try:
                trouble = read_index(module, params) if new else ""
                if trouble:
                    refuse(
                        params["url"],
                        "an index that the key signs",
                        trouble,
                        "Look whether the mirror is complete and signed with this key.",
                    )
            except Refused:
                for path in changed:
                    write(path, before[path])
                raise
        repaired = secretfiles.ensure_kept(
            {path: 0o644 for path, text in desired.items() if text is not None and path not in changed},
            module.check_mode,
        )
    except Refused as refused:
        module.fail_json(msg=str(refused))
    shown = [path for path in changed if path not in (own_key, old_key)]
    diffs = [
        {
            "before": (before[path] or b"").decode(),
            "after": (desired[path] or b"").decode(),
            "before_header": path,
            "after_header": path,
        }
        for path in shown
    ]
    module.exit_json(changed=bool(changed or repaired), paths=changed + repaired, diff=diffs, **more)


if __name__ == "__main__":
    main()
