"""A TEST DOUBLE of the k3s program and its API: enough for what the health check and the gateway ask.

State is read from /etc/beta9-k3s-double.json at every call: {"readyz": [failing parts], "node_ready": true, "allocatable": 2,
"token": "...", "allowed": ["create jobs", ...], "kernel_missing": [], "pods": "complete"|"image"|"unschedulable"|"pending"}. `k3s server` serves the API with the certificate
/etc/beta9-k3s-double.pem on port 6443 of the loopback address, or of "listen" (k3s itself listens on all).
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
    jobs = {}

    def refused(self, wish):
        """Answer as k3s does where the token is unknown or may not do this; return whether that was the case."""
        if self.headers.get("Authorization") != "Bearer " + state()["token"]:
            self.answer(401, {"kind": "Status", "message": "Unauthorized"})
        elif wish and wish not in state()["allowed"]:
            self.answer(403, {"kind": "Status", "message": "%s is forbidden" % wish})
        else:
            return False
        return True

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        if self.path.endswith("/jobs"):
            if not self.refused("create jobs"):
                self.jobs[body["metadata"]["name"]] = body
                self.answer(201, body)
        elif not self.refused(""):
            wish = body["spec"]["resourceAttributes"]
            self.answer(201, {"status": {"allowed": "%s %s" % (wish["verb"], wish["resource"]) in state()["allowed"]}})

    def do_GET(self):
        path, _mark, query = self.path.partition("?")
        kind = path.rpartition("/")[2]
        if self.refused("list " + kind):
            return
        name = query.rpartition("%3D")[2]
        fate = state().get("pods", "complete")
        items = []
        if name in self.jobs:
            waiting = {"reason": "ErrImagePull", "message": "failed to pull image: i/o timeout"}
            unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."}
            status = {
                "complete": {"phase": "Succeeded"},
                "image": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]},
                "unschedulable": {"phase": "Pending", "conditions": [unscheduled]},
                "pending": {"phase": "Pending"},
            }[fate]
            items = [{"status": status if kind == "pods" else {"succeeded": 1} if fate == "complete" else {"active": 1}}]
        self.answer(200, {"items": items})

    def do_DELETE(self):
        if not self.refused("delete jobs"):
            self.jobs.pop(self.path.partition("?")[0].rpartition("/")[2], None)
            self.answer(200, {"status": "Success"})

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
    server = Server((state().get("listen", "127.0.0.1"), 6443), Api)
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
