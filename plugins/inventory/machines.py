# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: machines
short_description: The machines of a beta9 gateway as hosts
version_added: "0.1.0"
description:
  - Asks the gateway with the admin token for its machines and makes groups of them by pool, status and GPU type.
  - A machine that belongs to a host of an inventory read before this one is shown as that host. The gateway does not
    know the names of hosts, so the machine's id is what they are matched by, see O(hosts).
  - No token is ever part of the inventory or of its cache.
author:
  - beta9.workers authors (@beta9)
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
notes:
  - The file's name has to end in C(beta9.yml) or C(beta9.yaml).
  - Sources are read in the order given, those of a directory by name. Put the static inventory before this one.
  - Every host gets the variable C(beta9_machine) with C(id), C(pool), C(provider), C(status), C(gpu), C(gpu_count),
    C(cpu_millicores), C(memory_mib), C(created), C(last_keepalive) (seconds since 1970), C(agent_version) and
    C(metrics), as M(beta9.workers.machine_info) returns them.
  - The groups are C(beta9_machines) with every machine, C(beta9_pool_NAME), C(beta9_status_NAME) and C(beta9_gpu_TYPE).
    A host whose machine the gateway no longer lists is in C(beta9_status_absent). What may not stand in a group's name
    becomes C(_).
options:
  plugin:
    description: Has to be V(beta9.workers.machines).
    type: str
    required: true
    choices: [beta9.workers.machines]
  gateway_url:
    description: Address of the gateway's HTTP port, like V(http://gateway.example.com:31994).
    type: str
    required: true
    env:
      - name: BETA9_GATEWAY_URL
  token:
    description: A cluster admin's token. Better left out of the file, in favour of the environment or O(token_file).
    type: str
    env:
      - name: BETA9_TOKEN
  token_file:
    description: File that holds the token. O(token) goes before it.
    type: path
    env:
      - name: BETA9_TOKEN_FILE
  ca_path:
    description: File of CA certificates to trust.
    type: path
    env:
      - name: BETA9_CA_PATH
  client_cert:
    description: File of the client certificate, PEM.
    type: path
    env:
      - name: BETA9_CLIENT_CERT
  client_key:
    description: File of the client certificate's key, PEM.
    type: path
    env:
      - name: BETA9_CLIENT_KEY
  validate_certs:
    description: Verify the gateway's certificate. Turning this off gives the token to whoever answers.
    type: bool
    default: true
    env:
      - name: BETA9_VALIDATE_CERTS
  timeout:
    description: Seconds to wait for one answer.
    type: int
    default: 10
  retries:
    description: How often the request is sent again after an error that may pass.
    type: int
    default: 2
  pools:
    description: Only machines of these pools. All pools if empty.
    type: list
    elements: str
    default: []
  hosts:
    description:
      - Inventory names of machines, by machine id.
      - A machine that is not in it belongs to the host whose variable C(beta9_machine_id) has its id (set in the
        inventory file itself).
      - What a host's facts say is not asked. A host that claims another one's machine would come into its groups, and
        so to their variables.
    type: dict
    default: {}
  unmatched:
    description: What becomes of a machine that no known host has. V(add) makes a host named by the machine's id,
      V(skip) leaves it out.
    type: str
    choices: [add, skip]
    default: add
"""

EXAMPLES = r"""
# beta9.yml: address and token come from BETA9_GATEWAY_URL and BETA9_TOKEN
plugin: beta9.workers.machines

---
# inventory/20-beta9.yml beside inventory/10-static.yml:
# the hosts stay those of the static file, and get to know their machines
plugin: beta9.workers.machines
gateway_url: http://gateway.example.com:31994
token_file: ~/.beta9/admin_token
pools: [gpu]
unmatched: skip
hosts:
  1165a9b6: gpu-01
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/beta9-inventory
cache_timeout: 60
keyed_groups:
  - prefix: agent
    key: beta9_machine.agent_version
groups:
  idle: beta9_machine.metrics.container_count | default(0) == 0
