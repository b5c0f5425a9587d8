# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a value may look like that is written into a file of a host: one validator per grammar. Pure.

Each validator takes a value and the name of the variable it came from, and returns the value as it is to be written, or
raises InvalidField with what was expected and found. Preflight uses them to name every wrong value at once, and each
place that renders a file uses them again, because a file of root must not depend on what ran before.

GRAMMARS maps the names of those that templates need to them; filter plugin valid offers them there.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Callable
from urllib.parse import urlsplit

from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol

InvalidField = protocol.InvalidField

MAX_FOUND = 80  # characters of a refused value that a message shows
SYSTEM_ACCOUNTS = frozenset(
    "root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc nobody operator halt "
    "shutdown adm sshd ftp".split()
)


def url_host(url: str) -> str:
    """Return the host part of a URL, or an empty string."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _shown(value: object) -> str:
    text = repr(value)
    return "nothing" if value in (None, "") else text if len(text) <= MAX_FOUND else text[:MAX_FOUND] + "…"


def _match(pattern: str, value: object, field: str, expected: str) -> str:
    """Return value where it is a text that the whole pattern fits. Nothing is stripped: a blank is a mistake, too."""
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.ASCII):
        raise InvalidField(field, expected, _shown(value))
    return str(value)


def _text(pattern: str, expected: str, name: str) -> Callable[..., str]:
    """Return a validator of a text that the whole pattern fits. name: of the variable, where the caller says none."""
    return lambda value, field=name: _match(pattern, value, field, expected)


user_name = _text(r"[a-z_][a-z0-9_-]{0,31}", "the name of an account like beta9-tunnel", "user")  # as useradd(8) has it
worker_name = _text(
    r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,252}", "a name of letters, digits, '.', '_', ':' or '-'", "inventory_hostname"
)
interface = _text(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", "a network interface like eth0", "interface")
word = _text(r"[A-Za-z0-9][A-Za-z0-9._+~:-]{0,254}", "a word of letters, digits and ._+~:-", "name")
log_format = _text(r"text|json", "text or json", "beta9_log_format")
sha256 = _text(r"[0-9A-Fa-f]{64}", "a SHA-256 checksum of 64 hexadecimal digits", "sha256")
k3s_version = _text(
    r"v[0-9]+\.[0-9]+\.[0-9]+(-rc[0-9]+)?\+k3s[0-9]+", "a release of k3s like v1.36.2+k3s1", "k3s_version"
)
branch = _text(r"[0-9]{3}", "a branch of three digits like 580", "branch")  # of NVIDIA's driver
version = _text(r"[0-9][0-9A-Za-z.+~:_-]{0,63}", "a version like 580.95.05", "version")  # of a package
package = _text(r"[A-Za-z0-9](\{branch\}|[A-Za-z0-9.+_-]){0,127}", "the name of a package", "package")
label = _text(  # as Kubernetes names namespaces
    r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", "a name of lower-case letters, digits and '-'", "namespace"
)
tag = _text(r"tag:[A-Za-z][A-Za-z0-9-]{0,62}", "a tag like tag:gpu", "tag")  # of a tailnet
check_id = _text(r"[A-Z][0-9]{2}", "the id of a check like T01", "id")


def integer(value: object, field: str, least: int, most: int) -> int:
    """Return a whole number from least to most, given as number or as text."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    expected = f"a whole number from {least} to {most}"
    number = int(_match(r"[0-9]{1,10}", text, field, expected))
    if not least <= number <= most:
        raise InvalidField(field, expected, _shown(value))
    return number


def port(value: object, field: str = "port") -> int:
    """Return a TCP port."""
    return integer(value, field, 1, 65535)


def seconds(value: object, field: str = "seconds") -> int:
    """Return a number of seconds, at most a day."""
    return integer(value, field, 1, 86400)


def address(value: object, field: str = "address") -> str:
    """Return an IPv4 or IPv6 address (without zone) in its usual form."""
    try:
        found = ipaddress.ip_address(value if isinstance(value, str) and "%" not in value else "")
    except ValueError:
        raise InvalidField(field, "an IP address like 192.168.1.100", _shown(value)) from None
    return str(found)


