"""Launch a job template of the AWX double through ansible-runner, as AWX's task does it, without AWX's container.

The private data directory is laid out as AWX lays it out: a copy of the project, the inventory as a script that prints what AWX's
database holds, env/envvars with what the credentials inject, env/extravars with templates allowed only where the job template's own
variables have them, env/ssh_key, and collections from collections/requirements.yml alone. Credentials are injected by AWX's own code.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys

import ansible_runner
import yaml
from awx_plugins.interfaces._temporary_private_api import ManagedCredentialType
from awx_plugins.interfaces._temporary_private_credential_api import Credential
from awx_plugins.interfaces._temporary_private_inject_api import inject_credential

from tests.doubles.awx import rules

BIN = pathlib.Path(sys.executable).parent


class Unsafe(str):
    """Text in extra variables that Ansible must not take for a template."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(Unsafe, lambda dumper, value: dumper.represent_scalar("!unsafe", str(value)))


def unsafe(value):
    """Mark all text in a value, as AWX's safe_dump does."""
    if isinstance(value, str):
        return Unsafe(value)
    if isinstance(value, dict):
        return {unsafe(key): unsafe(item) for key, item in value.items()}
    return [unsafe(item) for item in value] if isinstance(value, list) else value


class Job:
    """What AWX keeps of a job: status, events, host outcomes, artefacts, output, and what was sent into it."""

    def __init__(self, runner, directory):
        self.status, self.rc = runner.status, runner.rc
        self.events = list(runner.events)
        self.output = runner.stdout.read()
        stats = [event for event in self.events if event["event"] == "playbook_on_stats"]
        self.stats = stats[-1]["event_data"] if stats else {}
        self.artefacts = self.stats.get("artifact_data", {})
        self.directory = directory

    def tasks(self, kind="runner_on_ok"):
        """Return (host, task) of every event of a kind."""
        return [(event["event_data"]["host"], event["event_data"]["task"]) for event in self.events if event["event"] == kind]

    def hosts(self, outcome):
        """Return the hosts with an outcome: changed, failures, dark, ok, processed."""
        return sorted(self.stats.get(outcome, {}))

    def text(self):
        """Return all that AWX would keep or show."""
        return self.output + json.dumps(self.events) + json.dumps(self.artefacts)


