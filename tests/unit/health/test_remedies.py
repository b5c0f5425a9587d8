"""Remedies are data: filled in for the host, the inventory and the installation, and safe to paste whatever a name holds."""

from __future__ import annotations

import json
import shlex
import subprocess

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, remedies
from ansible_collections.beta9.workers.plugins.module_utils.health.checks import terms, tunnel
from ansible_collections.beta9.workers.plugins.plugin_utils import health_remedies, health_reports

ALL = [(check.id, code, remedy) for check in catalog.CHECKS for code, (_cause, remedy) in check.causes.items()]
PLACES = (remedies.WORKER, remedies.GATEWAY_HOST, remedies.CONTROLLER, remedies.CLUSTER)


def completed(remedy, host="gpu-1", variables=None, **others):
    """Return a remedy as it is shown for a host."""
    verdict = {"id": "T01", "remedy": remedy._asdict(), "docs": ""}
    told = health_remedies.Remedies(dict({"hostvars": {host: variables or {}}}, **others), "gate", "/etc/kube config", "beta9")
    told.complete([verdict], host)
    return verdict["remedy"]


@pytest.mark.parametrize(("check", "code", "remedy"), ALL)
def test_every_remedy_is_data(check, code, remedy):
    assert isinstance(remedy, remedies.Remedy) and (remedy.command or remedy.prose)
    assert (remedy.where in PLACES) == bool(remedy.command) and remedies.placeholders(remedy) <= set(remedies.PLACEHOLDERS)
    assert not remedy.remediates or remedy.command
    assert not remedy.prose or remedy.prose[-1] in ".:", "prose is a sentence of its own"
    filled = completed(remedy)
    assert "{" not in filled["command"] and "HOST" not in filled["command"] and "None" not in filled["command"]
    assert shlex.split(filled["command"]) or not filled["command"]


def test_playbook_of_a_checkout_with_the_inventory_as_given(tmp_path):
    inventory = tmp_path / "my inventory.yml"
    inventory.touch()
    found = completed(terms.ONBOARD, ansible_inventory_sources=[str(inventory), "gpu-1,", "/no/such/inventory"])
    assert shlex.split(found["command"]) == [
        "ansible-playbook", str(health_remedies.ROOT / "onboard_worker.yml"), "-i", str(inventory), "-i", "gpu-1,", "-l", "gpu-1"
    ]  # fmt: skip
    assert (health_remedies.ROOT / "onboard_worker.yml").exists() and found["where"] == "controller" and found["remediates"]


def test_playbook_of_an_installed_collection(tmp_path, monkeypatch):
    (tmp_path / "MANIFEST.json").write_text(json.dumps({"collection_info": {"documentation": "https://docs.example.com/workers/"}}))
    monkeypatch.setattr(health_remedies, "ROOT", tmp_path)
    found = completed(terms.ONBOARD, beta9_workers="all:!gate")
    assert found["command"] == "ansible-playbook beta9.workers.onboard_worker -e 'beta9_workers=all:!gate' -l gpu-1"
    assert health_remedies.documentation()("T01") == "https://docs.example.com/workers/checks/T01.html"


def test_page_of_a_checkout_exists():
    for check in catalog.CHECKS:
        address = health_remedies.documentation()(check.id)
        assert address.startswith("file:///") and (health_remedies.ROOT / "docs" / "checks" / (check.id + ".md")).exists()


def test_awx_has_job_templates_instead():
    found = completed(terms.ONBOARD, awx_job_id=7)
    assert not found["command"] and not found["where"] and "job template" in found["prose"] and "gpu-1" in found["prose"]


def test_no_value_is_run_by_the_shell(tmp_path):
    """Every command as pasted, where no program is found but the shell's own would do what a value says."""
    evil = "$(: > %s)`: > %s`'; : > %s; '\"; : > %s" % ((tmp_path / "mark",) * 4)
    variables = {
        "beta9_connection": "direct",
        "beta9_gateway_url": "http://%s:31994/" % evil,
        "autossh_forwards": [{"local_port": evil, "target": evil}],
    }
    for _check, _code, remedy in ALL:
        for told in (variables, dict(variables, beta9_connection="autossh")):
            command = completed(remedy, evil, told, beta9_workers=evil)["command"]
            subprocess.run(
                ["/bin/bash", "-c", command],
                env={"PATH": "/nonexistent"},
                cwd=tmp_path,
                check=False,
                capture_output=True,
                timeout=20,
            )
            assert not list(tmp_path.iterdir()), command


def test_places_and_values():
    direct = {"beta9_connection": "direct", "beta9_gateway_url": "https://gate.example.com"}
    refused = catalog.causes_of(catalog.BY_ID["T03"], "refused")[1]
    assert completed(refused, variables=direct)["command"] == "timeout 5 bash -c '</dev/tcp/gate.example.com/443'"
    assert completed(refused)["command"] == "timeout 5 bash -c '</dev/tcp/127.0.0.1/1994'"
    pods = completed(catalog.causes_of(catalog.BY_ID["G02"], "none")[1])
    assert pods["command"] == "kubectl --kubeconfig '/etc/kube config' -n beta9 get deployments,pods" and pods["host"] == "gate"
    assert completed(terms.START_TUNNEL)["host"] == "gpu-1" and completed(terms.ONBOARD)["host"] == ""


def test_one_command_for_many_hosts():
    hosts = ["gpu-1", "gpu-2"]
    both = health_remedies.for_hosts(completed(terms.ONBOARD), hosts)
    assert health_reports.describe(both, hosts).endswith("onboard_worker.yml -l gpu-1,gpu-2")
    assert health_reports.describe(completed(terms.START_TUNNEL), hosts) == "on gpu-1, gpu-2: systemctl restart beta9-tunnel"


def test_units_of_the_worker_are_restarted_on_the_worker():
    """Also in the table of causes that several checks share."""
    shared = [remedy for _cause, remedy in tunnel.SSH_CAUSES.values()]
    for remedy in shared + [remedy for check in catalog.CHECKS for _cause, remedy in check.causes.values()]:
        if "systemctl" in remedy.command and ("beta9-tunnel" in remedy.command or "beta9-agent" in remedy.command):
            assert remedy.where == catalog.WORKER, remedy
