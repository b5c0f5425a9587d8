"""Whose credentials a host holds."""

from __future__ import annotations

import os

import pytest

from ansible_collections.beta9.workers.plugins.module_utils import host, identity, peers

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"


@pytest.mark.parametrize(
    "settings, own, answer",
    [
        ({}, "a" * 64, False),
        ({"BETA9_HOST_ID": "a" * 64}, "a" * 64, False),
        ({"BETA9_HOST_ID": "b" * 64}, "a" * 64, True),
        ({"BETA9_HOST_ID": "b" * 64}, "", False),  # a host without a machine-id can't tell
    ],
)
def test_settings_that_were_written_elsewhere(settings, own, answer):
    assert identity.copied(settings, own) is answer
    assert bool(list(identity.problems(settings, own))) is answer


@pytest.mark.parametrize("text, length", [("0" * 32 + "\n", 64), ("", 0), ("uninitialized\n", 0)])
def test_machine_id_itself_is_not_shown(tmp_path, text, length):
    path = tmp_path / "machine-id"
    path.write_text(text)
    found = identity.host_id(str(path))
    assert len(found) == length and "0" * 32 not in found


def test_state_of_an_agent_may_be_anything(tmp_path):
    path = tmp_path / "state.json"
    for content, answer in (('{"last_keepalive_epoch": 12.5}', 12.5), ("[1]", 0), ("{", 0), ('{"last_keepalive_epoch": "now"}', 0)):
        path.write_text(content)
        assert identity._last_keepalive(str(path)) == answer
    path.unlink()
    os.mkfifo(path)
    assert identity._last_keepalive(str(path)) == 0


def test_quiet_is_counted_from_the_last_time_that_an_agent_may_have_been_heard(monkeypatch):
    monkeypatch.setattr(identity, "_last_keepalive", lambda: 0.0)
    monkeypatch.setattr(host, "boot_epoch", lambda: 1000.0)
    monkeypatch.setattr(identity.time, "time", lambda: 1300.0)
    monkeypatch.setattr(identity.time, "clock_gettime", lambda _clock: 300.0)
    assert identity.quiet_seconds(lambda _command: (0, "LoadState=loaded\nInactiveEnterTimestampMonotonic=0\n", "")) == 300
    assert identity.quiet_seconds(lambda _command: (0, "LoadState=loaded\nInactiveEnterTimestampMonotonic=250000000\n", "")) == 50
    # a masked unit has lost the time at which it was stopped
    assert identity.quiet_seconds(lambda _command: (0, "LoadState=masked\nInactiveEnterTimestampMonotonic=0\n", "")) == 0


def test_the_other_worker_with_a_key_is_named():
    text = peers.with_line("", "gpu-01", peers.render_line("gpu-01", KEY, "127.77.0.9", 6443, ["localhost:31994"]))
    assert peers.key_holder(text, "gpu-02", KEY) == "gpu-01"
    assert peers.key_holder(text, "gpu-01", KEY) is None
    assert peers.key_holder(KEY + " somebody\n", "gpu-01", KEY) == ""
    with pytest.raises(peers.PeerError, match="in the line of gpu-01: this host was cloned, or renamed. .*beta9_identity=new"):
        peers.refuse_foreign_key(text, "gpu-02", KEY)
