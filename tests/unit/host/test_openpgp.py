"""Fingerprints of keys, compared with what gpg says of the same files."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import openpgp

pytestmark = pytest.mark.skipif(not shutil.which("gpg"), reason="gpg makes the keys")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Return {kind: (armoured, binary, fingerprint by gpg)}."""
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    found = {}
    for kind in ("rsa2048", "ed25519"):
        name = kind + "@example.com"
        subprocess.run(gpg + ["--quick-gen-key", name, kind, "sign", "never"], check=True, capture_output=True)
        listed = subprocess.run(gpg + ["--with-colons", "--list-keys", name], check=True, capture_output=True, text=True).stdout
        fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
        armoured, binary = (subprocess.run(gpg + extra + ["--export", name], check=True, capture_output=True).stdout for extra in (["--armor"], []))
        found[kind] = (armoured, binary, fingerprint)
    return found


def fingerprints(data):
    """Return the fingerprints of a key file."""
    return openpgp.Key(data).fingerprints


@pytest.mark.parametrize("kind", ["rsa2048", "ed25519"])
def test_as_gpg_says(keys, kind):
    armoured, binary, fingerprint = keys[kind]
    assert fingerprints(armoured) == fingerprints(binary) == [fingerprint]
    assert fingerprints(armoured.replace(b"\n", b"\r\n")) == [fingerprint]


def test_every_key_of_a_file_is_told(keys):
    both = [keys[kind][2] for kind in keys]
    assert fingerprints(b"".join(keys[kind][0] for kind in keys)) == both
    assert fingerprints(b"".join(keys[kind][1] for kind in keys)) == both


@pytest.mark.parametrize("damage", [b"", b"<html>404</html>", openpgp.BEGIN + b"\n\n!!!!\n" + openpgp.END, b"\x99\x01\x0d\x04"])
def test_what_is_no_key_is_refused(damage):
    with pytest.raises(openpgp.NotAKey):
        fingerprints(damage)


def test_cut_key_is_refused(keys):
    with pytest.raises(openpgp.NotAKey):
        fingerprints(keys["rsa2048"][1][:100])


@pytest.mark.parametrize("kind", ["rsa2048", "ed25519"])
def test_what_is_installed_is_written_from_the_packets_and_gpg_reads_it(keys, kind, tmp_path):
    armoured, binary, fingerprint = keys[kind]
    one, other = openpgp.Key(armoured), openpgp.Key(binary)
    assert (one.armour, one.binary) == (other.armour, other.binary)
    assert openpgp.Key(one.armour).armour == one.armour and openpgp.Key(one.binary).binary == one.binary
    for content in (one.armour, one.binary):
        (tmp_path / "key").write_bytes(content)
        command = ["gpg", "--homedir", str(tmp_path), "--batch", "--with-colons", "--show-keys", str(tmp_path / "key")]
        shown = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "fpr:::::::::" + fingerprint in shown.stdout


def test_another_reader_s_key_is_no_part_of_it(keys):
    attacker, vendor = keys["ed25519"], keys["rsa2048"]
    message = attacker[0].replace(b"PUBLIC KEY BLOCK", b"MESSAGE")
    user_id = b"\xcd\xff" + len(vendor[0]).to_bytes(4, "big") + vendor[0]
    for file in (message + vendor[0], vendor[0] + message, b"hello\n" + vendor[0], vendor[0] + b"hello", vendor[0].replace(b"-\n", b"-x\n", 1)):
        with pytest.raises(openpgp.NotAKey, match="outside|not OpenPGP"):
            openpgp.Key(file)
    assert fingerprints(attacker[1] + user_id) == [attacker[2]]
    for packet in (b"\xcb\x06b\x00\x00\x00\x00\x00", b"\xc8\x02\x00\x00", b"\x95\x00\x01\x04", b"\xca\x03PGP", b"\xd1\x01a"):
        with pytest.raises(openpgp.NotAKey, match="does not belong"):
            openpgp.Key(vendor[1] + packet)
    with pytest.raises(openpgp.NotAKey, match="does not begin"):
        openpgp.Key(user_id + vendor[1])
