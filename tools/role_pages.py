"""The README and the metadata of every role, from its argument specs."""

from __future__ import annotations

import json
import pathlib
import re

import yaml
from ansible_collections.beta9.workers.plugins.module_utils import connections

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTE = "<!-- Made by tools/generate.py from meta/argument_specs.yml. Do not edit. -->"


def plain(text):
    """Return Ansible's markup as Markdown, in one line."""
    text = " ".join(" ".join(text if isinstance(text, list) else [text]).split())
    text = re.sub(r"\b(?:M|P|RV|O)\(([^()#]*)(?:#[^()]*)?\)", r"`\1`", text)
    text = re.sub(r"\b[CVE]\(([^()]*(?:\([^()]*\)[^()]*)*)\)", r"`\1`", text)
    text = re.sub(r"\b[IB]\(([^()]*)\)", r"*\1*", text)
    return re.sub(r"\bU\(([^()]*)\)", r"<\1>", text)


def default(option):
    """Return what a variable is if nobody sets it."""
    if option.get("required"):
        return "required"
    if "default" not in option:
        return "–"
    value = option["default"]
    shown = (
        " ".join(value.split())
        if isinstance(value, str)
        else yaml.safe_dump(value, default_flow_style=True, width=10000).replace("\n...", "").strip()
    )
    return "`" + shown.replace("|", "\\|") + "`" if shown else "empty"


def rows(options, prefix=""):
    """Return the lines of a table of options; those inside an option follow it."""
    lines = []
    for name, option in options.items():
        kind = option.get("type", "str") + (f" of {option['elements']}" if option.get("elements") else "")
        choices = (
            f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}." if option.get("choices") else ""
        )
        text = plain(option["description"]).replace("|", "\\|")
        lines.append(f"| `{prefix}{name}` | {kind} | {default(option)} | {text}{choices} |")
        lines += rows(option.get("options", {}), prefix + name + ".")
    return lines


def played_by(role):
    """Return the playbooks that use a role."""
    pattern = re.compile(f"\\bbeta9\\.workers\\.{role}\\s*$", re.MULTILINE)
    return [path.stem for path in sorted((ROOT / "playbooks").glob("*.yml")) if pattern.search(whole(path))]


def whole(path):
    """Return the text of a playbook with the task files that it brings in where they stand, and for a connection's role
    those of all modes."""
    text = path.read_text(encoding="utf-8")
    for _level in range(3):  # task files bring in others
        text = re.sub(
            r"(?:import|include)_tasks: (?:tasks/)?(\w+\.yml)$",
            lambda match: (path.parent / "tasks" / match.group(1)).read_text(encoding="utf-8"),
            text,
            flags=re.MULTILINE,
        )
    return re.sub(
        r"name: \"{{ lookup\('beta9.workers.connection', 'role'.*\n(?: *tasks_from: (.*))?", roles_of_modes, text
    )


def roles_of_modes(match):
    """Return the roles of the modes that have the tasks which a playbook includes, each in a line of its own."""
    tasks = match.group(1) or "main.yml"
    names = [
        mode.role
        for mode in connections.MODES
        if (ROOT / "roles" / mode.role.rpartition(".")[2] / "tasks" / tasks).exists()
    ]
    return "" if tasks == "variables.yml" else "".join(f"{name}\n" for name in names)


def playbooks():
    """Return the table of the playbooks: the comment at the top of each, and the roles in it."""
    lines = ["| playbook | what it does | roles |", "|---|---|---|"]
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        text = whole(path)
        comment = " ".join(line[1:].strip() for line in re.match(r"(?:---\n)?((?:#.*\n)*)", text).group(1).splitlines())
        roles = dict.fromkeys(re.findall(r"\bbeta9\.workers\.(\w+)\s*$", text, re.MULTILINE))
        shown = ", ".join(f"`{role}`" for role in roles if (ROOT / "roles" / role).is_dir())
        comment = comment.replace("|", "\\|")
        lines.append(f"| `{path.name}` | {comment} | {shown or '–'} |")
    return "\n".join(lines)


def page(role, specs):
    """Return the README of one role."""
    main = specs["main"]
    lines = [f"# Role `beta9.workers.{role}`", "", NOTE, "", f"{plain(main['short_description']).rstrip('.')}.", ""]
    for paragraph in (
        main.get("description", []) if isinstance(main.get("description"), list) else [main.get("description", "")]
    ):
        lines += ["- " + plain(paragraph)] if paragraph else []
    books = played_by(role)
    lines += ["", f"Used by {', '.join(f'`{name}.yml`' for name in books)}."] if books else []
    for name, entry in specs.items():
        where = "" if name == "main" else f"        tasks_from: {name}\n"
        short = plain(entry["short_description"])
        runs = (ROOT / "roles" / role / "tasks" / (name + ".yml")).exists()
        kind = f"Entry point `{name}`: " if runs else ""  # else it documents variables only
        title = "## Use" if name == "main" else f"## {kind}{short[0].lower() + short[1:] if runs else short}"
        call = f"    - ansible.builtin.import_role:\n        name: beta9.workers.{role}\n{where}"
        lines += ["", title, ""]
        if name != "main" and entry.get("description"):
            lines += [plain(entry["description"]), ""]
        if runs:
            lines += ["```yaml", f"- hosts: {hosts_of(role, name)}", "  become: true", "  tasks:"]
            lines += [*call.rstrip("\n").split("\n"), "```", ""]
        if entry.get("options"):
            lines += ["| variable | type | default | meaning |", "|---|---|---|---|", *rows(entry["options"])]
    return "\n".join(lines).rstrip("\n") + "\n"


def hosts_of(role, entry):
    """Return the group that a role's entry point is for: the workers', or the gateway's host."""
    return "beta9_gateway" if role == "gateway_host" or (role, entry) == ("tailscale", "member") else "gpu-hosts"


def metadata(specs):
    """Return a role's meta/main.yml: what Galaxy shows of it."""
    lines = [
        "---",
        "# Made by tools/generate.py from argument_specs.yml. Do not edit.",
        "galaxy_info:",
        "  author: beta9.workers authors",
    ]
    description = plain(specs["main"]["short_description"])
    description = json.dumps(description, ensure_ascii=False) if re.search(r"[:#\"']", description) else description
    lines += [
        f"  description: {description}",
        "  license: GPL-3.0-or-later",
        '  min_ansible_version: "2.17"',
        "dependencies: []",
    ]
    return "\n".join(lines) + "\n"


def pages():
    """Return {path: text} of what is made for every role."""
    found = {}
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        role = path.parents[1].name
        specs = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        found[f"roles/{role}/README.md"] = page(role, specs)
        found[f"roles/{role}/meta/main.yml"] = metadata(specs)
    return found
