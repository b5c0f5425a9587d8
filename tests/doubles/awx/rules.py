"""Rules of AWX that a definition has to keep, as AWX's own source states them. Part of the TEST DOUBLE of AWX."""

from __future__ import annotations

import json
import pathlib
import re

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

# awx/main/utils/ansible.py: AWX reads line by line, and knows no other spelling of import_playbook
PLAYBOOK_LINE = re.compile(r"^\s*?-?\s*?(?:hosts|include|import_playbook):\s*?.*?$")
NOTIFICATION_SECRETS = {"token", "password", "grafana_key", "account_token", "integration_key", "rocketchat_url", "mattermost_url", "aws_secret_access_key"}
ANSWERS = {"text": str, "textarea": str, "password": str, "multiplechoice": str, "multiselect": str, "integer": int, "float": float}


def is_playbook(root, path):
    """Say whether AWX offers a file of the project as playbook."""
    parts = pathlib.PurePath(path).relative_to(root).parts
    if path.suffix not in (".yml", ".yaml") or not path.is_file() or any(part.startswith(".") for part in parts):
        return False
    if {"roles", "tasks", "group_vars", "host_vars"} & set(parts[:-1]):
        return False
    return any(PLAYBOOK_LINE.match(line) for line in path.read_text(encoding="utf-8").splitlines())


def credential_type(inputs, injectors):
    """Return what is wrong with a credential type: injectors may name its inputs only, and no variable that changes Ansible."""
    fields = inputs.get("fields", [])
    if any("id" not in field or field.get("type", "string") not in ("string", "boolean") for field in fields):
        return {"inputs": ["fields need an id, and the type string or boolean"]}
    names = {field["id"] for field in fields}
    if set(inputs.get("required", [])) - names:
        return {"inputs": ["required names an unknown field"]}
    files = injectors.get("file", {})
    if set(injectors) - {"file", "env", "extra_vars"} or any(not re.match(r"template(\.[a-zA-Z_]+[a-zA-Z0-9_]*)?$", name) for name in files):
        return {"injectors": ["unknown injector"]}
    tower = {"filename": {name.partition(".")[2]: "EXAMPLE" for name in files}} if "template" not in files else {"filename": "EXAMPLE"}
    sandbox = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    for kind, templates in injectors.items():
        for name, template in templates.items():
            if kind == "env" and (name.startswith("ANSIBLE_") or not re.match(r"[a-zA-Z_]+[a-zA-Z0-9_]*$", name)):
                return {"injectors": ["Environment variable %s may affect Ansible configuration so its use is not allowed in credentials." % name]}
            try:
                # no file knows where another one will be
                known = {} if kind == "file" else {"tower": tower}
                sandbox.from_string(template).render(dict.fromkeys(names, "EXAMPLE"), **known)
            except jinja2.TemplateError as error:
                return {"injectors": ["%s uses an undefined field (%s)" % (name, error)]}
    return None


def survey(spec):
    """Return what is wrong with a survey, or None."""
    if not isinstance(spec.get("name"), str) or not isinstance(spec.get("description"), str) or not spec.get("spec"):
        return "expected name, description and spec"
    seen = set()
    for question in spec["spec"]:
        lacking = {"type", "question_name", "variable", "required"} - set(question)
        if lacking or question["type"] not in ANSWERS or not isinstance(question["required"], bool):
            return "question %r lacks %s, or has an unknown type" % (question.get("variable"), lacking)
        if question["variable"] in seen:
            return "variable %s is duplicated" % question["variable"]
        seen.add(question["variable"])
        default = question.get("default", "")
        if default != "" and not isinstance(default, ANSWERS[question["type"]]):
            return "default of %s expected to be %s" % (question["variable"], question["type"])
        if any(question.get(key) is not None and not isinstance(question[key], int) for key in ("min", "max")):
            return "limits of %s expected to be integers" % question["variable"]
        if question["type"].startswith("multi") and (not question.get("choices") or [item for item in default.splitlines() if item not in question["choices"]]):
            return "%s: default choice must be answered from the choices listed" % question["variable"]
    return None


def answer_problems(question, answers, required=True):
    """Return what is wrong with the answer to one question."""
    name, kind = question["variable"], question["type"]
    if name not in answers:
        return ["'%s' value missing" % name] if question["required"] and required else []
    value = answers[name]
    expected = {"integer": int, "float": (int, float), "multiselect": list}.get(kind, str)
    if not isinstance(value, expected) or isinstance(value, bool):
        return ["Value %s for '%s' expected to be %s." % (value, name, kind)]
    if kind.startswith("multi"):
        wrong = [item for item in ([value] if kind == "multiplechoice" else value) if item not in question["choices"]]
        return ["Value %s for '%s' expected to be one of %s." % (item, name, question["choices"]) for item in wrong]
    size = value if kind in ("integer", "float") else len(value)
    low, high = question.get("min"), question.get("max")
    return ["'%s' value %s is out of range." % (name, value)] if (low is not None and size < low) or (high is not None and size > high) else []


def launch_problems(spec, answers, required=True):
    """Return why a template without ask_variables_on_launch refuses these variables. No default of the survey is filled in."""
    questions = (spec or {}).get("spec", [])
    extra = set(answers) - {question["variable"] for question in questions}
    problems = ["Variables %s are not allowed on launch." % ", ".join(sorted(extra))] if extra else []
    return problems + [problem for question in questions for problem in answer_problems(question, answers, required)]


def defaults(spec):
    """Return the variables that a survey sets when a job is made and nobody answered: AWX's own way of choosing them."""
    found = {}
    for question in (spec or {}).get("spec", []):
        value = question.get("default")
        if value is not None and not answer_problems(question, {question["variable"]: value}):
            found[question["variable"]] = value
    return found


def messages(kind, given):
    """Return what is wrong with a notification's own messages, or None. AWX renders them once with a job that left nothing."""
    sandbox = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    for event, parts in given.items():
        for part, template in (parts or {}).items():
            if not template:
                continue
            if part == "message" and "\n" in template:
                return "Newlines are not allowed in the message of %s" % event
            try:
                text = render_message(template, {"id": 1, "name": "Stub", "status": "failed", "artifacts": {}, "job_explanation": ""}, sandbox)
            except jinja2.TemplateError as error:
                return "%s of %s: %s" % (part, event, error)
            if part == "body" and kind == "webhook":
                try:
                    good = isinstance(json.loads(text), dict)
                except ValueError:
                    good = False
                if not good:
                    return "Webhook body for '%s' should be a json dictionary" % event
    return None


def render_message(template, job, sandbox=None):
    """Return a notification's text for a job, as AWX makes it."""
    sandbox = sandbox or ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    return sandbox.from_string(template).render(job=job, job_friendly_name="Job", url="https://awx.example.com/#/jobs/playbook/%s" % job["id"])
