"""Releases of k3s: names, versions, checksums, and what is known to be in place."""

from __future__ import annotations

import os

import pytest
from ansible_collections.beta9.workers.plugins.module_utils import k3s

SUM = "a" * 64


def code_of(call, *arguments):
    with pytest.raises(k3s.Refused) as caught:
        call(*arguments)
    refused = caught.value
    assert refused.expected and refused.found and refused.remedy and refused.remedy in str(refused)
    assert set(refused.problem()) == {"what", "expected", "found", "remedy"}
    return refused.code


@pytest.mark.parametrize(
    "machine, binary, images",
    [("x86_64", "k3s", "k3s-airgap-images-amd64.tar.zst"), ("aarch64", "k3s-arm64", "k3s-airgap-images-arm64.tar.zst")],
)
def test_names_of_a_release(machine, binary, images):
    names = k3s.release(machine)
    assert names == {"binary": binary, "images": images, "sums": names["sums"]} and names["sums"].startswith("sha256sum-")


@pytest.mark.parametrize("machine", ["riscv64", "i686", "s390x"])
def test_other_architectures_are_refused(machine):
    assert code_of(k3s.release, machine) == "k3s_architecture"


def test_order_of_versions():
    order = ["v1.35.4+k3s1", "v1.36.0-rc1+k3s1", "v1.36.0+k3s1", "v1.36.0+k3s2", "v1.36.2+k3s1", "v1.36.10+k3s1", "v1.37.0+k3s1"]
    assert sorted(reversed(order), key=k3s.version_key) == order


@pytest.mark.parametrize("text", ["latest", "1.36.2", "v1.36.2", "v1.36.2+rke2r1", "", None, "v1.36.2+k3s1; rm"])
def test_what_is_no_version(text):
    assert code_of(k3s.version_key, text) == "k3s_version"


def test_steps():
    for current in (None, "v0.0.0", "v1.36.2+k3s1", "v1.36.0+k3s1", "v1.35.4+k3s1"):
        k3s.check_step(current, "v1.36.2+k3s1")
    assert code_of(k3s.check_step, "v1.36.2+k3s1", "v1.36.1+k3s1") == "k3s_downgrade"
    assert code_of(k3s.check_step, "v1.36.2+k3s2", "v1.36.2+k3s1") == "k3s_downgrade"
    assert code_of(k3s.check_step, "v1.34.6+k3s1", "v1.36.2+k3s1") == "k3s_step"


def test_list_of_checksums():
    text = "%s  k3s\n%s *k3s-airgap-images-amd64.tar.zst\nnot a line\n%s  k3s-images.txt\n" % (SUM, "b" * 64, "C" * 64)
    assert k3s.parse_sums(text) == {"k3s": SUM, "k3s-airgap-images-amd64.tar.zst": "b" * 64}
    assert k3s.parse_sums("<html>not found</html>") == {}


def test_operators_checksum_does_not_replace_the_releases():
    assert k3s.expected_sum({"k3s": SUM}, "k3s", None, "here") == SUM
    assert k3s.expected_sum({"k3s": SUM}, "k3s", SUM.upper(), "here") == SUM
    assert code_of(k3s.expected_sum, {"k3s": SUM}, "k3s", "b" * 64, "here") == "k3s_checksum_pinned"
    assert code_of(k3s.expected_sum, {}, "k3s", SUM, "here") == "k3s_checksum_list"


def test_plus_of_a_version_in_an_address():
    assert k3s.url_of("https://mirror/k3s/", "v1.36.2+k3s1", "k3s") == "https://mirror/k3s/v1.36.2%2Bk3s1/k3s"


@pytest.fixture
def state(tmp_path, monkeypatch):
    """The record in another place."""
    monkeypatch.setattr(k3s, "STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(k3s, "RECORD", str(tmp_path / "state" / "installed.json"))
    return tmp_path


def test_what_is_in_place_is_known_without_reading_it(state):
    path = state / "k3s"
    path.write_bytes(b"program")
    assert k3s.record() == {} and not k3s.in_place(str(path), k3s.record())
    k3s.remember("v1.36.2+k3s1", {str(path): k3s.digest_of(str(path))})
    assert k3s.record()["version"] == "v1.36.2+k3s1" and k3s.in_place(str(path), k3s.record())
    os.utime(path, ns=(1, 1))
    assert not k3s.in_place(str(path), k3s.record())
    path.unlink()
    assert not k3s.in_place(str(path), k3s.record())


def test_damaged_record_is_none(state):
    (state / "state").mkdir()
    (state / "state" / "installed.json").write_text('{"version": ')
    assert k3s.record() == {}


def test_damaged_file_is_refused_and_removed(tmp_path):
    path = tmp_path / "k3s"
    path.write_bytes(b"half")
    assert code_of(k3s.verify, str(path), SUM) == "k3s_checksum" and not path.exists()


def test_k3s_of_another_origin(state, monkeypatch):
    unit, binary = state / "k3s.service", state / "k3s"
    monkeypatch.setattr(k3s, "UNIT_FILE", str(unit))
    monkeypatch.setattr(k3s, "BINARY", str(binary))
    assert k3s.is_foreign() is None
    binary.write_text("")
    assert k3s.is_foreign() == str(binary)
    unit.write_text("[Unit]\n")
    assert k3s.is_foreign() == str(unit)
    unit.write_text("# %s\n[Unit]\n" % k3s.MARK)
    assert k3s.is_foreign() is None
