# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
name: valid
short_description: A value that may be written into a file, or an error that names what is wrong with it
version_added: "0.1.0"
description:
  - Internal to the roles and playbooks of this collection.
  - Returns the value as it is to be written where it fits the grammar. Anything else, such as a second line in what
    should be a host's name, is an error with what was expected and found.
author:
  - beta9.workers authors (@beta9)
positional: grammar, variable
options:
  _input:
    description: The value.
    type: raw
    required: true
  grammar:
    description: What the value is.
    type: str
    required: true
    choices:
      - address
      - cpu
      - forwards
      - gpu_ids
      - host
      - host_port
      - image
      - interface
      - listen_address
      - log_format
      - machine_id
      - memory
      - network
      - own_account
      - path
      - pool_name
      - port
      - provider_name
      - public_key
      - repository_url
      - seconds
      - url
      - user_name
      - word
      - worker_name
  variable:
    description: Name of the variable that the value comes from, for the error.
    type: str
    required: true
"""

EXAMPLES = r"""
line: "User {{ autossh_gateway_user | beta9.workers.valid('user_name', 'autossh_gateway_user') }}"
"""

RETURN = r"""
_value:
  description: The value, in its usual form.
  type: raw
"""

from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.beta9.workers.plugins.module_utils import grammar as grammars


def valid(value: object, grammar: str, variable: str) -> Any:
    """Return value in its usual form, or raise AnsibleFilterError."""
    try:
        return grammars.GRAMMARS[grammar](value, variable)
    except KeyError:
        raise AnsibleFilterError(
            f"valid: expected one of {', '.join(sorted(grammars.GRAMMARS))}, found {grammar!r}"
        ) from None
    except grammars.InvalidField as error:
        raise AnsibleFilterError(f"{error}. Correct {variable}.") from None


class FilterModule:
    """The filter valid."""

    def filters(self) -> dict:
        """Return it."""
        return {"valid": valid}
