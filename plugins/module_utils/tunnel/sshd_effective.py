# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What sshd of the gateway host really does with a connection of the tunnel account, against what a tunnel needs.

sshd itself is asked (`sshd -T -C user=...,host=...,addr=...`), so that every file, Include and Match counts. Read-only,
as root.

    answer = ask(run, "beta9-tunnel", "192.0.2.7")    raises SshdError where sshd refuses its own configuration
    for problem in problems(answer, Need("beta9-tunnel", ...)): ...
    host_keys(run, answer)

Keywords that this file looks at exist since: DisableForwarding 7.4, PermitListen 7.8, PubkeyAcceptedAlgorithms 8.5
(before: PubkeyAcceptedKeyTypes), UnusedConnectionTimeout 9.2. One that a version does not have is not in its answer,
and is passed over. All but AllowUsers, AllowGroups and the Deny lists are set in the Match block of role gateway_host;
those lists are the administrator's decision, and are only named.
"""

from __future__ import annotations

import contextlib
import glob
import grp
import ipaddress
import os
import pwd
import re
import shlex
import stat
import time
from typing import Callable, Iterable, Iterator, NamedTuple

from ansible_collections.beta9.workers.plugins.module_utils import grammar
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, selinux

SSHD_CONFIG = "/etc/ssh/sshd_config"
OWN_CONFIG = "/etc/ssh/sshd_config.d/50-beta9-tunnel.conf"
KEYS_PATH = "/etc/ssh/beta9-tunnel/authorized_keys"
LISTEN_PORT, TARGETS = 6443, ["localhost:31994"]  # where a worker's k3s is offered, and what its key may open
PREPARE = "Run: ansible-playbook beta9.workers.prepare_gateway"
DAY_SECONDS = 86400
# Which algorithm of PubkeyAcceptedAlgorithms lets a key of a type in, in the order of preference
KEY_TYPES = (("ed25519", "ssh-ed25519"), ("ecdsa", "ecdsa-sha2-nistp256"), ("rsa", "rsa-sha2-512"))
KEY_PREFIXES = {"ssh-ed25519": "ed25519", "ecdsa-sha2-nistp256": "ecdsa", "ssh-rsa": "rsa"}
# Keywords with one right value for the tunnel
VALUES = (
    ("disableforwarding", ("no",)),
    ("allowtcpforwarding", ("yes", "all")),
    ("gatewayports", ("clientspecified",)),
    ("pubkeyauthentication", ("yes",)),
    ("authenticationmethods", ("any", "publickey")),
    ("unusedconnectiontimeout", ("none", "0")),
)
NAMES = {
    "disableforwarding": "DisableForwarding",
    "allowtcpforwarding": "AllowTcpForwarding",
    "gatewayports": "GatewayPorts",
    "pubkeyauthentication": "PubkeyAuthentication",
    "authenticationmethods": "AuthenticationMethods",
    "unusedconnectiontimeout": "UnusedConnectionTimeout",
    "authorizedkeysfile": "AuthorizedKeysFile",
    "allowusers": "AllowUsers",
    "allowgroups": "AllowGroups",
    "denyusers": "DenyUsers",
    "denygroups": "DenyGroups",
}

Run = Callable[[list], tuple]  # as AnsibleModule.run_command: a command in, (exit status, stdout, stderr) out


class SshdError(Exception):
    """sshd can't be asked. The text says why, and what to do."""


class Line(NamedTuple):
    """One setting of a configuration file, in the order in which sshd reads them."""

    path: str
    number: int
    keyword: str  # lower case
    value: str


class Answer(NamedTuple):
    """settings: keyword in lower case -> its values, as sshd lists them. lines: where they may come from."""

    settings: dict
    lines: list


class Need(NamedTuple):
    """What a tunnel needs of sshd. What is None or empty is not looked at."""

    user: str = "beta9-tunnel"
    keys_path: str = KEYS_PATH
    address: str | None = None  # of the worker, as the gateway host sees it
    listen: tuple | None = None  # (address, port) on the gateway host
    permit_open: tuple = ()  # host:port


class Problem(NamedTuple):
    """One thing that keeps tunnels from working. where is file:line, or empty where nothing in a file says so."""

    what: str
    expected: str
    found: str
    where: str
    remedy: str

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        return f"{self.what}: expected {self.expected}, found {self.found}{place}. {self.remedy}"


def program() -> str:
    """Return the path of sshd, which is in no user's PATH on some systems."""
    return next(
        (path for path in ("/usr/sbin/sshd", "/usr/bin/sshd", "/usr/local/sbin/sshd") if os.path.exists(path)), "sshd"
    )


