# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k3s on this host: where things are, and what a release consists of.

A release has the program, a list of checksums, and an archive of images. Each file is fetched or copied beside the
place where it belongs, verified there, and put in place by rename. What was put in place is remembered with its
checksum, size and time, so that a later run needs no network to see that all is well.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
from urllib.parse import quote
from typing import Any, Callable, TYPE_CHECKING

from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

BINARY, UNIT, UNIT_FILE = "/usr/local/bin/k3s", "k3s.service", "/etc/systemd/system/k3s.service"
CONFIG_DIR = "/etc/rancher/k3s/config.yaml.d"
DATA_DIR = "/var/lib/rancher/k3s"
IMAGES_DIR = DATA_DIR + "/agent/images"
DATABASE_DIR = DATA_DIR + "/server/db"
STATE_DIR = "/var/lib/beta9-k3s"  # ours: what was installed, and what to go back to
RECORD, PREVIOUS = STATE_DIR + "/installed.json", STATE_DIR + "/previous"
MARK = "Managed by Ansible (beta9.workers.k3s)"
MANIFESTS_DIR = DATA_DIR + "/server/manifests"
RESTART_SECONDS = 5  # RestartSec of the unit: a k3s that ends at once is active for less than this
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
STAGED = ".beta9-new"  # no suffix that k3s takes for an image archive
CHUNK_BYTES = 1 << 20
VERSION_FORM = re.compile(r"v(\d+)\.(\d+)\.(\d+)(?:-rc(\d+))?\+k3s(\d+)$")


class Refused(Exception):
    """What was wanted can't be done. Carries what the user has to know."""

    def __init__(self, code: str, what: str, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}. {remedy}")
        self.code, self.what, self.expected, self.found, self.remedy = code, what, expected, found, remedy

    def problem(self) -> dict[str, Any]:
        """Return it as preflight tells problems."""
        return {"what": self.what, "expected": self.expected, "found": self.found, "remedy": self.remedy}

    def result(self) -> dict[str, Any]:
        """Return it as a module fails."""
        return {"msg": str(self), "code": self.code, "cause": f"{self.what}: {self.found}", "remedy": self.remedy}


def release(machine: str) -> dict[str, str]:
    """Return the names of a release's files for an architecture as uname -m tells it: {"binary", "sums", "images"}."""
    if machine not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise Refused(
            "k3s_architecture",
            "CPU architecture",
            f"one of {known} for k3s",
            machine,
            "Use another host, or set beta9_k3s: false.",
        )
    name = ARCHITECTURES[machine]
    return {
        "binary": "k3s" if name == "amd64" else "k3s-" + name,
        "sums": f"sha256sum-{name}.txt",
        "images": f"k3s-airgap-images-{name}.tar.zst",
    }


def version_key(text: str | None) -> tuple:
    """Return a comparable form of a version such as v1.36.2+k3s1; release candidates come before their release."""
    match = VERSION_FORM.match(text or "")
    if not match:
        raise Refused(
            "k3s_version", "k3s_version", "a release of k3s like v1.36.2+k3s1", repr(text), "Correct k3s_version."
        )
    major, minor, patch, candidate, build = match.groups()
    return int(major), int(minor), int(patch), int(build), int(candidate) if candidate else 10**6


def check_step(current: str | None, desired: str) -> None:
    """Refuse what can't be undone: going back, and leaving out a minor version. A program without a version is no
    obstacle."""
    if not VERSION_FORM.match(current or ""):
        return
    now, then = version_key(current), version_key(desired)
    if then < now:
        remedy = (
            f"Set k3s_version to {current} or newer. k3s can't read a newer version's database; to go back, "
            f"offboard the host and onboard it again."
        )
        raise Refused("k3s_downgrade", "k3s_version", f"{current}, which is installed, or newer", desired, remedy)
    if (then[0], then[1] - 1) > now[:2]:
        remedy = (
            f"Upgrade one minor version at a time: Kubernetes supports no larger step. Next is v{now[0]}.{now[1] + 1}."
        )
        raise Refused("k3s_step", "k3s_version", f"at most one minor version above {current}", desired, remedy)


