# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The API of the k3s of this host: calls, and what its kubectl answers."""

from __future__ import annotations

import glob
import hashlib
import http.client
import json
import re
import socket
import ssl
from typing import Any

from ansible_collections.beta9.workers.plugins.module_utils import exchange

API = "https://127.0.0.1:6443"
CA = "/var/lib/rancher/k3s/server/tls/server-ca.crt"
CONFIG = "/etc/rancher/k3s/config.yaml"
# kubectl would leave a cache in the home directory; /run/k3s goes with k3s
KUBECTL_OPTIONS = ("--request-timeout=5s", "--cache-dir=/run/k3s/beta9-kubectl")


def failing_parts(text: str) -> list:
    """Return the parts of /readyz?verbose that are not ready, by name. kubectl tells them on one line, with escaped
    line ends."""
    return re.findall(r"\[-\]([^\s\\]+)", text)


def complaint(errors: str) -> str:
    """Return the last line that kubectl wrote to stderr besides its warnings."""
    lines = [line.strip() for line in errors.splitlines() if line.strip() and not line.startswith("Warning:")]
    return (lines or ["no answer"])[-1][:200]


def node_name() -> str:
    """Return the name of this host's Node: the last that k3s' settings have, else the host's."""
    for path in sorted(glob.glob(CONFIG + ".d/*.yaml"), reverse=True) + [CONFIG]:
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                match = re.search(r"^node-name:\s*[\"']?([^\s\"'#]+)", stream.read(), re.M)
        except OSError:
            continue
        if match:
            return match.group(1)
    return socket.gethostname().lower()


def own_node(items: list) -> tuple:
    """Return (this host's Node or None, names of other Nodes) of a list of Nodes. The only one is this host's by
    whatever name."""
    name = node_name()
    own = next((item for item in items if item["metadata"]["name"] == name), items[0] if len(items) == 1 else None)
    return own, [item["metadata"]["name"] for item in items if item is not own]


def certificate(host: str, port: int, seconds: float) -> str:
    """Return the SHA-256 of the certificate that a k3s shows there, whoever made it. Raises OSError without an answer.

    ssl.get_server_certificate() takes a timeout from Python 3.10 on only.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is looked at, and nothing is sent
    with socket.create_connection((host, port), timeout=seconds) as plain:
        with context.wrap_socket(plain, server_hostname=host) as connection:
            return hashlib.sha256(connection.getpeercert(True) or b"").hexdigest()


def ask(method: str, path: str, token: str | None, body: object = None, timeout: float = 5) -> tuple[int, Any]:
    """Return (status, document) of a call to the API of this host, whose own CA has to vouch for it. Raises OSError
    without an answer."""
    context = ssl.create_default_context(cafile=CA)
    # Python 3.13 asks for what the public's authorities have to put into a certificate; this one is the host's own
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        answer = exchange.exchange(method, API + path, timeout, headers, data, context)
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP answer: {error!r}") from None
    try:
        return answer.status, json.loads(answer.body)
    except (ValueError, RecursionError):
        return answer.status, {}
