"""Whose credentials a host holds."""

from __future__ import annotations

import pathlib

import pytest
import yaml

from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.host import identity, linux
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import peers

ROOT = pathlib.Path(__file__).resolve().parents[3]
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


def test_quiet_is_counted_from_the_last_time_that_an_agent_may_have_been_heard(monkeypatch, tmp_path):
    state = tmp_path / "state.json"
    monkeypatch.setattr(identity.records, "AGENT_STATE", str(state))
    monkeypatch.setattr(linux, "boot_epoch", lambda: 1000.0)
    monkeypatch.setattr(identity.time, "time", lambda: 1300.0)
    monkeypatch.setattr(identity.time, "clock_gettime", lambda _clock: 300.0)
    assert identity.quiet_seconds(lambda _command: (0, "LoadState=loaded\nInactiveEnterTimestampMonotonic=0\n", "")) == 300
    assert identity.quiet_seconds(lambda _command: (0, "LoadState=loaded\nInactiveEnterTimestampMonotonic=250000000\n", "")) == 50
    # a masked unit has lost the time at which it was stopped
    assert identity.quiet_seconds(lambda _command: (0, "LoadState=masked\nInactiveEnterTimestampMonotonic=0\n", "")) == 0
    state.write_text('{"last_keepalive_epoch": 1290.5}')
    assert identity.quiet_seconds(lambda _command: (0, "LoadState=loaded\nInactiveEnterTimestampMonotonic=0\n", "")) == 9.5


def test_the_other_worker_with_a_key_is_named():
    text = peers.with_line("", "gpu-01", peers.render_line("gpu-01", KEY, "127.77.0.9", 6443, ["localhost:31994"]))
    assert peers.key_holder(text, "gpu-02", KEY) == "gpu-01"
    assert peers.key_holder(text, "gpu-01", KEY) is None
    assert peers.key_holder(KEY + " somebody\n", "gpu-01", KEY) == ""
    with pytest.raises(peers.PeerError, match="in the line of gpu-01: this host was cloned, or renamed. .*beta9_identity=new"):
        peers.refuse_foreign_key(text, "gpu-02", KEY)


def test_role_and_module_name_the_same_way_out():
    spoken = yaml.safe_load((ROOT / "roles/preflight/vars/main.yml").read_text())["_preflight_switch"]
    assert spoken.strip() == records.SWITCH
