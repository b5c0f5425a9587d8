"""Modules that keep files on a host: change, no change, check, diff; secrets stay in their files."""

from __future__ import annotations

import json
import os

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.agent import records

TOKEN = "canary-machine-token-0123"


def mode(path):
    return oct(os.stat(path).st_mode & 0o777)


@pytest.fixture
def desired(tmp_path):
    return {
        "machine_id": "1165a9b6",
        "pool": "gpu",
        "machine_token": TOKEN,
        "directory": str(tmp_path / "etc/credentials"),
        "fact_path": str(tmp_path / "facts.d/beta9.fact"),
    }


def test_credentials(run_module, desired, tmp_path):
    checked = run_module("machine_credentials", check=True, **desired)
    assert checked["changed"] and not (tmp_path / "etc").exists() and not (tmp_path / "facts.d").exists()
    result = run_module("machine_credentials", **desired)
    token = tmp_path / "etc/credentials/machine_token"
    assert result["changed"] and token.read_text() == TOKEN and (mode(token), mode(token.parent)) == ("0o600", "0o700")
    assert json.loads((tmp_path / "facts.d/beta9.fact").read_text()) == {"machine_id": "1165a9b6", "pool": "gpu", "provider": "generic"}
    assert not run_module("machine_credentials", **desired)["changed"]
    assert "canary" not in checked["_raw"] + result["_raw"] and result["diff"]["after"]["machine_id"] == "1165a9b6"
    os.chmod(token, 0o644)
    assert run_module("machine_credentials", **desired)["changed"] and mode(token) == "0o600"


@pytest.mark.parametrize("damage", [b"", b"\n", TOKEN[:9].encode(), b"canary-of-another-machine", b"\xff\x00\xfe", None])
def test_token_that_is_not_the_machines_is_none(run_module, desired, tmp_path, damage):
    """Empty, truncated, another machine's, not text, or gone: onboarding makes a new one."""
    run_module("machine_credentials", **desired)
    token, identity = tmp_path / "etc/credentials/machine_token", {"machine_id": "1165a9b6"}
    assert records.has_token(desired["directory"], identity) and not records.has_token(desired["directory"], {"machine_id": "9c40e2d7"})
    if damage is None:
        token.unlink()
    else:
        token.write_bytes(damage)
    assert not records.has_token(desired["directory"], identity)
    run_module("machine_credentials", **desired)
    assert records.has_token(desired["directory"], identity) and mode(token.with_name("machine_token.owner")) == "0o600"
    assert TOKEN not in token.with_name("machine_token.owner").read_text()


def test_host_of_before_has_no_owner_and_keeps_its_token(run_module, desired, tmp_path):
    run_module("machine_credentials", **desired)
    (tmp_path / "etc/credentials/machine_token.owner").unlink()
    assert records.has_token(desired["directory"], {"machine_id": "1165a9b6"})


def test_forgetting_them(run_module, desired, tmp_path):
    run_module("machine_credentials", **desired)
    gone = {"state": "absent", "directory": desired["directory"], "fact_path": desired["fact_path"]}
    assert run_module("machine_credentials", check=True, **gone)["changed"] and (tmp_path / "etc/credentials/machine_token").exists()
    assert run_module("machine_credentials", **gone)["changed"] and not (tmp_path / "etc/credentials/machine_token").exists()
    assert not run_module("machine_credentials", **gone)["changed"]


@pytest.mark.parametrize("seen, taken", [("", True), ("9c40e2d7", True), ("1165a9b6", False), (None, False)])
def test_machine_of_another_run_stays(run_module, desired, tmp_path, seen, taken):
    """The host was given a machine after this run looked at it."""
    run_module("machine_credentials", **desired)
    result = run_module("machine_credentials", **dict(desired, machine_id="2276b0c7", machine_token=NEW, seen=seen))
    fact, files = credentials(tmp_path)
    assert (result.get("taken", False), result["changed"]) == (taken, not taken)
    assert (result["machine"], files["machine_token"]) == (fact, TOKEN if taken else NEW) and fact["machine_id"] == ("1165a9b6" if taken else "2276b0c7")


def test_fact_without_its_token_is_no_machine_of_another_run(run_module, desired, tmp_path):
    run_module("machine_credentials", **desired)
    (tmp_path / "etc/credentials/machine_token").write_text("")
    result = run_module("machine_credentials", **dict(desired, machine_id="2276b0c7", machine_token=NEW, seen=""))
    assert result["changed"] and "taken" not in result and result["machine"]["machine_id"] == "2276b0c7"


def test_bad_identity_writes_nothing(run_module, desired, tmp_path):
    result = run_module("machine_credentials", **dict(desired, machine_id="XYZ"))
    assert result["failed"] and "machine_id" in result["msg"] and not (tmp_path / "etc").exists()


