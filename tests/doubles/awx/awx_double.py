"""A TEST DOUBLE of AWX's REST API that records: as much of /api/v2 as the modules of awx.awx use to configure it.

Objects are kept in memory. It answers as AWX 24 does where the modules look: lists with count, next and results, filters by query,
related URLs, $encrypted$ in place of secrets, associations by POST {id}. It refuses what AWX refuses and a typing error would cause:
unknown references, playbooks that AWX would not find in the project, surveys and injectors of a wrong form, variables that a
template does not ask for. It knows which fields a resource has, and unlike AWX it refuses others.
"""

from __future__ import annotations

import json
import pathlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from . import rules

ENCRYPTED = "$encrypted$"
PROMPTS = "ask_limit_on_launch ask_job_type_on_launch ask_diff_mode_on_launch ask_verbosity_on_launch ask_variables_on_launch".split()
NOTIFICATIONS = ["notification_templates_started", "notification_templates_success", "notification_templates_error"]

# resource: its type, its plain fields, its references (field: resource), its lists of others (name: resource)
RESOURCES = {
    "organizations": ("organization", "name description", {}, {}),
    "credential_types": ("credential_type", "name description kind inputs injectors managed", {}, {}),
    "credentials": ("credential", "name description inputs", {"organization": "organizations", "credential_type": "credential_types"}, {}),
    "execution_environments": ("execution_environment", "name description image pull", {"organization": "organizations"}, {}),
    "projects": (
        "project",
        "name description scm_type scm_url scm_branch scm_clean scm_update_on_launch scm_update_cache_timeout",
        {"organization": "organizations", "credential": "credentials", "default_environment": "execution_environments"},
        {},
    ),
    "inventories": ("inventory", "name description kind host_filter variables", {"organization": "organizations"}, {}),
    "inventory_sources": (
        "inventory_source",
        "name description source source_path overwrite overwrite_vars update_on_launch update_cache_timeout",
        {"inventory": "inventories", "source_project": "projects", "credential": "credentials", "execution_environment": "execution_environments"},
        {},
    ),
    "notification_templates": (
        "notification_template",
        "name description notification_type notification_configuration",
        {"organization": "organizations"},
        {},
    ),
    "job_templates": (
        "job_template",
        "name description job_type playbook forks limit verbosity extra_vars timeout survey_enabled allow_simultaneous job_slice_count " + " ".join(PROMPTS),
        {
            "organization": "organizations",
            "inventory": "inventories",
            "project": "projects",
            "execution_environment": "execution_environments",
        },
        dict({name: "notification_templates" for name in NOTIFICATIONS}, credentials="credentials"),
    ),
    "workflow_job_templates": (
        "workflow_job_template",
        "name description limit extra_vars survey_enabled allow_simultaneous ask_limit_on_launch ask_variables_on_launch",
        {"organization": "organizations", "inventory": "inventories"},
        {name: "notification_templates" for name in NOTIFICATIONS},
    ),
    "workflow_job_template_nodes": (
        "workflow_job_template_node",
        "identifier extra_data limit all_parents_must_converge",
        {"workflow_job_template": "workflow_job_templates", "unified_job_template": "unified_job_templates"},
        {name: "workflow_job_template_nodes" for name in ("success_nodes", "failure_nodes", "always_nodes")},
    ),
    "schedules": ("schedule", "name description rrule enabled extra_data", {"unified_job_template": "unified_job_templates"}, {}),
}
UNIFIED = ("projects", "inventory_sources", "job_templates", "workflow_job_templates")
JSON_TEXT = ("extra_vars", "variables")


class Refused(Exception):
    """An answer that is an error: status and body."""

    def __init__(self, status, body):
        super().__init__(body)
        self.status, self.body = status, body


