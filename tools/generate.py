"""Write everything that can be made from data: of the catalogue of checks the per-check tasks, a page a check, the
coverage of the guide and the table of symptoms; of the argument specs a README a role; of the modules the actions that
run them; of docs/matrix.json the table of versions, of docs/systems.json that of systems.

python tools/generate.py           write
python tools/generate.py --check   say what differs, and fail
"""

from __future__ import annotations

import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tools")]

import role_pages
from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.host import systems
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, remedies
from ansible_collections.beta9.workers.plugins.module_utils.health.checks import terms

GUIDE = ROOT / "docs" / "guide" / "troubleshooting-external-workers.md"
HEAL = {
    "safe": "✔ `heal_worker.yml` does it by itself",
    "opt_in": "○ `heal_worker.yml -e heal_opt_in=true` does it",
    "person": "– a person has to do it",
}
NOTE = "Made by tools/generate.py from the catalogue of checks. Do not edit."


def tasks():
    """Return the per-check tasks of role health_check."""
    lines = ["---", "# " + NOTE]
    for check in catalog.CHECKS:
        title = check.title.replace("'", "''")
        lines += [
            f"- name: '{check.id} {title}'",
            "  beta9.workers.check_verdict:",
            f"    id: {check.id}",
            '    health: "{{ health_check_results.hosts[inventory_hostname] }}"',
            "",
        ]
    return "\n".join(lines[:-1]) + "\n"


def page(check):
    """Return the page of one check."""
    lines = [
        f"# {check.id} {check.name}",
        "",
        f"<!-- {NOTE} -->",
        "",
        f"**{check.title}.**",
        "",
        "| | |",
        "|---|---|",
        f"| checked from | {catalog.SIDES[check.side]} |",
        (
            f"| connection modes | "
            f"{', '.join(mode.name for mode in connections.MODES if connections.gives(mode.name, check.builds_on))} |"
        ),
        f"| needs | {check.component or '–'} |",
        f"| severity | {check.severity} |",
        f"| needs to pass first | {links(check.requires) or '–'} |",
        f"| may be explained by | {links(check.explained_by) or '–'} |",
        "| runs | %s |"
        % (
            "only with `health_check_active=true`: it changes the machine's state"
            if check.active
            else "always; read-only"
        ),
        "",
        "## Impact",
        "",
        check.impact,
        "",
        "## Causes and remedies",
        "",
    ]
    for code, (cause, remedy) in check.causes.items():
        lines += [f"### {code or 'in general'}", "", cause[0].upper() + cause[1:] + ".", ""] + advice(remedy)
    lines += ["## Healing", "", (HEAL[check.heal_class] if heals(check) else HEAL["person"]) + "."] + heals(check)
    return "\n".join(lines) + "\n"


def heals(check):
    """Return the lines of what heal_worker.yml does about each cause."""
    found = {code: check.heals.get(code, check.heal) for code in check.causes}
    return (
        [""] + [f"- {code or 'in general'}: {catalog.HEALS[name]}" for code, name in found.items() if name]
        if any(found.values())
        else []
    )


def advice(remedy):
    """Return the lines of a remedy, with its placeholders in capitals."""
    lines = [remedy.prose, ""] if remedy.prose else []
    if remedy.command:
        command = re.sub(r"{(\w+)}", lambda match: remedies.PLACEHOLDERS[match.group(1)], remedy.command)
        what = (
            "removes the cause"
            if remedy.remediates
            else "helps then"
            if remedy.command == terms.ONBOARD.command
            else "shows more"
        )
        lines += [f"On the {remedy.where} ({what}):", "", "    " + command, ""]
    return lines


def links(ids):
    """Return links to pages."""
    return ", ".join(f"[{name}]({name}.md)" for name in ids)


def index():
    """Return the list of all checks."""
    lines = ["# The checks", "", f"<!-- {NOTE} -->", "", "| check | what passes | from | heals |", "|---|---|---|---|"]
    for check in catalog.CHECKS:
        lines.append(
            f"| [{check.id}]({check.id}.md) {check.name} | {check.title} | {check.side} | "
            f"{HEAL[check.heal_class][0] if heals(check) else '–'} |"
        )
    return "\n".join(lines) + "\n"


