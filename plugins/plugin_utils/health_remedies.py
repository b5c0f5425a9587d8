# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remedies of the catalogue, made into what can be pasted: for this host, this inventory and this installation of the
collection."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import re
import shlex
from typing import Any, Callable, Dict, List, Mapping
from urllib.parse import urlsplit

from ansible.errors import AnsibleError
from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.health import remedies

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Remedies:
    """What is common to all hosts of a run: the inventory, how its playbooks are called, and where the documentation
    is.

    variables: task_vars. gateway_host: the inventory's name of the gateway host, or "".
    """

    def __init__(
        self, variables: Mapping[str, Any], gateway_host: str = "", kubeconfig: str = "", namespace: str = "beta9"
    ) -> None:
        self.hostvars = variables["hostvars"]
        self.gateway_host = gateway_host
        self.kubectl = " ".join(
            ["kubectl"]
            + (["--kubeconfig", shlex.quote(kubeconfig)] if kubeconfig else [])
            + ["-n", shlex.quote(namespace)]
        )
        self.options = options(variables)
        self.in_awx = any(name in variables for name in ("awx_job_id", "tower_job_id"))
        self.ad_hoc = "" if self.in_awx else " ".join(["ansible"] + inventories(variables))
        self.documentation = documentation()

    def complete(self, verdicts: List[Dict[str, Any]], host: str) -> None:
        """Fill in the remedies of a host's verdicts, and where to read on."""
        known: Dict[str, Dict[str, str]] = {}
        for verdict in verdicts:
            if verdict["remedy"]:
                known = known or {"values": self.values(host), "places": self.places(host)}
                verdict["remedy"] = self.playable(
                    remedies.fill(verdict["remedy"], known["values"], known["places"]), host
                )
                verdict["docs"] = self.documentation(verdict["id"])

    def places(self, host: str) -> Dict[str, str]:
        """Return the inventory's name of each place."""
        return {remedies.WORKER: host, remedies.GATEWAY_HOST: self.gateway_host, remedies.CLUSTER: self.gateway_host}

    def values(self, host: str) -> Dict[str, str]:
        """Return what a command for this host may name, quoted for a shell."""
        mode, read = (
            self.variable(host, "beta9_connection") or connections.DEFAULT,
            functools.partial(self.variable, host),
        )
        url = str(
            connections.value(mode, "gateway_url", read)
            or read("beta9_gateway_url")
            or remedies.PLACEHOLDERS["gateway_url"]
        ).rstrip("/")
        try:
            parts = urlsplit(url)
        except ValueError:
            parts = urlsplit(remedies.PLACEHOLDERS["gateway_url"])
        forward = connections.forward(read)
        found = {
            "host": host,
            "gateway_host": self.gateway_host or remedies.PLACEHOLDERS["gateway_host"],
            "gateway_url": url,
            "gateway_name": parts.hostname or "",
            "target": forward["target"],
        }
        quoted = {name: shlex.quote(str(value)) for name, value in found.items()}
        # these stand inside quotes of a command
        port = digits(parts.netloc.rpartition(":")[2], "443" if parts.scheme == "https" else "80")
        name = re.sub(r"[^\w.:-]", "", parts.hostname or "", flags=re.ASCII)
        return dict(
            quoted,
            gateway_tcp=f"{name}/{port}",
            local_port=str(forward["local_port"]),
            kubectl=self.kubectl,
        )

    def variable(self, host: str, name: str) -> Any:
        """Return a variable of a host, None where it has none or its template has no value: a mistyped one must not end
        the report."""
        try:
            return self.hostvars[host].get(name)
        except AnsibleError:
            return None

    def playable(self, remedy: Dict[str, Any], host: str) -> Dict[str, Any]:
        """Return a remedy whose playbook is called as this installation has it. AWX has no command line: there it is a
        job template."""
        match = re.match(r"ansible-playbook (\w+)\.yml", remedy["command"])
        if not match:
            return remedy
        if self.in_awx:
            told = f"Launch the job template that runs {match.group(1)}.yml, with limit {host}."
            return dict(remedy, command="", where="", prose=" ".join(filter(None, [remedy["prose"], told])))
        call = ["ansible-playbook", playbook(match.group(1))] + self.options
        return dict(remedy, command=" ".join(call) + remedy["command"][match.end() :])


def digits(value: object, default: str) -> str:
    """Return a number as text."""
    return str(value) if re.match(r"[0-9]{1,5}\Z", str(value)) else default


def installed() -> bool:
    """Return whether this is an installed collection, not a checkout."""
    return (ROOT / "MANIFEST.json").exists()


def playbook(name: str) -> str:
    """Return how ansible-playbook is given a playbook of this collection."""
    return "beta9.workers." + name if installed() else shlex.quote(str(ROOT / (name + ".yml")))


def inventories(variables: Mapping[str, Any]) -> List[str]:
    """Return the options that name the inventories of this run, as they were given."""
    found = []
    for source in variables.get("ansible_inventory_sources") or []:
        if "," in source or os.path.exists(source):
            found += ["-i", shlex.quote(str(source))]
    return found


def options(variables: Mapping[str, Any]) -> List[str]:
    """Return the options by which this run knows its hosts: the inventory as it was given, and the group where it is
    another one."""
    group = variables.get("beta9_workers")
    return inventories(variables) + (["-e", shlex.quote(f"beta9_workers={group}")] if group else [])


def documentation() -> Callable[[str], str]:
    """Return a function that gives the address of a check's page: the published one if the artefact names it, else the
    file beside this."""
    address = ""
    if installed():
        address = (
            json.loads((ROOT / "MANIFEST.json").read_text(encoding="utf-8"))["collection_info"].get("documentation")
            or ""
        )
    if address:
        return lambda name: f"{address.rstrip('/')}/checks/{name}.html"
    return lambda name: (ROOT / "docs" / "checks" / (name + ".md")).as_uri()


def for_hosts(remedy: Mapping[str, Any], hosts: List[str]) -> Dict[str, Any]:
    """Return the remedy of the first host for all of them, where its command takes a limit."""
    one, all_of_them = f"-l {shlex.quote(hosts[0])}", f"-l {shlex.quote(','.join(hosts))}"
    return dict(remedy, command=str(remedy.get("command", "")).replace(one, all_of_them))
