"""Fingerprints of keys, compared with what gpg says of the same files."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible_collections.beta9.workers.plugins.module_utils import openpgp

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


@pytest.mark.parametrize("kind", ["rsa2048", "ed25519"])
def test_as_gpg_says(keys, kind):
    armoured, binary, fingerprint = keys[kind]
    assert openpgp.fingerprints(armoured) == openpgp.fingerprints(binary) == [fingerprint]
    assert openpgp.fingerprints(armoured.replace(b"\n", b"\r\n")) == [fingerprint]


def test_every_key_of_a_file_is_told(keys):
    both = [keys[kind][2] for kind in keys]
    assert openpgp.fingerprints(b"".join(keys[kind][0] for kind in keys)) == both
    assert openpgp.fingerprints(b"".join(keys[kind][1] for kind in keys)) == both


@pytest.mark.parametrize("damage", [b"", b"<html>404</html>", openpgp.BEGIN + b"\n\n!!!!\n" + openpgp.END, b"\x99\x01\x0d\x04"])
def test_what_is_no_key_is_refused(damage):
    with pytest.raises(openpgp.NotAKey):
        openpgp.fingerprints(damage)


def test_cut_key_is_refused(keys):
    with pytest.raises(openpgp.NotAKey):
        openpgp.fingerprints(keys["rsa2048"][1][:100])
