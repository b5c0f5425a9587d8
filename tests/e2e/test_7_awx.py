"""awx/configure.yml against the recording double of AWX: what is sent, twice, and what is not."""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import subprocess

import pytest
import yaml

from tests.awx.fixtures import BIN, ROOT, Awx
from tests.doubles.awx import rules

TEMPLATES = ["Onboard workers", "Health check", "Verify health", "Heal", "Accept GPUs", "Upgrade agent", "Rotate token", "Offboard", "Prepare gateway"]
NOTIFYING = [name for name in TEMPLATES if name not in ("Health check", "Heal")]
CHECKS = ("Health check", "Verify health")


def definitions():
    """Return {list's name: definitions}, as the files have them."""
    found = {}
    for path in sorted((ROOT / "awx/definitions").glob("*.yml")):
        text = re.sub(r"!unsafe ", "", path.read_text())
        found.update({name: value for name, value in yaml.safe_load(text).items() if isinstance(value, list)})
    return found


def test_second_run_changes_nothing(awx):
    """Nor after the inventory's source was synchronized, which merges its own variables into the inventory's."""
    awx.double.synchronize(awx.double.named("inventory_sources", "beta9 hosts"), {"ansible_user": "ops", "beta9_pool": "gpu"})
    before = awx.double.writes()
    status, output = awx.configure("-vvv", "--diff")
    assert status == 0 and awx.changed(output) == 0, output[-3000:]
    assert awx.double.writes() == before, "the second run wrote"
    assert awx.changed(awx.first_output) > 10 and "deprecat" not in awx.first_output.lower()
    variables = json.loads(awx.double.named("inventories", "beta9 workers")["variables"])
    assert variables == {"beta9_connection": "autossh", "beta9_gateway_host": "gateway.example.com", "ansible_user": "ops", "beta9_pool": "gpu"}


def test_all_objects_are_there(awx):
    double = awx.double
    assert [item["name"] for item in double.all("job_templates")] == TEMPLATES
    assert {item["name"] for item in double.all("credentials")} == {"beta9 gateway", "beta9 hosts", "beta9 host keys"}
    for item in double.all("job_templates"):
        assert {entry["name"] for entry in double.linked("job_templates", item, "credentials")} == {"beta9 gateway", "beta9 hosts", "beta9 host keys"}
        assert item["allow_simultaneous"] == (item["name"] in CHECKS) and item["ask_limit_on_launch"] and item["ask_job_slice_count_on_launch"]
        assert item["ask_variables_on_launch"] is False, "only what the survey asks for"
        told = [entry["name"] for entry in double.linked("job_templates", item, "notification_templates_error")]
        assert told == (["beta9 failures"] if item["name"] in NOTIFYING else []), "one incident, one message: the workflow's last job sends it"
    assert edges(double, "Keep workers healthy") == {("check", "failure_nodes"): ["heal"], ("heal", "always_nodes"): ["verify"]}
    assert edges(double, "Offboard after approval") == {("approve", "success_nodes"): ["offboard"]}
    assert double.linked("workflow_job_templates", double.named("workflow_job_templates", "Keep workers healthy"), "notification_templates_error") == []
    workers, machines = double.named("inventories", "beta9 workers"), double.named("inventories", "beta9 machines")
    assert {item["inventory"] for item in double.all("job_templates")} == {workers["id"]}
    source = double.named("inventory_sources", "beta9 machines")
    assert source["inventory"] == machines["id"] and source["update_on_launch"], "alone, so that a machine doubles no host"
    assert double.named("inventory_sources", "beta9 hosts")["inventory"] == workers["id"]
    assert yaml.safe_load((ROOT / source["source_path"]).read_text())["plugin"] == "beta9.workers.machines"
    assert all(item["overwrite"] and item["overwrite_vars"] for item in double.all("inventory_sources"))
    assert {item["name"]: item["enabled"] for item in double.all("schedules")} == {"Keep workers healthy": True, "Rotate tokens": False}


def edges(double, workflow):
    """Return {(node, kind of edge): [nodes]} of a workflow."""
    number = double.named("workflow_job_templates", workflow)["id"]
    found = {}
    for node in [item for item in double.all("workflow_job_template_nodes") if item["workflow_job_template"] == number]:
        for kind in ("success_nodes", "failure_nodes", "always_nodes"):
            found[(node["identifier"], kind)] = [entry["identifier"] for entry in double.linked("workflow_job_template_nodes", node, kind)]
    return {key: value for key, value in found.items() if value}


def test_everything_can_be_launched_with_an_empty_request(awx):
    """As the API, the CLI, a webhook and a schedule do it. What was not answered has its default."""
    for template in awx.double.all("job_templates"):
        spec = awx.double.surveys.get(template["id"])
        assert rules.launch_problems(spec, {}) == [], template["name"]
        assert set(rules.defaults(spec)) == {question["variable"] for question in (spec or {}).get("spec", [])}
        assert "{{" not in (template["extra_vars"] or ""), "an AWX may never allow Jinja in extra variables"


