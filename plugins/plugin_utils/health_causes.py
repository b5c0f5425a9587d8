# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be fixed first, each cause once for all of its hosts: root causes of checks, and why hosts could not be
reached. Pure.

A result is {"host", "outcome": healthy|unhealthy|unknown|unreachable, "message", "verdicts": [...]}.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence

from ansible_collections.beta9.workers.plugins.module_utils.health import diagnose, remedies
from ansible_collections.beta9.workers.plugins.plugin_utils import health_remedies, remote

FAIL, UNREACHABLE, UNKNOWN, WARN = "fail", "unreachable", "unknown", "warn"
ORDER = (FAIL, UNREACHABLE, UNKNOWN, WARN)
CLASSES = {
    "safe": "heals itself: heal_worker.yml",
    "opt_in": "heals when asked: heal_worker.yml -e heal_opt_in=true",
    "person": "needs a person",
}
# Why a host could not be reached: what Ansible's message has, our code for it, the cause, and what a person does
MESSAGES = (
    (
        r"host key|REMOTE HOST IDENTIFICATION|known_hosts",
        "host_key",
        "the host's SSH key is not known, or is another one than before",
        "Compare the key's fingerprint with the host's, then add it to known_hosts; after a reinstallation remove the "
        "old one first: ssh-keygen -R.",
    ),
    (remote.PROMPT, "prompt", "sudo did not ask for a password in words that Ansible knows", remote.SUDO_RS),
    (
        r"\bsudo\b|become|privilege",
        "become",
        "root privileges were refused",
        "Give the host's ansible_user sudo rights, and set ansible_become_password where sudo asks for one.",
    ),
    (
        r"permission denied|auth\w* fail|too many authentication",
        "login",
        "the SSH login was refused",
        (
            "Authorize the controller's public key for the host's ansible_user, or correct ansible_user and "
            "ansible_ssh_private_key_file."
        ),
    ),
    (
        r"resolve|name or service not known",
        "name",
        "the host's name cannot be resolved",
        "Correct ansible_host in the inventory, or the DNS entry.",
    ),
    (
        r"connection refused",
        "refused",
        "nothing listens at the host's SSH port",
        "Start sshd on the host, or correct ansible_port.",
    ),
    (
        r"timed? ?out|no route|network is unreachable|host is down",
        "silent",
        "the host does not answer",
        "Verify that the host is powered on, and that the network lets the controller reach its SSH port.",
    ),
    (
        r"no space|temporary directory|read-only file system",
        "disk",
        "Ansible cannot write its temporary files on the host",
        "Free disk space on the host, or set ansible_remote_tmp to a directory that can be written to.",
    ),
)


class Cause(NamedTuple):
    """One cause. identity: the check's id, or "unreachable" or "unknown" for hosts that no check could look at."""

    identity: str
    code: str
    status: str  # one of ORDER
    cause: str
    expected: str
    found: str
    remedy: Dict[str, Any]  # filled in for all of the hosts; {} where there is nothing to do about it
    heal: str  # what to say of the playbook that heals it, or ""
    docs: str
    hosts: List[str]
    leads_to: List[str]

    @property
    def key(self) -> str:
        """Return what this cause is recognised by in another run."""
        return key(self.identity, self.code)

    @property
    def label(self) -> str:
        """Return the cause's name for people."""
        if self.identity == UNKNOWN:
            return "COULD NOT TELL"
        return self.identity.upper() if self.identity == UNREACHABLE else f"{self.status.upper()} {self.identity}"


def key(identity: str, code: str) -> str:
    """Return what a cause is recognised by in another run."""
    return f"{identity}/{code}" if code else identity


def grouped_roots(results: Sequence[Mapping[str, Any]]) -> list:
    """Return [(id, cause, [(host, verdict)])]: the same root on many hosts once, failures before warnings, most hosts
    first."""
    groups: Dict[tuple, list] = {}
    for result in results:
        for verdict in result["verdicts"]:
            if verdict["root"]:
                groups.setdefault((verdict["id"], verdict["cause"]), []).append((result["host"], verdict))
    return [
        (name[0], name[1], hosts)
        for name, hosts in sorted(
            groups.items(), key=lambda item: (item[1][0][1]["status"] != FAIL, -len(item[1]), item[0])
        )
    ]


def causes(results: Sequence[Mapping[str, Any]], ad_hoc: str = "") -> List[Cause]:
    """Return every cause, what is worst and what most hosts have first. ad_hoc: how program ansible is called, "" where
    there is no shell."""
    found = [_of_check(name, cause, hosts, results) for name, cause, hosts in grouped_roots(results)]
    lost: Dict[tuple, list] = {}
    for result in results:
        if result["outcome"] in (UNREACHABLE, UNKNOWN):
            lost.setdefault(of_host(result), []).append(result)
    found += [_of_hosts(reason, hosts, ad_hoc) for reason, hosts in lost.items()]
    return sorted(found, key=lambda entry: (ORDER.index(entry.status), -len(entry.hosts), entry.identity))


def of_host(result: Mapping[str, Any]) -> tuple:
    """Return (identity, code, cause, what a person does) for a host that no check tells the cause of."""
    message, identity = str(result["message"]), result["outcome"]
    if identity == UNKNOWN and result["verdicts"]:
        return identity, "unseen", "the checks that show whether it is healthy could not look", ""
    for pattern, code, cause, prose in MESSAGES:
        if re.search(pattern, message, re.IGNORECASE):
            return identity, code, cause, prose
    return (
        identity,
        "",
        "Ansible could not reach the host" if identity == UNREACHABLE else "the check itself did not run to its end",
        "",
    )


def _of_check(identity: str, cause: str, hosts: list, results: Sequence[Mapping[str, Any]]) -> Cause:
    verdict, names = hosts[0][1], [host for host, _verdict in hosts]
    return Cause(
        identity=identity,
        code=verdict["code"],
        status=FAIL if verdict["status"] == FAIL else WARN,
        cause=cause,
        expected=verdict["title"],
        found=verdict["found"],
        remedy=health_remedies.for_hosts(verdict["remedy"], names),
        heal=CLASSES[verdict["heal_class"]] if verdict["heal"] else "",
        docs=verdict["docs"],
        hosts=names,
        leads_to=sorted(
            {other["id"] for result in results for other in result["verdicts"] if identity in other["because"]}
        ),
    )


def _of_hosts(reason: tuple, results: list, ad_hoc: str) -> Cause:
    identity, code, cause, prose = reason
    names, first = [result["host"] for result in results], results[0]
    unseen = [
        f"{verdict['id']} {verdict['status']}: {verdict['found']}" for verdict in diagnose.unseen(first["verdicts"])
    ]
    command = (
        f"{ad_hoc} all -l {shlex.quote(','.join(names))} -m ansible.builtin.ping"
        if ad_hoc and identity == UNREACHABLE
        else ""
    )
    return Cause(
        identity=identity,
        code=code,
        status=identity,
        cause=cause,
        expected="",
        found=" ".join((str(first["message"]) or "; ".join(dict.fromkeys(unseen))).split()),
        remedy={
            "where": remedies.CONTROLLER if command else "",
            "host": "",
            "command": command,
            "prose": prose,
            "remediates": False,
            "mends": False,
        },
        heal="",
        docs="",
        hosts=names,
        leads_to=[],
    )
