"""The agent's user puts something else in place of what root reads: root waits for nobody and reads no device."""

from __future__ import annotations

import time

import pytest

STATE = "/run/beta9-agent/state.json"
PYTHON = "/opt/beta9-agent/current/bin/python -I -m beta9_agent"
# the agent stands still, so that it does not put its own file back; less than its watchdog's 60 s
PREPARE = "kill -STOP $(systemctl show beta9-agent --property MainPID --value); rm -f {0}; {1}; chown -h --reference=/run/beta9-agent {0}"


PREPARED = [("fifo", "mkfifo {0}", []), ("device", "ln -s /dev/zero {0}", [pytest.mark.long])]
PREPARED += [("secret", "ln -s /etc/beta9/credentials/machine_token {0}", [pytest.mark.long])]


@pytest.fixture(params=[pytest.param(command, id=name, marks=marks) for name, command, marks in PREPARED])
def attacked(testbed, request):
    """A worker whose agent's user has prepared the state file."""
    worker = testbed.workers[0]
    status, output = testbed.play("onboard_worker.yml", "-l", worker)
    assert status == 0, output
    testbed.sh(worker, PREPARE.format(STATE, request.param.format(STATE)))
    yield worker
    testbed.sh(worker, "systemctl kill -s KILL beta9-agent; systemctl reset-failed beta9-agent; systemctl restart --no-block beta9-agent")


def test_root_s_readers_end_at_once(testbed, attacked):
    began = time.monotonic()
    shown = testbed.sh(attacked, "timeout 20 %s status 2>&1; echo status $?" % PYTHON)
    assert shown.endswith("status 3") and "canary" not in shown, shown
    status, output = testbed.play("health_check.yml", "-l", attacked)
    assert status != 0 and attacked in output and time.monotonic() - began < 120, output
    token = testbed.sh(attacked, "cat /etc/beta9/credentials/machine_token")
    assert token and token not in shown + output


@pytest.mark.long
def test_the_reload_ends_in_time(testbed, attacked):
    began = time.monotonic()
    shown = testbed.sh(attacked, "timeout 100 systemctl reload beta9-agent 2>&1; echo status $?")
    assert "status 1" in shown and time.monotonic() - began < 90, shown