def parse_sums(text: str) -> dict[str, str]:
    """Return {file name: SHA-256} of a list as sha256sum writes it."""
    rows = re.findall(r"^([0-9a-f]{64}) [ *](\S+)$", text, re.M)
    return {os.path.basename(name): digest for digest, name in rows}


def expected_sum(sums: dict[str, str], name: str, pinned: str | None, source: str) -> str:
    """Return the checksum that a file must have: the release's, which the operator's must equal where there is one."""
    listed = sums.get(name)
    if not listed:
        raise Refused(
            "k3s_checksum_list",
            f"{name} of {source}",
            "an entry in the release's list of checksums",
            "none",
            "Complete the mirror.",
        )
    if pinned and pinned.lower() != listed:
        remedy = "One of both is wrong: compare with the project's release page before you change either."
        raise Refused(
            "k3s_checksum_pinned",
            "k3s_binary_sha256",
            f"the release's own checksum of {name}, {listed}",
            pinned,
            remedy,
        )
    return listed


def url_of(base: str, version: str, name: str) -> str:
    """Return the address of a release's file. The + of a version is %2B in a path."""
    return f"{base.rstrip('/')}/{quote(version, safe='.')}/{name}"


def digest_of(path: str) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for chunk in iter(lambda: stream.read(CHUNK_BYTES), b""):
            digest.update(chunk)
    return digest.hexdigest()


def opened(url: str, ca_path: str | None = None) -> http.client.HTTPResponse:
    """Open a URL, or refuse with what went wrong."""
    from ansible.module_utils import urls  # pylint: disable=import-outside-toplevel  # slow to load, and a second run needs it not

    remedy = (
        "Let the host reach it, set k3s_artifact_url to a mirror, or set k3s_airgap_dir for hosts without internet."
    )
    try:
        return urls.open_url(url, timeout=30, ca_path=ca_path, http_agent="beta9.workers")
    except (OSError, ValueError, http.client.HTTPException, urls.ConnectionError) as error:
        found = f"HTTP {error.code}" if hasattr(error, "code") else str(getattr(error, "reason", error))
        if getattr(error, "code", None) == 404:
            remedy = "Correct k3s_version or k3s_artifact_url: this release is not there."
        raise Refused("k3s_download", url, "an answer", found, remedy) from None


def check_mirror(base: str, name: str, pinned: str | None, insecure: bool) -> None:
    """Refuse a file of a mirror that anybody on the network path may replace together with its list of checksums."""
    if not base.lower().startswith("https://") and not (pinned or insecure):
        remedy = (
            "Use https, set k3s_binary_sha256 (for images: k3s_extra_images), or k3s_insecure_mirror: true where "
            "the network between both is trusted."
        )
        raise Refused("k3s_mirror_insecure", "k3s_artifact_url", f"https, or a checksum of {name}", base, remedy)


def fetch_sums(base: str, version: str, name: str, ca_path: str | None = None) -> dict[str, str]:
    """Return the release's checksums."""
    url = url_of(base, version, name)
    with opened(url, ca_path) as answer:
        sums = parse_sums(answer.read(CHUNK_BYTES).decode("utf-8", "replace"))
    if not sums:
        raise Refused(
            "k3s_checksum_list",
            url,
            "a list of checksums",
            "something else",
            "Correct k3s_artifact_url, or complete the mirror.",
        )
    return sums


