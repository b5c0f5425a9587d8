# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX holds against what the definitions say: each filter returns lines for people, none if both agree."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

Found = list[dict[str, Any]]
EDGES = ("success_nodes", "failure_nodes", "always_nodes")
HIDDEN = "$encrypted$"
# Where the definition has a name and AWX a number, the module of awx.awx compares
NOT_FIELDS = {"name", "survey", "webhook_service"}


def template_drift(found: Found, wanted: Found, defaults: dict[str, Any]) -> list[str]:
    """Return the fields of job templates that AWX holds with other values. A template that is not there yet has
    none."""
    present = {item["name"]: item for item in found}
    lines = []
    for template in wanted:
        have = present.get(template["name"])
        for field, value in sorted(dict(defaults, **template).items()):
            if have is None or field in NOT_FIELDS or field not in have:
                continue
            held = json.loads(have[field] or "{}") if field == "extra_vars" else have[field]
            # settings given with -e are text
            if str(held) != str(value):
                lines.append(f"{template['name']}: {field}: expected {json.dumps(value)}, found {json.dumps(held)}")
    return lines


def graph_drift(found: Found, workflow: dict[str, Any]) -> list[str]:
    """Return what differs between a workflow's nodes in AWX and in the definition; all nodes if AWX has none."""
    names = {node["id"]: node["identifier"] for node in found}
    held = {node["identifier"]: _held_node(node, names) for node in found}
    wanted = {node["identifier"]: _wanted_node(node) for node in workflow["nodes"]}
    lines = [f"node {name} is not in the definition" for name in sorted(set(held) - set(wanted))]
    lines += [f"node {name} is missing" for name in sorted(set(wanted) - set(held))]
    for name in sorted(set(wanted) & set(held)):
        lines += [
            f"node {name}: {key}: expected {json.dumps(value)}, found {json.dumps(held[name][key])}"
            for key, value in wanted[name].items()
            if held[name][key] != value
        ]
    return lines


def _held_node(node: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    template = node.get("summary_fields", {}).get("unified_job_template", {})
    shown: dict[str, Any] = {kind: sorted(names.get(number, str(number)) for number in node[kind]) for kind in EDGES}
    return dict(
        shown, runs=template.get("name"), extra_data=node.get("extra_data") or {}, limit=node.get("limit") or ""
    )


def _wanted_node(node: dict[str, Any]) -> dict[str, Any]:
    related = node.get("related", {})
    shown: dict[str, Any] = {kind: sorted(target["identifier"] for target in related.get(kind, [])) for kind in EDGES}
    return dict(shown, runs=node["unified_job_template"]["name"], extra_data=node.get("extra_data", {}), limit="")


def notification_drift(found: Found, wanted: dict[str, Any], kind: str) -> list[str]:
    """Return the names of a notification's settings that differ. A hidden secret may be the same, and counts as
    that."""
    if not found:
        return []
    have = found[0]
    settings = have["notification_configuration"]
    names = [] if have["notification_type"] == kind else ["notification_type"]
    for name, value in sorted(wanted["notification_configuration"].items()):
        held = settings.get(name)
        if held != HIDDEN and held != value:
            names.append(name)
    error = (have.get("messages") or {}).get("error") or {}
    wanted_error = wanted["messages"]["error"]
    return names + [f"messages.{part}" for part in sorted(wanted_error) if error.get(part) != wanted_error[part]]


def ssh_key_encrypted(text: str) -> bool:
    """Say whether a private key has a passphrase, by its own header: PEM says so, OpenSSH's format names its cipher."""
    if "BEGIN OPENSSH PRIVATE KEY" not in text:
        return "ENCRYPTED" in text
    body = "".join(line for line in text.splitlines() if line and not line.startswith("-----"))
    try:
        raw = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return False
    magic = b"openssh-key-v1\0"
    length = int.from_bytes(raw[len(magic) : len(magic) + 4], "big")
    return raw.startswith(magic) and raw[len(magic) + 4 : len(magic) + 4 + length] != b"none"


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        return {
            "template_drift": template_drift,
            "graph_drift": graph_drift,
            "notification_drift": notification_drift,
            "ssh_key_encrypted": ssh_key_encrypted,
        }
