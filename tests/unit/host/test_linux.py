"""What module_utils.host.linux reads of the kernel's own tables and of file systems, on this machine."""

from __future__ import annotations

import os
import socket
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import linux


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"])
def listening(request):
    """Yield (port, address) of a socket that listens, beside many that are connected to it."""
    family, address = request.param
    with socket.socket(family) as server:
        try:
            server.bind((address, 0))
        except OSError as error:
            pytest.skip("no such address here: %s" % error)
        server.listen(64)
        port = server.getsockname()[1]
        clients = [socket.create_connection((address, port)) for _number in range(32)]
        yield port, address
        for client in clients:
            client.close()


def test_listeners_and_their_owner(listening):
    port, address = listening
    with open("/proc/self/comm", encoding="utf-8") as stream:
        own = stream.read().strip()
    assert linux.listeners(port) == [{"address": address, "uid": os.getuid(), "process": own, "pid": os.getpid()}]


def test_connected_sockets_do_not_listen(listening):
    with socket.create_connection((listening[1], listening[0])) as client:
        assert linux.listeners(client.getsockname()[1]) == []


def test_every_listener_is_seen_before_the_rows_stop():
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path, encoding="ascii") as stream:
                rows = [line.split() for line in stream][1:]
        except OSError:
            continue
        states = [fields[3] == "0A" for fields in rows]
        assert states == sorted(states, reverse=True), "the kernel lists those that listen first"


def test_tree_is_all_below_a_directory_and_no_link_is_followed(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path)
    expected = {"", "/a", "/a/b", "/a/b/file", "/loop"}
    assert {path[len(str(tmp_path)) :] for path in linux.tree(str(tmp_path))} == expected
    assert list(linux.tree(str(tmp_path / "none"))) == [str(tmp_path / "none")]


def test_changed_since_tells_which_and_leaves_out_what_is_not_there(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    now_us = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6)
    paths = [str(tmp_path / "none"), str(tmp_path / "link"), str(tmp_path / "file")]
    assert linux.changed_since(now_us + 60_000_000, paths) is None
    assert linux.changed_since(now_us - 60_000_000, paths) == str(tmp_path / "link")
