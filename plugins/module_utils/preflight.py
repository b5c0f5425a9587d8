# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pure: settings and facts of a host in, problems out."""

from __future__ import annotations

import difflib
import re
from urllib.parse import urlsplit

from ansible_collections.beta9.workers.plugins.module_utils import protocol


def url_host(url):
    """Return the host part of a URL, or an empty string."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def problem(what, expected, found, remedy):
    """Return one problem. what names the variable or the part of the host."""
    return {"what": what, "expected": expected, "found": str(found), "remedy": remedy}


def problems(params, facts):
    """Return every problem of a host: first of its variables, then of the host itself."""
    return list(_of_settings(params["settings"], params["connections"])) + list(_of_host(params, facts))


def _of_settings(settings, connections):
    if not settings.get("pool"):
        yield problem("beta9_pool", "the name of a pool", "nothing", "Set beta9_pool in the inventory; 'beta9 pool list' shows the names.")
    else:
        yield from _invalid("beta9_pool", protocol.pool_name, settings["pool"])
        pools = settings.get("pools")
        if pools is not None and settings["pool"] not in pools:
            near = difflib.get_close_matches(settings["pool"], pools, 1)
            yield problem(
                "beta9_pool",
                "one of the gateway's pools: %s" % (", ".join(sorted(pools)) or "(it has none)"),
                settings["pool"],
                "Did you mean '%s'?" % near[0] if near else "Correct beta9_pool, or add the pool to worker.pools of the gateway's configuration.",
            )
    if not re.match(r"https?://[^/]+$", (settings.get("gateway_url") or "").rstrip("/")):
        yield problem(
            "beta9_gateway_url",
            "a URL like http://gateway.example.com:31994",
            settings.get("gateway_url") or "nothing",
            "Set beta9_gateway_url to the gateway's HTTP port as this controller reaches it.",
        )
    if settings.get("connection") not in connections:
        yield problem("beta9_connection", "one of %s" % ", ".join(connections), settings.get("connection"), "Correct beta9_connection.")
    for name, check in (
        ("machine_id", protocol.machine_id),
        ("provider", protocol.provider_name),
        ("hostname", protocol.hostname),
        ("max_cpu", protocol.cpu),
        ("max_memory", protocol.memory),
    ):
        if settings.get(name):
            yield from _invalid("beta9_" + name, check, settings[name])
    if not 5 <= settings["keepalive_interval"] <= protocol.KEEPALIVE_MAX_INTERVAL_SECONDS:
        yield problem(
            "agent_keepalive_interval",
            "5 to %d seconds" % protocol.KEEPALIVE_MAX_INTERVAL_SECONDS,
            settings["keepalive_interval"],
            "Use 60: the gateway forgets a machine after 300 s without a keepalive.",
        )


def _invalid(what, check, value):
    try:
        check(value)
    except protocol.InvalidField as error:
        yield problem(what, error.expected, error.found, "Correct %s in the inventory." % what)


def _version(text):
    return tuple(int(part) for part in re.findall(r"\d+", text))


def _of_host(params, facts):
    systems = params["systems"]
    if systems and facts["system"] not in systems and facts["system_id"] not in systems:
        yield problem(
            "operating system",
            "one of %s" % ", ".join(systems),
            facts["system"],
            "Reinstall the host with a supported system, or add this one to preflight_systems at your own risk.",
        )
    if _version(facts["python"]) < _version(params["min_python"]):
        yield problem("Python", "%s or newer" % params["min_python"], facts["python"], "Install a newer Python and point ansible_python_interpreter at it.")
    if not facts["root"]:
        yield problem(
            "privileges", "root, or a user that may sudo", "an unprivileged user", "Connect as root, or set ansible_become=true and give the user sudo rights."
        )
    if not facts["systemd"]:
        yield problem("init system", "systemd", "none running", "Use a host that was booted with systemd.")
    if facts["memory_mib"] < params["min_memory_mib"]:
        yield problem("memory", "%d MiB" % params["min_memory_mib"], "%d MiB" % facts["memory_mib"], "Add memory, or lower preflight_min_memory_mib.")
    if facts["disk_free_mib"] < params["min_disk_mib"]:
        yield problem(
            "disk",
            "%d MiB free at %s" % (params["min_disk_mib"], params["disk_path"]),
            "%d MiB" % facts["disk_free_mib"],
            "Free some space, or lower preflight_min_disk_mib.",
        )
    skew = facts["epoch"] - params["controller_epoch"]
    if params["controller_epoch"] and abs(skew) > params["max_clock_skew_seconds"]:
        yield problem(
            "clock",
            "within %d s of the controller's" % params["max_clock_skew_seconds"],
            "%+d s" % skew,
            "Start time synchronisation: timedatectl set-ntp true.",
        )
    for name, addresses in sorted(facts["resolved"].items()):
        if not addresses:
            yield problem("name resolution", "an address for %s" % name, "none", "Mend the host's DNS or /etc/hosts, or use an address in the inventory.")
    for listener in facts["tunnel_listeners"]:
        if listener["process"] not in ("ssh", None):
            yield problem(
                "port %d" % params["tunnel_port"],
                "free, or held by the tunnel's ssh",
                "%(process)s (pid %(pid)s) listens on %(address)s" % listener,
                "Stop that program, or choose another port with autossh_local_port.",
            )
