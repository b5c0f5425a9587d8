"""A process that has everything imported but the collection, and runs tests in children of its own: most of a short run is importing."""

from __future__ import annotations

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any

TEST_SECONDS = 60.0  # no single test takes as long, also on a busy machine: it waits for what a mutant keeps from happening


class Server:
    """Runs tests in a tree of its own."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        environment = dict(
            os.environ, ANSIBLE_COLLECTIONS_PATH=str(folder / "collections"), PYTHONDONTWRITEBYTECODE="1"
        )
        self._process = subprocess.Popen(
            [sys.executable, str(pathlib.Path(__file__).resolve())],
            cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def first_failure(self, tests: list[str], seconds: float) -> str:
        """Return the name of the first of the tests that fails, "" when all pass. Those that do not end in time fail."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps({"tests": tests, "seconds": seconds}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


class Failure:
    """Tell the first failure. A test that does not end is one."""

    def __init__(self, handle: int) -> None:
        self.handle, self.started = handle, time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while time.monotonic() - self.started < TEST_SECONDS:
            time.sleep(0.5)
        os.write(self.handle, b"::too long")
        os._exit(1)

    def pytest_runtest_logstart(self) -> None:
        self.started = time.monotonic()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            os.write(self.handle, report.nodeid.encode()[:60000])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            os.write(self.handle, ("%s::import" % report.nodeid).encode())


def child(tests: list[str], told: int) -> None:
    """Run the tests, and never return."""
    import pytest

    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(null, handle)
    status = 1
    try:
        status = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests], plugins=[Failure(told)]))
    except BaseException as error:  # whatever it is, the tests did not pass
        os.write(told, ("::%s" % type(error).__name__).encode())
    finally:
        os._exit(1 if status else 0)


def run(tests: list[str], seconds: float) -> str:
    """Return what Server.first_failure does."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        child(tests, write)
    os.close(write)
    watch = os.pidfd_open(pid)
    ended = bool(select.select([watch], [], [], seconds)[0])
    try:
        os.killpg(pid, signal.SIGKILL)  # and what the tests left running
    except ProcessLookupError:
        pass
    os.close(watch)
    _pid, status = os.waitpid(pid, 0)
    os.set_blocking(read, False)
    try:
        name = os.read(read, 65536).decode("utf-8", "replace")
    except BlockingIOError:
        name = ""
    os.close(read)
    if not ended:
        return "::too long"
    return "" if status == 0 else name or "::ended with %d" % status


def main() -> None:
    folder = os.getcwd()
    sys.path[:1] = [folder]
    for name in (
        "pytest",
        "hypothesis",
        "redis",
        "yaml",
        "jinja2",
        "httpx",
        "psutil",
        "jsonschema",
        "ansible.plugins.action",
        "ansible.module_utils.basic",
    ):
        __import__(name)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(run(asked["tests"], asked["seconds"])), flush=True)


if __name__ == "__main__":
    main()
