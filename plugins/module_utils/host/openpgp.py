# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: OpenPGP public keys (RFC 4880 and RFC 9580) and their fingerprints. A bare host has no gpg to ask.

What is installed is written from the packets that were read here, never the file that was fetched: apt, gpgv and rpm
each read a file in another way, and what one of them skips is the key that another one trusts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Iterator

BEGIN, END = b"-----BEGIN PGP PUBLIC KEY BLOCK-----", b"-----END PGP PUBLIC KEY BLOCK-----"
PRIMARY_KEY, SUBKEY, SIGNATURE, USER_ID = 6, 14, 2, 13
MAX_PACKET = 65535  # octets: what the length of an old packet holds, and far more than a key needs


class NotAKey(ValueError):
    """This is no OpenPGP public key. The text says why."""


class Key:
    """The keys of a key file.

    fingerprints    of all primary keys, in upper-case hex
    binary, armour  the file to install, the same bytes for the same packets
    """

    def __init__(self, data: bytes) -> None:
        """Take the bytes of a key file, armoured or not, or raise NotAKey: for anything in it that is no part of a
        public key, too."""
        packets = list(_packets(_dearmoured(data)))
        if not packets or packets[0][0] != PRIMARY_KEY:
            raise NotAKey("it does not begin with a public key")
        fingerprints = [(tag, _fingerprint(body)) for tag, body in packets if tag in (PRIMARY_KEY, SUBKEY)]
        self.fingerprints = [text for tag, text in fingerprints if tag == PRIMARY_KEY]
        # packets of the old form, two octets of length: what every reader knows
        self.binary = b"".join(
            bytes([0x80 | tag << 2 | 1]) + len(body).to_bytes(2, "big") + body for tag, body in packets
        )
        text = base64.b64encode(self.binary)
        lines = [text[start : start + 64] for start in range(0, len(text), 64)]
        checksum = b"=" + base64.b64encode(_crc24(self.binary).to_bytes(3, "big"))
        self.armour = b"\n".join([BEGIN, b""] + lines + [checksum, END, b""])


def _dearmoured(data: bytes) -> bytes:
    """Return the packets of all armoured blocks, or data itself where it is not armoured."""
    if not data.lstrip().startswith(b"-----"):
        return data
    found, lines = [], [line.strip() for line in data.splitlines()]
    while lines:
        line = lines.pop(0)
        if not line:
            continue
        if line != BEGIN or END not in lines:
            raise NotAKey("text outside of its PGP PUBLIC KEY BLOCK")
        end = lines.index(END)
        found.append(_block(lines[:end]))
        lines = lines[end + 1 :]
    return b"".join(found)


def _block(lines: list) -> bytes:
    headers = lines.index(b"") if b"" in lines else 0  # headers end with an empty line
    body = [line for line in lines[headers:] if line]
    if any(b": " not in line for line in lines[:headers]):
        raise NotAKey("damaged armour: a header that is none")
    if body and body[-1].startswith(b"=") and len(body[-1]) == 5:
        body.pop()  # the checksum
    try:
        return base64.b64decode(b"".join(body), validate=True)
    except binascii.Error as error:
        raise NotAKey(f"damaged armour: {error}") from None


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, body) of all packets."""
    position = 0
    while position < len(data):
        tag, body, position = _packet(data, position)
        if tag not in (PRIMARY_KEY, SUBKEY, SIGNATURE, USER_ID):
            raise NotAKey(f"a packet that does not belong to a public key (type {tag})")
        yield tag, body


def _packet(data: bytes, position: int) -> tuple[int, bytes, int]:
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
    if length > MAX_PACKET:
        raise NotAKey(f"a packet of {length} octets")
    return tag, data[start : start + length], start + length


def _fingerprint(body: bytes) -> str:
    if body[:1] == b"\x04":
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()
    if body[:1] == b"\x06":
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise NotAKey(f"a key of version {body[0] if body else 0}, expected 4 or 6")


def _crc24(data: bytes) -> int:
    crc = 0xB704CE
    for octet in data:
        crc ^= octet << 16
        for _bit in range(8):
            crc = crc << 1 ^ (0x1864CFB if crc & 0x800000 else 0)
    return crc & 0xFFFFFF
