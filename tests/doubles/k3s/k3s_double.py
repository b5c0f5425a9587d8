"""A TEST DOUBLE of the k3s program: server with HTTPS API, RBAC and auto-deployed manifests; kubectl; check-config; --version.

It does what the roles, the health check and the gateway ask for, with the real paths, object shapes and refusals, and nothing runs
in a container: a Job is complete when it is old enough. Real k3s needs a kernel of its own; this needs Python and openssl.

/etc/beta9-k3s-double.json, read at every call, may hold any of: {"readyz": [failing parts], "node_ready": true, "allocatable": 2,
"kernel_missing": [], "pods": "complete"|"image"|"unschedulable"|"pending", "token": "...", "allowed": ["create jobs", ...]}.
With "token", that token and the list "allowed" take the place of service accounts and RBAC, and kubectl answers without the server;
then /etc/beta9-k3s-double.pem is the certificate, and only the loopback address is bound, or that of "listen".

release.py puts this file into an executable archive, as the release of a version that it writes here.
"""

import base64
import calendar
import glob
import hashlib
import http.server
import json
import os
import secrets
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

VERSION = "v0.0.0"
FAULT = ""  # "never-ready": the API stays unready; "crash": ends at once
STATE, PEM = "/etc/beta9-k3s-double.json", "/etc/beta9-k3s-double.pem"
CONFIG, KUBECONFIG = "/etc/rancher/k3s/config.yaml", "/etc/rancher/k3s/k3s.yaml"
DATA = "/var/lib/rancher/k3s"
TLS, DATABASE, MANIFESTS = DATA + "/server/tls", DATA + "/server/db/state.json", DATA + "/server/manifests"
RUNTIME = "/usr/bin/nvidia-container-runtime"
KINDS = {
    "ServiceAccount": ("", "serviceaccounts"),
    "Secret": ("", "secrets"),
    "Pod": ("", "pods"),
    "Namespace": ("", "namespaces"),
    "Job": ("batch", "jobs"),
    "DaemonSet": ("apps", "daemonsets"),
    "Role": ("rbac.authorization.k8s.io", "roles"),
    "RoleBinding": ("rbac.authorization.k8s.io", "rolebindings"),
    "ClusterRoleBinding": ("rbac.authorization.k8s.io", "clusterrolebindings"),
    "RuntimeClass": ("node.k8s.io", "runtimeclasses"),
}
CLUSTER_WIDE = ("namespaces", "nodes", "clusterrolebindings", "runtimeclasses")


