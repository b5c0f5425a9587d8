"""A TEST DOUBLE of AWX's REST API that records: as much of /api/v2 as the modules of awx.awx and the `awx` command use.

Objects are kept in memory. It answers as AWX 24 does where the modules look: lists with count, next and results, filters by query,
related URLs, $encrypted$ in place of secrets, associations by POST {id}. It refuses what AWX refuses and a typing error would cause:
unknown references, playbooks that AWX would not find in the project, surveys and injectors of a wrong form, variables that a
template does not ask for. It knows which fields a resource has, and unlike AWX it refuses others. A launch is judged as AWX judges it;
the job is over at once and ran nothing.
"""

from __future__ import annotations

import json
import pathlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

import yaml

from . import rules

ENCRYPTED = "$encrypted$"
ALLOWED = "GET, POST, PATCH, DELETE, HEAD, OPTIONS"
PROMPTS = (
    "ask_limit_on_launch ask_job_type_on_launch ask_diff_mode_on_launch ask_verbosity_on_launch ask_variables_on_launch ask_tags_on_launch "
    "ask_skip_tags_on_launch ask_inventory_on_launch ask_credential_on_launch ask_execution_environment_on_launch ask_forks_on_launch "
    "ask_instance_groups_on_launch ask_job_slice_count_on_launch ask_labels_on_launch ask_timeout_on_launch ask_scm_branch_on_launch"
).split()
WORKFLOW_PROMPTS = (
    "ask_limit_on_launch ask_variables_on_launch ask_inventory_on_launch ask_scm_branch_on_launch ask_labels_on_launch ask_tags_on_launch "
    "ask_skip_tags_on_launch"
).split()
NOTIFICATIONS = ["notification_templates_started", "notification_templates_success", "notification_templates_error"]