def options_of_the_listener() -> list[str]:
    """Return -f and -o of the sshd that listens: systems give it settings that are in no file that it reads by
    itself."""
    for _pid, _parent, words in linux.processes():
        match = re.match(r"sshd: (.*) \[listener\]", " ".join(words))
        if match:
            given = match.group(1).split()
            found = []
            for index, word in enumerate(given):
                if word in ("-f", "-o") and index + 1 < len(given):
                    found += [word, given[index + 1]]
                elif re.match(r"-[fo].", word):
                    found.append(word)
            return found
    return []


def read_lines(path: str = SSHD_CONFIG, depth: int = 0) -> list[Line]:
    """Return the settings of a configuration file and of what it includes, in sshd's order."""
    found: list[Line] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            texts = stream.read().splitlines()
    except OSError:
        return found
    for number, text in enumerate(texts, 1):
        match = re.match(r'\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)"?(.*?)"?\s*$', text)
        if not match:
            continue
        keyword, value = match.group(1).lower(), match.group(2)
        found.append(Line(path, number, keyword, value))
        if keyword == "include" and depth < 16:
            for pattern in shlex.split(value, comments=True):
                for name in sorted(glob.glob(os.path.join("/etc/ssh", pattern))):
                    found += read_lines(name, depth + 1)
    return found


def ask(run: Run, user: str, address: str | None = None) -> Answer:
    """Return what sshd would do with a connection of user from address, or raise SshdError."""
    given = options_of_the_listener()
    address = address or "192.0.2.1"
    status, out, err = run([program(), *given, "-T", "-C", f"user={user},host={address},addr={address}"])
    if status != 0:
        reason = (err or out).strip().splitlines()
        raise SshdError(
            f"sshd refuses its own configuration: {reason[-1] if reason else status}. Correct it; sshd -t verifies it"
        )
    settings: dict = {}
    for line in out.splitlines():
        keyword, _blank, value = line.partition(" ")
        settings.setdefault(keyword.lower(), []).append(value.strip())
    main = next((given[index + 1] for index, word in enumerate(given[:-1]) if word == "-f"), SSHD_CONFIG)
    return Answer(settings, read_lines(main))


def _where(answer: Answer, keyword: str, values: Iterable[str] = ()) -> str:
    """Return file:line of the first setting of a keyword that names one of the values, else of its first setting."""
    lines = [line for line in answer.lines if line.keyword == keyword]
    named = [line for line in lines if set(line.value.lower().split()) & {value.lower() for value in values}]
    return next((f"{line.path}:{line.number}" for line in named or lines), "")


def _fits(pattern: str, text: str) -> bool:
    """Whether a pattern of ssh_config(5) fits: * and ? are wild."""
    return bool(re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text))


def _fits_user(pattern: str, user: str, address: str | None, unknown: bool) -> bool:
    """Whether an entry of AllowUsers or DenyUsers, USER or USER@HOST, means the account. unknown: the answer where no
    address is known."""
    name, at, place = pattern.partition("@")
    if not at or not _fits(name, user):
        return _fits(name, user)
    if address is None:
        return unknown
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(place, strict=False)
    except ValueError:
        return _fits(place, address)


def _groups(user: str) -> list[str]:
    main = pwd.getpwnam(user).pw_gid
    return [group.gr_name for group in grp.getgrall() if group.gr_gid == main or user in group.gr_mem]


def _include(answer: Answer) -> Iterator[Problem]:
    """Whether sshd reads the own Match block at all. Everything else follows from that."""
    if not os.path.exists(OWN_CONFIG):
        yield Problem("gateway host", "to be prepared for tunnels", f"no {OWN_CONFIG}", "", PREPARE)
    elif not any(line.path == OWN_CONFIG for line in answer.lines):
        directory = os.path.dirname(OWN_CONFIG)
        remedy = f"Add as its first line: Include {directory}/*.conf. Then reload sshd."
        yield Problem(
            "Include",
            f"{SSHD_CONFIG} to read {directory}/*.conf",
            "no Include that leads there",
            f"{SSHD_CONFIG}:1",
            remedy,
        )


def _values(answer: Answer, need: Need) -> Iterator[Problem]:
    own = {line.keyword for line in answer.lines if line.path == OWN_CONFIG}
    for keyword, right in (*VALUES, ("authorizedkeysfile", (need.keys_path,))):
        found = " ".join(answer.settings.get(keyword, [])).split()
        if not found or set(found) & set(right):
            continue
        where, remedy = _where(answer, keyword, found), PREPARE
        if where and keyword in own:  # only a Match that sshd reads earlier wins over the own one
            remedy = f"Leave {need.user} out of that Match block, and reload sshd."
        # not in the own Match block: older versions refuse it there
        elif where and keyword == "unusedconnectiontimeout":
            remedy = f"Remove it there, or set it to none for {need.user}, and reload sshd."
        yield Problem(NAMES[keyword], f"{right[0]} for {need.user}", " ".join(found), where, remedy)