def state():
    """Return what the test wants, {} when it wants nothing special."""
    try:
        with open(STATE, encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        return {}


def version_key(text):
    return [int(part) for part in text.lstrip("v").replace("+k3s", ".").split(".")]


def write(path, text, mode=0o600):
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.replace(path + ".new", path)


class Cluster:
    """The objects, what becomes of them, and who may do what with them."""

    def __init__(self):
        self.lock = threading.RLock()
        self.started = time.time()
        self.runtime = os.path.exists(RUNTIME)
        self.objects, self.owned = {}, {}
        if os.path.exists(DATABASE):
            with open(DATABASE, encoding="utf-8") as stream:
                saved = json.load(stream)
            if version_key(saved["schema"]) > version_key(VERSION):
                sys.exit("the database was written by %s, which %s can't read" % (saved["schema"], VERSION))
            self.objects, self.owned = saved["objects"], saved["owned"]
        self.save()

    def save(self):
        write(DATABASE, json.dumps({"schema": VERSION, "objects": self.objects, "owned": self.owned}))

    # -- objects --

    @staticmethod
    def key(group, resource, namespace, name):
        return "|".join((group, resource, "" if resource in CLUSTER_WIDE else namespace, name))

    def find(self, group, resource, namespace=None):
        """Return the objects of a resource, of one namespace or of all."""
        rows = [(key.split("|"), value) for key, value in sorted(self.objects.items())]
        return [value for parts, value in rows if parts[:2] == [group, resource] and namespace in (None, parts[2])]

    def put(self, group, resource, namespace, item):
        meta = item["metadata"]
        if resource not in CLUSTER_WIDE:
            meta["namespace"] = namespace
        old = self.objects.get(self.key(group, resource, namespace, meta["name"]))
        meta["creationTimestamp"] = old["metadata"]["creationTimestamp"] if old else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if old and "data" in old:
            item.setdefault("data", old["data"])
        self.objects[self.key(group, resource, namespace, meta["name"])] = item
        return item

    # -- controllers --

    def deploy(self):
        """Apply what is in the directory of manifests; what a file no longer names is deleted, as k3s does."""
        import yaml  # in the release's archive

        for path in sorted(glob.glob(MANIFESTS + "/*.yaml")):
            with open(path, encoding="utf-8") as stream:
                text = stream.read()
            digest = hashlib.sha256(text.encode()).hexdigest()
            if self.owned.get(path, {}).get("digest") == digest:
                continue
            keys = []
            for item in yaml.safe_load_all(text):
                if item:
                    group, resource = KINDS[item["kind"]]
                    namespace = item["metadata"].get("namespace", "default")
                    self.put(group, resource, namespace, item)
                    keys.append(self.key(group, resource, namespace, item["metadata"]["name"]))
            for key in set(self.owned.get(path, {}).get("keys", [])) - set(keys):
                self.objects.pop(key, None)
            self.owned[path] = {"digest": digest, "keys": keys}
            self.save()

    def fill_tokens(self):
        """Give every service-account token Secret its token, once its account exists."""
        for secret in self.find("", "secrets"):
            meta = secret["metadata"]
            account = (meta.get("annotations") or {}).get("kubernetes.io/service-account.name")
            known = self.key("", "serviceaccounts", meta["namespace"], account or "") in self.objects
            if secret.get("type") == "kubernetes.io/service-account-token" and known and not secret.get("data"):
                token = "eyJ" + secrets.token_urlsafe(96)
                secret["data"] = {"token": base64.b64encode(token.encode()).decode(), "namespace": base64.b64encode(meta["namespace"].encode()).decode()}
                self.save()

    def control(self):
        while True:
            time.sleep(0.5)
            with self.lock:
                self.fill_tokens()  # before deploy: a token is there some time after its Secret, not at once
                self.deploy()

    # -- what kubelet and scheduler would say --

    def failing(self):
        return ["poststarthook/rbac/bootstrap-roles"] if FAULT == "never-ready" else state().get("readyz", [])

    def gpus(self):
        wish = state().get("allocatable")
        if wish is not None:
            return wish
        plugins = [entry["spec"]["template"]["spec"] for entry in self.find("apps", "daemonsets")]
        plugins = [spec for spec in plugins if "device-plugin" in spec["containers"][0]["image"] and spec.get("runtimeClassName") == "nvidia"]
        if not (plugins and self.runtime and any(entry["metadata"]["name"] == "nvidia" for entry in self.find("node.k8s.io", "runtimeclasses"))):
            return 0
        found = 0
        for path in glob.glob("/sys/bus/pci/devices/*/vendor"):
            with open(path, encoding="ascii") as stream:
                found += stream.read().strip() == "0x10de"
        return found

    def node(self):
        ready = state().get("node_ready", True) and FAULT != "never-ready" and time.time() - self.started > 0.5
        condition = {"type": "Ready", "status": "True" if ready else "False", "reason": "KubeletReady" if ready else "KubeletNotReady"}
        condition["message"] = "kubelet is posting ready status" if ready else "container runtime is down"
        status = {"conditions": [condition], "allocatable": {"cpu": str(os.cpu_count()), "nvidia.com/gpu": str(self.gpus())}}
        status["nodeInfo"] = {"kubeletVersion": VERSION}
        return {"kind": "Node", "metadata": {"name": socket.gethostname()}, "status": status}

    def fate(self, job):
        """Return (job status, pod status)."""
        spec = job["spec"]["template"]["spec"]
        wish = state().get("pods", "complete")
        limits = [(container.get("resources") or {}).get("limits") or {} for container in spec["containers"]]
        if sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits) > self.gpus():
            wish = "unschedulable"
        age = time.time() - calendar.timegm(time.strptime(job["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ"))
        if wish == "complete" and age < 1:
            wish = "pending"
        waiting = {"reason": "ErrImagePull", "message": "failed to pull image: i/o timeout"}
        message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
        unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        pod = {
            "complete": {"phase": "Succeeded"},
            "image": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]},
            "unschedulable": {"phase": "Pending", "conditions": [unscheduled]},
            "pending": {"phase": "Pending"},
        }[wish]
        return ({"succeeded": 1} if wish == "complete" else {"active": 1}), pod

    def pods(self, namespace):
        """Return a pod for every Job."""
        found = []
        for job in self.find("batch", "jobs", namespace):
            template, name = job["spec"]["template"], job["metadata"]["name"]
            labels = dict((template.get("metadata") or {}).get("labels") or {}, **{"job-name": name})
            meta = {"name": name + "-double", "namespace": job["metadata"]["namespace"], "labels": labels}
            found.append({"kind": "Pod", "metadata": meta, "spec": template["spec"], "status": self.fate(job)[1]})
        return found

    # -- who, and what they may --

    def user(self, header):
        """Return the user's name of an Authorization header, or None."""
        scheme, _space, token = (header or "").partition(" ")
        if scheme != "Bearer":
            return None
        if "token" in state():
            return "static" if token == state()["token"] else None
        if token == admin_token():
            return "system:admin"
        for secret in self.find("", "secrets"):
            if (secret.get("data") or {}).get("token") == base64.b64encode(token.encode()).decode():
                meta = secret["metadata"]
                return "system:serviceaccount:%s:%s" % (meta["namespace"], meta["annotations"]["kubernetes.io/service-account.name"])
        return None

    def allows(self, user, verb, group, resource, namespace):
        """Decide as RBAC does; resource may be "pods/exec"."""
        if user == "static":
            return "%s %s" % (verb, resource) in state()["allowed"]
        if user == "system:admin" or resource in ("selfsubjectaccessreviews", "selfsubjectrulesreviews"):
            return True

        def binds(binding):
            return any(
                "system:serviceaccount:%s:%s" % (subject.get("namespace") or binding["metadata"].get("namespace"), subject["name"]) == user
                for subject in binding.get("subjects") or []
            )

        rbac = "rbac.authorization.k8s.io"
        if any(binds(entry) and entry["roleRef"]["name"] == "cluster-admin" for entry in self.find(rbac, "clusterrolebindings")):
            return True
        for binding in self.find(rbac, "rolebindings", namespace) if namespace else []:
            role = self.objects.get(self.key(rbac, "roles", namespace, binding["roleRef"]["name"]))
            for rule in (role or {}).get("rules") or [] if binds(binding) else []:
                if group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]:
                    return True
        return False