# resource: its type, its plain fields with what AWX sets where nobody does, its references (field: resource), its lists of others (name: resource)
PROMPT_FIELDS = dict.fromkeys(PROMPTS, False)
RESOURCES = {
    "organizations": ("organization", {"name": "", "description": ""}, {}, {}),
    "teams": ("team", {"name": "", "description": ""}, {"organization": "organizations"}, {}),
    "labels": ("label", {"name": ""}, {"organization": "organizations"}, {}),
    "instance_groups": ("instance_group", {"name": ""}, {}, {}),
    "credential_types": ("credential_type", {"name": "", "description": "", "kind": "", "inputs": {}, "injectors": {}, "managed": False}, {}, {}),
    "credentials": (
        "credential",
        {"name": "", "description": "", "inputs": {}},
        {"organization": "organizations", "credential_type": "credential_types"},
        {},
    ),
    "credential_input_sources": (
        "credential_input_source",
        {"description": "", "input_field_name": "", "metadata": {}},
        {"target_credential": "credentials", "source_credential": "credentials"},
        {},
    ),
    "execution_environments": (
        "execution_environment",
        {"name": "", "description": "", "image": "", "pull": ""},
        {"organization": "organizations", "credential": "credentials"},
        {},
    ),
    "projects": (
        "project",
        {"name": "", "description": "", "scm_type": "", "scm_url": "", "scm_branch": "", "scm_refspec": "", "scm_clean": False}
        | {"scm_update_on_launch": False, "scm_update_cache_timeout": 0, "timeout": 0, "allow_override": False},
        {"organization": "organizations", "credential": "credentials", "default_environment": "execution_environments"},
        {},
    ),
    "inventories": (
        "inventory",
        {"name": "", "description": "", "kind": "", "host_filter": None, "variables": ""},
        {"organization": "organizations"},
        {},
    ),
    "inventory_sources": (
        "inventory_source",
        {"name": "", "description": "", "source": "", "source_path": "", "source_vars": "", "overwrite": False, "overwrite_vars": False}
        | {"update_on_launch": False, "update_cache_timeout": 0, "limit": "", "host_filter": "", "timeout": 0, "verbosity": 1, "scm_branch": ""},
        {"inventory": "inventories", "source_project": "projects", "credential": "credentials", "execution_environment": "execution_environments"},
        {},
    ),
    "notification_templates": (
        "notification_template",
        {"name": "", "description": "", "notification_type": "", "notification_configuration": {}, "messages": None},
        {"organization": "organizations"},
        {},
    ),
    "job_templates": (
        "job_template",
        {"name": "", "description": "", "job_type": "run", "playbook": "", "forks": 0, "limit": "", "verbosity": 0, "extra_vars": ""}
        | {"timeout": 0, "survey_enabled": False, "allow_simultaneous": False, "job_slice_count": 1, "job_tags": "", "skip_tags": ""}
        | {"start_at_task": "", "force_handlers": False, "use_fact_cache": False, "become_enabled": False, "diff_mode": False}
        | {"scm_branch": "", "webhook_service": "", "host_config_key": "", "prevent_instance_group_fallback": False}
        | PROMPT_FIELDS,
        {
            "organization": "organizations",
            "inventory": "inventories",
            "project": "projects",
            "execution_environment": "execution_environments",
        },
        dict(dict.fromkeys(NOTIFICATIONS, "notification_templates"), credentials="credentials", labels="labels", instance_groups="instance_groups"),
    ),
    "workflow_job_templates": (
        "workflow_job_template",
        {"name": "", "description": "", "limit": "", "extra_vars": "", "survey_enabled": False, "allow_simultaneous": False}
        | {"job_tags": "", "skip_tags": "", "scm_branch": "", "webhook_service": ""}
        | dict.fromkeys(WORKFLOW_PROMPTS, False),
        {"organization": "organizations", "inventory": "inventories"},
        dict(dict.fromkeys([*NOTIFICATIONS, "notification_templates_approvals"], "notification_templates"), labels="labels"),
    ),
    "workflow_job_template_nodes": (
        "workflow_job_template_node",
        {"identifier": "", "extra_data": {}, "limit": None, "all_parents_must_converge": False, "verbosity": None, "job_tags": None}
        | {"skip_tags": None, "diff_mode": None, "job_type": None, "scm_branch": None, "forks": None, "job_slice_count": None, "timeout": None},
        {"workflow_job_template": "workflow_job_templates", "unified_job_template": "unified_job_templates"},
        dict.fromkeys(("success_nodes", "failure_nodes", "always_nodes"), "workflow_job_template_nodes"),
    ),
    "workflow_approval_templates": ("workflow_approval_template", {"name": "", "description": "", "timeout": 0}, {}, {}),
    "schedules": (
        "schedule",
        {"name": "", "description": "", "rrule": "", "enabled": True, "extra_data": {}},
        {"unified_job_template": "unified_job_templates"},
        {},
    ),
}
UNIFIED = ("projects", "inventory_sources", "job_templates", "workflow_job_templates", "workflow_approval_templates")
JSON_TEXT = ("extra_vars",)
# what has to differ, beside the identity of the object: AWX's own constraints. Only some look at the organization
UNIQUE = {
    "execution_environments": ("name",),
    "organizations": ("name",),
    "credential_types": ("name", "kind"),
    "credentials": ("name", "organization", "credential_type"),
    "credential_input_sources": ("target_credential", "input_field_name"),
    "inventory_sources": ("name", "inventory"),
    "workflow_job_template_nodes": ("identifier", "workflow_job_template"),
    "workflow_approval_templates": ("id",),
    "schedules": ("name", "unified_job_template"),
}
ROLES = {
    "job_templates": ("admin_role", "execute_role", "read_role"),
    "workflow_job_templates": ("admin_role", "execute_role", "read_role", "approval_role"),
    "credentials": ("admin_role", "use_role", "read_role"),
    "inventories": ("admin_role", "use_role", "read_role", "update_role", "adhoc_role"),
}


class Refused(Exception):
    """An answer that is an error: status and body."""

    def __init__(self, status, body):
        super().__init__(body)
        self.status, self.body = status, body


# fields of a launch whose prompt has another name
LAUNCH = {"job_tags": "tags", "credentials": "credential"}


def options(resource, rest):
    """Return the actions of OPTIONS, from which the `awx` command makes its own options."""
    if rest[1:] == ["launch"]:
        kinds = {"extra_vars": "json", "job_slice_count": "integer", "verbosity": "choice", "diff_mode": "boolean", "limit": "string"}
        fields = {name: {"type": kind, "required": False, "label": name, "help_text": ""} for name, kind in kinds.items()}
        fields["verbosity"]["choices"] = [[number, str(number)] for number in range(6)]
        return {"POST": fields}
    fields = {"name": {"type": "string", "required": False, "label": "Name", "help_text": "", "filterable": True}}
    return {"GET": fields, "POST": fields}


