"""A TEST DOUBLE of the one call of k3s's API that the agent makes: the pods of Jobs in "default", over TLS, for one token.

with PodsDouble(directory, token, pods) as k3s: ...   # k3s.url, k3s.ca_path; k3s.status replaces the answer's status
"""

from __future__ import annotations

import http.server
import json
import pathlib
import ssl
import subprocess
import threading
from urllib.parse import parse_qs, urlsplit


def pod(number, containers=1):
    """Return a running pod as the API has it, with the fields that make real ones long."""
    name, parts = "worker-%d" % number, range(containers)
    variables = [{"name": "N%d" % at, "value": "v" * 40} for at in range(20)]
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    return {
        "metadata": {"name": name, "namespace": "default", "labels": {"job-name": name}, "ownerReferences": [{"kind": "Job", "name": name}]},
        "spec": {"hostNetwork": True, "containers": [{"name": "c%d" % at, "env": variables} for at in parts]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c%d" % at, "state": running} for at in parts]},
    }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url, double = urlsplit(self.path), self.server.double
        query = parse_qs(url.query)
        if self.headers.get("Authorization") != "Bearer " + double.token:
            return self.answer(401, {"kind": "Status", "message": "Unauthorized"})
        if url.path != "/api/v1/namespaces/default/pods":
            return self.answer(403, {"kind": "Status", "message": "forbidden"})
        wanted = query.get("labelSelector") == ["job-name"] and query.get("fieldSelector") == ["status.phase=Running"]
        return self.answer(double.status, {"kind": "PodList", "items": double.pods if wanted else []})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Say nothing: a client that does not trust this server goes away."""


class PodsDouble:
    def __init__(self, directory, token, pods):
        self.token, self.pods, self.status = token, pods, 200
        folder = pathlib.Path(directory)
        self.ca_path = str(folder / "k3s.pem")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=k3s"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(folder / "k3s.key"), "-out", self.ca_path]
        subprocess.run(command, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.ca_path, folder / "k3s.key")
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.double = self
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = "https://127.0.0.1:%d" % self._server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error):
        self._server.shutdown()
        self._server.server_close()