def listen_address(value: object, field: str = "listen_address") -> str:
    """Return an address that one worker alone may listen on: not every address, and not that of the host's own
    services."""
    found = ipaddress.ip_address(address(value, field))
    mapped = getattr(found, "ipv4_mapped", None) or found
    if mapped.is_unspecified or mapped.is_multicast or str(mapped) in ("127.0.0.1", "::1", "255.255.255.255"):
        raise InvalidField(field, "an address of this worker alone, like 127.77.3.9", _shown(value))
    return str(found)


def network(value: object, field: str = "network") -> str:
    """Return a network, as 127.77.0.0/16."""
    try:
        found = ipaddress.ip_network(value if isinstance(value, str) and "/" in value and "%" not in value else "")
    except ValueError:
        raise InvalidField(field, "a network like 127.77.0.0/16", _shown(value)) from None
    return str(found)


def host(value: object, field: str = "host") -> str:
    """Return a host name or an IP address."""
    label = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    try:
        return address(value, field)
    except InvalidField:
        expected = "a host name or an IP address"
        text = _match(rf"{label}(\.{label})*\.?", value, field, expected)
    if len(text) > 253 or re.fullmatch(r"[0-9.]+", text):
        raise InvalidField(field, expected, _shown(value))
    return text


def host_port(value: object, field: str = "target") -> str:
    """Return "host:port", an IPv6 address in brackets. A wildcard is neither host nor port."""
    expected = "host:port like localhost:31994"
    found = (
        re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})", value, re.ASCII)
        if isinstance(value, str)
        else None
    )
    if not found:
        raise InvalidField(field, expected, _shown(value))
    inner, name, number = found.groups()
    try:
        where = host(inner or name, field)
        return f"{f'[{where}]' if ':' in where else where}:{port(number, field)}"
    except InvalidField:
        raise InvalidField(field, expected, _shown(value)) from None


def forwards(value: object, field: str = "autossh_forwards") -> list[dict]:
    """Return a list of {"local_port": int, "target": "host:port"}: at least one, no local port twice."""
    if not isinstance(value, (list, tuple)) or not value:
        raise InvalidField(field, "a list of {local_port, target}, at least one", _shown(value))
    found = []
    for index, entry in enumerate(value):
        where = f"{field}[{index}]"
        if not isinstance(entry, dict) or set(entry) != {"local_port", "target"}:
            raise InvalidField(where, "local_port and target", _shown(entry))
        found.append(
            {
                "local_port": port(entry["local_port"], where + ".local_port"),
                "target": host_port(entry["target"], where + ".target"),
            }
        )
    ports = [entry["local_port"] for entry in found]
    if len(set(ports)) != len(ports):
        raise InvalidField(field, "each local_port once", ", ".join(map(str, ports)))
    return found


def own_account(value: object, field: str = "user") -> str:
    """Return the name of an account that may be made for one purpose: none that every system has, and not root."""
    name = user_name(value, field)
    if name in SYSTEM_ACCOUNTS or name.startswith(("systemd-", "_")):
        raise InvalidField(field, "an account of its own like beta9-tunnel", f"{name}, which belongs to the system")
    return name


def public_key(value: object, field: str = "public_key") -> str:
    """Return "type base64" of one SSH public key; a comment behind it is left out, options before it and further lines
    are refused."""
    kinds = r"ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa|sk-(ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com"
    text = value.strip() if isinstance(value, str) else value
    line = _match(
        rf"({kinds}) [A-Za-z0-9+/]{{16,4096}}={{0,3}}( [\x20-\x7e]*)?", text, field, "one line 'ssh-ed25519 AAAA...'"
    )
    return " ".join(line.split(" ")[:2])


def image(value: object, field: str = "image") -> str:
    """Return the name of a container image, with registry, tag and digest where given."""
    place = r"[a-z0-9][A-Za-z0-9._-]*(:[0-9]{1,5})?(/[a-z0-9][a-z0-9._-]*)*"
    form = place + r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?"
    return _match(
        rf"(?=.{{1,255}}\Z){form}", value, field, "a container image like nvcr.io/nvidia/k8s-device-plugin:v0.19.3"
    )


