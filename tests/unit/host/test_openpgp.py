"""Fingerprints, compared with gpg's own."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from ansible_collections.beta9.workers.plugins.module_utils import openpgp


@pytest.fixture(scope="module", params=["rsa3072", "ed25519"])
def key(request, tmp_path_factory):
    """A key made by gpg: (binary, armored, fingerprint)."""
    if not shutil.which("gpg"):
        pytest.skip("gpg is not installed")
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)

    def gpg(*words):
        return subprocess.run(["gpg", "--homedir", str(home), "--batch", "--quiet", *words], check=True, capture_output=True).stdout

    gpg("--passphrase", "", "--quick-gen-key", "test@example.com", request.param, "sign", "never")
    told = re.search(r"^fpr:+([0-9A-F]{40}):", gpg("--with-colons", "--list-keys").decode(), re.M).group(1)
    yield gpg("--export"), gpg("--export", "--armor"), told
    subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def test_fingerprint_is_gpgs(key):
    binary, armored, told = key
    assert openpgp.fingerprints(binary) == [told] == openpgp.fingerprints(armored)


def test_every_key_of_a_file_counts(key):
    binary, _armored, told = key
    assert openpgp.fingerprints(binary + binary) == [told, told]


@pytest.mark.parametrize("data", [b"<html>404</html>", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n!!!\n-----END PGP PUBLIC KEY BLOCK-----\n", b"\x99\x01"])
def test_what_is_no_key_file_is_refused(data):
    with pytest.raises(openpgp.NotAKeyFile):
        openpgp.fingerprints(data)


def test_a_cut_file_is_refused(key):
    with pytest.raises(openpgp.NotAKeyFile):
        openpgp.fingerprints(key[0][:-5])