def guide_items():
    """Return [(heading, kind, text)]: every heading, symptom, cause, command and message of the guide."""
    items, heading, section, fence = [], "", "", None
    for line in GUIDE.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("```"):
            fence = None if fence is not None else text[3:]
        elif fence is not None:
            if text and not text.startswith(("#", "{", "}", '"', "\\", "-H", "-d", "--")) and text not in ('}"',):
                items.append((heading, "message" if fence in ("", "json") else "command", text))
            elif fence in ("", "json") and text and text not in "{}":
                items.append((heading, "message", text))
        elif text.startswith("#"):
            heading = text.lstrip("# ")
            if text.startswith("###"):
                items.append((heading, "heading", heading))
        elif re.match(r"\*\*(Symptoms|Causes|Solutions|Explanation)", text):
            section = text.strip("*:").split(":")[0]
        elif re.match(r"(\d+\.|-) ", text) and section in ("Symptoms", "Causes"):
            items.append((heading, "symptom" if section == "Symptoms" else "cause", re.sub(r"^(\d+\.|-) ", "", text)))
    return items


def mapped(heading, text):
    """Return what covers an item of the guide, or None."""
    from guide_map import MAP

    return next((value for (where, words), value in MAP if where in ("", heading) and words in text), None)


def symptoms():
    """Return the table from what is seen to the checks that tell why."""
    sections = {}
    for heading, kind, text in guide_items():
        section = sections.setdefault(heading, {"seen": [], "causes": [], "checks": []})
        for name in mapped(heading, text) or []:
            if name in catalog.BY_ID and name not in section["checks"] and kind in ("heading", "symptom", "cause"):
                section["checks"].append(name)
        if kind in ("symptom", "cause"):
            section["seen" if kind == "symptom" else "causes"].append(text)
    lines = ["| what is seen | possible causes | checks |", "|---|---|---|"]
    for heading, section in sections.items():
        if section["causes"] or section["seen"]:
            seen = "<br>".join(["**" + heading.replace("|", "\\|") + "**", *section["seen"]])
            shown = ", ".join(f"[{name}](../checks/{name}.md)" for name in section["checks"])
            lines.append(f"| {seen} | {'<br>'.join(section['causes']) or '–'} | {shown} |")
    return "\n".join(lines)