def test_message_of_an_incident(awx):
    """It names host, root cause and remedy, and is what AWX accepts for a webhook."""
    (notification,) = awx.double.all("notification_templates")
    summary = {"gpu-07": "T01 the tunnel's unit is stopped; on gpu-07: systemctl restart beta9-tunnel"}
    job = {"id": 7, "name": "Verify health", "status": "failed", "job_explanation": "", "artifacts": {"beta9_health": {"summary": summary}}}
    body = json.loads(rules.render_message(notification["messages"]["error"]["body"], job))
    assert body["unhealthy"] == summary and body["name"] == "Verify health" and body["url"].endswith("/7")
    text = rules.render_message(notification["messages"]["error"]["message"], job)
    assert "gpu-07: " + summary["gpu-07"] in text and "\n" not in text
    explained = dict(job, artifacts={}, job_explanation="Previous Task Failed")
    assert "Previous Task Failed" in rules.render_message(notification["messages"]["error"]["message"], explained)


@pytest.mark.long
def test_what_was_changed_by_hand_is_named_and_put_back(awx):
    double = awx.double
    double.named("job_templates", "Heal").update(verbosity=4, skip_tags="agent", ask_variables_on_launch=True, become_enabled=True)
    double.named("inventory_sources", "beta9 hosts").update(overwrite_vars=False, limit="gpu-01")
    workflow = double.named("workflow_job_templates", "Keep workers healthy")
    workflow["limit"] = "gpu-01"
    extra = double.put("workflow_job_template_nodes", {"identifier": "mine", "workflow_job_template": workflow["id"]})
    check = [node for node in double.all("workflow_job_template_nodes") if node["identifier"] == "check"][0]
    check["_success_nodes"].append(extra["id"])
    before = double.writes()
    status, output = awx.configure("--check")
    assert status == 0 and double.writes() == before, output[-3000:]
    for words in ("Heal: verbosity: expected 0, found 4", 'Heal: skip_tags: expected "", found "agent"', "node mine is not in the definition"):
        assert words in output, output[-3000:]
    status, output = awx.configure()
    assert status == 0 and awx.changed(output) > 3, output[-3000:]
    heal = double.named("job_templates", "Heal")
    assert (heal["verbosity"], heal["skip_tags"], heal["ask_variables_on_launch"], heal["become_enabled"]) == (0, "", False, False)
    assert edges(double, "Keep workers healthy") == {("check", "failure_nodes"): ["heal"], ("heal", "always_nodes"): ["verify"]}
    assert double.named("workflow_job_templates", "Keep workers healthy")["limit"] == ""
    assert double.named("inventory_sources", "beta9 hosts")["limit"] == ""


def test_every_definition_is_sent_whole(awx):
    """A key that no task hands on would be a setting without effect. A key that a module does not know fails the run itself."""
    tasks = [task for path in (ROOT / "awx/tasks").glob("*.yml") for task in yaml.safe_load(path.read_text()) if "loop" in task]
    known = {}
    for task in tasks:
        if isinstance(task["loop"], str):
            known.setdefault(re.search(r"(awx_\w+)", task["loop"]).group(1), set()).update(re.findall(r"(?:item|_fields)\.(\w+)", json.dumps(task)))
    found = definitions()
    assert {"awx_credential_types", "awx_own_projects", "awx_job_templates", "awx_workflows", "awx_schedules", "awx_notifications"} <= set(found)
    for name, items in found.items():
        target = {"sources": "awx_inventory_sources", "projects": "awx_projects"}.get(name.rpartition("_")[2], name)
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
        ({"awx_organization": "other", "awx_gateway_token_file": ""}, "expected a credential other gateway in organization other, found none"),
        ({"awx_organization": "other", "awx_ssh_key_file": ""}, "Set awx_ssh_key_file to the private key"),
        ({"awx_ssh_key_file": "{key_with_passphrase}"}, "awx_ssh_key_file: expected a key without a passphrase, found one with"),
    ],
)
def test_what_lacks_is_named_before_anything_is_sent(awx, settings, words):
    before, key = awx.double.writes(), awx.directory / "with_passphrase"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "a canary of a passphrase", "-f", str(key)], check=True)
    status, output = awx.configure(**{name: str(key) if value == "{key_with_passphrase}" else value for name, value in settings.items()})
    assert status == 2 and words in " ".join(output.split()) and awx.double.writes() == before, output


@pytest.mark.long
def test_notification_that_would_not_be_sent_is_named(awx):
    """A changed address has no effect without awx_update_secrets: AWX shows no secret to compare, so the module does not send it."""
    changed = dict(awx.settings["awx_notification_configuration"], url="https://chat.example.com/other")
    status, output = awx.configure(awx_notification_configuration=changed)
    assert status == 2 and "awx_update_secrets=true" in output and "url" in output, output[-2000:]


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


@pytest.mark.long
def test_failed_project_fails_every_run_until_it_works(awx):
    for _attempt in range(2):
        status, output = awx.configure(awx_project_branch="no-such-branch")
        assert status == 2 and "roject" in output and "failed" in output.lower(), output[-2000:]
    status, output = awx.configure()
    assert status == 0, output[-2000:]
    status, output = awx.configure()
    assert status == 0 and awx.changed(output) == 0, output[-2000:]