def _permits(answer: Answer, need: Need) -> Iterator[Problem]:
    wanted = [("permitopen", "PermitOpen", target) for target in need.permit_open]
    if need.listen:
        address, port = need.listen
        wanted.append(
            ("permitlisten", "PermitListen", f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
        )
    for keyword, name, target in wanted:
        entries = " ".join(answer.settings.get(keyword, ["any"])).split()
        port = target.rpartition(":")[2]
        if not any(
            entry == "any" or _fits(entry, target) or (keyword == "permitlisten" and entry == port) for entry in entries
        ):
            yield Problem(
                name,
                f"{target} for {need.user}",
                " ".join(entries),
                _where(answer, keyword, entries),
                f"Leave {need.user} out of that Match block.",
            )


def _lists(answer: Answer, need: Need, groups: list[str]) -> Iterator[Problem]:
    """AllowUsers and the like: all of them have to let the account through."""

    def entries(keyword: str) -> list[str]:
        return " ".join(answer.settings.get(keyword, [])).split()

    def refused(keyword: str, found: list[str], remedy: str) -> Problem:
        where = _where(answer, keyword, found)
        return Problem(
            NAMES[keyword],
            f"{need.user} to be let in",
            " ".join(found),
            where,
            remedy.format(where=where or "sshd's configuration"),
        )

    found = [entry for entry in entries("denyusers") if _fits_user(entry, need.user, need.address, False)]
    if found:
        yield refused("denyusers", found, f"Take {need.user} out of DenyUsers in {{where}}, and reload sshd.")
    found = entries("allowusers")
    if found and not any(_fits_user(entry, need.user, need.address, True) for entry in found):
        yield refused("allowusers", found, f"Add {need.user} to AllowUsers in {{where}}, and reload sshd.")
    found = [entry for entry in entries("denygroups") if any(_fits(entry, group) for group in groups)]
    if found:
        yield refused(
            "denygroups", found, f"Take the group of {need.user} out of DenyGroups in {{where}}, and reload sshd."
        )
    found = entries("allowgroups")
    if found and not any(_fits(entry, group) for entry in found for group in groups):
        yield refused(
            "allowgroups",
            found,
            f"Add {need.user} to one of these groups: usermod --append --groups {found[0]} {need.user}",
        )


def _shadow(user: str) -> list[str]:
    """Return the fields of the account in /etc/shadow, [] where it has none or the file may not be read."""
    try:
        with open("/etc/shadow", encoding="utf-8", errors="replace") as stream:
            return next((line.strip().split(":") for line in stream if line.startswith(user + ":")), [])
    except OSError:
        return []


def _account(answer: Answer, need: Need) -> Iterator[Problem]:
    fields = _shadow(need.user) + [""] * 9
    today, pam = int(time.time() // DAY_SECONDS), answer.settings.get("usepam", ["no"]) == ["yes"]
    if fields[1].startswith("!") and not pam:
        yield Problem(
            "account",
            f"{need.user} not locked",
            "locked",
            "/etc/shadow",
            f"Unlock it: usermod --unlock {need.user}. {PREPARE}",
        )
    if fields[7].isdigit() and int(fields[7]) <= today:
        yield Problem(
            "account",
            f"{need.user} not expired",
            "expired",
            "/etc/shadow",
            f"Let it live on: chage --expiredate -1 {need.user}",
        )
    changed, longest = fields[2], fields[4]
    aged = changed == "0" or (
        changed.isdigit() and longest.isdigit() and int(longest) < 99999 and int(changed) + int(longest) < today
    )
    if aged and pam:
        remedy = f"It has no password, so let none age: chage --maxdays -1 --lastday {today} {need.user}"
        yield Problem(
            "account",
            f"{need.user} without an aged password",
            "a password that must be changed first",
            "/etc/shadow",
            remedy,
        )


def _readable(answer: Answer, need: Need) -> Iterator[Problem]:
    """The file of the keys: sshd reads it as the account, and with StrictModes wants it safe from others."""
    account, path = pwd.getpwnam(need.user), need.keys_path
    groups = {group.gr_gid for group in grp.getgrall() if need.user in group.gr_mem} | {account.pw_gid}
    strict = answer.settings.get("strictmodes") == ["yes"]
    while True:
        try:
            seen = os.stat(path)
        except FileNotFoundError:  # the first worker makes it
            path = os.path.dirname(path)
            continue
        folder = stat.S_ISDIR(seen.st_mode)
        shift = 6 if seen.st_uid == account.pw_uid else 3 if seen.st_gid in groups else 0
        found, remedy = (
            f"mode {seen.st_mode & 0o7777:04o}, owner {seen.st_uid}",
            f"chown root: {path}; chmod {'0755' if folder else '0644'} {path}",
        )
        if not seen.st_mode >> shift & (0o1 if folder else 0o4):
            yield Problem(path, f"{need.user} to be able to read it", found, "", remedy)
        elif strict and (seen.st_mode & 0o022 or seen.st_uid not in (0, account.pw_uid)):
            yield Problem(path, "root alone to be able to write it", found, "", remedy)
        if path == "/":
            return
        path = os.path.dirname(path)


def _session(user: str) -> int | None:
    """Return the process of sshd that does what a session of the account asks for: one of the account's own, else the
    one that this runs in."""
    uid = pwd.getpwnam(user).pw_uid
    parents, sessions = {}, set()
    for pid, parent, words in linux.processes():
        parents[pid] = parent
        if re.match(r"sshd(-session)?:", words[0]):
            sessions.add(pid)
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{pid}").st_uid == uid:
                    return pid
    pid = os.getpid()
    while pid in parents and pid not in sessions:
        pid = parents[pid]
    return pid if pid in sessions else None


def refused_by_selinux(user: str, listen: Iterable[int], targets: Iterable[str]) -> list[Problem]:
    """Return what SELinux keeps sshd from, as sessions of the account: to listen on a port for a worker, to connect to
    a tunnel's target (host:port)."""
    ports = {"name_bind": list(listen), "name_connect": [int(target.rpartition(":")[2]) for target in targets]}
    session = _session(user) if selinux.enforcing() and any(ports.values()) else None
    found = selinux.refusals(selinux.context_of(session), ports) if session else []
    if not found:
        return []
    refused = ", ".join(
        f"{entry.permission} on TCP {' '.join(map(str, entry.ports))} ({entry.port_type})" for entry in found
    )
    expected = f"sshd's sessions ({found[0].domain}) to be allowed what a tunnel does"
    return [
        Problem("SELinux", expected, f"its policy refuses {refused}", "", f"Allow just this: {selinux.remedy(found)}")
    ]


def problems(answer: Answer, need: Need) -> list[Problem]:
    """Return what keeps a tunnel of this kind from working. The most general reason comes first."""
    found = list(_include(answer))
    if found:
        return found  # all others follow from it
    try:
        groups = _groups(need.user)
    except KeyError:
        return [Problem("account", f"an account {need.user}", "none", "/etc/passwd", PREPARE)]
    found += _account(answer, need)
    found += _lists(answer, need, groups)
    found += _values(answer, need)
    found += _permits(answer, need)
    found += _readable(answer, need)
    return found + refused_by_selinux(need.user, [need.listen[1]] if need.listen else [], need.permit_open)


def key_type(public_key: str) -> str:
    """Return the type for ssh-keygen of a public key, an empty string where it is another one."""
    return KEY_PREFIXES.get(public_key.split()[0], "")


def key_types(answer: Answer) -> list[str]:
    """Return the types for ssh-keygen of which sshd accepts keys, the preferred one first."""
    accepted = answer.settings.get("pubkeyacceptedalgorithms") or answer.settings.get("pubkeyacceptedkeytypes")
    if not accepted:
        return [name for name, _algorithm in KEY_TYPES]
    accepted = accepted[0].split(",")
    return [name for name, algorithm in KEY_TYPES if algorithm in accepted]


def host_keys(run: Run, answer: Answer) -> list[str]:
    """Return the public host keys that this sshd shows, as "type base64", wherever they are.

    Those of kinds that workers do not know (OpenSSH 10.6 makes one with ML-DSA as well) are left out: the others are as
    good to pin.
    """
    keys = []
    for path in answer.settings.get("hostkey", []):
        try:
            with open(path if path.endswith(".pub") else path + ".pub", encoding="utf-8") as stream:
                text = stream.read()
        except (OSError, UnicodeDecodeError):
            status, text, _err = run(["ssh-keygen", "-y", "-P", "", "-f", path])
            text = text if status == 0 else ""
        with contextlib.suppress(grammar.InvalidField):
            keys.append(grammar.public_key(" ".join(text.split()[:2])))
    return sorted(set(keys))
