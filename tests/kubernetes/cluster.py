"""A real Kubernetes API on loopback addresses: etcd, API server and controller manager, without any node.

No kubelet runs: it would change this machine's kernel settings. What a kubelet says of pods is written into their status, and the
one answer that the API server fetches from a node, a container's log, comes from a TEST DOUBLE of the kubelet's HTTPS port.
"""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import pathlib
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

from tests.kubernetes import build

ADMIN = "canary-admin-0123456789"


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        return stream.getsockname()[1]


def own_address() -> str:
    """Return an address of this machine that is not loopback: Kubernetes takes no other for a pod."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
        stream.connect(("192.0.2.1", 9))  # sends nothing
        return stream.getsockname()[0]


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)


class Cluster:
    """One version's API. Use as a context; everything of it ends with the block."""

    def __init__(self, version: str, directory: pathlib.Path):
        self.version, self.directory = version, directory
        self.programs = build.folder(version)
        self.port, self.url = free_port(), ""
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca_path = directory / "apiserver.crt"
        self.kubectl = self.programs / "kubectl"
        self._running: list[subprocess.Popen] = []

    def __enter__(self) -> "Cluster":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_error) -> None:
        for process in reversed(self._running):
            process.terminate()
        for process in reversed(self._running):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=5)
            if process.poll() is None:
                process.kill()

    def run(self, name: str, *words: str) -> None:
        """Start a program; its log is NAME.log."""
        with (self.directory / (name + ".log")).open("wb") as log:
            path = str(build.etcd() if name == "etcd" else self.programs / name)
            self._running.append(subprocess.Popen([path, *words], stdout=log, stderr=log, cwd=self.directory))

    def _start(self) -> None:
        folder, etcd, peer = self.directory, free_port(), free_port()
        openssl("genrsa", "-out", str(folder / "sa.key"), "2048")
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        names = "subjectAltName=IP:127.0.0.1,DNS:localhost"
        openssl("req", "-x509", *curve, "-subj", "/CN=kubernetes", "-addext", names, "-keyout", str(folder / "apiserver.key"), "-out", str(self.ca_path))
        (folder / "tokens.csv").write_text(f'{ADMIN},admin,admin,"system:masters"\n')
        listen = f"http://127.0.0.1:{etcd}"
        other = f"http://127.0.0.1:{peer}"
        self.run(
            "etcd",
            *("--data-dir", str(folder / "etcd"), "--listen-client-urls", listen, "--advertise-client-urls", listen),
            *("--listen-peer-urls", other, "--initial-advertise-peer-urls", other, "--initial-cluster", f"default={other}"),
            *("--unsafe-no-fsync",) if self._has_unsafe() else (),
        )
        self.run(
            "kube-apiserver",
            *(f"--etcd-servers={listen}", f"--secure-port={self.port}", "--bind-address=127.0.0.1", f"--cert-dir={folder / 'certs'}"),
            *(f"--tls-cert-file={self.ca_path}", f"--tls-private-key-file={folder / 'apiserver.key'}", f"--token-auth-file={folder / 'tokens.csv'}"),
            *("--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={folder / 'sa.key'}"),
            *(f"--service-account-signing-key-file={folder / 'sa.key'}", "--service-cluster-ip-range=10.99.0.0/24", "--authorization-mode=RBAC"),
            *("--allow-privileged", "--endpoint-reconciler-type=none", "--anonymous-auth=false", "--event-ttl=1m"),
        )
        self.wait(lambda: self.call("GET", "/readyz")[0] == 200, 90, "kube-apiserver")
        self.run(
            "kube-controller-manager",
            *(f"--kubeconfig={self.kubeconfig('admin', ADMIN)}", f"--service-account-private-key-file={folder / 'sa.key'}", "--leader-elect=false"),
            *(f"--root-ca-file={self.ca_path}", "--use-service-account-credentials=false", "--secure-port=0", f"--cert-dir={folder / 'certs'}"),
        )
        self.wait(lambda: self.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")[0] == 200, 60, "kube-controller-manager")

    @staticmethod
    def _has_unsafe() -> bool:
        return "unsafe-no-fsync" in subprocess.run([str(build.etcd()), "--help"], capture_output=True, text=True, check=False).stdout

    def wait(self, condition, seconds: float, name: str) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + seconds
        while not condition():
            log = self.directory / (name + ".log")
            assert time.monotonic() < deadline, f"{name}: " + (log.read_text()[-3000:] if log.exists() else "not so in time")
            time.sleep(0.1)

    def call(self, method: str, path: str, body=None, token: str = ADMIN, kind: str = "application/json") -> tuple:
        """Return (status, document) of a request; status 0 without an answer."""
        context = ssl.create_default_context(cafile=str(self.ca_path))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers, method=method), timeout=10, context=context) as answer:
                status, text = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        except OSError:
            return 0, {}
        try:
            return status, json.loads(text)
        except ValueError:
            return status, {"text": text.decode()}

    def make(self, path: str, body: dict) -> dict:
        """Create an object; return it."""
        status, found = self.call("POST", path, body)
        assert status == 201, found
        return found

    def patch(self, path: str, body: dict) -> None:
        """Change an object, or its status by path/status."""
        status, found = self.call("PATCH", path, body, kind="application/strategic-merge-patch+json")
        assert status == 200, found

    def kubeconfig(self, name: str, token: str, server: str = "", namespace: str = "default") -> str:
        """Write a kubeconfig; return its path."""
        authority = base64.b64encode(self.ca_path.read_bytes()).decode()
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": server or self.url, "certificate-authority-data": authority}}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": namespace}}],
        }
        path = self.directory / f"{name}.kubeconfig"
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        return str(path)


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers every GET with the server's (status, text)."""

    def do_GET(self):
        status, text = self.server.answer(self.path)
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args):
        pass


@contextlib.contextmanager
def serving(answer, address: str = "127.0.0.1", certificate: tuple | None = None):
    """Yield the port of a server whose answers are answer(path) -> (status, text); over TLS with (certificate, key)."""
    server = http.server.ThreadingHTTPServer((address, 0), Answers)
    server.answer, server.daemon_threads = answer, True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*map(str, certificate))
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
