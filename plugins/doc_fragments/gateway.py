# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """How a module reaches the gateway. Mirrors module_utils/gateway/api.py: GATEWAY_ARGUMENT_SPEC."""

    DOCUMENTATION = r"""
options:
  gateway_url:
    description:
      - Address of the gateway's HTTP port, like C(http://gateway.example.com:31994).
      - Set it once for all modules of the action group with C(module_defaults) C(group/beta9.workers.gateway), or as
        environment variable C(BETA9_GATEWAY_URL).
      - Operator modules go by the proxy of the environment (C(http_proxy), C(https_proxy)), except to loopback and what
        C(no_proxy) names. Worker modules never do.
    type: str
  token:
    description:
      - Token for the gateway. Operator modules need a cluster admin's, worker modules the machine's.
      - If left out, environment variable C(BETA9_TOKEN) or O(token_file) is used.
    type: str
  token_file:
    description: File that holds the token, on the host where the module runs. Environment variable C(BETA9_TOKEN_FILE).
    type: path
  ca_path:
    description: File of CA certificates to trust. Environment variable C(BETA9_CA_PATH).
    type: path
  client_cert:
    description: File of the client certificate, PEM. Environment variable C(BETA9_CLIENT_CERT).
    type: path
  client_key:
    description: File of the client certificate's key, PEM. Environment variable C(BETA9_CLIENT_KEY).
    type: path
  validate_certs:
    description: Verify the gateway's certificate. Turning this off gives the token to whoever answers. Environment
      variable C(BETA9_VALIDATE_CERTS).
    type: bool
    default: true
  timeout:
    description: Seconds for one answer, from the connection to its last byte.
    type: int
    default: 10
  retries:
    description: How often a request is sent again after an error that may pass. A machine is never created twice.
    type: int
    default: 2
"""