def admin_token():
    try:
        with open(KUBECONFIG, encoding="utf-8") as stream:
            return json.load(stream)["users"][0]["user"]["token"]
    except (FileNotFoundError, KeyError, ValueError):
        return None


class Api(http.server.BaseHTTPRequestHandler):
    """HTTP in, objects out."""

    cluster = None
    VERBS = {"GET": "list", "POST": "create", "DELETE": "delete", "PUT": "update", "PATCH": "patch"}

    def serve(self):
        path, _mark, query = self.path.partition("?")
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        with self.cluster.lock:
            user = self.cluster.user(self.headers.get("Authorization"))
            if user is None:
                return self.answer(401, {"kind": "Status", "message": "Unauthorized"})
            if path in ("/readyz", "/livez", "/healthz"):
                return self.ready()
            if path == "/version":
                return self.answer(200, {"gitVersion": VERSION, "platform": "linux/amd64"})
            return self.resource(user, path, query, body)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = serve

    def ready(self):
        failing = self.cluster.failing()
        lines = ["[+]ping ok"] + ["[-]%s failed: reason withheld" % part for part in failing]
        self.text(500 if failing else 200, "\n".join(lines + ["readyz check %s" % ("failed" if failing else "passed"), ""]) if failing else "ok")

    def resource(self, user, path, query, body):
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "api":
            group, rest = "", parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, rest = parts[1], parts[3:]
        else:
            return self.answer(404, {"kind": "Status", "message": "not found"})
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource, name, sub = (rest + ["", ""])[:3]
        verb = "get" if self.command == "GET" and name else self.VERBS[self.command]
        full = resource + ("/" + sub if sub else "")
        review = resource == "selfsubjectaccessreviews"
        if not review and not self.cluster.allows(user, verb, group, full, namespace):
            where = "in the namespace %r" % namespace if namespace else "at the cluster scope"
            message = '%s is forbidden: User "%s" cannot %s resource "%s" in API group "%s" %s' % (full, user, verb, full, group, where)
            return self.answer(403, {"kind": "Status", "reason": "Forbidden", "message": message})
        if review:
            wish = body["spec"]["resourceAttributes"]
            target = wish["resource"] + ("/" + wish["subresource"] if wish.get("subresource") else "")
            allowed = self.cluster.allows(user, wish["verb"], wish.get("group", ""), target, wish.get("namespace", ""))
            return self.answer(201, dict(body, status={"allowed": allowed}))
        return self.act(verb, group, resource, namespace, name, query, body)

    def act(self, verb, group, resource, namespace, name, query, body):
        cluster = self.cluster
        if verb == "create":
            if cluster.key(group, resource, namespace, body["metadata"]["name"]) in cluster.objects:
                return self.answer(409, {"kind": "Status", "reason": "AlreadyExists", "message": "already exists"})
            cluster.put(group, resource, namespace, body)
            cluster.save()
            return self.answer(201, body)
        if verb == "delete":
            found = cluster.objects.pop(cluster.key(group, resource, namespace, name), None)
            cluster.save()
            return self.answer(200 if found else 404, {"kind": "Status", "status": "Success" if found else "Failure"})
        items = [cluster.node()] if resource == "nodes" else cluster.pods(namespace or None) if resource == "pods" else None
        if items is None:
            items = cluster.find(group, resource, None if resource in CLUSTER_WIDE else namespace or None)
        if resource == "jobs":
            items = [dict(item, status=cluster.fate(item)[0]) for item in items]
        if name:
            items = [item for item in items if item["metadata"]["name"] == name]
            return self.answer(200, items[0]) if items else self.answer(404, {"kind": "Status", "reason": "NotFound", "message": "%s not found" % name})
        for wish in urllib.parse.parse_qs(query).get("labelSelector", [""])[0].split(","):
            label, equals, value = wish.partition("=")
            items = [item for item in items if not equals or (item["metadata"].get("labels") or {}).get(label) == value]
        return self.answer(200, {"kind": "List", "items": items})

    def answer(self, status, body):
        self.text(status, json.dumps(body))

    def text(self, status, text):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args):
        pass


