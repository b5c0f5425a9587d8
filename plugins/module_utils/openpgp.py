# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fingerprints of the keys in an OpenPGP file (RFC 4880, RFC 9580 section 4.2), without gpg. Pure."""

from __future__ import annotations

import base64
import hashlib

PUBLIC_KEY = 6


class NotAKeyFile(Exception):
    """The file is not made of OpenPGP packets."""


def fingerprints(data):
    """Return the fingerprints of all primary keys of version 4, in upper case hex."""
    found = []
    for tag, body in _packets(_binary(data)):
        if tag == PUBLIC_KEY:
            if body[:1] != b"\x04":
                raise NotAKeyFile("a key of another version than 4")
            found.append(hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper())
    return found


def _binary(data):
    """Return the packets of a file that may be armored."""
    if not data.lstrip().startswith(b"-----BEGIN PGP"):
        return data
    body, started = [], False
    for line in data.decode("ascii", "replace").splitlines():
        line = line.strip()
        if line.startswith("-----END"):
            break
        if started and line and not line.startswith("=") and not line.startswith("-----"):
            body.append(line)
        elif not line:
            started = True  # the armor's headers end with an empty line
    try:
        return base64.b64decode("".join(body), validate=True)
    except ValueError:
        raise NotAKeyFile("damaged armor") from None


def _packets(data):
    """Yield (tag, body) of every packet."""
    at = 0
    while at < len(data):
        try:
            first = data[at]
            if not first & 0x80:
                raise NotAKeyFile("no OpenPGP packet at byte %d" % at)
            if first & 0x40:
                tag, (at, length) = first & 0x3F, _new_length(data, at + 1)
            else:
                tag, size = first >> 2 & 0x0F, first & 0x03
                if size == 3:
                    raise NotAKeyFile("a packet without length")
                width = 1 << size
                at, length = at + 1 + width, int.from_bytes(data[at + 1 : at + 1 + width], "big")
        except IndexError:
            raise NotAKeyFile("it ends within a packet") from None
        if at + length > len(data):
            raise NotAKeyFile("it ends within a packet")
        yield tag, data[at : at + length]
        at += length


def _new_length(data, at):
    """Return (where the body begins, its length) of a packet of the new format."""
    first = data[at]
    if first < 192:
        return at + 1, first
    if first < 224:
        return at + 2, ((first - 192) << 8) + data[at + 1] + 192
    if first == 255:
        return at + 5, int.from_bytes(data[at + 1 : at + 5], "big")
    raise NotAKeyFile("a packet of partial length")
