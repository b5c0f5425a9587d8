"""Two hosts with one name, and hosts made from an image of an onboarded one: refused, until somebody says which is right."""

from __future__ import annotations

import json
import time

import pytest

from tests.e2e.test_1_onboard import recap
from tests.e2e.test_9_gateway_hosts import flat

KEYS = "/etc/ssh/beta9-tunnel/authorized_keys"
NEW, THIS = ("-e", "beta9_identity=new"), ("-e", "beta9_identity=this")


@pytest.fixture
def pair(testbed):
    """The first worker is onboarded, the second is bare."""
    testbed.clean()
    status, output = testbed.play("onboard_worker.yml", "-l", testbed.workers[0])
    assert status == 0, output
    return testbed


def state(bed):
    """Return what the original has, at the gateway and on the host."""
    original = bed.workers[0]
    key = bed.sh(original, "sha256sum /etc/beta9/credentials/tunnel_key /etc/beta9/credentials/machine_token")
    return bed.machines(), bed.machine_id(original), key, bed.sh(bed.gateway, "cat " + KEYS)


def clone(bed, machine_id=False):
    """Bring what onboarding left on the first worker to the second."""
    original, copy = bed.workers
    names = "etc/beta9 etc/ansible/facts.d/beta9.fact etc/systemd/system/beta9-agent.service" + (" etc/machine-id" if machine_id else "")
    text = bed.sh(original, f"tar -C / -c {names} | base64 -w0")
    bed.sh(copy, f"echo {text} | base64 -d | tar -C / -x --no-same-owner; systemctl daemon-reload; test -s /etc/beta9/credentials/machine_token")


def renamed(bed, tmp_path, host, name):
    """Return an inventory in which one of the workers has another name."""
    inventory = json.loads(bed.inventory.read_text())
    hosts = inventory["all"]["children"]["gpu-hosts"]["hosts"]
    inventory["all"]["children"]["gpu-hosts"]["hosts"] = {name: hosts[host]}
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps(inventory))
    return "-i", str(path)


@pytest.mark.long
def test_second_host_of_a_name(pair, tmp_path):
    original, second = pair.workers
    other = renamed(pair, tmp_path, second, original)
    before = state(pair)
    status, output = pair.play("onboard_worker.yml", *other, alone=True)
    assert status != 0 and "two hosts with one name" in flat(output) and "beta9_identity=this" in output, output
    assert state(pair) == before
    status, output = pair.play("onboard_worker.yml", *other, *THIS, alone=True)
    assert status == 0, output
    assert pair.machines()[pair.machine_id(second)] == "ready"
    status, output = pair.play("onboard_worker.yml", *other, alone=True)
    assert status == 0 and recap(output)[original]["changed"] == 0, output


@pytest.mark.long
def test_lost_key_of_a_tunnel_that_is_up_is_no_second_host(pair):
    worker = pair.workers[0]
    pair.sh(worker, "rm -r /etc/beta9; pgrep -x ssh")
    status, output = pair.play("onboard_worker.yml", "-l", worker)
    assert status == 0, output


@pytest.mark.long
def test_image_of_an_onboarded_host(pair):
    copy = pair.workers[1]
    clone(pair)
    before = state(pair)
    for playbook, more in (("onboard_worker.yml", ["--check"]), ("onboard_worker.yml", []), ("rotate_token.yml", []), ("offboard_worker.yml", [])):
        status, output = pair.play(playbook, "-l", copy, *more)
        assert status != 0 and "cloned" in output and "beta9_identity=new" in output, output
        assert recap(output)[copy]["changed"] == 0, output
    assert state(pair) == before
    status, output = pair.play("onboard_worker.yml", "-l", copy, *NEW)
    assert status == 0, output
    after = state(pair)
    assert after[1:3] == before[1:3] and before[3] in after[3]
    assert after[0] == {pair.machine_id(worker): "ready" for worker in pair.workers} and len(after[0]) == 2
    status, output = pair.play("onboard_worker.yml", *NEW)
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output


@pytest.mark.long
def test_image_with_its_machine_id(pair):
    copy = pair.workers[1]
    kept = pair.sh(copy, "cat /etc/machine-id")
    clone(pair, machine_id=True)
    before = state(pair)
    deadline = time.monotonic() + 190
    try:
        while float(pair.sh(copy, "ps -o etimes= -p 1")) < 185:  # an agent that stopped at the last boot may have been heard of until now
            assert time.monotonic() < deadline
            time.sleep(5)
        status, output = pair.play("onboard_worker.yml", "-l", copy)
        assert status != 0 and "cloned" in output and "did not send" in flat(output) and recap(output)[copy]["changed"] == 0, output
        assert state(pair) == before
        status, output = pair.play("onboard_worker.yml", "-l", copy, *NEW)
        assert status == 0, output
        assert state(pair)[1:3] == before[1:3] and len(pair.machines()) == 2
    finally:
        pair.sh(copy, f"echo {kept} > /etc/machine-id")
    status, output = pair.play("onboard_worker.yml", "-l", copy)
    assert status != 0 and "cloned" in output, output
    identity = pair.machine_id(copy)
    status, output = pair.play("onboard_worker.yml", "-l", copy, *THIS)
    assert status == 0 and pair.machine_id(copy) == identity, output


@pytest.mark.long
def test_host_with_another_name_in_the_inventory(pair, tmp_path):
    original = pair.workers[0]
    other = renamed(pair, tmp_path, original, "gpu-renamed")
    before = state(pair)
    status, output = pair.play("onboard_worker.yml", *other, alone=True)
    assert status != 0 and f"found it in the line of {original}: this host was cloned, or renamed" in flat(output), output
    assert state(pair) == before
    status, output = pair.play("onboard_worker.yml", *other, *THIS, alone=True)
    assert status == 0 and pair.machine_id(original) == before[1], output
    keys = pair.sh(pair.gateway, "cat " + KEYS)
    assert keys.endswith("beta9-worker:gpu-renamed") and len(keys.splitlines()) == 1