def configuration():
    """Return the merged configuration file and its drop-ins; the last value of a key counts."""
    found = {}
    for path in [CONFIG] + sorted(glob.glob(CONFIG + ".d/*.yaml")):
        if os.path.exists(path):
            import yaml

            with open(path, encoding="utf-8") as stream:
                found.update(yaml.safe_load(stream) or {})
    return found


def certificates(config):
    """Make the CA once, and a certificate for the names that k3s would put into it. Return the file of certificate and key."""
    os.makedirs(TLS, exist_ok=True)
    ca, key, pem, names = (os.path.join(TLS, name) for name in ("server-ca.crt", "server-ca.key", "serving.pem", "serving.names"))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    if not os.path.exists(ca):
        usage = "keyUsage=critical,digitalSignature,keyEncipherment,keyCertSign"
        openssl("req", "-x509", *curve, "-days", "3650", "-subj", "/CN=k3s-server-ca@%d" % time.time(), "-addext", usage, "-keyout", key, "-out", ca)
    wish = ["127.0.0.1", "::1", "localhost", "kubernetes", socket.gethostname()] + list(config.get("tls-san") or [])
    text = ",".join(("IP:" if name.replace(".", "").isdigit() or ":" in name else "DNS:") + name for name in wish)
    if not os.path.exists(names) or open(names, encoding="ascii").read() != text:
        request, leaf, own = pem + ".csr", pem + ".crt", pem + ".key"
        openssl("req", "-new", *curve, "-subj", "/O=k3s/CN=k3s", "-keyout", own, "-out", request)
        write(pem + ".ext", "subjectAltName=%s\nextendedKeyUsage=serverAuth\nauthorityKeyIdentifier=keyid\n" % text)
        openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", key, "-CAcreateserial", "-days", "365", "-extfile", pem + ".ext", "-out", leaf)
        write(pem, open(own, encoding="ascii").read() + open(leaf, encoding="ascii").read())
        write(names, text)
    return pem


