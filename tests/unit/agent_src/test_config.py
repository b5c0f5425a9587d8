"""Command line before environment before default, and bad values refused."""

from __future__ import annotations

import os

import pytest
from beta9_agent import config, credentials, events, protocol

BASE = ["--machine-id", "1165a9b6", "--pool-name", "gpu", "--token", "canary-token-0123456789", "--private-ip", "10.0.0.7"]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
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


@pytest.mark.parametrize("name", ["ca_path", "client_cert", "client_key"])
def test_what_tls_needs_is_the_unit_s_copy_before_the_file_of_the_settings(monkeypatch, tmp_path, name):
    monkeypatch.setenv(f"BETA9_{name.upper()}", "/etc/ssl/worker.pem")
    assert getattr(config.from_arguments(BASE), name) == "/etc/ssl/worker.pem"
    (tmp_path / name).write_text("-----BEGIN CERTIFICATE-----")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    found = config.from_arguments(BASE)
    assert getattr(found, name) == str(tmp_path / name)
    assert str(tmp_path / name) in found.credential_files()


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
        (["--gateway-port", "65536"], "gateway_port"),
        (["--gpu-ids", "0,x"], "gpu_ids"),
        (["--gpu-ids", ","], "gpu_ids"),
        (["--keepalive-interval", "0"], "keepalive_interval"),
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


def test_environment_goes_before_its_file(monkeypatch, tmp_path):
    (tmp_path / "agent.env").write_text("# a comment\n; another\nBETA9_POOL_NAME='gpu'\nBETA9_GATEWAY_PORT=\"31994\"\nBETA9_HOSTNAME=w1\n")
    monkeypatch.setenv("BETA9_HOSTNAME", "w2")
    words = ["--machine-id", "1165a9b6", "--token", "canary-token-0123456789", "--private-ip", "10.0.0.7", "--env-file", str(tmp_path / "agent.env")]
    found = config.from_arguments(words)
    assert (found.pool_name, found.gateway_url, found.hostname) == ("gpu", "http://localhost:31994", "w2")


@pytest.mark.parametrize(("text", "ids"), [("none", ()), ("", None), ("0, 2", ("0", "2")), ("GPU-5ac,MIG-1/2", ("GPU-5ac", "MIG-1/2"))])
def test_gpus_to_offer(text, ids):
    assert config.from_arguments(BASE + ["--gpu-ids", text]).gpu_ids == ids


@pytest.mark.parametrize(("host", "url"), [("::1", "http://[::1]:65535"), ("gw", "http://gw:65535")])
def test_address_of_the_gateway(host, url):
    assert config.from_arguments(BASE + ["--gateway-host", host, "--gateway-port", "65535"]).gateway_url == url


def test_choices_from_the_environment_are_looked_at(monkeypatch):
    monkeypatch.setenv("BETA9_LOG_FORMAT", "xml")
    with pytest.raises(protocol.InvalidField, match="log_format"):
        config.from_arguments(BASE)


def test_every_token_that_was_read_is_kept_out_of_the_journal(monkeypatch, tmp_path):
    monkeypatch.setattr(events, "SECRETS", set())
    (tmp_path / "token").write_text("canary-in-file-0123")
    config.from_arguments([*BASE, "--k3s-token", "canary-k3s-0123"])
    credentials.read(str(tmp_path / "token"), "token")
    assert events.clean("a canary-token-0123456789 b canary-k3s-0123 c canary-in-file-0123\x1b[2J\n") == "a (token) b (token) c (token) [2J "
    events.SECRETS.add("a")
    assert events.clean("banana") == "banana"


@pytest.fixture
def service(monkeypatch, tmp_path):
    """The directories that systemd and a reload give a service's credentials in."""
    (tmp_path / "given").mkdir()
    (tmp_path / "run/credentials").mkdir(parents=True)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "given"))
    monkeypatch.setenv("RUNTIME_DIRECTORY", "%s:/other" % (tmp_path / "run"))
    return tmp_path


def test_credential_that_a_reload_handed_over_goes_before_systemds(service, monkeypatch):
    (service / "given/machine_token").write_text("given")
    assert credentials.path_of("machine_token") == str(service / "given/machine_token")
    (service / "run/credentials/machine_token").write_text("handed over")
    assert credentials.path_of("machine_token") == str(service / "run/credentials/machine_token")
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    assert credentials.path_of("machine_token") == str(service / "given/machine_token")


def test_credential_whose_file_was_not_there_is_none(service):
    (service / "given/k3s_token").write_text("-")
    assert credentials.path_of("k3s_token") is None and credentials.path_of("machine_token") is None
    (service / "given/k3s_token").write_text("tk")
    assert credentials.path_of("k3s_token")


def test_without_systemd_there_are_no_credentials_of_its(service, monkeypatch):
    (service / "run/credentials/machine_token").write_text("left over")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    assert credentials.path_of("machine_token") is None


def test_optional_credential(tmp_path):
    path = tmp_path / "k3s"
    assert credentials.read_optional(str(path), "k3s_token") is None
    path.write_text("")
    assert credentials.read_optional(str(path), "k3s_token") is None
    path.write_text("canary-k3s-0123")
    assert credentials.read_optional(str(path), "k3s_token") == "canary-k3s-0123"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(protocol.InvalidField, match="not text"):
        credentials.read_optional(str(path), "k3s_token")


def test_a_credential_that_was_replaced_by_one_as_long_is_noticed(tmp_path):
    path = tmp_path / "token"
    path.write_text("one")
    before = credentials.marks([str(path)])
    (tmp_path / "new").write_text("two")
    os.utime(tmp_path / "new", ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    (tmp_path / "new").replace(path)
    after = credentials.marks([str(path)])
    path.unlink()
    assert before != after and len({str(mark) for mark in (before, after, credentials.marks([str(path)]))}) == 3
    assert len(credentials.marks([str(path)])) == 1
