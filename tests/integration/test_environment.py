"""What the caller's environment must not change: umask, modes and owners that were wrong before, proxies."""

from __future__ import annotations

import http.server
import os
import threading

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles

from tests.integration.conftest import FACTS


def mode(path):
    return "%o" % (os.stat(path).st_mode & 0o7777)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A directory that counts as the collection's own."""
    monkeypatch.setattr(secretfiles, "OWN", (str(tmp_path / "beta9"),))
    return tmp_path / "beta9"


@pytest.fixture(params=["077", "027", "000"])
def umask(request):
    before = os.umask(int(request.param, 8))
    yield
    os.umask(before)


def test_modes_do_not_follow_the_umask(umask, own):
    secretfiles.ensure_directory(str(own / "credentials"))
    secretfiles.write(str(own / "credentials/token"), "secret")
    secretfiles.write(str(own / "tunnel/ssh_config"), "Host gateway\n", 0o644)
    assert [mode(own / name) for name in ("", "credentials", "credentials/token", "tunnel", "tunnel/ssh_config")] == ["755", "700", "600", "755", "644"]


def test_what_was_wrong_before_is_repaired(own):
    secretfiles.write(str(own / "tunnel/ssh_config"), "Host gateway\n", 0o644)
    secretfiles.ensure_directory(str(own / "credentials"))
    assert not secretfiles.write(str(own / "tunnel/ssh_config"), "Host gateway\n", 0o644)
    for name, wrong in (("", 0o777), ("tunnel", 0o700), ("tunnel/ssh_config", 0o640), ("credentials", 0o777)):
        os.chmod(own / name, wrong)
    if os.geteuid() == 0:
        os.chown(own, 65534, 65534)
        os.chown(own / "tunnel/ssh_config", 65534, 65534)
    assert secretfiles.write(str(own / "tunnel/ssh_config"), "Host gateway\n", 0o644, check_mode=True) and mode(own) == "777"
    assert secretfiles.write(str(own / "tunnel/ssh_config"), "Host gateway\n", 0o644)
    assert secretfiles.ensure_directory(str(own / "credentials"))
    assert [mode(own / name) for name in ("", "tunnel", "tunnel/ssh_config", "credentials")] == ["755", "755", "644", "700"]
    assert {os.stat(own / name).st_uid for name in ("", "tunnel", "tunnel/ssh_config")} == {os.geteuid()}
    assert not secretfiles.write(str(own / "tunnel/ssh_config"), "Host gateway\n", 0o644)


def test_directories_of_others_keep_their_modes_unless_anybody_may_write(tmp_path):
    folder = tmp_path / "facts.d"
    folder.mkdir(mode=0o750)
    os.chmod(folder, 0o750)
    secretfiles.write(str(folder / "beta9.fact"), "{}", 0o644)
    assert mode(folder) == "750"
    os.chmod(folder, 0o777)
    assert secretfiles.write(str(folder / "beta9.fact"), "{}", 0o644) and mode(folder) == "755"
    os.chmod(folder, 0o1777)
    assert not secretfiles.write(str(folder / "beta9.fact"), "{}", 0o644) and mode(folder) == "1777"


def test_link_is_replaced_and_not_followed(tmp_path):
    target = tmp_path / "shadow"
    target.write_text("same")
    os.chmod(target, 0o640)
    (tmp_path / "file").symlink_to(target)
    assert secretfiles.write(str(tmp_path / "file"), "same", 0o644) and not (tmp_path / "file").is_symlink()
    (tmp_path / "file.beta9-new").symlink_to(target)
    assert secretfiles.write(str(tmp_path / "file"), "other", 0o644)
    assert target.read_text() == "same" and mode(target) == "640"


def test_modes_of_what_is_kept(run_module, tmp_path):
    (tmp_path / "token").write_text("secret")
    os.chmod(tmp_path / "token", 0o666)
    arguments = {"kept": [{"path": str(tmp_path / "token"), "mode": "0600"}, {"path": str(tmp_path / "absent"), "mode": "0600"}]}
    checked = run_module("host_files", check=True, **arguments)
    assert checked["changed"] and checked["diff"][0]["before"] != checked["diff"][0]["after"] and mode(tmp_path / "token") == "666"
    assert run_module("host_files", **arguments)["paths"] == [str(tmp_path / "token")] and mode(tmp_path / "token") == "600"
    assert not run_module("host_files", **arguments)["changed"] and "secret" not in checked["_raw"]


@pytest.fixture
def proxy():
    """A proxy that answers everything with an error, and remembers what it was asked."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(502)

        do_POST = do_GET

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.asked = asked
    server.environment = {name: "http://127.0.0.1:%d" % server.server_port for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy")}
    yield server
    server.shutdown()


def test_proxy_is_not_asked_for_loopback(gateway, run_module, admin, created, proxy):
    assert "pools" in run_module("pool_info", env=proxy.environment, **admin)
    assert "failed" not in run_module("machine_register", env=proxy.environment, **dict(created, **FACTS))
    assert "failed" not in run_module("gateway_reachable", env=proxy.environment, url=gateway.url, wait_seconds=0)
    assert proxy.asked == []


def test_proxy_is_asked_for_an_operators_questions_only(run_module, proxy):
    away = {"gateway_url": "http://gateway.invalid:31994", "token": "a-token-of-sixteen", "timeout": 3, "retries": 0}
    assert run_module("pool_info", env=proxy.environment, **away)["failed"] and len(proxy.asked) == 1
    assert run_module("pool_info", env=dict(proxy.environment, no_proxy=".invalid"), **away)["failed"] and len(proxy.asked) == 1
    assert run_module("machine_register", env=proxy.environment, **dict(away, machine_id="1165a9b6", pool="gpu", **FACTS))["failed"]
    assert run_module("gateway_reachable", env=proxy.environment, url=away["gateway_url"], wait_seconds=0)["failed"]
    assert len(proxy.asked) == 1
