"""Two runs at one host at the same time, as when a schedule meets a person: the host ends as after one run."""

from __future__ import annotations

import subprocess
import time

import pytest

from tests.e2e.test_1_onboard import recap

pytestmark = pytest.mark.long
BARE = "rm -rf /opt/beta9-agent; DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge autossh >/dev/null 2>&1; true"
LEFT = "ls /opt/beta9-agent/incoming; ls -d /run/beta9-workers.lock /etc/beta9/*/*.beta9-new 2>/dev/null; true"


def at_once(bed, seconds, *commands):
    """Start playbooks, one so many seconds after the other; return [(exit status, output)]."""
    runs = []
    for number, (playbook, *arguments) in enumerate(commands):
        time.sleep(seconds if number else 0)
        command = bed.command(playbook, *arguments, "-e", "beta9_onboard_health=false")
        runs.append(
            subprocess.Popen(
                command,
                cwd=bed.root,
                env=bed.environment(),
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        )
    outputs = [run.communicate(timeout=900)[0] for run in runs]
    return [(run.returncode, output) for run, output in zip(runs, outputs)]


@pytest.mark.parametrize("seconds", [0, 1, 3, 6, 9])
@pytest.mark.parametrize("number", [0, 1], ids=["root", "sudo"])
def test_two_onboardings_of_one_bare_host(testbed, number, seconds):
    testbed.clean()
    worker = testbed.workers[number]
    testbed.sh(worker, BARE)
    command = ["onboard_worker.yml", "-l", worker]
    outputs = at_once(testbed, seconds, command, command)
    for status, output in outputs:
        assert status == 0, output
    assert testbed.machines() == {testbed.machine_id(worker): "ready"}, outputs
    assert testbed.sh(worker, LEFT) == ""
    status, output = testbed.play("onboard_worker.yml", "-l", worker, health=True)
    assert status == 0 and recap(output)[worker]["changed"] == 0, output


def test_two_rotations_of_one_host(onboarded):
    worker = onboarded.workers[0]
    before = onboarded.machine_id(worker)
    command = ["rotate_token.yml", "-l", worker]
    outputs = at_once(onboarded, 1, command, command)
    assert any(status == 0 for status, _output in outputs), outputs
    assert before not in onboarded.machines()
    assert onboarded.machines() == {onboarded.machine_id(one): "ready" for one in onboarded.workers}, outputs
    assert (
        onboarded.sh(
            worker,
            "ls /etc/beta9/credentials/*.before 2>/dev/null; grep -c replaces /etc/ansible/facts.d/beta9.fact",
            check=False,
        )
        == "0"
    )
    status, output = onboarded.play("onboard_worker.yml", "-l", worker, health=True)
    assert status == 0 and recap(output)[worker]["changed"] == 0, output


def test_healing_while_somebody_onboards(onboarded):
    """As a schedule does to a person who repairs a host by hand."""
    worker = onboarded.workers[0]
    onboarded.sh(
        worker,
        "systemctl stop beta9-agent beta9-tunnel; rm -rf /opt/beta9-agent /etc/beta9/credentials/tunnel_key",
    )
    at_once(onboarded, 1, ["onboard_worker.yml", "-l", worker], ["heal_worker.yml", "-l", worker])
    status, output = onboarded.play("onboard_worker.yml", "-l", worker, health=True)
    assert status == 0 and recap(output)[worker]["changed"] == 0, output
    assert onboarded.machines()[onboarded.machine_id(worker)] == "ready" and len(onboarded.machines()) == len(
        onboarded.workers
    )
