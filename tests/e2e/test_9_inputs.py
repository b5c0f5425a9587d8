"""Wrong input is named before anything is changed: no host matched, misspelt and mistyped variables, no token. Each problem once a run."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.e2e.test_1_onboard import recap


def said(output):
    """Return an output in one line, without the quotes that YAML doubles."""
    return " ".join(output.split()).replace("''", "'")


def inventory_without(bed, tmp_path, group, **variables):
    """Write the testbed's inventory with an empty group and more variables; return its path."""
    inventory = json.loads(bed.inventory.read_text())
    inventory["all"]["children"][group]["hosts"] = {}
    inventory["all"]["vars"].update(variables)
    path = tmp_path / "hosts.yml"
    path.write_text(json.dumps(inventory))
    return path


PLAYBOOKS = ("onboard_worker", "health_check", "heal_worker", "rotate_token", "upgrade_agent", "offboard_worker")


@pytest.mark.long
@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_limit_that_leaves_no_worker_fails(testbed, playbook):
    status, output = testbed.play(playbook + ".yml", "-l", testbed.gateway)
    assert status != 0 and "the limit '%s' leaves out all of them" % testbed.gateway in said(output), output
    assert str(testbed.inventory) in output and "%s, %s" % testbed.workers in output, output


def test_group_without_hosts_fails(testbed, tmp_path):
    path = inventory_without(testbed, tmp_path, "gpu-hosts")
    status, output = testbed.play("onboard_worker.yml", "-i", str(path), alone=True)
    assert status != 0 and "group gpu-hosts is empty" in output and str(path) in output, output


@pytest.mark.long
def test_gateways_group_without_hosts_fails(testbed, tmp_path):
    path = inventory_without(testbed, tmp_path, "beta9_gateway")
    status, output = testbed.play("prepare_gateway.yml", "-i", str(path), alone=True)
    assert status != 0 and "group beta9_gateway is empty" in output and str(path) in output, output
    status, output = testbed.play("onboard_worker.yml", "-i", str(path), "--check", alone=True)
    assert status != 0 and "1. group beta9_gateway: expected the gateway's SSH host" in said(output), output


@pytest.mark.long
def test_group_that_does_not_exist_is_named_with_what_was_meant(testbed):
    status, output = testbed.play("onboard_worker.yml", "-e", "beta9_workers=gpu_hosts")
    assert status != 0 and "did you mean gpu-hosts?" in output, output


@pytest.mark.long
def test_inventory_beside_that_was_not_read_is_named(testbed, tmp_path):
    (tmp_path / "inventory.yml").write_text(testbed.inventory.read_text())
    command = [*testbed.command(str(testbed.root / "onboard_worker.yml"), alone=True), "-i", "absent"]
    done = subprocess.run(command, cwd=tmp_path, env=testbed.environment(), capture_output=True, text=True, check=False)
    output = said(done.stdout + done.stderr)
    assert done.returncode != 0 and "absent (there is no such file)" in output and "Did you mean -i inventory.yml?" in output, output


@pytest.mark.long
@pytest.mark.parametrize(("variable", "value", "words"), [("beta9_serial", "foo", "a number of hosts"), ("beta9_max_fail_percentage", "many", "0 to 100")])
def test_what_ansible_reads_first_is_named(testbed, variable, value, words):
    status, output = testbed.play("onboard_worker.yml", "-e", "%s=%s" % (variable, value))
    assert status != 0 and "%s: expected" % variable in output and words in output and "Traceback" not in output, output


WRONG = {
    "beta9_pol": ("gpu", "Did you mean beta9_pool?"),
    "beta9_conection": ("direct", "Did you mean beta9_connection?"),
    "beta9_log_format": ("yaml", "text or json"),
    "beta9_gpu_ids": ("0-2", "0,2"),
    "beta9_k3s": ("ja", "true or false"),
    "beta9_nvidia": ("nein", "true or false"),
    "beta9_drain": ("vielleicht", "true or false"),
    "beta9_metrics_file": ("agent.prom", "an absolute path"),
    "beta9_image_store": ("images here", "an absolute path"),
    "beta9_ca_path": ("/no/such/ca.pem", "a path that exists on this controller"),
    "preflight_min_disk_mib": ("viel", "a whole number"),
    "k3s_version": ("1.36", "v1.36.2+k3s1"),
    "tailscale_wait_seconds": ("soon", "a whole number"),
}


def test_every_wrong_variable_is_named_once_in_check_mode(testbed):
    status, output = testbed.play("onboard_worker.yml", "--check", "-e", json.dumps({name: value for name, (value, _words) in WRONG.items()}))
    text = said(output)
    assert status == 2, output
    for name, (_value, words) in WRONG.items():
        assert text.count("%s: expected" % name) == 1 and words in text.split("%s: expected" % name)[1][:300], (name, output)
    assert "%d problems, nothing was changed" % len(WRONG) in text and "on all 2 hosts" in text, output
    assert all(row["changed"] == 0 and row["unreachable"] == 0 for row in recap(output).values()), output


@pytest.mark.long
@pytest.mark.parametrize("playbook", ["rotate_token", "upgrade_agent", "offboard_worker"])
def test_misspelt_variable_stops_the_other_playbooks_as_well(testbed, playbook):
    status, output = testbed.play(playbook + ".yml", "-e", "beta9_drian=false")
    assert status == 2 and said(output).count("beta9_drian: expected") == 1 and "Did you mean beta9_drain?" in output, output


@pytest.mark.long
def test_no_token_is_one_message_with_three_ways(testbed):
    status, output = testbed.play("onboard_worker.yml", "-e", "beta9_admin_token_file=")
    text = said(output)
    assert status == 2 and text.count("admin token: expected") == 1, output
    assert all(way in text for way in ("BETA9_TOKEN", "beta9_admin_token_file", "beta9_admin_token from a vault")), output
    assert "1 problem, nothing was changed" in text and "not a token" not in text, output


@pytest.mark.long
def test_host_without_gpu_in_a_pool_for_gpus(testbed):
    """A warning in the summary; refused where GPUs are demanded."""
    status, output = testbed.play("onboard_worker.yml", "-e", "beta9_gpus=2", "--check")
    assert status == 2 and "GPUs: expected 2 (beta9_gpus), found none on the PCI bus" in output, output
    status, output = testbed.play("onboard_worker.yml")
    assert status == 0 and "WARNING on all 2 hosts:" in output and "no GPU was found on the PCI bus" in said(output), output
    status, output = testbed.play("onboard_worker.yml", "-e", "beta9_pool=cpu", "--check")
    assert status == 0 and "WARNING" not in output.split("Report the summary")[1], output


def test_tables_read_well_without_our_configuration(testbed, tmp_path):
    """Under the default callback a table is a list, one row below the other."""
    (tmp_path / "ansible.cfg").write_text("[defaults]\nforce_valid_group_names = ignore\n")
    environment = {"ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"), "ANSIBLE_COLLECTIONS_PATH": str(testbed.root / "collections")}
    command = testbed.command("beta9.workers.health_check")
    done = subprocess.run(command, cwd=tmp_path, env=dict(testbed.environment(), **environment), capture_output=True, text=True, check=False)
    rows = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith('"%s' % testbed.workers[0]) or line.strip().startswith('"HOST')]
    assert len(rows) == 2 and rows[0].index("HEALTH") == rows[1].index("health"), done.stdout
    assert "[WARNING]" not in done.stdout + done.stderr and "\\n" not in done.stdout, done.stdout + done.stderr