def path(value: object, field: str = "path") -> str:
    """Return an absolute path without blanks, quotes, variables, specifiers of units, or '..'."""
    expected = "an absolute path of letters, digits and ._@+=,:-"
    text = _match(r"/[A-Za-z0-9._/@+=,:-]{0,4094}", value, field, expected)
    if ".." in text.split("/"):
        raise InvalidField(field, expected, _shown(value))
    return text


def url(value: object, field: str = "url") -> str:
    """Return an http(s) address: a host, maybe a port, maybe a path. Neither user, password, query nor fragment."""
    expected = "a URL like https://gateway.example.com:1994"
    found = (
        re.fullmatch(r"https?://([^/?#@\s]+)((?:/[A-Za-z0-9._~!+,=:%@-]*)*)", value, re.ASCII)
        if isinstance(value, str)
        else None
    )
    if not found:
        raise InvalidField(field, expected, _shown(value))
    where = found.group(1)
    try:
        host_port(where if re.search(r":[0-9]+$", where) and not where.endswith("]") else where + ":80", field)
    except InvalidField:
        raise InvalidField(field, expected, _shown(value)) from None
    return str(value)


def repository_url(value: object, field: str = "url") -> str:
    """Return the address of a package repository: as url, and with the variables $(ARCH), $basearch and $releasever in
    its path."""
    text = re.sub(r"\$(\(ARCH\)|basearch\b|releasever\b)", "x", value) if isinstance(value, str) else value
    try:
        url(text, field)
    except InvalidField as error:
        raise InvalidField(field, error.expected, _shown(value)) from None
    return str(value)


def gpu_ids(value: object, field: str = "beta9_gpu_ids") -> str:
    """Return indexes or UUIDs of GPUs with commas between them, or none."""
    one = r"([0-9]{1,2}|(GPU|MIG)-[0-9a-zA-Z/-]{1,64})"
    text = (
        re.sub(r"\s*,\s*", ",", value)
        if isinstance(value, str)
        else str(value)
        if isinstance(value, int) and not isinstance(value, bool)
        else value
    )
    return _match(rf"none|{one}(,{one})*", text, field, "indexes or UUIDs of GPUs like 0,2 or GPU-5ac…, or none")


BANDWIDTHS = ("device_to_device", "host_to_device", "device_to_host")


def gpu_expectations(value: object, field: str = "beta9_gpu_expectations") -> dict[str, dict[str, float]]:
    """Return least bandwidths in GB/s by the name of a model."""
    expected = f"a number of GB/s for each of {', '.join(BANDWIDTHS)}, by the name of a model"
    found = {}
    for model, least in value.items() if isinstance(value, dict) else [("", None)]:
        if not isinstance(least, dict) or not model or not least:
            raise InvalidField(field, expected, _shown(least if model else value))
        for name, number in least.items():
            if (
                name not in BANDWIDTHS
                or isinstance(number, bool)
                or not isinstance(number, (int, float))
                or not 0 < number < 1e6
            ):
                raise InvalidField(f"{field}.{name}", expected, _shown(number))
        found[str(model)] = {name: float(number) for name, number in least.items()}
    return found


def one_of(*words: str) -> Callable[[object, str], str]:
    """Return a validator that takes these words alone."""

    def validator(value: object, field: str) -> str:
        # a YAML true is the word true
        return _match(
            "|".join(map(re.escape, words)),
            str(value).lower() if isinstance(value, bool) else value,
            field,
            "one of " + ", ".join(words),
        )

    return validator


def each(check: Callable[[object, str], Any]) -> Callable[[object, str], list[Any]]:
    """Return a validator of a list of which each entry fits check."""

    def validator(value: object, field: str) -> list[Any]:
        entries = value if isinstance(value, (list, tuple)) else [value]
        return [check(entry, f"{field}[{index}]") for index, entry in enumerate(entries)]

    return validator


