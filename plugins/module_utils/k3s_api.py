# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A call to the API of the k3s of this host."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request

API = "https://127.0.0.1:6443"
CA = "/var/lib/rancher/k3s/server/tls/server-ca.crt"


def ask(method, path, token, body=None, timeout=5):
    """Return (status, document) of a call to the API of this host, whose own CA has to vouch for it. Raises OSError without an answer."""
    context = ssl.create_default_context(cafile=CA)
    # Python 3.13 asks for what the public's authorities have to put into a certificate; this one is the host's own
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    headers = {"Authorization": "Bearer %s" % token, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with opener.open(urllib.request.Request(API + path, data=data, headers=headers, method=method), timeout=timeout) as answer:
            status, text = answer.getcode(), answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    except http.client.HTTPException as error:
        raise OSError("no HTTP answer: %r" % error) from None
    try:
        return status, json.loads(text)
    except ValueError:
        return status, {}
