"""awx/configure.yml against the recording double of AWX: what is sent, twice, and what is not."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from tests.awx.fixtures import ROOT, Awx
from tests.doubles.awx import rules

TEMPLATES = ["Onboard workers", "Health check", "Heal", "Upgrade agent", "Rotate token", "Offboard", "Prepare gateway"]
MUTATING = [name for name in TEMPLATES if name != "Health check"]


def definitions():
    """Return {list's name: definitions}, as the files have them."""
    found = {}
    for path in sorted((ROOT / "awx/definitions").glob("*.yml")):
        text = re.sub(r"!unsafe ", "", path.read_text())
        found.update({name: value for name, value in yaml.safe_load(text).items() if isinstance(value, list)})
    return found


def test_second_run_changes_nothing(awx):
    before = awx.double.writes()
    status, output = awx.configure("-vvv", "--diff")
    assert status == 0 and awx.changed(output) == 0, output[-3000:]
    assert awx.double.writes() == before, "the second run wrote"
    assert awx.changed(awx.first_output) > 10 and "deprecat" not in awx.first_output.lower()


def test_all_objects_are_there(awx):
    double = awx.double
    assert [item["name"] for item in double.all("job_templates")] == TEMPLATES
    assert {item["name"] for item in double.all("credentials")} == {"beta9 gateway", "beta9 hosts", "beta9 host keys"}
    for item in double.all("job_templates"):
        assert {entry["name"] for entry in double.linked("job_templates", item, "credentials")} == {"beta9 gateway", "beta9 hosts", "beta9 host keys"}
        assert item["allow_simultaneous"] == (item["name"] not in MUTATING) and item["ask_limit_on_launch"]
        assert item.get("ask_variables_on_launch", False) is False, "only what the survey asks for"
        told = [entry["name"] for entry in double.linked("job_templates", item, "notification_templates_error")]
        assert told == (["beta9 failures"] if item["name"] in MUTATING else []), "a failed check is told by its workflow"
    (workflow,) = double.all("workflow_job_templates")
    assert [entry["name"] for entry in double.linked("workflow_job_templates", workflow, "notification_templates_error")] == ["beta9 failures"]
    edges = {}
    for node in double.all("workflow_job_template_nodes"):
        for kind in ("success_nodes", "failure_nodes", "always_nodes"):
            edges[(node["identifier"], kind)] = [entry["identifier"] for entry in double.linked("workflow_job_template_nodes", node, kind)]
    assert {key: value for key, value in edges.items() if value} == {("check", "failure_nodes"): ["heal"], ("heal", "always_nodes"): ["check-again"]}
    (source,) = double.all("inventory_sources")
    assert yaml.safe_load((ROOT / source["source_path"]).read_text())["plugin"] == "beta9.workers.machines" and source["update_on_launch"]
    assert {item["name"]: item["enabled"] for item in double.all("schedules")} == {"Keep workers healthy": True, "Rotate tokens": False}


def test_every_definition_is_sent_whole(awx):
    """A key that no task hands on would be a setting without effect. A key that a module does not know fails the run itself."""
    tasks = [task for path in (ROOT / "awx/tasks").glob("*.yml") for task in yaml.safe_load(path.read_text()) if "loop" in task]
    known = {}
    for task in tasks:
        if isinstance(task["loop"], str):
            known[re.search(r"(awx_\w+)", task["loop"]).group(1)] = set(re.findall(r"item\.(\w+)", json.dumps(task)))
    found = definitions()
    assert {"awx_credential_types", "awx_projects", "awx_job_templates", "awx_workflows", "awx_schedules", "awx_notifications"} <= set(found)
    for name, items in found.items():
        target = "awx_inventory_sources" if name.endswith("_sources") else name
        for item in items:
            if target in known:
                assert set(item) <= known[target], (name, item)


def test_no_secret_but_in_credential_fields(awx):
    secrets = {"gateway": awx.gateway_token, "awx": awx.api_token, "key": awx.key.splitlines()[1], "webhook": awx.webhook_password}
    assert not [name for name, text in secrets.items() if text in awx.output], "printed at -vvv"
    seen = {}
    for method, path, body in awx.double.requests:
        for name, text in secrets.items():
            assert text not in path
            if text in json.dumps(body):
                seen.setdefault(name, []).append((method, path, sorted(key for key, value in body.items() if text in json.dumps(value))))
    assert seen == {
        "gateway": [("POST", "/api/v2/credentials/", ["inputs"])],
        "key": [("POST", "/api/v2/credentials/", ["inputs"])],
        "webhook": [("POST", "/api/v2/notification_templates/", ["notification_configuration"])],
    }
    fields = {field["id"]: field.get("secret", False) for field in awx.double.named("credential_types", "beta9 gateway")["inputs"]["fields"]}
    assert fields["token"] is True


def test_token_never_becomes_a_variable(awx):
    injectors = awx.double.named("credential_types", "beta9 gateway")["injectors"]
    assert "token" not in json.dumps(injectors["extra_vars"]) and injectors["file"]["template.token"] == "{{ token }}"
    assert injectors["env"]["BETA9_TOKEN_FILE"] == "{{ tower.filename.token }}" and "{{ token }}" not in injectors["env"].values()


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"awx_ee_image": ""}, "awx_ee_image: expected the image built from execution-environment.yml"),
        ({"awx_slices": 4, "awx_gateway_ssh_host": ""}, "awx_slices: expected awx_gateway_ssh_host beside it"),
    ],
)
def test_what_lacks_is_named_before_anything_is_sent(awx, settings, words):
    before = len(awx.double.requests)
    status, output = awx.configure(**settings)
    assert status == 2 and words in " ".join(output.split()) and len(awx.double.requests) == before, output


def test_wrong_token_of_awx(awx, tmp_path):
    before = awx.double.writes()
    right, awx.api_token = awx.api_token, "not-the-token-of-this-awx"
    try:
        status, output = awx.configure()
    finally:
        awx.api_token = right
    assert status == 2 and "HTTP 401" in output and awx.double.writes() == before


@pytest.mark.parametrize(
    "change, words",
    [
        ({"variable": "b"}, None),
        ({"type": "number"}, "unknown type"),
        ({"default": 7}, "expected to be multiplechoice"),
        ({"default": "never"}, "from the choices"),
        ({"required": "yes"}, "lacks"),
        ({"max": "9"}, "integers"),
    ],
)
def test_the_double_refuses_what_awx_refuses(change, words):
    """Else the runs above would prove little."""
    question = {"question_name": "A", "variable": "a", "type": "multiplechoice", "choices": ["x", "y"], "default": "x", "required": True}
    problem = rules.survey({"name": "", "description": "", "spec": [dict(question, **change)]})
    assert (problem is None) if words is None else words in problem
    inputs = {"fields": [{"id": "token"}]}
    assert rules.credential_type(inputs, {"env": {"ANSIBLE_CONFIG": "x"}}) and rules.credential_type(inputs, {"env": {"A": "{{ tokn }}"}})
    assert not rules.is_playbook(ROOT, ROOT / "roles/agent/tasks/main.yml") and not rules.is_playbook(ROOT, ROOT / "nothing.yml")


def test_helper_reads_recaps():
    assert Awx.changed("localhost : ok=3 changed=12 unreachable=0") == 12
