"""How the gateway stores host names: told before anything is changed where it does not fit, and put right after the gateway was."""

from __future__ import annotations

import json

import pytest

from tests.e2e.test_1_onboard import recap

pytestmark = pytest.mark.long
CONFIG = "/etc/beta9-gateway-double.json"


def set_mode(bed, mode, connected):
    config = dict(json.loads(bed.sh(bed.gateway, "cat " + CONFIG)), hostname_mode=mode, tailnet_connected=connected)
    bed.sh(bed.gateway, "cat > %s <<'END'\n%s\nEND\nsystemctl restart beta9-gateway-double; sleep 1" % (CONFIG, json.dumps(config)))


def test_gateway_with_its_defaults_is_told_before_anything_is_changed(testbed):
    set_mode(testbed, "tailnet", False)
    try:
        status, output = testbed.play("onboard_worker.yml", "-e", "beta9_nvidia=false")
    finally:
        set_mode(testbed, "direct", True)
    assert status != 0 and "tailscale.directRedisHost" in output and all(row["changed"] == 0 for row in recap(output).values()), output
    assert testbed.sh(testbed.gateway, "redis-cli --scan --pattern 'provider:machine:*'; redis-cli --scan --pattern 'double:token:*'") == ""


def test_machine_is_registered_again_after_the_gateway_was_put_right(testbed):
    status, output = testbed.play("onboard_worker.yml", "-e", "beta9_nvidia=false")
    assert status == 0, output
    worker = testbed.workers[0]
    key = "provider:machine:generic:gpu:" + json.loads(testbed.sh(worker, "cat /etc/ansible/facts.d/beta9.fact"))["machine_id"]
    name = testbed.sh(testbed.gateway, "redis-cli hget %s hostname" % key)
    testbed.sh(testbed.gateway, "redis-cli hset %s hostname %s.beta9.tailnet.example" % (key, name))
    status, output = testbed.play("onboard_worker.yml", "-e", "beta9_nvidia=false")
    assert status == 0 and testbed.sh(testbed.gateway, "redis-cli hget %s hostname" % key) == name, output
    status, output = testbed.play("onboard_worker.yml", "-e", "beta9_nvidia=false")
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output