class AwxDouble:
    """The objects of an AWX, and what was asked of it. `requests` holds (method, path, body) in order."""

    def __init__(self, project_root, token):
        self.project_root, self.token = pathlib.Path(project_root), token
        self.requests, self.objects, self.surveys, self._lock = [], {name: {} for name in RESOURCES}, {}, threading.Lock()
        self.count, self.updates, self.roles, self.jobs = 0, {}, {}, {}
        self.branches = {"", "0.1.0", "main"}  # those that exist in every repository: an update of another one fails
        machine = {"fields": [{"id": "username"}, *({"id": name, "secret": True} for name in ("ssh_key_data", "ssh_key_unlock", "password"))]}
        self.put("credential_types", {"name": "Machine", "kind": "ssh", "inputs": machine, "managed": True})
        self.put("instance_groups", {"name": "default"})

    # -- reading, for tests --

    def all(self, resource):
        """Return the objects of a kind, secrets in clear."""
        return list(self.objects[resource].values())

    def named(self, resource, name):
        """Return the one object with this name."""
        (found,) = [item for item in self.all(resource) if item.get("name", item.get("identifier")) == name]
        return found

    def linked(self, resource, item, name):
        """Return the objects in one of an object's lists."""
        return [self.objects[RESOURCES[resource][3][name]][number] for number in item["_" + name]]

    def writes(self):
        """Return the requests that change something."""
        return [entry for entry in self.requests if entry[0] not in ("GET", "OPTIONS")]

    def synchronize(self, source, variables):
        """Do to an inventory what AWX's import does with the variables of the group `all`: merge, never take away."""
        inventory = self.objects["inventories"][source["inventory"]]
        known = yaml.safe_load(inventory["variables"] or "{}")
        if dict(known, **variables) != known:
            inventory["variables"] = json.dumps(dict(known, **variables))

    # -- the API --

    def handle(self, method, target, body):
        """Return (status, body) of a request."""
        parts = urlsplit(target)
        with self._lock:
            self.requests.append((method, target, body))
            words = [unquote(word) for word in parts.path.strip("/").split("/")]
            if method == "GET" and words == ["api"]:
                return 200, {"available_versions": {"v2": "/api/v2/"}, "current_version": "/api/v2/"}
            if method == "GET" and words == ["api", "v2"]:
                return 200, {name: "/api/v2/%s/" % name for name in (*RESOURCES, "jobs", "unified_jobs")}
            if words[:2] != ["api", "v2"] or len(words) < 3:
                raise Refused(404, {"detail": "Not found."})
            return self.route(method, words[2:], dict(parse_qsl(parts.query, keep_blank_values=True)), body)

    def route(self, method, words, query, body):
        resource, rest = words[0], words[1:]
        if resource == "unified_job_templates" and method == "GET" and not rest:
            return 200, self.page([self.view(name, item) for name in UNIFIED for item in self.all(name)], query)
        if resource == "project_updates":
            return 200, self.updates[int(rest[0])]
        if resource == "roles":
            return self.role(method, rest, body)
        if resource in ("jobs", "workflow_jobs", "unified_jobs") and method == "GET":
            return 200, self.job(rest)
        if resource not in RESOURCES:
            raise Refused(404, {"detail": "Not found."})
        if method == "OPTIONS":
            return 200, {"actions": options(resource, rest)}
        if not rest and method == "GET":
            return 200, self.page([self.view(resource, item) for item in self.all(resource)], query)
        if not rest and method == "POST":
            return 201, self.written(resource, self.put(resource, self.checked(resource, body, {})), body)
        item = self.found(resource, rest[0])
        if item is None:
            raise Refused(404, {"detail": "Not found."})
        if len(rest) > 1:
            return self.below(method, resource, item, rest[1], body)
        if method == "PATCH":
            item.update(self.checked(resource, body, item))
            return 200, self.written(resource, item, body)
        if method == "DELETE":
            self.forget(resource, item)
            return 204, None
        return 200, self.view(resource, item)

    def below(self, method, resource, item, name, body):
        """Answer what is asked below an object."""
        if name == "survey_spec":
            return self.survey(method, item, body)
        if name in RESOURCES[resource][3]:
            return self.association(method, resource, item, name, body)
        if name == "update" and resource == "projects" and method == "POST":
            return 202, self.update_project(item)
        if name == "launch" and method == "POST":
            return 201, self.launch(resource, item, body or {})
        if name == "create_approval_template" and method == "POST":
            approval = self.put("workflow_approval_templates", {key: body[key] for key in ("name", "description", "timeout") if key in body})
            item["unified_job_template"] = approval["id"]
            return 201, self.view("workflow_approval_templates", approval)
        raise Refused(405, {"detail": 'Method "%s" not allowed.' % method})

    def found(self, resource, word):
        """Return the object with this id or named URL (NAME++ORGANIZATION), or None."""
        if word.isdigit():
            return self.objects[resource].get(int(word))
        for item in self.all(resource):
            organization = self.objects["organizations"].get(item.get("organization"), {})
            if word == "%s++%s" % (item.get("name"), organization.get("name", "")):
                return item
        return None

    def launch(self, resource, item, body):
        """Make a job, or refuse it as AWX does. What a template does not ask for is ignored, and named in the answer."""
        body = dict(body)
        answers = body.pop("extra_vars", {}) or {}
        answers = yaml.safe_load(answers) if isinstance(answers, str) else answers
        problems = rules.launch_problems(self.surveys.get(item["id"]), answers)
        if problems:
            raise Refused(400, {"variables_needed_to_start": problems})
        asked = {name for name in body if item.get("ask_%s_on_launch" % LAUNCH.get(name, name))}
        self.count += 1
        kind = "job" if resource == "job_templates" else "workflow_job"
        url = "/api/v2/%ss/%d/" % (kind, self.count)
        events = {"job_events": url + "job_events/"} if kind == "job" else {}
        whole = {"id": self.count, "type": kind, "url": url, "name": item["name"], "status": "successful"}
        whole |= {"finished": "2026-01-01T00:00:00Z", "event_processing_finished": True, "unified_job_template": item["id"]}
        whole |= {"extra_vars": answers, **{name: body[name] for name in asked}}
        whole |= {kind: self.count, "related": events, "ignored_fields": {name: body[name] for name in set(body) - asked}}
        self.jobs[self.count] = whole
        return whole

    def job(self, rest):
        """Answer about jobs: they print nothing and have no parts."""
        if not rest or len(rest) > 1:
            return {"count": 0, "next": None, "previous": None, "results": []}
        if int(rest[0]) not in self.jobs:
            raise Refused(404, {"detail": "Not found."})
        return self.jobs[int(rest[0])]

    def forget(self, resource, item):
        """Delete an object and what cannot be without it."""
        del self.objects[resource][item["id"]]
        dependents = {"workflow_job_templates": [("workflow_job_template_nodes", "workflow_job_template"), ("schedules", "unified_job_template")]}
        dependents["job_templates"] = [("schedules", "unified_job_template")]
        for other, field in dependents.get(resource, []):
            for dependent in [entry for entry in self.all(other) if entry.get(field) == item["id"]]:
                self.forget(other, dependent)
        for kind, (_type, _plain, references, lists) in RESOURCES.items():
            for entry in self.all(kind):
                for field, target in references.items():
                    if entry.get(field) == item["id"] and (target == resource or target == "unified_job_templates" and resource in UNIFIED):
                        entry[field] = None
                for name, target in lists.items():
                    if target == resource and item["id"] in entry["_" + name]:
                        entry["_" + name].remove(item["id"])

    def put(self, resource, fields):
        self.count += 1
        whole = dict(RESOURCES[resource][1], **dict.fromkeys(RESOURCES[resource][2]), **{"_" + name: [] for name in RESOURCES[resource][3]})
        item = dict(whole, **fields, id=self.count)
        self.objects[resource][self.count] = item
        return item

    def written(self, resource, item, body):
        """Return a written object. A project whose source changed is updated at once, which the answer shows."""
        shown = self.view(resource, item)
        if resource == "projects" and {"scm_url", "scm_branch", "scm_type"} & set(body):
            shown["summary_fields"] = dict(shown["summary_fields"], current_update={"id": self.update_project(item)["id"]})
        return shown

    def update_project(self, item):
        """Update a project; it fails where the branch does not exist, and the project remembers."""
        self.count += 1
        good = item["scm_branch"] in self.branches
        item["status"] = "successful" if good else "failed"
        self.updates[self.count] = {
            "id": self.count,
            "type": "project_update",
            "url": "/api/v2/project_updates/%d/" % self.count,
            "status": item["status"],
            "failed": not good,
            "finished": "2026-01-01T00:00:00Z",
            "scm_revision": "0" * 40,
        }
        return self.updates[self.count]

    def page(self, items, query):
        ignored = ("page", "page_size", "order_by")
        for name, wanted in query.items():
            if name not in ignored:
                items = [item for item in items if self.field(item, name.split("__")) == wanted]
        return {"count": len(items), "next": None, "previous": None, "results": items}

    def field(self, item, path):
        """Return a field of a view as text, following references: organization__name."""
        for name in path[:-1]:
            found = [other.get(item.get(name)) for kind, other in self.objects.items() if RESOURCES[kind][0] == name]
            item = found[0] if found and found[0] else {}
        return str(item.get(path[-1]))

    def view(self, resource, item):
        """Return an object as AWX shows it."""
        url = "/api/v2/%s/%d/" % (resource, item["id"])
        shown = {name: value for name, value in item.items() if not name.startswith("_")}
        summary = {}
        if resource == "credentials":
            secret = self.secret_fields(item)
            shown["inputs"] = {name: ENCRYPTED if name in secret and value else value for name, value in item["inputs"].items()}
        if resource == "notification_templates":
            hidden = rules.NOTIFICATION_SECRETS
            shown["notification_configuration"] = {k: ENCRYPTED if k in hidden and v else v for k, v in item["notification_configuration"].items()}
        if resource == "projects":
            shown["scm_revision"] = "0" * 40
        if resource in ROLES:
            summary["object_roles"] = {name: {"id": item["id"] * 10 + place} for place, name in enumerate(ROLES[resource])}
        related = {
            name: "%s%s/" % (url, name)
            for name in (*RESOURCES[resource][3], "survey_spec", "update", *(["launch"] if resource.endswith("job_templates") else []))
        }
        if resource == "workflow_job_template_nodes":
            shown.update({name: list(item["_" + name]) for name in RESOURCES[resource][3]})
            for kind in UNIFIED:
                target = self.objects[kind].get(item["unified_job_template"])
                if target:
                    summary["unified_job_template"] = {"name": target["name"], "unified_job_type": RESOURCES[kind][0]}
                    related["unified_job_template"] = "/api/v2/%s/%d/" % (kind, target["id"])
        return dict(shown, type=RESOURCES[resource][0], url=url, related=related, summary_fields=summary)

    def role(self, method, rest, body):
        """Answer for one role of one object: who has it."""
        members = self.roles.setdefault(int(rest[0]), [])
        if method == "POST":
            if body.get("disassociate"):
                members.remove(body["id"])
            elif body["id"] not in members:
                members.append(body["id"])
            return 204, None
        return 200, self.page([self.view(rest[1], self.objects[rest[1]][number]) for number in members], {})

    def secret_fields(self, credential):
        fields = self.objects["credential_types"][credential["credential_type"]]["inputs"]["fields"]
        return [field["id"] for field in fields if field.get("secret")]

    def checked(self, resource, body, item):
        """Return a request's fields, or refuse them as AWX would."""
        _type, plain, references, _lists = RESOURCES[resource]
        unknown = set(body) - set(plain) - set(references)
        if unknown:
            raise Refused(400, {name: ["This field is unknown to the double."] for name in unknown})
        for name, target in references.items():
            known = {number for kind in (UNIFIED if target == "unified_job_templates" else [target]) for number in self.objects[kind]}
            if body.get(name) not in known | {None}:
                raise Refused(400, {name: ['Invalid pk "%s" - object does not exist.' % body[name]]})
        whole = dict(plain, **dict(item, **body))
        unique = UNIQUE.get(resource, ("name", "organization"))
        same = [other for other in self.all(resource) if all(other.get(key) == whole.get(key) for key in unique)]
        if [other for other in same if other.get("id") != item.get("id")]:
            raise Refused(400, {"__all__": ["%s with this %s already exists." % (_type, " and ".join(unique))]})
        for name in JSON_TEXT:
            if not isinstance(json.loads(whole.get(name) or "{}"), dict):
                raise Refused(400, {name: ["Expected a dictionary."]})
        getattr(self, "check_" + resource, lambda _whole: None)(whole)
        return {name: "" if name == "kind" and value is None else value for name, value in body.items()}

    def check_credential_types(self, whole):
        problem = rules.credential_type(whole["inputs"], whole.get("injectors", {}))
        if problem:
            raise Refused(400, problem)

    def check_credentials(self, whole):
        known = [field["id"] for field in self.objects["credential_types"][whole["credential_type"]]["inputs"]["fields"]]
        if set(whole["inputs"]) - set(known):
            raise Refused(400, {"inputs": ["Additional properties are not allowed (%s)" % ", ".join(set(whole["inputs"]) - set(known))]})

    def check_notification_templates(self, whole):
        problem = rules.messages(whole["notification_type"], whole.get("messages") or {})
        if problem:
            raise Refused(400, {"messages": [problem]})

    def check_inventories(self, whole):
        if not isinstance(yaml.safe_load(whole.get("variables") or "{}"), dict):
            raise Refused(400, {"variables": ["Expected a dictionary."]})

    def check_job_templates(self, whole):
        path = self.project_root / whole["playbook"]
        if not rules.is_playbook(self.project_root, path):
            raise Refused(400, {"playbook": ["Playbook not found for project."]})

    def check_inventory_sources(self, whole):
        project = self.objects["projects"][whole["source_project"]]
        if project["name"].endswith(".workers") and not (self.project_root / whole["source_path"]).exists():
            raise Refused(400, {"source_path": ["not found in the project"]})

    def check_schedules(self, whole):
        if not re.match(r"DTSTART(;TZID=\S+)?:\d{8}T\d{6}Z? RRULE:(?=.*FREQ=)(?=.*INTERVAL=)", whole["rrule"]):
            raise Refused(400, {"rrule": ["Valid DTSTART, FREQ and INTERVAL required in rrule."]})
        self.check_answers(whole, required=True)

    def check_workflow_job_template_nodes(self, whole):
        # what is required may come from the workflow, or when it is launched
        self.check_answers(whole, required=False)

    def check_answers(self, whole, required):
        """Refuse what a template does not ask for. AWX fills no default of a survey in here."""
        number = whole.get("unified_job_template")
        template = self.objects["job_templates"].get(number) or self.objects["workflow_job_templates"].get(number)
        if template is None:
            return
        spec = self.surveys.get(number) if template["survey_enabled"] else None
        refused = [] if template["ask_variables_on_launch"] else rules.launch_problems(spec, whole.get("extra_data") or {}, required)
        if refused:
            raise Refused(400, {"variables_needed_to_start": refused})

    def survey(self, method, item, body):
        if method == "POST":
            problem = rules.survey(body)
            if problem:
                raise Refused(400, {"error": problem})
            self.surveys[item["id"]] = body
        if method == "DELETE":
            self.surveys.pop(item["id"], None)
        return 200, self.surveys.get(item["id"], {}) if method == "GET" else {}

    def association(self, method, resource, item, name, body):
        target = RESOURCES[resource][3][name]
        if method == "GET":
            return 200, self.page([self.view(target, other) for other in self.linked(resource, item, name)], {})
        if body.get("id") is None and target == "labels":
            body = {"id": self.put("labels", {"name": body["name"], "organization": body["organization"]})["id"]}
        if body["id"] not in self.objects[target]:
            raise Refused(400, {"id": ["object does not exist"]})
        if body.get("disassociate"):
            item["_" + name].remove(body["id"])
        else:
            kinds = [self.objects[target][number].get("credential_type") for number in item["_" + name]]
            if name == "credentials" and self.objects[target][body["id"]]["credential_type"] in kinds:
                raise Refused(400, {"error": "Cannot assign multiple credentials of one type."})
            item["_" + name].append(body["id"])
        return 204, None

    # -- HTTP --

    def start(self):
        """Listen on a free loopback port; return the URL."""
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or "null") if length else None
                try:
                    anybody = self.command == "GET" and self.path.rstrip("/") in ("/api", "/api/v2")
                    if not anybody and self.headers.get("Authorization") != "Bearer " + double.token:
                        raise Refused(401, {"detail": "Authentication credentials were not provided."})
                    status, found = double.handle(self.command, self.path, body)
                except Refused as refused:
                    status, found = refused.status, refused.body
                text = b"" if found is None else json.dumps(found).encode()
                self.send_response(status)
                for name, value in (
                    ("X-API-Product-Name", "AWX"),
                    ("X-API-Product-Version", "24.6.1"),
                    ("Content-Type", "application/json"),
                    ("Allow", ALLOWED),
                ):
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = do_DELETE = do_OPTIONS = answer

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return "http://127.0.0.1:%d" % self.server.server_port

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
