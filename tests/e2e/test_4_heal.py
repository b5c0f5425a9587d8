"""heal_worker.yml on real hosts: every root cause of every host is judged again, nothing is created unasked, and twice is a no-op."""

from __future__ import annotations

import pytest

from tests.e2e.test_1_onboard import recap

pytestmark = pytest.mark.long
OPT_IN = ("-e", "heal_opt_in=true")


def rows(output):
    """Return {(host, id of the root cause): rest of the line} of the table that healing ends with."""
    found = {}
    for line in output.splitlines():
        words = line.strip().strip('",').split()  # as JSON a line of the table is one line
        if len(words) > 3 and words[1][:1].isalpha() and words[1][1:].isdigit() and ("heal" in line or "needs" in line or "left alone" in line):
            found[words[0], words[1]] = " ".join(words[2:])
    return found


def heal(bed, *arguments):
    status, output = bed.play("heal_worker.yml", *arguments, ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    return status, output, rows(output)


@pytest.fixture(scope="module")
def onboarded(testbed):
    """Both hosts ready; each test here leaves them so."""
    status, output = testbed.play("onboard_worker.yml")
    assert status == 0, output
    return testbed


@pytest.fixture
def healed(onboarded):
    """The same; whatever a test left is put right by onboarding, which has to be able to do that anyway."""
    yield onboarded
    status, output = onboarded.play("onboard_worker.yml")
    assert status == 0, output


def no_op(bed):
    status, output, _rows = heal(bed)
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output


def test_two_hosts_two_faults(healed):
    """The second host is judged by its own checks, not by those of the first; the program that is gone comes back."""
    first, second = healed.workers
    healed.sh(first, "systemctl stop beta9-tunnel; mv /usr/bin/autossh /root/autossh; sed -i /ServerAlive/d /etc/beta9/tunnel/ssh_config")
    healed.sh(second, "systemctl stop beta9-agent; ln -sf /dev/null /etc/systemd/system/beta9-agent.service; systemctl daemon-reload")
    status, output, told = heal(healed)
    assert status == 0, output
    assert {host for host, _root in told} == {first, second}, output
    assert all(text.endswith("healed") or "healthy, though" in text for text in told.values()), output
    no_op(healed)


def test_empty_token_needs_to_be_asked_for(healed):
    worker, machines = healed.workers[0], healed.machines()
    healed.sh(worker, ": > /etc/beta9/credentials/machine_token; systemctl restart --no-block beta9-agent; sleep 1")
    status, output, told = heal(healed, "-l", worker)
    assert status == 2 and "heal_opt_in" in told[worker, "A01"], output
    assert healed.machines().keys() <= machines.keys(), "a machine was created without being asked for"
    # at once: that the agent ended again and again before it was healed is over
    status, output, told = heal(healed, "-l", worker, "-e", "heal_wait_seconds=20", *OPT_IN)
    assert status == 0 and "healed" in told[worker, "A01"], output
    no_op(healed)


def test_wiped_settings(healed):
    """What can be repaired without another machine is; the machine is asked for."""
    worker, writes = healed.workers[1], healed.writes()
    healed.sh(worker, "rm -rf /etc/beta9; systemctl restart --no-block beta9-tunnel beta9-agent; sleep 1")
    status, output, told = heal(healed, "-l", worker)
    assert status == 2 and healed.writes() == writes, output
    assert any("heal_opt_in" in text for text in told.values()), output
    status, output, told = heal(healed, "-l", worker, *OPT_IN)
    assert status == 0, output
    no_op(healed)


def test_history_is_no_reason(healed):
    """More drops than a day should have, which are over: nothing is changed, and the host stays healthy."""
    worker = healed.workers[0]
    healed.sh(worker, "for n in 1 2 3 4 5; do pkill -u beta9-tunnel -x ssh; sleep 2; done; sleep 5")
    status, output, _told = heal(healed, "-l", worker)
    assert status == 0 and recap(output)[worker]["changed"] == 0, output


def test_check_mode_changes_nothing(healed):
    worker = healed.workers[0]
    healed.sh(worker, "systemctl stop beta9-tunnel")
    status, output = healed.play("heal_worker.yml", "-l", worker, "--check")
    assert status == 0 and "not done: check mode" in output, output
    # failed: autossh may end with 1 when it is stopped
    assert healed.sh(worker, "systemctl is-active beta9-tunnel", check=False) in ("inactive", "failed")