"""

import hashlib
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleParserError
from ansible.inventory.group import to_safe_group_name
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible_collections.beta9.workers.plugins.module_utils.gateway import api, protocol


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """machines -> hosts of known names, or of their own; groups; what the user constructs."""

    NAME = "beta9.workers.machines"

    def verify_file(self, path: str) -> bool:
        """Say whether the file is meant for this plugin, by its name."""
        return super().verify_file(path) and path.endswith(("beta9.yml", "beta9.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Add the gateway's machines to the inventory."""
        super().parse(inventory, loader, path, cache)
        config = self._read_config_data(path)
        unknown = sorted(set(config) - set(C.config.get_configuration_definitions("inventory", self._load_name)))
        if unknown:
            raise AnsibleParserError(f"expected options of beta9.workers.machines, found {', '.join(unknown)}")
        try:
            machines = self._machines(path, cache)
        except (api.GatewayError, protocol.InvalidField) as error:
            raise AnsibleParserError(str(error)) from None
        self._populate(machines)

    def _machines(self, path: str, cache: bool) -> list[dict[str, Any]]:
        """Return the machines, sorted, from the cache where that is wanted. Nothing secret is in them: the client drops
        it."""
        pools = sorted({protocol.pool_name(name) for name in self.get_option("pools")})
        wanted = f"{self.get_option('gateway_url')} {' '.join(pools)}"
        key = f"{self.get_cache_key(path)}_{hashlib.sha256(wanted.encode()).hexdigest()[:12]}"
        cached = self.get_option("cache")
        if cached and cache:
            try:
                return self._cache[key]
            except KeyError:  # not there, or too old
                pass
        client = api.client_from_params({name: self.get_option(name) for name in api.GATEWAY_ARGUMENT_SPEC})
        found = [machine for pool in pools or (None,) for machine in client.list_machines(pool)]
        if client.dropped:
            self.display.warning(protocol.dropped_words(client.dropped))
        machines = sorted(found, key=lambda machine: (machine["pool"], machine["id"]))
        if cached:
            self._cache[key] = machines
        return machines

    def _owners(self) -> dict[str, list[str]]:
        """Return {machine id: [inventory names]} of what is known before the gateway is asked."""
        owners: dict[str, list[str]] = {}
        given = {name: str(identity) for identity, name in self.get_option("hosts").items()}
        for name in sorted(set(self.inventory.hosts) | set(given)):
            identity = given.get(name)
            if not identity and name in self.inventory.hosts:
                identity = self.inventory.hosts[name].get_vars().get("beta9_machine_id")
            if identity:
                owners.setdefault(str(identity), []).append(name)
        return owners

    def _populate(self, machines: list[dict[str, Any]]) -> None:
        owners, known = self._owners(), set(self.inventory.hosts)
        top = self.inventory.add_group("beta9_machines")
        for machine in machines:
            names = owners.pop(machine["id"], [])
            if len(names) > 1:
                self.display.warning(
                    f"machine {machine['id']}: expected one host, found {', '.join(names)}. A copied disk image has a "
                    f"copied identity"
                )
            if not names and self.get_option("unmatched") == "add":
                if machine["id"] in known:
                    self.display.warning(
                        f"machine {machine['id']}: a host of this name is known, and no mapping says that it is this "
                        f"machine: left out"
                    )
                    continue
                names = [machine["id"]]
            for name in names:
                pool = self._group("beta9_pool_" + (machine["pool"] or "none"))
                self.inventory.add_child(top, pool)
                self.inventory.add_host(name, group=pool)
                self.inventory.add_host(name, group=self._group("beta9_status_" + machine["status"]))
                if machine["gpu"]:
                    self.inventory.add_host(name, group=self._group("beta9_gpu_" + machine["gpu"]))
                self.inventory.set_variable(name, "beta9_machine", machine)
                self._construct(name)
        # with pools given, another pool's machine was not asked for, which is not the same as absent
        for names in [] if self.get_option("pools") else owners.values():
            for name in names:
                self.inventory.add_host(name, group=self._group("beta9_status_absent"))

    def _group(self, name: str) -> str:
        return self.inventory.add_group(to_safe_group_name(name, force=True, silent=True))

    def _construct(self, name: str) -> None:
        compose, groups, keyed = (self.get_option(option) for option in ("compose", "groups", "keyed_groups"))
        if not (compose or groups or keyed):
            return
        strict = self.get_option("strict")
        self._set_composite_vars(compose, self.inventory.get_host(name).get_vars(), name, strict=strict)
        variables = self.inventory.get_host(name).get_vars()
        self._add_host_to_composed_groups(groups, variables, name, strict=strict)
        self._add_host_to_keyed_groups(keyed, variables, name, strict=strict)