def openssl(*words):
    subprocess.run(["openssl"] + list(words), check=True, capture_output=True)


def notify(text):
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stream:
            stream.sendto(text.encode(), "\0" + address[1:] if address[0] == "@" else address)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def serve():
    if FAULT == "crash":
        sys.exit("fatal: this release can't start")
    static = "token" in state()
    config = {} if static else configuration()
    pem = PEM if static else certificates(config)
    Api.cluster = Cluster()
    if not static:
        write(DATA + "/agent/etc/containerd/config.toml", "[runtimes.'nvidia']\n" if Api.cluster.runtime else "")
        if admin_token() is None:
            user = {"name": "default", "user": {"token": secrets.token_urlsafe(32)}}
            write(KUBECONFIG, json.dumps({"apiVersion": "v1", "kind": "Config", "users": [user]}))
        threading.Thread(target=Api.cluster.control, daemon=True).start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    server = Server((state().get("listen", "127.0.0.1") if static else config.get("bind-address", "0.0.0.0"), int(config.get("https-listen-port", 6443))), Api)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    if not Api.cluster.failing():
        notify("READY=1")
    server.serve_forever()


def static_kubectl(words):
    """Answer from the state file alone."""
    if "/readyz?verbose" in words:
        failing = state()["readyz"]
        print("[+]ping ok")
        for part in failing:
            print("[-]%s failed: reason withheld" % part)
        print("readyz check %s" % ("failed" if failing else "passed"))
        return 1 if failing else 0
    if "nodes" in words:
        ready = state()["node_ready"]
        condition = {"type": "Ready", "status": "True" if ready else "False", "reason": "KubeletNotReady", "message": "container runtime is down"}
        status = {"allocatable": {"nvidia.com/gpu": str(state()["allocatable"])}, "conditions": [condition]}
        print(json.dumps({"items": [{"metadata": {"name": "node"}, "status": status}]}))
        return 0
    if words[:1] == ["describe"] or {"pods", "rolebindings"} & set(words):
        print("Name: node\nReady: %s" % state()["node_ready"])  # for a person to read
        return 0
    return 1


def kubectl(words):
    """get --raw PATH; get KIND [NAME] [-n NAMESPACE] -o json: through the API, as the administrator."""
    words = [word for word in words if not word.startswith("--request-timeout")]
    namespace, kinds = "default", {resource: group for group, resource in KINDS.values()}
    for option in ("-n", "--namespace", "-o"):
        if option in words:
            place = words.index(option)
            namespace = words[place + 1] if option != "-o" else namespace
            del words[place : place + 2]
    if words[:2] == ["get", "--raw"]:
        path = words[2]
    elif words[:1] == ["get"]:
        resource = words[1] if words[1].endswith("s") else words[1] + ("es" if words[1] == "runtimeclass" else "s")
        group = kinds.get(resource, "")
        path = "/apis/%s/v1" % group if group else "/api/v1"
        path += ("" if resource in CLUSTER_WIDE else "/namespaces/" + namespace) + "/" + "/".join([resource] + words[2:])
    else:
        print("error: the double knows get only")
        return 1
    port = int(configuration().get("https-listen-port", 6443))
    request = urllib.request.Request("https://127.0.0.1:%d%s" % (port, path), headers={"Authorization": "Bearer %s" % admin_token()})
    try:
        with urllib.request.urlopen(request, timeout=5, context=ssl.create_default_context(cafile=TLS + "/server-ca.crt")) as answer:
            print(answer.read().decode())
        return 0
    except urllib.error.HTTPError as error:
        print("Error from server: %s" % error.read().decode())
    except (OSError, ValueError) as error:
        print("The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port? (%s)" % error)
    return 1


def main():
    words = sys.argv[1:]
    if words[:1] == ["server"]:
        serve()
    if words[:1] == ["--version"]:
        print("k3s version %s (TEST DOUBLE)" % VERSION)
        return 0
    if words[:1] == ["check-config"]:
        missing = state().get("kernel_missing", [])
        for part in missing:
            print("- %s: missing (fail)" % part)
        return 1 if missing else 0
    if words[:1] == ["kubectl"]:
        return (static_kubectl if "token" in state() else kubectl)(words[1:])
    return 1


sys.exit(main())
