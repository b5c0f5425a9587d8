# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: the fingerprints of OpenPGP public keys (RFC 4880 and RFC 9580). A bare host has no gpg to ask."""

from __future__ import annotations

import base64
import binascii
import hashlib

BEGIN, END = b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----END PGP PUBLIC KEY BLOCK-----"
PRIMARY_KEY = 6


class NotAKey(ValueError):
    """This is no OpenPGP public key. The text says why."""


def fingerprints(data):
    """Return the fingerprints, in upper-case hex, of all primary keys in the bytes of a key file, armoured or not."""
    found = []
    for block in _blocks(data):
        position = 0
        while position < len(block):
            tag, body, position = _packet(block, position)
            if tag == PRIMARY_KEY:
                found.append(_fingerprint(body))
    if not found:
        raise NotAKey("no OpenPGP public key in it")
    return found


def _blocks(data):
    if BEGIN not in data:
        return [data]
    found = []
    for part in data.split(BEGIN)[1:]:
        lines = part.partition(END)[0].replace(b"\r", b"").split(b"\n")
        body = lines[lines.index(b"", 1) + 1 :] if b"" in lines[1:] else lines  # headers end with an empty line
        text = b"".join(line.strip() for line in body if not line.startswith(b"="))  # a line of its own is the checksum
        try:
            found.append(base64.b64decode(text, validate=True))
        except binascii.Error as error:
            raise NotAKey("damaged armour: %s" % error) from None
    return found


def _packet(data, position):
    """Return (tag, body, position of the next packet)."""
    try:
        head = data[position]
        if not head & 0x80:
            raise NotAKey("not OpenPGP")
        if head & 0x40:  # new format
            first = data[position + 1]
            if first < 192:
                start, length = position + 2, first
            elif first < 224:
                start, length = position + 3, ((first - 192) << 8) + data[position + 2] + 192
            elif first == 255:
                start, length = position + 6, int.from_bytes(data[position + 2 : position + 6], "big")
            else:
                raise NotAKey("a packet of unknown length")
            tag = head & 0x3F
        else:
            size = {0: 1, 1: 2, 2: 4}[head & 3]
            start, length = position + 1 + size, int.from_bytes(data[position + 1 : position + 1 + size], "big")
            tag = (head >> 2) & 0x0F
    except (IndexError, KeyError):
        raise NotAKey("it ends in the middle of a packet") from None
    if start + length > len(data):
        raise NotAKey("it ends in the middle of a packet")
    return tag, data[start : start + length], start + length


def _fingerprint(body):
    if body[:1] == b"\x04":
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()
    if body[:1] == b"\x06":
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise NotAKey("a key of version %d, expected 4 or 6" % (body[0] if body else 0))