def versions():
    """Return the table of what was tested with which ansible-core."""
    stages = ("documentation", "syntax", "unit", "integration")
    lines = [
        (
            "| ansible-core | Python | ansible-doc | playbooks' syntax | unit tests | modules, plugins and agent "
            "against the gateway double | on |"
        )
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    for entry in json.loads((ROOT / "docs" / "matrix.json").read_text(encoding="utf-8")):
        cells = []
        for stage in stages:
            result = entry["stages"].get(stage)
            failed = f", **{result['failed']} failed**" if result and result["failed"] else ""
            cells.append(f"{result['passed']} passed{failed}" if result else "not run: no Python for it")
        lines.append(f"| {entry['ansible_core']} | {entry['python'] or '–'} | {' | '.join(cells)} | {entry['date']} |")
    return "\n".join(lines)


def with_section(page_text, marker, text):
    """Return a page with what stands between its markers replaced."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    head, rest = page_text.split(begin)
    return head + begin + "\n\n" + text + "\n\n" + end + rest.split(end)[1]


def worker_systems():
    """Return the table of the systems that workers may have."""
    lines = ["| system | by name | packages | Python for the agent | sshd | initramfs |", "|---|---|---|---|---|---|"]
    for row in systems.SYSTEMS:
        python = f"`{row.python}`, installed beside python3" if row.python else "python3"
        lines.append(
            f"| {row.name} | {', '.join(row.names)} | {row.manager} | {python} | `{row.ssh}` | {row.initramfs} |"
        )
    return "\n".join(lines)


def systems_seen():
    """Return the table of what was run on which system, as tests wrote it down (docs/systems.json)."""
    rows = json.loads((ROOT / "docs" / "systems.json").read_text(encoding="utf-8"))
    lines = ["| system | what was run | how | tests passed | on |", "|---|---|---|---|---|"]
    return "\n".join(
        lines + [f"| {row['system']} | {row['what']} | {row['how']} | {row['tests']} | {row['date']} |" for row in rows]
    )


def coverage():
    """Return the matrix guide -> checks, and what is covered by nothing."""
    lines = [
        "# The guide, step by step",
        "",
        f"<!-- {NOTE} -->",
        "",
        "Every heading, symptom, cause, command and message of the troubleshooting guide, and the check that does it.",
        "",
        "| heading | kind | text | covered by |",
        "|---|---|---|---|",
    ]
    missing = []
    for heading, kind, text in guide_items():
        entry = mapped(heading, text)
        if entry is None:
            missing.append(f"{heading} / {kind}: {text}")
            continue
        unknown = [name for name in entry if re.match(r"[A-Z]\d\d$", name) and name not in catalog.BY_ID]
        if unknown:
            missing.append(f"unknown check {unknown} for {text}")
        shown = ", ".join(f"[{name}](checks/{name}.md)" if name in catalog.BY_ID else name for name in entry)
        text = text.replace("|", "\\|")
        lines.append(f"| {heading} | {kind} | `{text}` | {shown} |")
    return "\n".join(lines) + "\n", missing


HEADER = """# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""
TYPES = {"str": "str", "int": "int", "float": "float", "bool": "bool", "dict": "dict", "list": "list", "raw": "object"}
IN_PROCESS = ("machine", "machine_drain", "machine_info", "pool_info")


def actions():
    """Return {path: text}: for each module the action that runs it and what may come back, see
    plugins/plugin_utils/remote.py."""
    files = {}
    known = ["RETURNS: dict[str, dict[str, type]] = {"]
    for path in sorted((ROOT / "plugins" / "modules").glob("*.py")):
        text = path.read_text(encoding="utf-8")
        returned = yaml.safe_load(re.search(r'^RETURN = r?"""(.*?)"""', text, re.DOTALL | re.MULTILINE).group(1)) or {}
        kinds = ", ".join(f'"{name}": {TYPES[entry["type"]]}' for name, entry in returned.items())
        known.append(f'    "{path.stem}": {{{kinds}}},')
        own = ROOT / "plugins" / "action" / path.name
        if own.exists() and MADE not in own.read_text(encoding="utf-8"):
            continue
        room, kind = (
            ("in_process", "InProcess")
            if path.stem in IN_PROCESS
            else ("remote", "WithSecret" if '"no_log": True' in text or "beta9.workers.gateway\n" in text else "OnHost")
        )
        files["plugins/action/" + path.name] = ACTION % (HEADER, MADE, room, room, kind)
    table = "\n".join(known + ["}"]) + "  # fmt: skip\n"
    what = '"""{module: {name: type}} of every value that a module documents as returned."""'
    files["plugins/plugin_utils/returns.py"] = (
        f"{HEADER}# {MADE}\n{what}\n\nfrom __future__ import annotations\n\n{table}"
    )
    return files


MADE = "Made by tools/generate.py from the documentation of the modules. Do not edit."
ACTION = """%s# %s
from __future__ import annotations

from ansible_collections.beta9.workers.plugins.plugin_utils import %s

ActionModule = %s.%s
"""


def modes():
    """Return {path: text} of the documentation that has the modes of connection as choices."""
    files = {}
    for name in ("plugins/modules/worker_health.py", "roles/preflight/meta/argument_specs.yml"):
        text = (ROOT / name).read_text(encoding="utf-8")
        listed = f"\\g<1>[{', '.join(connections.BY_NAME)}]"
        files[name] = re.sub(
            r"(?m)((?:^  |beta9_)connection:\n(?: +(?:description|type): .*\n)+ +choices: )\[.*\]", listed, text
        )
    return files


def drift(files):
    """Return the names of the files that are not what they are made of. Write them, unless told to check."""
    found = [
        name
        for name, text in files.items()
        if not (ROOT / name).exists() or (ROOT / name).read_text(encoding="utf-8") != text
    ]
    for name in found:
        if "--check" in sys.argv:
            print(f"differs from what it is made of: {name} (make generate)")
        else:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(files[name], encoding="utf-8")
            print("wrote", name)
    return found if "--check" in sys.argv else []


def main():
    differs = drift(modes())  # before the pages that are made of them
    matrix, missing = coverage()
    files = {
        "roles/health_check/tasks/checks.yml": tasks(),
        "docs/checks/README.md": index(),
        "docs/guide-coverage.md": matrix,
    }
    files.update({f"docs/checks/{check.id}.md": page(check) for check in catalog.CHECKS})
    files.update(role_pages.pages())
    files.update(actions())
    sections = (
        ("troubleshooting", "symptoms", symptoms()),
        ("support-matrix", "matrix", versions()),
        ("support-matrix", "systems", worker_systems()),
        ("support-matrix", "seen", systems_seen()),
        ("playbooks", "playbooks", role_pages.playbooks()),
    )
    for guide, marker, text in sections:
        name = f"docs/guides/{guide}.md"
        files[name] = with_section(files.get(name) or (ROOT / name).read_text(encoding="utf-8"), marker, text)
    differs += drift(files)
    for entry in missing:
        print("covered by no check and no reason:", entry)
    return 1 if differs or missing else 0


if __name__ == "__main__":
    sys.exit(main())