@pytest.mark.long
def test_deleted_objects_and_renamed_templates_come_back(awx):
    double = awx.double
    double.forget("job_templates", double.named("job_templates", "Heal"))
    double.named("job_templates", "Offboard")["name"] = "Offboard (old)"
    double.forget("schedules", double.named("schedules", "Rotate tokens"))
    status, output = awx.configure(awx_removed={"job_templates": ["Offboard (old)"]})
    assert status == 0 and sorted(item["name"] for item in double.all("job_templates")) == sorted(TEMPLATES), output[-2000:]
    assert edges(double, "Keep workers healthy") == {("check", "failure_nodes"): ["heal"], ("heal", "always_nodes"): ["verify"]}
    status, output = awx.configure()
    assert status == 0 and awx.changed(output) == 0, output[-2000:]


def commands():
    """Return the launches of the page, continued lines joined."""
    page = (ROOT / "docs/guides/awx.md").read_text().replace("\\\n", " ")
    return re.findall(r"^\$ (awx \w+ launch .*|curl .*/launch/)$", page, re.MULTILINE)


def test_launches_of_the_page_run_as_written(awx):
    """With the `awx` command of AWX 24.6 and with curl: accepted, and nothing of them is ignored, as AWX does with what a template does not ask for."""
    found = commands()
    assert {re.search(r'launch "([^"]+)"', command)[1] for command in found if command.startswith("awx")} == {*TEMPLATES, "Keep workers healthy"} - {
        "Verify health"
    }
    environment = dict(os.environ, CONTROLLER_HOST=awx.url, CONTROLLER_OAUTH_TOKEN=awx.api_token, PATH="%s:%s" % (BIN, os.environ["PATH"]))
    before = set(awx.double.jobs)
    with concurrent.futures.ThreadPoolExecutor(len(found)) as pool:  # each waits some seconds between two looks at its job
        done = list(pool.map(lambda command: subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False), found))
    assert [(part.args[2], part.stdout, part.stderr) for part in done if part.returncode or "detail" in part.stdout] == []
    jobs = [job for number, job in awx.double.jobs.items() if number not in before]
    assert len(jobs) == len(found) and [job["ignored_fields"] for job in jobs if job["ignored_fields"]] == []
    (offboard,) = [job for job in jobs if job["name"] == "Offboard"]
    assert offboard["limit"] == "gpu-07" and offboard["extra_vars"] == {"beta9_offboard_confirm": "gpu-07"}


def test_launch_that_a_template_does_not_ask_for_is_refused(awx):
    command = """awx job_templates launch "Heal" --extra_vars '{"beta9_pool": "other"}'"""
    environment = dict(os.environ, CONTROLLER_HOST=awx.url, CONTROLLER_OAUTH_TOKEN=awx.api_token, PATH="%s:%s" % (BIN, os.environ["PATH"]))
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode and "beta9_pool" in done.stdout + done.stderr


@pytest.mark.long
def test_two_organizations_with_all_that_an_admin_expects(awx):
    """Staging and production on one AWX, with defaults; and team, labels, instance group, secret store, approval, webhook."""
    double = awx.double
    kind = double.put("credential_types", {"name": "HashiCorp Vault Secret Lookup", "kind": "external", "inputs": {"fields": []}, "managed": True})
    double.put("credentials", {"name": "vault", "credential_type": kind["id"], "inputs": {}})
    double.put("credential_types", {"name": "Container Registry", "kind": "registry", "inputs": {"fields": []}, "managed": True})
    before = {name: [dict(item) for item in double.all(name)] for name in ("job_templates", "inventories", "credentials", "execution_environments")}
    settings = dict(
        awx_organization="staging",
        awx_gateway_token_file="",
        awx_gateway_token_source={"credential": "vault", "metadata": {"secret_path": "kv/beta9", "secret_key": "token"}},
        awx_operators_team="on call",
        awx_labels=["beta9"],
        awx_instance_groups=["default"],
        awx_rotate_approval=True,
        awx_webhook_service="github",
        awx_hosts_project="staging hosts",
    )
    for run in range(2):
        status, output = awx.configure("-e", "awx_token=", **settings)
        assert status == 0, output[-3000:]
        assert run == 0 or awx.changed(output) == 0, output[-3000:]
    for name, items in before.items():
        for item in items:
            assert double.objects[name][item["id"]] == item, "the other organization is left alone"
    assert len(double.all("job_templates")) == 2 * len(TEMPLATES)
    assert {item["name"] for item in double.all("execution_environments")} == {"beta9.workers", "staging.workers"}
    (source,) = double.all("credential_input_sources")
    assert source["metadata"]["secret_path"] == "kv/beta9"
    (team,) = double.all("teams")
    granted = [number for number, members in double.roles.items() if team["id"] in members]
    assert len(granted) == len(TEMPLATES) + 3 + 3 + 2, "execute on templates and workflows, use of credentials, sight of inventories"
    status, output = awx.configure()
    assert status == 0 and awx.changed(output) == 0, output[-3000:]
