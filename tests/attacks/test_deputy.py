"""A worker says that it has another worker's machine, so that the operator's playbooks, with the operator's token, change that one."""

from __future__ import annotations

import json

import pytest

from tests.e2e.test_1_onboard import recap

FACT = "/etc/ansible/facts.d/beta9.fact"


@pytest.fixture
def impostor(ready):
    """The first worker claims the second one's machine; both ids. Afterwards it is as before."""
    first, second = ready.workers
    own, victim = ready.machine_id(first), ready.machine_id(second)
    ready.sh(first, "cp %s /root/fact; sed -i s/%s/%s/ %s" % (FACT, own, victim, FACT))
    assert ready.machine_id(first) == victim
    yield own, victim
    ready.sh(first, "if test -e /root/fact; then mkdir -p $(dirname %s); mv /root/fact %s; fi" % (FACT, FACT))


def workers_of(bed, machine):
    """Let the gateway run a container on a machine."""
    entry = json.dumps({"machineId": machine, "poolName": "gpu", "status": "available", "activeContainers": ["container-1"]})
    bed.sh(bed.gateway, "redis-cli hset double:workers worker-1 '%s' >/dev/null" % entry)


@pytest.mark.long
def test_offboarding_touches_no_other_machine(ready, impostor):
    _own, victim = impostor
    workers_of(ready, victim)
    status, output = ready.play("offboard_worker.yml", "--limit", ready.workers[0])
    assert status != 0 and "beta9_machine_confirmed=true" in output and "another token on this host" in " ".join(output.split()), output
    assert ready.machines().get(victim) == "ready"
    entry = json.loads(ready.sh(ready.gateway, "redis-cli hget double:workers worker-1; redis-cli del double:workers >/dev/null"))
    assert entry["status"] == "available" and entry["activeContainers"] == ["container-1"]
    status, output = ready.play("offboard_worker.yml", "--limit", ready.workers[0], "-e", "beta9_drain=false")
    assert status != 0 and ready.machines().get(victim) == "ready", output
    assert recap(output)[ready.workers[0]]["changed"] == 0, output
    assert ready.sh(ready.workers[0], "systemctl is-active beta9-agent") == "active"


def test_rotation_touches_no_other_machine(ready, impostor):
    first, before = ready.workers[0], ready.writes()
    status, output = ready.play("rotate_token.yml", "--limit", first)
    assert status != 0 and "beta9_machine_confirmed=true" in output and ready.writes() == before, output
    assert recap(output)[first]["changed"] == 0 and "Restore the credentials" not in output, output


@pytest.mark.long
def test_onboarding_into_another_pool_touches_no_other_machine(ready, impostor):
    own, victim = impostor
    _status, output = ready.play("onboard_worker.yml", "--limit", ready.workers[0], "-e", "beta9_pool=cpu")
    try:
        assert ready.machines().get(victim) == "ready", output
        assert "another token on this host" in " ".join(output.split()), output
    finally:
        ready.sh(ready.workers[0], "rm -f /root/fact")  # it has a machine of its own in the other pool now
        status, output = ready.play("onboard_worker.yml")
    assert status == 0 and ready.machines().get(victim) == "ready", output
    assert own != ready.machine_id(ready.workers[0])


@pytest.mark.long
def test_the_operator_may_confirm(ready):
    """A host that lost its token: the machine is its own all the same."""
    first = ready.workers[0]
    own = ready.machine_id(first)
    ready.sh(first, "systemctl stop beta9-agent; echo another-token-0123456789 > /etc/beta9/credentials/machine_token")
    status, output = ready.play("offboard_worker.yml", "--limit", first)
    assert status != 0 and own in ready.machines(), output
    status, output = ready.play("offboard_worker.yml", "--limit", first, "-e", "beta9_machine_confirmed=true")
    assert status == 0 and own not in ready.machines(), output
    status, output = ready.play("onboard_worker.yml")
    assert status == 0, output
