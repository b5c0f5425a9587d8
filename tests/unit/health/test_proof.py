"""When a running agent is taken as proof of what another start of it would find, and when one has to be started."""

from __future__ import annotations

import json
import shutil
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import agent

STATE = {
    "status": "ready",
    "pid": 814,
    "python": "3.11.2",
    "loaded": ["httpx", "psutil", "pynvml"],
    "gpu_problem": None,
    "reload_error": None,
    "sent": {"register": {"cpu": "2000m"}},
}


class Context(engine.Context):
    """A context with a unit that was started at a moment."""

    def __init__(self, started_us):
        super().__init__({})
        self.started_us = started_us

    def run(self, *command, timeout=4.0, stdin=None, hangs=False):
        assert command[:2] == ("systemctl", "show")
        return engine.Ran(0, "Id=beta9-agent.service\nLoadState=loaded\nMainPID=814\nExecMainStartTimestampMonotonic=%d\n" % self.started_us)


COARSE = 5  # CLOCK_REALTIME_COARSE of Linux, for which Python has no name


def tick():
    """Wait until the clock by which the kernel notes changes of files, which is some milliseconds behind, is past this moment."""
    now = time.clock_gettime_ns(time.CLOCK_REALTIME)
    while time.clock_gettime_ns(COARSE) <= now:
        time.sleep(0.001)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Files as on a host: settings, token, an interpreter with its library, and an environment that leads to it."""
    for name in ("agent.env", "token", "usr/bin/python3.11", "usr/lib/python3.11/os.py", "versions/1/lib/site-packages/psutil/x.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "versions/1/bin").mkdir()
    (tmp_path / "versions/1/bin/python").symlink_to(tmp_path / "usr/bin/python3.11")
    (tmp_path / "current").symlink_to("versions/1")
    monkeypatch.setattr(agent, "PYTHON", str(tmp_path / "current/bin/python"))
    monkeypatch.setattr(agent, "SETTINGS", str(tmp_path / "agent.env"))
    monkeypatch.setattr(agent, "TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setattr(agent, "STATE_FILE", str(tmp_path / "state.json"))
    (tmp_path / "state.json").write_text(json.dumps(STATE))
    tick()
    return tmp_path


def started():
    found = Context(int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6))
    tick()
    return found


def test_an_agent_that_is_newer_than_its_files_is_proof(tree):
    assert agent.proof(started()) == {name: value for name, value in STATE.items() if value is not None}


@pytest.mark.parametrize("name", ["agent.env", "token", "usr/bin/python3.11", "versions/1/lib/site-packages/psutil/x.py"])
def test_a_file_that_was_written_since_is_none(tree, name):
    context = started()
    (tree / name).write_text("y")
    assert agent.proof(context) is None


@pytest.mark.parametrize("name", ["versions/1/lib/site-packages/psutil", "versions/1/bin/python", "usr/lib/python3.11", "current", "token"])
def test_what_was_removed_since_is_none(tree, name):
    context = started()
    path = tree / name
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    assert agent.proof(context) is None


def test_another_version_is_none(tree):
    context = started()
    shutil.copytree(tree / "versions/1", tree / "versions/2", symlinks=True)
    (tree / "current").unlink()
    (tree / "current").symlink_to("versions/2")
    assert agent.proof(context) is None


@pytest.mark.parametrize(
    "change",
    [
        {"status": "degraded"},
        {"pid": 815},
        {"loaded": ["httpx", "psutil"]},
        {"loaded": None},
        {"gpu_problem": "NVML: no"},
        {"reload_error": "pool_name"},
        {"sent": {}},
        {"sent": None},
    ],
    ids=str,
)
def test_an_agent_in_trouble_or_of_another_process_is_none(tree, change):
    (tree / "state.json").write_text(json.dumps(dict(STATE, **change)))
    assert agent.proof(started()) is None


def test_no_systemd_is_none(tree, monkeypatch):
    def away(*_words, **_options):
        raise engine.Unknown("systemctl is not installed")

    context = started()
    monkeypatch.setattr(context, "run", away)
    assert agent.proof(context) is None