def test_fact_comes_after_the_token(run_module, desired, tmp_path):
    """A host that has the fact has the token: the fact can't be written while the token can't."""
    (tmp_path / "etc").write_text("in the way")
    assert "canary" not in run_module_or_crash(run_module, desired) and not (tmp_path / "facts.d/beta9.fact").exists()


def run_module_or_crash(run_module, desired):
    try:
        return run_module("machine_credentials", **desired)["_raw"]
    except AssertionError as error:
        return str(error)


def test_files(run_module, tmp_path):
    path = tmp_path / "a/b.conf"
    desired = {"files": [{"path": str(path), "content": "one\n", "mode": "0640"}]}
    assert run_module("host_files", check=True, **desired)["changed"] and not path.exists()
    result = run_module("host_files", **desired)
    assert result["changed"] and path.read_text() == "one\n" and mode(path) == "0o640"
    assert (result["diff"][0]["before"], result["diff"][0]["after"]) == ("", "one\n")
    assert not run_module("host_files", **desired)["changed"]
    gone = {"absent": [str(tmp_path / "a")]}
    assert run_module("host_files", check=True, **gone)["changed"] and path.exists()
    assert run_module("host_files", **gone)["changed"] and not path.exists() and not run_module("host_files", **gone)["changed"]


def test_key(run_module, tmp_path):
    desired = {"path": str(tmp_path / "credentials/tunnel_key")}
    checked = run_module("tunnel_key", check=True, **desired)
    assert checked["changed"] and not (tmp_path / "credentials").exists()
    result = run_module("tunnel_key", **desired)
    assert result["changed"] and result["public_key"].startswith("ssh-ed25519 ") and mode(desired["path"]) == "0o600"
    again = run_module("tunnel_key", **desired)
    assert not again["changed"] and again["public_key"] == result["public_key"] and "PRIVATE KEY" not in result["_raw"]


NEW = "canary-machine-token-4567"


@pytest.fixture
def rotated(run_module, desired):
    """A host that holds a new machine's credentials beside those of the one before."""
    before = run_module("machine_credentials", **desired)["machine"]
    result = run_module("machine_credentials", **dict(desired, machine_id="9c40e2d7", machine_token=NEW, replaces=before))
    assert result["changed"] and "canary" not in result["_raw"] and result["machine"] == dict(before, machine_id="9c40e2d7", replaces=before)
    return before


def credentials(tmp_path):
    """Return the fact and the files of a host."""
    folder = tmp_path / "etc/credentials"
    fact = json.loads((tmp_path / "facts.d/beta9.fact").read_text())
    return fact, {path.name: path.read_text() for path in folder.iterdir() if path.name != "machine_token.owner"}


def test_rotation_keeps_both_until_it_is_known_which_one_stays(run_module, desired, tmp_path, rotated):
    fact, files = credentials(tmp_path)
    assert fact["replaces"] == rotated and files == {"machine_token": NEW, "machine_token.before": TOKEN}
    assert {mode(tmp_path / "etc/credentials" / name) for name in files} == {"0o600"}


def where(desired):
    return {"directory": desired["directory"], "fact_path": desired["fact_path"]}


def test_confirmed_rotation_forgets_the_old_one(run_module, desired, tmp_path, rotated):
    assert run_module("machine_credentials", check=True, state="confirmed", **where(desired))["changed"] and len(credentials(tmp_path)[1]) == 2
    result = run_module("machine_credentials", state="confirmed", **where(desired))
    assert result["changed"] and credentials(tmp_path) == (dict(rotated, machine_id="9c40e2d7"), {"machine_token": NEW})
    for state in ("confirmed", "restored"):
        assert not run_module("machine_credentials", state=state, **where(desired))["changed"]


def test_rotation_that_failed_is_undone(run_module, desired, tmp_path, rotated):
    assert run_module("machine_credentials", check=True, state="restored", **where(desired))["changed"] and len(credentials(tmp_path)[1]) == 2
    result = run_module("machine_credentials", state="restored", **where(desired))
    assert result["changed"] and result["dropped"].pop("token_mark") and result["dropped"] == dict(rotated, machine_id="9c40e2d7")
    assert records.token_owner(desired["directory"])[0] == "1165a9b6" and records.has_token(desired["directory"], rotated)
    assert credentials(tmp_path) == (rotated, {"machine_token": TOKEN}) and "canary" not in result["_raw"]


def test_rotation_of_a_host_that_lost_its_token_is_undone(run_module, desired, tmp_path):
    before = run_module("machine_credentials", **desired)["machine"]
    os.unlink(tmp_path / "etc/credentials/machine_token")
    run_module("machine_credentials", **dict(desired, machine_id="9c40e2d7", machine_token=NEW, replaces=before))
    run_module("machine_credentials", state="restored", **where(desired))
    assert credentials(tmp_path) == (before, {})


def test_removing_credentials_removes_those_of_a_rotation_as_well(run_module, desired, tmp_path, rotated):
    assert run_module("machine_credentials", state="absent", **where(desired))["changed"]
    assert not list((tmp_path / "etc/credentials").iterdir())
