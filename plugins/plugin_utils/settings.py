# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every public variable of the collection, as the roles' argument specs document it, and whether a value fits it.

The names, types, choices and defaults are read from roles/*/meta/argument_specs.yml, where the variables of the
inventory are entry point inventory of role preflight. What a text or a number may look like is said here, by the
grammar's name.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from typing import Any, Callable, Iterable, Mapping

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.beta9.workers.plugins.module_utils import connections, grammar
from ansible_collections.beta9.workers.plugins.module_utils.host import preflight

ROLES = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", "..", "roles"))
PREFIX = "beta9_"
TYPES = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "dict": "a mapping of names to values",
    "list": "a list",
    "path": "a path",
    "str": "a text",
}


def _numbers(least: int, most: int) -> Callable[[Any, str], Any]:
    return lambda value, field: grammar.integer(value, field, least, most)


def _here(value: Any, field: str) -> Any:
    """Return the path of what is on the controller. A relative one is left to what uses it."""
    if "\n" in value or (value[0] in "/~" and not os.path.exists(os.path.expanduser(value))):
        raise grammar.InvalidField(field, "a path that exists on this controller", value)
    return value


# The first pattern that fits the whole name says what the value may look like. Longest time: a day.
CHECKS: tuple[tuple[str, Callable[[Any, str], Any]], ...] = (
    (r"agent_keepalive_interval", _numbers(5, 240)),
    (r"gateway_host_client_alive_interval", _numbers(1, 3600)),
    (r"gateway_host_startups_per_source", _numbers(0, 1000)),
    (r"beta9_gpus|k3s_gpus", _numbers(0, 64)),
    (r".*_seconds", _numbers(0, 86400)),
    (r".*_mib", _numbers(0, 2**30)),
    (r"preflight_tunnel_port", _numbers(0, 65535)),
    (r".*_port", grammar.port),
    (r".*_pool", grammar.pool_name),
    (r".*_provider", grammar.provider_name),
    (r"beta9_machine_id", grammar.machine_id),
    (r".*_connection", connections.connection),
    (r".*_max_cpu", grammar.cpu),
    (r".*_max_memory", grammar.memory),
    (r"beta9_private_ip", grammar.address),
    (r"autossh_listen_address", grammar.listen_address),
    (r"autossh_forwards", grammar.forwards),
    (r"beta9_gpu_ids", grammar.gpu_ids),
    (r"beta9_gpu_expectations", grammar.gpu_expectations),
    (r"beta9_log_format", grammar.log_format),
    (r"gateway_host_user", grammar.own_account),
    (r"autossh_gateway_user", grammar.user_name),
    (r"(beta9|autossh|tailscale|health_check)_gateway_host|beta9_offboard_confirm", grammar.worker_name),
    (r".*_gateway_address|k3s_address|.*_hostname", grammar.host),
    (r".*_redis_url", grammar.redis_url),
    (r".*_(gateway|operator)_url", grammar.gateway_url),
    (r".*_(url|login_server)", grammar.url),
    (
        r"beta9_admin_token_file|beta9_ca_path|beta9_client_cert|beta9_client_key|agent_source|tailscale_auth_key_file",
        _here,
    ),
    (r"beta9_image_store|beta9_metrics_file|beta9_worker_(ca_path|client_cert|client_key)", grammar.path),
    (r".*_fingerprint", grammar.fingerprint),
    (r".*_(sha256|checksum)", grammar.sha256),
    (r"k3s_version", grammar.k3s_version),
    (r"nvidia_branch", grammar.branch),
    (r".*_version", grammar.version),
    (r"nvidia_source", grammar.one_of("nvidia", "distribution")),
    (r"nvidia_flavour", grammar.one_of("open", "closed")),
    (r"nvidia_fabric_manager", grammar.one_of("auto", "true", "false")),
    (r"nvidia_fabric_manager_package", grammar.package),
    (r".*_image", grammar.image),
    (r"health_check_namespace", grammar.label),
    (r"k3s_api_networks", grammar.each(grammar.network)),
    (r"tailscale_tags", grammar.each(grammar.tag)),
    (r"tailscale_trusted_interfaces", grammar.each(grammar.interface)),
    (r"health_check_(only|skip)", grammar.each(grammar.check_id)),
    (r"preflight_joining|health_check_awaited", grammar.each(grammar.worker_name)),
    (r"beta9_serial", grammar.batches),
    (r"beta9_max_fail_percentage", grammar.percentage),
)
SECRET = r"_(token|auth_key)\Z"
# Texts that may be anything, or that only what uses them can judge
FREE = frozenset(
    """beta9_admin_token beta9_workers beta9_gateway_hosts tailscale_auth_key
    health_check_kubeconfig health_check_directory k3s_airgap_dir""".split()
)


@functools.lru_cache(maxsize=None)
def documented() -> dict[str, dict]:
    """Return {variable: its option} of all roles and entry points."""
    found: dict[str, dict] = {}
    for role in sorted(os.listdir(ROLES)):
        path = os.path.join(ROLES, role, "meta", "argument_specs.yml")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                entries = yaml.safe_load(stream)["argument_specs"]
            for entry in entries.values():
                found.update(entry.get("options") or {})
    return found


def unknown(names: Iterable[str]) -> list[dict]:
    """Return a problem for each name that begins like the inventory's variables and is none."""
    known = [name for name in documented() if name.startswith(PREFIX)]
    found = []
    for name in sorted(names):
        if name.startswith(PREFIX) and name not in known:
            near = difflib.get_close_matches(name, known, 1)
            remedy = f"Did you mean {near[0]}?" if near else "Remove it, or give a variable of your own another prefix."
            found.append(preflight.problem(name, "a variable of this collection", "an unknown name", remedy))
    return found


def _check_of(name: str) -> Callable[[Any, str], Any] | None:
    return next((check for pattern, check in CHECKS if re.fullmatch(pattern, name)), None)


def expected(option: Mapping) -> str:
    """Return in words what an option takes, as far as its type says."""
    if option.get("choices"):
        return "one of " + ", ".join(map(str, option["choices"]))
    words = TYPES.get(option.get("type", "str"), "a value")
    if option.get("elements"):
        inner = option.get("options")
        words += " of " + (
            f"mappings with {', '.join(inner)}"
            if inner
            else {"str": "texts", "dict": "mappings"}.get(option["elements"], option["elements"])
        )
    return words


def problem_of(name: str, value: Any) -> dict | None:
    """Return what is wrong with the value of a documented variable, or None."""
    option = documented()[name]
    kind = option.get("type", "str")
    if value is None or value == "":
        # an empty answer, of AWX for example: the roles' variables take it for what is not set
        if kind in ("str", "path") and (not name.startswith(PREFIX) or option.get("default") == ""):
            return None
        return _wrong(name, expected(option), "nothing")
    if (
        kind in ("str", "path")
        and isinstance(value, (bool, float, list, dict))
        and not (name == "nvidia_fabric_manager" and isinstance(value, bool))
    ):
        return _wrong(name, f"a text{', in quotes' if isinstance(value, (bool, float)) else ''}", repr(value))
    result = ArgumentSpecValidator(
        {name: {key: option[key] for key in ("type", "elements", "choices", "options") if key in option}}
    ).validate({name: value})
    if result.error_messages:
        return _wrong(name, expected(option), repr(value))
    check = _check_of(name)
    if check and kind != "bool":
        try:
            check(
                str(value)
                if isinstance(value, int) and not isinstance(value, bool) and kind in ("str", "path")
                else value,
                name,
            )
        except grammar.InvalidField as error:
            return _wrong(error.field, error.expected, error.found)
    return None


def _wrong(what: str, wanted: str, found: str) -> dict:
    if re.search(SECRET, what):
        found = "something else (not shown)"
    found = re.sub(r"://[^@/\s]*@", "://***@", found)
    found = found if len(found) <= grammar.MAX_FOUND else found[: grammar.MAX_FOUND] + "…"
    return preflight.problem(what, wanted, found, f"Correct {what.partition('[')[0].partition('.')[0]}.")


def of_play(variables: Mapping, template: Callable[[Any], Any]) -> list[dict]:
    """Return what is wrong with the variables that Ansible reads before it looks at any host."""
    return _problems(
        ("beta9_workers", "beta9_gateway_hosts", "beta9_serial", "beta9_max_fail_percentage"), variables, template
    )


def problems(variables: Mapping, template: Callable[[Any], Any]) -> list[dict]:
    """Return what is wrong with the variables of one host: unknown names, then values. template raises where a value
    can't be had yet."""
    return unknown(variables) + _problems(documented(), variables, template)


def _problems(names: Iterable[str], variables: Mapping, template: Callable[[Any], Any]) -> list[dict]:
    found = []
    for name in names:
        if name not in variables or variables[name] == documented()[name].get("default"):
            continue
        try:
            value = template(variables[name])
        except Exception:  # pylint: disable=broad-except # of what a later step leaves, such as the address of the tunnel
            continue
        problem = problem_of(name, value)
        if problem:
            found.append(problem)
    return found


def required(given: Mapping) -> list[dict]:
    """Return what is missing, or not known to the gateway. given: what module host_preflight takes as settings; what it
    leaves out is not needed."""
    found = []
    if given.get("gateway_url") == "":
        remedy = "Set beta9_gateway_url to the gateway's HTTP port as this controller reaches it."
        found.append(
            preflight.problem("beta9_gateway_url", "a URL like http://gateway.example.com:31994", "nothing", remedy)
        )
    if given.get("token") is False:
        remedy = (
            "Give a cluster admin's token by one of: environment variable BETA9_TOKEN, a file named by "
            "beta9_admin_token_file, or beta9_admin_token from a vault. 'beta9 token list' shows the tokens."
        )
        found.append(preflight.problem("admin token", "a cluster admin's token", "none", remedy))
    if connections.gives(given.get("connection"), connections.TUNNEL) and given.get("gateway_host") == "":
        remedy = "Add the gateway's SSH host to group beta9_gateway of the inventory, or name it in beta9_gateway_host."
        found.append(
            preflight.problem(
                "group beta9_gateway",
                f"the gateway's SSH host, for beta9_connection={given['connection']}",
                "no host",
                remedy,
            )
        )
    pool, pools = given.get("pool"), given.get("pools")
    if pool == "":
        remedy = "Set beta9_pool in the inventory; 'beta9 pool list' shows the names."
        found.append(preflight.problem("beta9_pool", "the name of a pool", "nothing", remedy))
    elif pool is not None and pools is not None and pool not in pools:
        near = difflib.get_close_matches(pool, pools, 1)
        remedy = (
            f"Did you mean {near[0]}?"
            if near
            else "Correct beta9_pool, or add the pool to worker.pools of the gateway's configuration."
        )
        found.append(
            preflight.problem(
                "beta9_pool", f"one of the gateway's pools: {', '.join(sorted(pools)) or '(it has none)'}", pool, remedy
            )
        )
    return found
