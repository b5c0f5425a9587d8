# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: connection
short_description: What follows for a host from how it is connected to the gateway
version_added: "0.2.0"
description:
  - Internal to the roles of this collection.
  - Answers from a table of the modes and the host's variables on the controller. No host is asked.
author:
  - beta9.workers authors (@beta9)
options:
  _terms:
    description: One field of the table, such as V(gateway_url), V(hostname), V(role). V(name) is the mode itself.
    type: list
    elements: str
    required: true
  mode:
    description: The mode. By default the one of C(beta9_connection).
    type: str
  host:
    description: The inventory's name of the host. By default the one whose task it is.
    type: str
  default:
    description: What to return where the value is not known yet. Without it, that is an error.
    type: str
"""

EXAMPLES = r"""
- name: Show the gateway as the worker reaches it
  ansible.builtin.debug:
    msg: "{{ lookup('beta9.workers.connection', 'gateway_url') }}"
"""

RETURN = r"""
_raw:
  description: The value.
  type: raw
"""

from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.beta9.workers.plugins.module_utils import connections


class LookupModule(LookupBase):
    """Read the table with the host's variables."""

    def run(self, terms: list, variables: Any = None, **kwargs: Any) -> list:
        """Return [the value], or raise AnsibleLookupError."""
        self.set_options(var_options=variables, direct=kwargs)
        host = self.get_option("host")

        def read(name: str) -> Any:
            if host:
                return variables["hostvars"][host].get(name)
            return self._templar.template(variables[name]) if name in variables else None

        mode = self.get_option("mode") or read("beta9_connection") or connections.DEFAULT
        value = connections.value(mode, terms[0], read)
        if value is None:
            value = self.get_option("default")
        if value is None and mode not in connections.BY_NAME:
            raise AnsibleLookupError(
                f"beta9_connection: expected one of {', '.join(connections.BY_NAME)}, found {mode}"
            )
        if value is None:
            source = (
                f"role {connections.of(mode).role}, which has to run before"
                if connections.of(mode).role
                else "beta9_gateway_url"
            )
            raise AnsibleLookupError(
                f"{host or variables.get('inventory_hostname')}: expected {terms[0]} from {source}, found nothing"
            )
        return [value]