def fetch(url: str, path: str, digest: str, ca_path: str | None = None) -> None:
    """Write a URL's content to path, and refuse it unless it has the checksum. Nothing is left behind then."""
    found, size = hashlib.sha256(), 0
    try:
        with opened(url, ca_path) as answer, open(path, "wb") as stream:
            promised = answer.headers.get("Content-Length")
            for chunk in iter(lambda: answer.read(CHUNK_BYTES), b""):
                found.update(chunk)
                stream.write(chunk)
                size += len(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        if promised and int(promised) != size:
            raise Refused(
                "k3s_download",
                url,
                f"{promised} bytes",
                f"{size}: the transfer ended early",
                "Run again; check the server if it stays so.",
            )
        if found.hexdigest() != digest:
            raise _wrong_sum(url, digest, found.hexdigest())
    except OSError as error:
        secretfiles.remove([path])
        raise Refused(
            "k3s_write",
            path,
            "room for the file",
            error.strerror or str(error),
            "Free some space on that file system, and run again.",
        ) from None
    except BaseException:
        secretfiles.remove([path])
        raise


def _wrong_sum(what: str, digest: str, found: str) -> Refused:
    remedy = "The file was damaged or replaced: do not use it. Compare the mirror with the project's release."
    return Refused("k3s_checksum", what, f"SHA-256 {digest}", found, remedy)


def verify(path: str, digest: str) -> None:
    """Refuse a file that does not have the checksum, and remove it."""
    found = digest_of(path)
    if found != digest:
        secretfiles.remove([path])
        raise _wrong_sum(os.path.basename(path).replace(STAGED, "").lstrip("."), digest, found)


def record() -> dict[str, Any]:
    """Return what was installed: {"version", "files": {path: {"sha256", "size", "mtime_ns"}}}; {} when nothing was."""
    try:
        with open(RECORD, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return {}


def remember(version: str, files: dict[str, str]) -> None:
    """Record files that were just put in place: {path: SHA-256}."""
    entries = {}
    for path, digest in files.items():
        stat = os.stat(path)
        entries[path] = {"sha256": digest, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    secretfiles.ensure_directory(STATE_DIR)
    secretfiles.write(RECORD, json.dumps({"version": version, "files": entries}, indent=1, sort_keys=True) + "\n")


def in_place(path: str, known: dict[str, Any]) -> bool:
    """Return whether a file is what the record says. Its content is not read again: size and time tell of a change."""
    entry = known.get("files", {}).get(path)
    try:
        stat = os.stat(path)
    except OSError:
        return False
    return bool(entry) and (stat.st_size, stat.st_mtime_ns) == (entry["size"], entry["mtime_ns"])


def installed_version(run_command: Callable[..., tuple[int, str, str]]) -> str | None:
    """Return the version that the program tells, None when there is no program or it does not run."""
    if not os.path.exists(BINARY):
        return None
    rc, out, _err = run_command([BINARY, "--version"])
    return told_version(out) if rc == 0 else None


def told_version(text: str) -> str | None:
    """Return the version of k3s' answer to --version: the name by which it was run, "version", and the version. None
    for other text."""
    match = re.match(r"\S+ version (v\S+)", text)
    return match.group(1) if match else None


def kubectl(module: AnsibleModule, *words: str) -> tuple:
    """Run k3s' kubectl as the administrator; return (exit status, stdout, stderr). Warnings are on stderr, so that it
    is read apart."""
    return module.run_command([BINARY, "kubectl", *api.KUBECTL_OPTIONS, *words], environ_update={"NO_COLOR": "1"})


def is_foreign() -> str | None:
    """Return the path that shows a k3s which somebody else installed, or None."""
    if os.path.isdir(STATE_DIR) or (os.path.exists(UNIT_FILE) and MARK in _text(UNIT_FILE)):
        return None
    return next(
        (path for path in (UNIT_FILE, "/etc/systemd/system/k3s-agent.service", BINARY) if os.path.exists(path)), None
    )


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def in_unit(pid: int) -> bool:
    """Return whether a process belongs to our unit."""
    try:
        return "/" + UNIT in _text(f"/proc/{pid}/cgroup")
    except OSError:
        return False
