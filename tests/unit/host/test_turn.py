"""Steps of two runs at one host come one after the other, and a killed one is in nobody's way: real processes."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
STEP = """
import pathlib, sys, time
from ansible_collections.beta9.workers.plugins.module_utils.host import turn
class Module:
    check_mode, _name = False, "beta9.workers.step"
    def fail_json(self, msg): sys.exit(msg)
path, seconds, work = sys.argv[1], float(sys.argv[2]), sys.argv[3]
turn.take(Module(), seconds, path)
exec(work)
"""
COUNT = """
file = pathlib.Path(path + '.count')
number = int(file.read_text())
time.sleep(0.01)
file.write_text(str(number + 1))
"""


@pytest.fixture
def step(tmp_path):
    """Return a function that starts a step of a run."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "collections"))

    def start(work, seconds=30.0):
        command = [sys.executable, "-c", STEP, str(tmp_path / "lock"), str(seconds), work]
        return subprocess.Popen(command, env=environment, text=True, stderr=subprocess.PIPE)

    return start


def test_steps_come_one_after_the_other_and_leave_no_file(step, tmp_path):
    (tmp_path / "lock.count").write_text("0")
    steps = [step(COUNT) for _number in range(12)]
    assert [(one.wait(60), one.stderr.read()) for one in steps] == [(0, "")] * 12
    assert (tmp_path / "lock.count").read_text() == "12" and not (tmp_path / "lock").exists()


def test_step_that_does_not_end_is_named(step, tmp_path):
    first = step("time.sleep(60)")
    while not ((tmp_path / "lock").exists() and (tmp_path / "lock").read_text()):
        time.sleep(0.02)
    second = step("", seconds=0.3)
    said = second.communicate(timeout=30)[1]
    assert (
        second.returncode == 1
        and f"found module beta9.workers.step (pid {first.pid}) still at work. Wait" in said
        and (tmp_path / "lock").exists()
    )
    assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert (tmp_path / "lock").exists() and step("", seconds=0.3).wait(30) == 0 and not (tmp_path / "lock").exists()
