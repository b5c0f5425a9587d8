"""The tunnel's files on the gateway host: owners, modes and lines."""

from __future__ import annotations

import os

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import peers, sshd_effective
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import gateway_files

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="files of root")


@pytest.fixture
def keys(tmp_path, monkeypatch):
    """A gateway host's files as the collection writes them."""
    folder = tmp_path / "beta9-tunnel"
    folder.mkdir(mode=0o755)
    (folder / "authorized_keys").write_text(peers.render_line("gpu-01", KEY, "127.77.0.9", 6443, ["localhost:31994"]) + "\n")
    (tmp_path / "drop-in").write_text("")
    monkeypatch.setattr(sshd_effective, "KEYS_PATH", str(folder / "authorized_keys"))
    monkeypatch.setattr(sshd_effective, "OWN_CONFIG", str(tmp_path / "drop-in"))
    return folder / "authorized_keys"


def seen():
    found = gateway_files.files(engine.Context({}))
    return found["outcome"], found.get("code", "")


def test_as_written(keys):
    assert seen() == ("ok", "")


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o600, 0o640])
def test_modes(keys, mode):
    keys.chmod(mode)
    assert seen() == ("bad", "mode")


def test_a_folder_that_others_may_write_to(keys):
    keys.parent.chmod(0o777)
    assert seen() == ("bad", "mode")


def test_owner_and_link(keys):
    os.chown(keys, 12345, 0)
    assert seen() == ("bad", "mode")
    keys.rename(keys.parent / "other")
    keys.symlink_to("other")
    assert seen() == ("bad", "mode")


def test_settings_of_sshd(keys):
    (keys.parent.parent / "drop-in").chmod(0o666)
    assert seen() == ("bad", "drop_in")


def test_a_line_without_limits(keys):
    keys.write_text(keys.read_text() + KEY.replace("AAAAI", "AAAAJ") + " me\n")
    assert seen() == ("bad", "line")


def test_another_host(tmp_path, monkeypatch):
    monkeypatch.setattr(sshd_effective, "KEYS_PATH", str(tmp_path / "none" / "authorized_keys"))
    assert seen() == ("not_applicable", "")
