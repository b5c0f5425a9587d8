"""Command line before environment before default, and bad values refused."""

from __future__ import annotations

import pytest
from beta9_agent import config, protocol

BASE = ["--machine-id", "1165a9b6", "--pool-name", "gpu", "--token", "canary-token-0123456789", "--private-ip", "10.0.0.7"]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    import os

    for name in list(os.environ):
        if name.startswith("BETA9_") or name.endswith("_DIRECTORY"):
            monkeypatch.delenv(name)


def test_defaults():
    found = config.from_arguments(BASE)
    assert (found.gateway_url, found.provider_name, found.keepalive_interval) == ("http://localhost:1994", "generic", 60.0)


def test_command_line_goes_before_environment(monkeypatch):
    monkeypatch.setenv("BETA9_POOL_NAME", "cpu")
    monkeypatch.setenv("BETA9_GATEWAY_PORT", "31994")
    found = config.from_arguments(BASE)
    assert (found.pool_name, found.gateway_url) == ("gpu", "http://localhost:31994")


def test_token_from_a_systemd_credential(monkeypatch, tmp_path):
    (tmp_path / "machine_token").write_text("canary-from-file\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    found = config.from_arguments([word for word in BASE if word not in ("--token", "canary-token-0123456789")])
    assert found.machine_token() == "canary-from-file"
    (tmp_path / "machine_token").write_text("another\n")
    assert found.machine_token() == "another"


def test_tokens_are_not_shown():
    assert "canary" not in repr(config.from_arguments(BASE + ["--k3s-token", "canary-k3s"]))


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        (["--machine-id", "XYZ"], "machine_id"),
        (["--pool-name", ""], "pool_name"),
        (["--keepalive-interval", "600"], "keepalive_interval"),
        (["--keepalive-interval", "soon"], "keepalive_interval"),
        (["--gateway-port", "0"], "gateway_port"),
        (["--gateway-host", "a b"], "hostname"),
        (["--max-memory", "16GB"], "memory"),
        (["--max-cpu", "8"], "cpu"),
        (["--private-ip", "x"], "private_ip"),
    ],
)
def test_bad_value_is_named(extra, word):
    with pytest.raises(protocol.InvalidField, match=word):
        config.from_arguments(BASE + extra)


def test_missing_token_says_how_to_give_one():
    with pytest.raises(protocol.InvalidField, match="--token-file"):
        config.from_arguments([word for word in BASE if word not in ("--token", "canary-token-0123456789")])


def test_unreadable_token_file_is_named():
    with pytest.raises(protocol.InvalidField, match="/nowhere"):
        config.from_arguments([word for word in BASE if word not in ("--token", "canary-token-0123456789")] + ["--token-file", "/nowhere"])
