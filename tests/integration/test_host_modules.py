"""Modules that keep files on a host: change, no change, check, diff; secrets stay in their files."""

from __future__ import annotations

import json
import os

import pytest

TOKEN = "canary-machine-token-0123"


def mode(path):
    return oct(os.stat(path).st_mode & 0o777)


@pytest.fixture
def wish(tmp_path):
    return {
        "machine_id": "1165a9b6",
        "pool": "gpu",
        "machine_token": TOKEN,
        "directory": str(tmp_path / "etc/credentials"),
        "fact_path": str(tmp_path / "facts.d/beta9.fact"),
    }


def test_credentials(run_module, wish, tmp_path):
    checked = run_module("machine_credentials", check=True, **wish)
    assert checked["changed"] and not (tmp_path / "etc").exists() and not (tmp_path / "facts.d").exists()
    result = run_module("machine_credentials", **wish)
    token = tmp_path / "etc/credentials/machine_token"
    assert result["changed"] and token.read_text() == TOKEN and (mode(token), mode(token.parent)) == ("0o600", "0o700")
    assert json.loads((tmp_path / "facts.d/beta9.fact").read_text()) == {"machine_id": "1165a9b6", "pool": "gpu", "provider": "generic"}
    assert not run_module("machine_credentials", **wish)["changed"]
    assert "canary" not in checked["_raw"] + result["_raw"] and result["diff"]["after"]["machine_id"] == "1165a9b6"
    os.chmod(token, 0o644)
    assert run_module("machine_credentials", **wish)["changed"] and mode(token) == "0o600"


def test_forgetting_them(run_module, wish, tmp_path):
    run_module("machine_credentials", **wish)
    gone = {"state": "absent", "directory": wish["directory"], "fact_path": wish["fact_path"]}
    assert run_module("machine_credentials", check=True, **gone)["changed"] and (tmp_path / "etc/credentials/machine_token").exists()
    assert run_module("machine_credentials", **gone)["changed"] and not (tmp_path / "etc/credentials/machine_token").exists()
    assert not run_module("machine_credentials", **gone)["changed"]


def test_bad_identity_writes_nothing(run_module, wish, tmp_path):
    result = run_module("machine_credentials", **dict(wish, machine_id="XYZ"))
    assert result["failed"] and "machine_id" in result["msg"] and not (tmp_path / "etc").exists()


def test_fact_comes_after_the_token(run_module, wish, tmp_path):
    """A host that has the fact has the token: the fact can't be written while the token can't."""
    (tmp_path / "etc").write_text("in the way")
    assert "canary" not in run_module_or_crash(run_module, wish) and not (tmp_path / "facts.d/beta9.fact").exists()


def run_module_or_crash(run_module, wish):
    try:
        return run_module("machine_credentials", **wish)["_raw"]
    except AssertionError as error:
        return str(error)


def test_files(run_module, tmp_path):
    path = tmp_path / "a/b.conf"
    wish = {"files": [{"path": str(path), "content": "one\n", "mode": "0640"}]}
    assert run_module("host_files", check=True, **wish)["changed"] and not path.exists()
    result = run_module("host_files", **wish)
    assert result["changed"] and path.read_text() == "one\n" and mode(path) == "0o640"
    assert (result["diff"][0]["before"], result["diff"][0]["after"]) == ("", "one\n")
    assert not run_module("host_files", **wish)["changed"]
    gone = {"absent": [str(tmp_path / "a")]}
    assert run_module("host_files", check=True, **gone)["changed"] and path.exists()
    assert run_module("host_files", **gone)["changed"] and not path.exists() and not run_module("host_files", **gone)["changed"]


def test_key(run_module, tmp_path):
    wish = {"path": str(tmp_path / "credentials/tunnel_key")}
    checked = run_module("tunnel_key", check=True, **wish)
    assert checked["changed"] and not (tmp_path / "credentials").exists()
    result = run_module("tunnel_key", **wish)
    assert result["changed"] and result["public_key"].startswith("ssh-ed25519 ") and mode(wish["path"]) == "0o600"
    again = run_module("tunnel_key", **wish)
    assert not again["changed"] and again["public_key"] == result["public_key"] and "PRIVATE KEY" not in result["_raw"]