def gateway_url(value: object, field: str = "gateway_url") -> str:
    """Return the address of a gateway's HTTP port, without a path."""
    expected = "a URL like http://gateway.example.com:31994"
    try:
        text = url(value, field).rstrip("/")
    except InvalidField:
        raise InvalidField(field, expected, _shown(value)) from None
    if text.count("/") != 2:
        raise InvalidField(field, expected, _shown(value))
    return text


def redis_url(value: object, field: str = "redis_url") -> str:
    """Return the address of a Redis. The error never shows it: it may hold a password."""
    found = (
        re.fullmatch(r"rediss?://(?:[^@/?#\[\]\s]*@)?([^@/\s]+)(/[0-9]{1,4})?", value, re.ASCII)
        if isinstance(value, str)
        else None
    )
    try:
        where = found.group(1) if found else ""
        host_port(where if re.search(r":[0-9]+\Z", where) else where + ":6379", field)
    except InvalidField:
        expected = "an address like redis://127.0.0.1:6379/0 (with / in a password as %2F, # as %23)"
        raise InvalidField(field, expected, "something else (not shown)") from None
    return str(value)


def fingerprint(value: object, field: str = "fingerprint") -> str:
    """Return the fingerprint of an OpenPGP key: 40 or 64 hexadecimal digits, which may stand in groups."""
    text = value.replace(" ", "") if isinstance(value, str) else value
    return _match(r"[0-9A-Fa-f]{40}([0-9A-Fa-f]{24})?", text, field, "a fingerprint of 40 hexadecimal digits")


def percentage(value: object, field: str = "percentage") -> float:
    """Return a share from 0 to 100, with or without a percent sign."""
    text = str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    number = float(_match(r"[0-9]{1,3}(\.[0-9]+)?%?", text, field, "a percentage from 0 to 100").rstrip("%"))
    if number > 100:
        raise InvalidField(field, "a percentage from 0 to 100", _shown(value))
    return number


def batches(value: object, field: str = "beta9_serial") -> list:
    """Return sizes of batches of hosts, each a number or a share, given as a list or with commas between them."""
    expected = "a number of hosts, a percentage, or a list of them, like 1,25%,100% or [1, '25%']"
    sizes = value if isinstance(value, (list, tuple)) else value.split(",") if isinstance(value, str) else [value]
    found = []
    for size in sizes:
        text = str(size) if isinstance(size, int) and not isinstance(size, bool) else size
        text = text.strip() if isinstance(text, str) else ""
        if not re.fullmatch(r"0*[1-9][0-9]{0,5}|0*[1-9][0-9]?%|100%", text, re.ASCII):
            raise InvalidField(field, expected, _shown(value))
        found.append(text if text.endswith("%") else int(text))
    if not found:
        raise InvalidField(field, expected, "an empty list")
    return found


def _of_protocol(check: Callable[[object], str]) -> Callable[..., str]:
    """Return a validator of the protocol with the name of a field, as those of this file have it. Blanks around are
    refused."""

    def validator(value: object, field: str = check.__name__) -> str:
        try:
            found = check(value)
        except InvalidField as error:
            raise InvalidField(field, error.expected, _shown(value)) from None
        if found != value:
            raise InvalidField(field, f"no blanks around {found!r}", _shown(value))
        return str(found)

    validator.__doc__ = check.__doc__
    return validator


machine_id, pool_name, provider_name = (
    _of_protocol(check) for check in (protocol.machine_id, protocol.pool_name, protocol.provider_name)
)
cpu, memory = _of_protocol(protocol.cpu), _of_protocol(protocol.memory)

GRAMMARS = {
    "address": address,
    "cpu": cpu,
    "forwards": forwards,
    "gpu_ids": gpu_ids,
    "host": host,
    "host_port": host_port,
    "image": image,
    "interface": interface,
    "listen_address": listen_address,
    "log_format": log_format,
    "machine_id": machine_id,
    "memory": memory,
    "network": network,
    "own_account": own_account,
    "path": path,
    "pool_name": pool_name,
    "port": port,
    "provider_name": provider_name,
    "public_key": public_key,
    "repository_url": repository_url,
    "seconds": seconds,
    "url": url,
    "user_name": user_name,
    "word": word,
    "worker_name": worker_name,
}
