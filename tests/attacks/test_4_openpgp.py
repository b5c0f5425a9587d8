"""A mirror that hides its own key in the vendor's key file: real gpg makes the files, real apt of both Debians reads them."""

from __future__ import annotations

import json
import shutil
import subprocess
import time

import pytest

SERVED = "/root/mirror"
PORT = 8099
RELEASE = (
    "Origin: x\nSuite: stable\nCodename: stable\nArchitectures: amd64 arm64\nDate: %s\nSHA256:\n"
    " e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 Packages\n"
)


class Keys:
    """A vendor's and an attacker's key, and what an attacker makes of the two."""

    def __init__(self, home):
        home.chmod(0o700)
        self.gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""]
        for name in ("vendor", "attacker"):
            self.run("--quick-gen-key", name + "@example.com", "rsa2048", "sign", "never")
        self.fingerprint = {name: self.listed(name)[0] for name in ("vendor", "attacker")}
        self.run("--quick-add-key", self.fingerprint["attacker"], "rsa2048", "sign", "never")
        self.subkey = self.listed("attacker")[1]

    def run(self, *arguments, text=None):
        return subprocess.run(self.gpg + list(arguments), check=True, capture_output=True, input=text).stdout

    def listed(self, name):
        lines = self.run("--with-colons", "--list-keys", name).decode().splitlines()
        return [line.split(":")[9] for line in lines if line.startswith("fpr")]

    def armoured(self, name):
        return self.run("--armor", "--export", name)

    def binary(self, name):
        return self.run("--export", name)

    def index(self, signer):
        """Return a signed index of an empty repository."""
        release = RELEASE % time.strftime("%a, %d %b %Y %H:%M:%S UTC", time.gmtime())
        return self.run("--clearsign", "--local-user", signer + "!", text=release.encode())

    def attacks(self):
        """Return {what: a key file of the mirror}."""
        vendor, attacker = self.armoured("vendor"), self.armoured("attacker")
        user_id = b"\xcd\xff" + len(vendor).to_bytes(4, "big") + vendor
        return {
            "another armour block before": attacker.replace(b"PUBLIC KEY BLOCK", b"MESSAGE") + vendor,
            "another armour block behind": vendor + attacker.replace(b"PUBLIC KEY BLOCK", b"MESSAGE"),
            "armour in a user id": self.binary("attacker") + user_id,
            "a second key": vendor + attacker,
            "armour with a blank behind": attacker.replace(b"BLOCK-----", b"BLOCK----- ") + vendor,
        }

    def grafted(self):
        """Return the vendor's key with the attacker's subkey behind it, which has the fingerprint that is expected."""
        attacker, position, subkeys = self.binary("attacker"), 0, b""
        while position < len(attacker):  # old packets with two octets of length, or signatures with one
            size = {0: 1, 1: 2}[attacker[position] & 3]
            end = position + 1 + size + int.from_bytes(attacker[position + 1 : position + 1 + size], "big")
            if subkeys or attacker[position] >> 2 & 15 == 14:
                subkeys += attacker[position:end]
            position = end
        assert subkeys
        return self.binary("vendor") + subkeys


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """The keys, and a mirror on both workers that serves what serve() puts there."""
    if not shutil.which("gpg"):
        pytest.skip("gpg makes the keys")
    return Keys(tmp_path_factory.mktemp("gnupg"))


def serve(bed, worker, tmp_path, **files):
    """Put files into the mirror of a worker."""
    bed.sh(worker, "mkdir -p %s; : > %s/Packages" % (SERVED, SERVED))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        subprocess.run(["podman", "cp", str(tmp_path / name), "%s:%s/%s" % (worker, SERVED, name)], check=True)
    bed.sh(
        worker,
        "systemctl is-active -q mirror || systemd-run -q --unit mirror -p WorkingDirectory=%s python3 -m http.server -b 127.0.0.1 %d; "
        "for i in 1 2 3 4 5 6 7 8 9; do python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", %d))' 2>/dev/null && break; sleep 0.3; done"
        % (SERVED, PORT, PORT),
    )


def trust(bed, worker, fingerprint):
    """Have the module trust the mirror, as the nvidia role does; return its result."""
    url = "http://127.0.0.1:%d/" % PORT
    values = json.dumps({"manager": "apt", "name": "attack", "url": url, "signer_url": url + "key", "fingerprint": fingerprint})
    play = "- hosts: %s\n  gather_facts: false\n  become: true\n  tasks:\n    - beta9.workers.host_repository: %s\n" % (worker, values)
    path = bed.root / "build" / "attack.yml"
    path.write_text(play)
    return bed.play(str(path))


@pytest.fixture(params=[0, 1], ids=["debian12", "debian13"])
def worker(testbed, request):
    """A worker without the attacked repository, before and after."""
    name = testbed.workers[request.param]
    drop = "rm -f /etc/apt/sources.list.d/attack.sources /etc/apt/keyrings/attack.*"
    testbed.sh(name, drop)
    yield name
    testbed.sh(name, drop + "; systemctl stop mirror 2>/dev/null; rm -rf " + SERVED, check=False)


def update(bed, worker):
    """Return what apt says when it reads this repository's index."""
    return bed.sh(
        worker,
        "apt-get -q update --error-on=any -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/attack.sources -o Dir::Etc::sourceparts=- 2>&1; echo status $?",
    )


@pytest.mark.parametrize("worker", [pytest.param(0, id="debian12", marks=pytest.mark.long), pytest.param(1, id="debian13")], indirect=True)
def test_a_key_beside_the_expected_one_is_trusted_by_nobody(testbed, keys, worker, tmp_path):
    for what, file in keys.attacks().items():
        serve(testbed, worker, tmp_path, key=file, InRelease=keys.index(keys.fingerprint["attacker"]))
        status, output = trust(testbed, worker, keys.fingerprint["vendor"])
        assert status != 0 and "signing key" in output and "Nothing was changed" in " ".join(output.split()), (what, output)
        assert not testbed.sh(worker, "ls /etc/apt/keyrings/attack.* /etc/apt/sources.list.d/attack.* 2>/dev/null || true"), what


def test_the_expected_key_is_installed_and_trusts_the_vendor_alone(testbed, keys, worker, tmp_path):
    serve(testbed, worker, tmp_path, key=keys.armoured("vendor"), InRelease=keys.index(keys.fingerprint["vendor"]))
    status, output = trust(testbed, worker, keys.fingerprint["vendor"])
    assert status == 0 and "changed=1" in output, output
    status, output = trust(testbed, worker, keys.fingerprint["vendor"])
    assert status == 0 and "changed=0" in output, output
    serve(testbed, worker, tmp_path, InRelease=keys.index(keys.fingerprint["attacker"]))
    assert "status 100" in update(testbed, worker)


@pytest.mark.long
def test_a_subkey_that_the_vendor_did_not_bind_signs_nothing(testbed, keys, worker, tmp_path):
    serve(testbed, worker, tmp_path, key=keys.grafted(), InRelease=keys.index(keys.subkey))
    status, output = trust(testbed, worker, keys.fingerprint["vendor"])
    assert status != 0 and "Nothing was changed" in " ".join(output.split()), output
    serve(testbed, worker, tmp_path, InRelease=keys.index(keys.fingerprint["vendor"]))
    status, output = trust(testbed, worker, keys.fingerprint["vendor"])
    if status == 0:  # the subkey came along in the file: apt must not believe it
        serve(testbed, worker, tmp_path, InRelease=keys.index(keys.subkey))
        assert "status 100" in update(testbed, worker)
