"""The agent's own files, systemd's socket and the reload, on real files, sockets and processes."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest
from beta9_agent import config, credentials, events, reload, state
from beta9_agent.notify import Notifier

from tests.conftest import ROOT


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"5", b'"x"', b"{", b"\xff", b"[" * 100000, b"{}" + b" " * state.MAX_BYTES],
    ids=lambda content: str(content[:9]),
)
def test_what_is_no_state_is_refused(tmp_path, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        state.read(str(path))
    path.write_text('{"a": "%s"}' % ("x" * (state.MAX_BYTES - 9)))
    assert len(state.read(str(path))["a"]) == state.MAX_BYTES - 9


def test_links_devices_and_fifos_are_not_read(tmp_path):
    (tmp_path / "good").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "good")
    os.mkfifo(tmp_path / "fifo")
    writer = os.open(tmp_path / "fifo", os.O_RDWR)
    os.write(writer, b"{}")
    for name, kind in (("link", OSError), ("fifo", ValueError), ("none", OSError)):
        with pytest.raises(kind):
            state.read(str(tmp_path / name))
    os.close(writer)
    with pytest.raises(ValueError):
        state.read("/dev/null")


def test_a_fifo_without_a_writer_does_not_hold_the_reader(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    code = "import sys; from beta9_agent import state; state.read(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "fifo")],
        env=dict(os.environ, PYTHONPATH=str(ROOT / "agent_src")),
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 1 and b"no plain file" in done.stderr


def test_file_is_replaced_with_its_mode_whatever_the_umask(tmp_path):
    path = tmp_path / "state.json"
    before = os.umask(0)
    try:
        assert (
            state.replace(str(path), "one", 0o600) is None
            and path.read_text() == "one"
            and path.stat().st_mode & 0o777 == 0o600
        )
    finally:
        os.umask(before)
    assert state.replace("", "x", 0o600) is None and state.replace(str(tmp_path / "no/such"), "x", 0o600).endswith(
        "No such file or directory"
    )


def test_disk_that_is_full_keeps_what_was(tmp_path):
    """A limit on the size of files cuts a write short as a full disk does."""
    path, text = tmp_path / "state.json", "x" * 5000
    path.write_text("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        trouble = state.replace(str(path), text, 0o644)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "no room" in trouble and path.read_text() == "before"


def test_fingerprint_tells_whether_anything_changed(monkeypatch):
    import builtins

    first = state.fingerprint({"a": 1, "b": 2}, "token")
    assert first == state.fingerprint({"b": 2, "a": 1}, "token") and len(first) == 64
    assert len({first, state.fingerprint({"a": 1}, "token"), state.fingerprint({"a": 1, "b": 2}, "other")}) == 3
    real = builtins.open
    monkeypatch.setattr(
        builtins,
        "open",
        lambda path, *more, **options: real(os.devnull if "boot_id" in str(path) else path, *more, **options),
    )
    assert first != state.fingerprint({"a": 1, "b": 2}, "token")  # another boot


def test_what_was_remembered(tmp_path):
    (tmp_path / "a").write_text("5ac\n")
    (tmp_path / "b").write_bytes(b"\xff")
    assert [
        state.remembered(path) for path in (str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "c"), None)
    ] == ["5ac", "", "", ""]


# -- systemd --


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path, monkeypatch, abstract):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        address = "@beta9-test-%d" % os.getpid() if abstract else str(tmp_path / "notify")
        systemd.bind("\0" + address[1:] if abstract else address)
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "60000000")
        notifier = Notifier()
        notifier.send("READY=1", "STATUS=x")
        assert systemd.recv(100) == b"READY=1\nSTATUS=x" and notifier.watchdog_seconds == 60.0


def test_systemd_that_does_not_read_or_is_away_holds_nobody(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notifier = Notifier()
        start = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 20)  # ends the test, not only the send, where that blocks
        try:
            for _line in range(3000):
                notifier.send("WATCHDOG=1")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        assert time.monotonic() - start < 15
    notifier.send("WATCHDOG=1")


def test_without_systemd_nothing_is_sent(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    for value, seconds in (("", None), ("soon", None), ("30000000", 30.0)):
        monkeypatch.setenv("WATCHDOG_USEC", value)
        notifier = Notifier()
        notifier.send("READY=1")
        assert notifier.watchdog_seconds == seconds


# -- a reload, as root --


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_credential_is_handed_over_to_the_owner_of_the_directory(tmp_path):
    folder = tmp_path / "credentials"
    folder.mkdir()
    os.chown(folder, 1234, 1234)
    (tmp_path / "token").write_text("canary-token-0123456789")
    reload.hand_over(str(folder), "machine_token", str(tmp_path / "token"))
    found = (folder / "machine_token").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (1234, 1234, 0o400) and os.listdir(folder) == [
        "machine_token"
    ]
    reload.hand_over(str(folder), "k3s_token", str(tmp_path / "none"))
    assert (folder / "k3s_token").read_bytes() == credentials.ABSENT
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        reload.hand_over(str(tmp_path / "link"), "machine_token", str(tmp_path / "token"))


@pytest.mark.parametrize(
    ("pid", "reloads", "error", "told"),
    [
        (7, 3, None, None),
        (7, 3, "pool_name: bad\x1b[2J", "pool_name: bad [2J"),
        (8, 3, None, "within"),
        (7, 2, None, "within"),
        (7, "3", None, "within"),
    ],
)
def test_reload_was_taken_in_by_this_process_and_not_by_one_before(tmp_path, pid, reloads, error, told):
    (tmp_path / config.STATE_NAME).write_text(json.dumps({"pid": pid, "reloads": reloads, "reload_error": error}))
    found = reload.taken_in(str(tmp_path), 7, 2, 0.1)
    assert found is None if told is None else told in found


def test_state_that_is_none_says_nothing(tmp_path):
    assert reload.state(str(tmp_path)) == (None, 0, None)


def test_lines_of_the_journal_are_said_again_only_when_they_change():
    said = events.Changes()
    assert [said.changed("a", value) for value in (None, "x", "x", "y", None)] == [False, True, False, True, True]
    assert said.changed("b", "x")


@pytest.fixture
def journal(monkeypatch, capsys):
    """Return a function that writes events in a format, as in the service or by hand; it returns the lines."""
    before = events.LOG.handlers, events.LOG.propagate, events.LOG.level

    def write(log_format, stream="", debug=False):
        monkeypatch.setenv("JOURNAL_STREAM", stream)
        events.setup(log_format, debug)
        for level in (events.DEBUG, events.INFO, events.WARNING, events.ERROR):
            events.log(level, "event", number=1, words="a b", nothing=None)
        return capsys.readouterr().err.splitlines()

    yield write
    events.LOG.handlers, events.LOG.propagate = before[:2]
    events.LOG.setLevel(before[2])


def test_lines_of_the_journal(journal):
    assert journal("text") == ["%s event number=1 words='a b'" % level for level in ("INFO", "WARNING", "ERROR")]
    assert [line[:3] for line in journal("text", "9:9", debug=True)] == ["<7>", "<6>", "<4>", "<3>"]
    found = [json.loads(line) for line in journal("json")]
    assert [line["level"] for line in found] == ["info", "warning", "error"] and found[0]["words"] == "a b" and "nothing" not in found[0]
    assert found[0]["time"].endswith("Z") and len(found[0]["time"]) == 24