class AwxDouble:
    """The objects of an AWX, and what was asked of it. `requests` holds (method, path, body) in order."""

    def __init__(self, project_root, token):
        self.project_root, self.token = pathlib.Path(project_root), token
        self.requests, self.objects, self.surveys, self._lock = [], {name: {} for name in RESOURCES}, {}, threading.Lock()
        machine = {"fields": [{"id": "username"}, {"id": "ssh_key_data", "secret": True}, {"id": "password", "secret": True}]}
        self.put("credential_types", {"name": "Machine", "kind": "ssh", "inputs": machine, "managed": True})

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
        return [entry for entry in self.requests if entry[0] != "GET"]

    # -- the API --

    def handle(self, method, target, body):
        """Return (status, body) of a request."""
        parts = urlsplit(target)
        with self._lock:
            self.requests.append((method, target, body))
            words = parts.path.strip("/").split("/")
            if words[:2] != ["api", "v2"] or len(words) < 3:
                raise Refused(404, {"detail": "Not found."})
            return self.route(method, words[2:], dict(parse_qsl(parts.query)), body)

    def route(self, method, words, query, body):
        resource, rest = words[0], words[1:]
        if resource == "unified_job_templates" and method == "GET" and not rest:
            return 200, self.page([self.view(name, item) for name in UNIFIED for item in self.all(name)], query)
        if resource == "project_updates":
            return 200, {"id": int(rest[0]), "type": "project_update", "status": "successful", "failed": False, "finished": "2026-01-01T00:00:00Z"}
        if resource not in RESOURCES:
            raise Refused(404, {"detail": "Not found."})
        if not rest and method == "GET":
            return 200, self.page([self.view(resource, item) for item in self.all(resource)], query)
        if not rest and method == "POST":
            return 201, self.view(resource, self.put(resource, self.checked(resource, body, {})))
        item = self.objects[resource].get(int(rest[0]))
        if item is None:
            raise Refused(404, {"detail": "Not found."})
        if len(rest) == 1 and method == "PATCH":
            item.update(self.checked(resource, body, item))
        if len(rest) == 1 and method in ("GET", "PATCH"):
            return 200, self.view(resource, item)
        if rest[1:] == ["survey_spec"]:
            return self.survey(method, item, body)
        if rest[1:] and rest[1] in RESOURCES[resource][3]:
            return self.association(method, resource, item, rest[1], body)
        raise Refused(405, {"detail": 'Method "%s" not allowed.' % method})

    def put(self, resource, fields):
        number = 1 + sum(map(len, self.objects.values()))
        item = dict({"_" + name: [] for name in RESOURCES[resource][3]}, **fields, id=number)
        self.objects[resource][number] = item
        return item

    def page(self, items, query):
        ignored = ("page", "page_size", "order_by")
        for name, wanted in query.items():
            if name not in ignored:
                items = [item for item in items if str(item.get(name)) == wanted]
        return {"count": len(items), "next": None, "previous": None, "results": items}

    def view(self, resource, item):
        """Return an object as AWX shows it."""
        url = "/api/v2/%s/%d/" % (resource, item["id"])
        shown = {name: value for name, value in item.items() if not name.startswith("_")}
        if resource == "credentials":
            secret = self.secret_fields(item)
            shown["inputs"] = {name: ENCRYPTED if name in secret and value else value for name, value in item["inputs"].items()}
        if resource == "notification_templates":
            hidden = rules.NOTIFICATION_SECRETS
            shown["notification_configuration"] = {k: ENCRYPTED if k in hidden and v else v for k, v in item["notification_configuration"].items()}
        if resource == "projects":
            shown["scm_revision"] = "0" * 40
        related = {name: "%s%s/" % (url, name) for name in (*RESOURCES[resource][3], "survey_spec", "update")}
        current = {"current_update": {"id": item["id"]}} if resource == "projects" else {}
        return dict(shown, type=RESOURCES[resource][0], url=url, related=related, summary_fields=current)

    def secret_fields(self, credential):
        fields = self.objects["credential_types"][credential["credential_type"]]["inputs"]["fields"]
        return [field["id"] for field in fields if field.get("secret")]

    def checked(self, resource, body, item):
        """Return a request's fields, or refuse them as AWX would."""
        _type, plain, references, _lists = RESOURCES[resource]
        unknown = set(body) - set(plain.split()) - set(references)
        if unknown:
            raise Refused(400, {name: ["This field is unknown to the double."] for name in unknown})
        for name, target in references.items():
            known = {number for kind in (UNIFIED if target == "unified_job_templates" else [target]) for number in self.objects[kind]}
            if body.get(name) not in known | {None}:
                raise Refused(400, {name: ['Invalid pk "%s" - object does not exist.' % body[name]]})
        whole = dict(item, **body)
        unique = ("name", "identifier", "organization", "inventory", "workflow_job_template")
        same = [other for other in self.all(resource) if all(other.get(key) == whole.get(key) for key in unique)]
        if [other for other in same if other.get("id") != item.get("id")]:
            raise Refused(400, {"__all__": ["%s with this combination already exists." % _type]})
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

    def check_job_templates(self, whole):
        path = self.project_root / whole["playbook"]
        if not rules.is_playbook(self.project_root, path):
            raise Refused(400, {"playbook": ["Playbook not found for project."]})

    def check_inventory_sources(self, whole):
        project = self.objects["projects"][whole["source_project"]]
        if project["name"] == "beta9.workers" and not (self.project_root / whole["source_path"]).exists():
            raise Refused(400, {"source_path": ["not found in the project"]})

    def check_schedules(self, whole):
        if not re.match(r"DTSTART(;TZID=\S+)?:\d{8}T\d{6}Z? RRULE:(?=.*FREQ=)(?=.*INTERVAL=)", whole["rrule"]):
            raise Refused(400, {"rrule": ["Valid DTSTART, FREQ and INTERVAL required in rrule."]})

    def check_workflow_job_template_nodes(self, whole):
        template = self.objects["job_templates"].get(whole.get("unified_job_template"))
        refused = rules.launch_problems(self.surveys.get(template["id"]), whole.get("extra_data") or {}) if template else []
        if refused:
            raise Refused(400, {"extra_data": refused})

    def survey(self, method, item, body):
        if method == "POST":
            problem = rules.survey(body)
            if problem:
                raise Refused(400, {"error": problem})
            self.surveys[item["id"]] = body
        return 200, self.surveys.get(item["id"], {}) if method == "GET" else {}

    def association(self, method, resource, item, name, body):
        target = RESOURCES[resource][3][name]
        if method == "GET":
            return 200, self.page([self.view(target, other) for other in self.linked(resource, item, name)], {})
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
                    if self.headers.get("Authorization") != "Bearer " + double.token:
                        raise Refused(401, {"detail": "Authentication credentials were not provided."})
                    status, found = double.handle(self.command, self.path, body)
                except Refused as refused:
                    status, found = refused.status, refused.body
                text = b"" if found is None else json.dumps(found).encode()
                self.send_response(status)
                for name, value in (("X-API-Product-Name", "AWX"), ("X-API-Product-Version", "24.6.1"), ("Content-Type", "application/json")):
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

            def log_message(self, *_arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return "http://127.0.0.1:%d" % self.server.server_port

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
