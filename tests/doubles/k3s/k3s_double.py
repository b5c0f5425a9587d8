"""A TEST DOUBLE of the k3s program and its API: enough for what the health check and the gateway ask.

State is read from /etc/beta9-k3s-double.json at every call: {"readyz": [failing parts], "node_ready": true, "allocatable": 2,
"token": "...", "allowed": ["create jobs", ...], "kernel_missing": []}. `k3s server` serves the API with the certificate
/etc/beta9-k3s-double.pem on port 6443 of the loopback address.
"""

import http.server
import json
import ssl
import sys

STATE = "/etc/beta9-k3s-double.json"


def state():
    with open(STATE, encoding="utf-8") as stream:
        return json.load(stream)


class Api(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Authorization") != "Bearer " + state()["token"]:
            return self.answer(401, {"kind": "Status", "message": "Unauthorized"})
        wish = json.loads(raw)["spec"]["resourceAttributes"]
        return self.answer(201, {"status": {"allowed": "%s %s" % (wish["verb"], wish["resource"]) in state()["allowed"]}})

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


def serve():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/etc/beta9-k3s-double.pem")
    server = Server(("127.0.0.1", 6443), Api)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.serve_forever()


def kubectl(words):
    if "/readyz?verbose" in words:
        failing = state()["readyz"]
        print("[+]ping ok")
        for part in failing:
            print("[-]%s failed: reason withheld" % part)
        print("readyz check %s" % ("failed" if failing else "passed"))
        return 1 if failing else 0
    if "nodes" in words:
        ready = state()["node_ready"]
        print(
            json.dumps(
                {
                    "items": [
                        {
                            "metadata": {"name": "node"},
                            "status": {
                                "allocatable": {"nvidia.com/gpu": str(state()["allocatable"])},
                                "conditions": [
                                    {
                                        "type": "Ready",
                                        "status": "True" if ready else "False",
                                        "reason": "KubeletNotReady",
                                        "message": "container runtime is down",
                                    }
                                ],
                            },
                        }
                    ]
                }
            )
        )
        return 0
    return 1


def main():
    words = sys.argv[1:]
    if words[:1] == ["server"]:
        serve()
    if words[:1] == ["--version"]:
        print("k3s version v0.0.0 (TEST DOUBLE)")
        return 0
    if words[:1] == ["check-config"]:
        missing = state()["kernel_missing"]
        for part in missing:
            print("- %s: missing (fail)" % part)
        return 1 if missing else 0
    return kubectl(words[1:]) if words[:1] == ["kubectl"] else 1


sys.exit(main())
