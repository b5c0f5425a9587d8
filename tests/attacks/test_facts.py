"""A worker sends facts that are named like the operator's variables, hosts for the inventory, and results that nobody asked for."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.e2e import conftest as e2e
from tests.e2e import test_3_artefact as artefact

dist, installed = artefact.dist, artefact.installed


def facts(turn, worker, tmp_path):
    """Return facts that lead the admin token to the worker, a report to a place of its choice, and the controller's own files to it."""
    return {
        "beta9_gateway_url": turn.listen(worker),
        "beta9_admin_token_file": str(tmp_path / "another-secret"),
        "health_check_directory": str(tmp_path / "chosen"),
        "autossh_gateway_host": "localhost",
        "autossh_forwards": [{"local_port": 1994, "target": "localhost:22"}],
    }


def attack(bed, turn, tmp_path, play):
    """Let a worker send the facts with every result, and run playbooks by play(name), which returns (status, output)."""
    first = bed.workers[0]
    admin_token = (bed.inventory.parent / "admin_token").read_text()
    (tmp_path / "another-secret").write_text("one-word-of-the-controller")
    turn(first, add={"ansible_facts": facts(turn, first, tmp_path)})
    for playbook in ("health_check", "heal_worker", "onboard_worker"):
        _status, output = play(playbook)
        heard = turn.heard(first)
        assert admin_token not in heard and "one-word-of-the-controller" not in heard, (playbook, heard)
        assert not (tmp_path / "chosen").exists(), playbook
        assert heard == "" and first in output and admin_token not in output, (playbook, output)
    assert bed.sh(first, "test -s /var/log/hostile.log && echo lied") == "lied"


@pytest.mark.long
@pytest.mark.parametrize("config", ["shipped", pytest.param("empty", id="empty-config")])
def test_facts_of_a_worker_set_no_variable(ready, turn, tmp_path, config, empty_config):
    environment = empty_config if config == "empty" else {}
    attack(ready, turn, tmp_path, lambda name: ready.play(f"{name}.yml", **environment))


@pytest.mark.long
def test_facts_on_the_oldest_and_newest_ansible_core(ready, turn, tmp_path, other_core, empty_config):
    attack(ready, turn, tmp_path, lambda name: ready.play(f"{name}.yml", programs=other_core, **empty_config))


@pytest.mark.long
def test_facts_set_no_variable_of_the_built_artefact(ready, turn, tmp_path, installed):
    """The same, by an operator who has installed the collection and has neither its checkout nor its ansible.cfg."""
    attack(ready, turn, tmp_path, lambda name: artefact.play(ready, installed[0], name))


def test_a_fact_alone_sets_no_variable(ready, turn, admin_token, empty_config):
    """Only the address: the operator's own token file stays as it is, and its content goes where the inventory says."""
    first = ready.workers[0]
    turn(first, add={"ansible_facts": {"beta9_gateway_url": turn.listen(first)}})
    _status, output = ready.play("health_check.yml", **empty_config)
    assert admin_token not in turn.heard(first), output
    assert turn.heard(first) == "", output


@pytest.mark.long
def test_a_worker_adds_no_host_and_no_group(ready, turn, empty_config, tmp_path):
    """add_host in a module's result makes a host of Ansible's inventory, or gives a known one another address or connection."""
    first, second = ready.workers
    proof = tmp_path / "ran-on-the-controller"
    turn(first, add={"changed": True, "add_host": {"host_name": second, "host_vars": {"ansible_connection": "local"}, "groups": ["beta9_gateway"]}})
    _status, output = ready.play("heal_worker.yml", "-vvv", **empty_config)
    assert "ESTABLISH LOCAL CONNECTION FOR USER" not in output.replace("<localhost> ESTABLISH LOCAL CONNECTION", ""), output
    assert not proof.exists()


@pytest.mark.long
def test_a_worker_forges_no_statistic(ready, turn, empty_config):
    first = ready.workers[0]
    turn(first, add={"ansible_stats": {"data": {"beta9_heal": {"forged": ["by a worker"]}}, "per_host": False, "aggregate": True}})
    _status, output = ready.play("heal_worker.yml", ANSIBLE_SHOW_CUSTOM_STATS="true", **empty_config)
    assert "forged" not in output, output


def left_in_cache(bed, host, tmp_path, config, **facts):
    """Return the environment of a run whose fact cache has these facts of a host."""
    environment = dict(config, ANSIBLE_CACHE_PLUGIN="jsonfile", ANSIBLE_CACHE_PLUGIN_CONNECTION=str(tmp_path / "facts"))
    command = [str(e2e.BIN / "ansible"), "-i", str(bed.inventory), host, "-m", "ansible.builtin.set_fact", "-a", json.dumps(dict(facts, cacheable=True))]
    subprocess.run(command, check=True, capture_output=True, env=bed.environment(**environment))
    return environment


@pytest.mark.long
def test_facts_that_another_playbook_left_in_the_cache_are_refused(ready, tmp_path, empty_config, admin_token, turn):
    """setup was run by somebody else, with injection on and a fact cache: what it left is not taken for the operator's word."""
    first = ready.workers[0]
    url = turn.listen(first)
    environment = left_in_cache(ready, first, tmp_path, empty_config, beta9_gateway_url=url)
    status, output = ready.play("health_check.yml", **environment)
    assert turn.heard(first) == "" and status != 0, output
    assert "beta9_gateway_url" in output and "inject_facts_as_vars" in output, output


@pytest.mark.long
def test_a_fact_that_shadows_a_variable_of_the_inventory_is_refused(ready, tmp_path, empty_config, turn):
    """The operator's beta9_gateway_url is made of a variable of theirs, whose name the worker guessed."""
    first = ready.workers[0]
    inventory = json.loads(ready.inventory.read_text())
    variables = inventory["all"]["vars"]
    variables["gateway_address"], variables["beta9_gateway_url"] = variables["beta9_gateway_url"], "{{ gateway_address }}"
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps(inventory))
    environment = left_in_cache(ready, first, tmp_path, empty_config, gateway_address=turn.listen(first))
    status, output = ready.play("health_check.yml", "-i", str(path), alone=True, **environment)
    assert turn.heard(first) == "" and status != 0 and "gateway_address" in output, output
