"""Whoever has a machine's token registers machines of any name, and the operator's inventory lists them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
import yaml

from ansible_collections.beta9.workers.plugins.module_utils.gateway import api as client
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from tests.conftest import ROOT
from tests.integration.test_inventory import plain, put

NAMES = ["localhost", "../../x", "a\nb", "gateway-host", "\x1b]0;x\x07", "1165A9B6", "11 65a9b6", "\ud7ffabc", ""]


def attack(gateway, tmp_path, programs):
    """Register what runs on the controller where it is taken for a template; list it, and show every host's variables."""
    proof = tmp_path / "ran"
    template = "{{ lookup('pipe', 'touch %s') }}" % proof
    for name in [*NAMES, template]:
        put(gateway, name)
    put(gateway, "1165a9b6", status=template, gpu=template, agent_version=template, provider_name=template, hostname=template)
    gateway.db.hset("provider:machine:generic:gpu:1165a9b6:metrics", "cpu_utilization_pct", "1.5")
    (tmp_path / "10-static.yml").write_text(yaml.safe_dump({"all": {"hosts": {"localhost": {"ansible_connection": "local"}, "gateway-host": {}}}}))
    (tmp_path / "50-beta9.yml").write_text(yaml.safe_dump({"plugin": "beta9.workers.machines", "gateway_url": gateway.url}))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BETA9_", "ANSIBLE_"))}
    environment = dict(kept, ANSIBLE_COLLECTIONS_PATH=str(ROOT / "collections"), BETA9_TOKEN=gateway.admin_token, ANSIBLE_NOCOLOR="1")
    sources = ["-i", str(tmp_path / "10-static.yml"), "-i", str(tmp_path / "50-beta9.yml")]

    def run(*command):
        done = subprocess.run([str(programs / command[0]), *sources, *command[1:]], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    listed = run("ansible-inventory", "--list")
    run("ansible", "all", "-m", "ansible.builtin.debug", "-a", "var=beta9_machine")
    run("ansible", "all", "-m", "ansible.builtin.debug", "-a", json.dumps({"msg": "{{ beta9_machine | default('') }} {{ inventory_hostname }}"}))
    assert not proof.exists(), "the controller ran what the gateway said"
    found = json.loads(listed.stdout, object_hook=plain)
    version = subprocess.run([str(programs / "ansible"), "--version"], capture_output=True, text=True, check=True).stdout
    assert "__ansible_unsafe" not in listed.stdout or "core 2.17" not in version  # from 2.19 on ansible-inventory marks all that is not its own
    assert found["beta9_pool_gpu"]["hosts"] == ["1165a9b6"]
    machine = found["_meta"]["hostvars"]["1165a9b6"]["beta9_machine"]
    assert (machine["status"], machine["gpu"], machine["agent_version"]) == ("unknown", "", "")
    assert "beta9_machine" not in found["_meta"]["hostvars"].get("localhost", {}) and "beta9_machine" not in found["_meta"]["hostvars"].get("gateway-host", {})
    warnings = " ".join(listed.stderr.split())
    assert warnings.count("values that no beta9 gateway makes") == 1, listed.stderr


def test_names_of_machines_are_no_templates_and_no_hosts(gateway, tmp_path):
    attack(gateway, tmp_path, pathlib.Path(sys.executable).parent)


@pytest.mark.long
def test_names_on_the_oldest_and_newest_ansible_core(gateway, tmp_path, other_core):
    attack(gateway, tmp_path, other_core)


@pytest.mark.parametrize(
    "body", [b"[" * 200000, b'{"a":' * 200000, b'{"machines": [{"id": "\\ud800"}]}', b'{"machines": [], "x": ' + b"[" * 5000 + b"]" * 5000 + b"}"]
)
def test_json_without_end_or_with_half_a_character_is_no_gateways(gateway, body):
    gateway.fault({"route": "machines", "mode": "answer", "status": 200, "body": body.decode()})
    with pytest.raises(client.GatewayError) as caught:
        client.GatewayClient(gateway.url, gateway.admin_token, retries=0).list_machines()
    assert caught.value.problem.code == "not_gateway"


def test_an_error_message_steers_no_terminal(gateway):
    gateway.fault({"route": "machines", "mode": "answer", "status": 400, "body": json.dumps({"message": "\x1b[2J\x00\ud800\u202e no"})})
    with pytest.raises(client.GatewayError) as caught:
        client.GatewayClient(gateway.url, gateway.admin_token, retries=0).list_machines()
    assert not protocol.UNPRINTABLE.search(str(caught.value))