class Launcher:
    """Launches job templates as they are in the double. hosts: {name: variables}, groups: {name: [host]}."""

    def __init__(self, double, project, directory, hosts, groups):
        self.double, self.project, self.directory = double, project, pathlib.Path(directory)
        self.hosts, self.groups, self.count = hosts, groups, 0
        self.collections = self.directory / "requirements_collections"
        self.collections.mkdir()
        command = [str(BIN / "ansible-galaxy"), "collection", "install", "-r", "collections/requirements.yml", "-p", str(self.collections)]
        subprocess.run(command, cwd=project, check=True, capture_output=True)

    def launch(self, name, answers=None, limit=None, artefacts=None, hosts=None, host_variables=None):
        """Launch a template by name with answers to its survey, or with what a workflow hands on; return the Job.

        A limit of None leaves the template's own. An empty one wins over it, as in AWX, and is no limit at all.
        """
        template = self.double.named("job_templates", name)
        spec = self.double.surveys.get(template["id"])
        refused = rules.launch_problems(spec, answers or {})
        if refused or (limit is not None and not template["ask_limit_on_launch"]):
            raise ValueError("AWX refuses the launch: %s" % refused)
        place = self.private_data_dir()
        self.write_inventory(place, hosts or sorted(self.hosts), host_variables or {})
        own = json.loads(template.get("extra_vars") or "{}")
        variables = {"awx_job_id": self.count, "awx_job_template_name": name, **own, **rules.defaults(spec), **(answers or {}), **(artefacts or {})}
        safe = {key: value if own.get(key) == value else unsafe(value) for key, value in variables.items()}
        (place / "env/extravars").write_text(yaml.dump(safe, Dumper=_Dumper))
        credentials = self.double.linked("job_templates", template, "credentials")
        arguments, environment, key = self.inject(place, credentials)
        # what AWX sets for every job
        environment.update(
            ANSIBLE_COLLECTIONS_PATH=str(place / "requirements_collections"),
            ANSIBLE_HOST_KEY_CHECKING="False",
            ANSIBLE_PARAMIKO_RECORD_HOST_KEYS="False",
            ANSIBLE_INVENTORY_UNPARSED_FAILED="True",
            ANSIBLE_RETRY_FILES_ENABLED="False",
            ANSIBLE_FORCE_COLOR="True",
            ANSIBLE_SSH_CONTROL_PATH_DIR=str(place / "cp"),
            ANSIBLE_HOME=str(place / "home"),
            PATH="%s:%s" % (BIN, os.environ["PATH"]),
            JOB_ID=str(self.count),
        )
        (place / "env/envvars").write_text(json.dumps(environment))
        (place / "env/settings").write_text(json.dumps({"suppress_ansible_output": True}))
        effective = template["limit"] if limit is None else limit
        runner = ansible_runner.run(
            private_data_dir=str(place),
            playbook=template["playbook"],
            cmdline=" ".join(arguments + ["--forks=%d" % template["forks"]]),
            limit=effective or None,
            ssh_key=key,
            quiet=True,
            settings={"suppress_ansible_output": True},
        )
        return Job(runner, place)

    def private_data_dir(self):
        """Return a new directory with project and collections, as every job gets one."""
        self.count += 1
        place = self.directory / ("job-%d" % self.count)
        for part in ("env", "inventory"):
            (place / part).mkdir(parents=True, mode=0o700)
        shutil.copytree(self.project, place / "project", symlinks=True)
        shutil.copytree(self.collections, place / "requirements_collections")
        return place

    def inventory_update(self, name):
        """Update an inventory source by name, and merge its variables as AWX does; return (inventory, all that was printed)."""
        source, place = self.double.named("inventory_sources", name), self.private_data_dir()
        environment = {"INVENTORY_UPDATE_ID": str(self.count)}
        self.inject(place, [self.double.objects["credentials"][source["credential"]]], environment)
        path = place / "project" / source["source_path"]
        output, errors, status = ansible_runner.run_command(
            executable_cmd=str(BIN / "ansible-inventory"),
            cmdline_args=["--list", "--export", "-i", str(path), "--playbook-dir", str(path.parent)],
            private_data_dir=str(place),
            host_cwd=str(place / "project"),
            envvars=dict(environment, ANSIBLE_COLLECTIONS_PATH=str(place / "requirements_collections"), ANSIBLE_INVENTORY_UNPARSED_FAILED="True"),
            quiet=True,
        )
        inventory = json.loads(output) if status == 0 else None
        if inventory is not None:
            self.double.synchronize(source, inventory.get("all", {}).get("vars", {}))
        return inventory, output + errors

    def inject(self, place, credentials, environment=None):
        """Return (arguments, environment, SSH key) that credentials bring."""
        arguments, key = [], None
        environment = {} if environment is None else environment
        for credential in credentials:
            kind = self.double.objects["credential_types"][credential["credential_type"]]
            if kind["name"] == "Machine":
                arguments, key = arguments + ["-u", credential["inputs"]["username"]], credential["inputs"]["ssh_key_data"]
                continue
            stub = ManagedCredentialType(namespace=None, name=kind["name"], kind=kind["kind"], inputs=kind["inputs"], injectors=kind["injectors"])
            added = []
            # AWX mounts this directory as /runner
            inject_credential(stub, Credential(inputs=credential["inputs"]), environment, {}, added, str(place))
            arguments += [word.replace("@/runner/", "@%s/" % place) for word in added]
        environment.update({name: value.replace("/runner/", "%s/" % place) for name, value in environment.items()})
        for path in (place / "env").iterdir():  # paths inside of files too
            text = path.read_text()
            if "/runner/env/" in text:
                path.chmod(0o600)
                path.write_text(text.replace("/runner/env/", "%s/env/" % place))
        return arguments, environment, key

    def write_inventory(self, place, names, more):
        (source,) = [item for item in self.double.all("job_templates") if item["name"] == "Health check"]
        inventory = self.double.objects["inventories"][source["inventory"]]
        data = {group: {"hosts": [name for name in members if name in names]} for group, members in self.groups.items()}
        data["all"] = {"children": list(self.groups), "vars": json.loads(inventory.get("variables") or "{}")}
        hostvars = {name: dict(self.hosts[name], **more.get(name, {}), remote_tower_enabled="true") for name in names}
        data["_meta"] = {"hostvars": hostvars}
        path = place / "inventory/hosts"
        path.write_text("#! /usr/bin/env python3\nprint(%r)\n" % json.dumps(data))
        path.chmod(0o700)

    def workflow(self, name):
        """Run a workflow node by node along its edges; return ({identifier: Job}, status of the workflow). Approvals are not played."""
        workflow = self.double.named("workflow_job_templates", name)
        nodes = [node for node in self.double.all("workflow_job_template_nodes") if node["workflow_job_template"] == workflow["id"]]
        kinds = ("success_nodes", "failure_nodes", "always_nodes")
        targets = {number for node in nodes for kind in kinds for number in node["_" + kind]}
        waiting, jobs, failed = [(node, {}) for node in nodes if node["id"] not in targets], {}, False
        while waiting:
            node, artefacts = waiting.pop(0)
            template = self.double.objects["job_templates"][node["unified_job_template"]]
            job = self.launch(template["name"], answers=node.get("extra_data"), artefacts=artefacts)
            jobs[node["identifier"]] = job
            good = job.status == "successful"
            # AWX: a failed node without a way on for failures fails the workflow
            failed |= not good and not node["_failure_nodes"] + node["_always_nodes"]
            for number in node["_success_nodes" if good else "_failure_nodes"] + node["_always_nodes"]:
                waiting.append((self.double.objects["workflow_job_template_nodes"][number], dict(artefacts, **job.artefacts)))
        return jobs, "failed" if failed else "successful"
