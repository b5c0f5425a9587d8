"""A TEST DOUBLE of the k3s program: server with HTTPS API, RBAC and auto-deployed manifests; kubectl; check-config; --version.

It does what the roles, the health check and the gateway ask for, with the real paths, object shapes and refusals, and nothing runs
in a container: a Job is complete when it is old enough. Real k3s needs a kernel of its own; this needs Python and openssl.

/etc/beta9-k3s-double.json, read at every call, may hold any of: {"readyz": [failing parts], "node_ready": true, "allocatable": 2,
"kernel_missing": [], "pods": "complete"|"image"|"ended"|"unschedulable"|"pending", "stale_nodes": [], "blocked_ports": [],
"token": "...", "allowed": ["create jobs", ...]}.
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
FAULT = ""  # "never-ready": the API stays unready; "crash": ends at once; "no-kubelet": the API is ready, then k3s ends, again and again
APPLIED_AFTER_SECONDS = 3  # how long k3s takes to apply a manifest that changed: 3 to 15 s with the real one
KUBELET_AFTER_SECONDS = 2  # until then the API shows the node as it was before the restart
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
    "Node": ("", "nodes"),
    "Lease": ("coordination.k8s.io", "leases"),
}
LISTS = {resource: kind + "List" for kind, (_group, resource) in KINDS.items()}
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
        self.objects, self.owned, self.key_of_tokens = {}, {}, secrets.token_hex(16)
        if os.path.exists(DATABASE):
            with open(DATABASE, encoding="utf-8") as stream:
                saved = json.load(stream)
            if version_key(saved["schema"]) > version_key(VERSION):
                sys.exit("the database was written by %s, which %s can't read" % (saved["schema"], VERSION))
            self.objects, self.owned, self.key_of_tokens = saved["objects"], saved["owned"], saved["key"]
        if self.key("", "serviceaccounts", "default", "default") not in self.objects:
            self.put("", "serviceaccounts", "default", {"kind": "ServiceAccount", "metadata": {"name": "default"}})
        self.save()

    def save(self):
        write(DATABASE, json.dumps({"schema": VERSION, "objects": self.objects, "owned": self.owned, "key": self.key_of_tokens}))

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
        meta["uid"] = old["metadata"]["uid"] if old else secrets.token_hex(16)
        for field in ("data", "account"):  # what a controller filled in stays, as apply merges
            if old and field in old:
                item.setdefault(field, old[field])
        self.objects[self.key(group, resource, namespace, meta["name"])] = item
        return item

    # -- controllers --

    def deploy(self):
        """Apply what is in the directory of manifests; what a file no longer names is deleted, as k3s does."""
        for path in sorted(glob.glob(MANIFESTS + "/*.yaml")):
            if time.time() - os.stat(path).st_mtime < APPLIED_AFTER_SECONDS:
                continue
            with open(path, encoding="utf-8") as stream:
                text = stream.read()
            digest = hashlib.sha256(text.encode()).hexdigest()
            if self.owned.get(path, {}).get("digest") == digest:
                continue
            keys = []
            for item, group, resource, namespace in documents(text):
                self.put(group, resource, namespace, item)
                keys.append(self.key(group, resource, namespace, item["metadata"]["name"]))
            for key in set(self.owned.get(path, {}).get("keys", [])) - set(keys):
                self.objects.pop(key, None)
            self.owned[path] = {"digest": digest, "keys": keys}
            self.save()

    def fill_tokens(self):
        """Give every service-account token Secret its token, and take the Secret away with its account.

        The token tells of the account and the Secret's name: a Secret that is made again gets the same one.
        """
        for secret in self.find("", "secrets"):
            meta = secret["metadata"]
            if secret.get("type") != "kubernetes.io/service-account-token":
                continue
            name = (meta.get("annotations") or {}).get("kubernetes.io/service-account.name")
            account = self.objects.get(self.key("", "serviceaccounts", meta["namespace"], name or ""))
            uid = account["metadata"]["uid"] if account else ""
            if secret.get("data") and secret.get("account") != uid:
                del self.objects[self.key("", "secrets", meta["namespace"], meta["name"])]
            elif account and not secret.get("data"):
                claims = "|".join((self.key_of_tokens, meta["namespace"], name, uid, meta["name"]))
                token = "eyJ" + hashlib.sha512(claims.encode()).hexdigest()
                secret["data"] = {"token": base64.b64encode(token.encode()).decode(), "namespace": base64.b64encode(meta["namespace"].encode()).decode()}
                secret["account"] = uid
                self.save()

    def control(self):
        while True:
            time.sleep(0.5)
            with self.lock:
                self.fill_tokens()  # before deploy: a token is there some time after its Secret, not at once
                self.deploy()
                if FAULT != "no-kubelet" and time.time() - self.started > KUBELET_AFTER_SECONDS:
                    self.heartbeat()
            if FAULT == "no-kubelet" and time.time() - self.started > KUBELET_AFTER_SECONDS:
                print('time="%s" level=fatal msg="kubelet exited: failed to run the TEST DOUBLE of the kubelet"' % time.strftime("%FT%TZ"), flush=True)
                os._exit(1)

    def heartbeat(self):
        """Do what the kubelet does: register the node, and renew its Lease."""
        name = configuration().get("node-name") or socket.gethostname().lower()
        now = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
        self.put("", "nodes", "", self.node(name))
        self.put("coordination.k8s.io", "leases", "kube-node-lease", {"kind": "Lease", "metadata": {"name": name}, "spec": {"renewTime": now}})
        self.save()

    # -- what kubelet and scheduler would say --

    def failing(self):
        return ["poststarthook/rbac/bootstrap-roles"] if FAULT == "never-ready" else state().get("readyz", [])

    def gpus(self):
        desired = state().get("allocatable")
        if desired is not None:
            return desired
        plugins = [entry["spec"]["template"]["spec"] for entry in self.find("apps", "daemonsets")]
        plugins = [spec for spec in plugins if "device-plugin" in spec["containers"][0]["image"] and spec.get("runtimeClassName") == "nvidia"]
        if not (plugins and self.runtime and any(entry["metadata"]["name"] == "nvidia" for entry in self.find("node.k8s.io", "runtimeclasses"))):
            return 0
        found = 0
        for path in glob.glob("/sys/bus/pci/devices/*/vendor"):
            with open(path, encoding="ascii") as stream:
                found += stream.read().strip() == "0x10de"
        return found

    def node(self, name):
        ready = state().get("node_ready", True) and FAULT != "never-ready" and time.time() - self.started > 0.5
        condition = {"type": "Ready", "status": "True" if ready else "False", "reason": "KubeletReady" if ready else "KubeletNotReady"}
        condition["message"] = "kubelet is posting ready status" if ready else "container runtime is down"
        status = {"conditions": [condition], "allocatable": {"cpu": str(os.cpu_count()), "nvidia.com/gpu": str(self.gpus())}}
        status["nodeInfo"] = {"kubeletVersion": VERSION}
        return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}

    def fate(self, job):
        """Return (job status, pod status)."""
        spec = job["spec"]["template"]["spec"]
        desired = state().get("pods", "complete")
        limits = [(container.get("resources") or {}).get("limits") or {} for container in spec["containers"]]
        reason = "1 node(s) had untolerated taint(s)"
        if sum(int(limit.get("nvidia.com/gpu", 0)) for limit in limits) > self.gpus():
            desired, reason = "unschedulable", "1 Insufficient nvidia.com/gpu"
        age = time.time() - calendar.timegm(time.strptime(job["metadata"]["creationTimestamp"], "%Y-%m-%dT%H:%M:%SZ"))
        if desired == "complete" and age < 1:
            desired = "pending"
        waiting = {"reason": "ErrImagePull", "message": "failed to pull image: i/o timeout"}
        message = "0/1 nodes are available: %s." % reason
        unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        ended = {"reason": "StartError", "exitCode": 128, "message": "nvidia-container-cli: initialization error: no such device"}
        pod = {
            "complete": {"phase": "Succeeded"},
            "image": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]},
            "ended": {"phase": "Failed", "containerStatuses": [{"state": {"terminated": ended}}]},
            "unschedulable": {"phase": "Pending", "conditions": [unscheduled]},
            "pending": {"phase": "Pending"},
        }[desired]
        return {"complete": {"succeeded": 1}, "ended": {"failed": 1}}.get(desired, {"active": 1}), pod

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
                return self.refuse(401, "Unauthorized", "Unauthorized")
            if path in ("/readyz", "/livez", "/healthz"):
                return self.ready()
            if path == "/version":
                return self.answer(200, {"gitVersion": VERSION, "platform": "linux/amd64"})
            return self.resource(user, path, query, body)

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = serve

    def ready(self):
        failing = self.cluster.failing()
        lines = ["[+]ping ok", "[+]log ok"] + ["[-]%s failed: reason withheld" % part for part in failing]
        self.text(500 if failing else 200, "\n".join(lines + ["readyz check %s" % ("failed" if failing else "passed"), ""]) if failing else "ok")

    def resource(self, user, path, query, body):
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "api":
            group, rest = "", parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, rest = parts[1], parts[3:]
        else:
            return self.refuse(404, "NotFound", "the server could not find the requested resource")
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        resource, name, sub = (rest + ["", ""])[:3]
        verb = "get" if self.command == "GET" and name else self.VERBS[self.command]
        full = resource + ("/" + sub if sub else "")
        review = resource == "selfsubjectaccessreviews"
        if not review and not self.cluster.allows(user, verb, group, full, namespace):
            where = 'in the namespace "%s"' % namespace if namespace else "at the cluster scope"
            what = of_group(resource, group) + (' "%s"' % name if name else "")
            message = '%s is forbidden: User "%s" cannot %s resource "%s" in API group "%s" %s' % (what, user, verb, full, group, where)
            return self.refuse(403, "Forbidden", message)
        if review:
            desired = body["spec"]["resourceAttributes"]
            target = desired["resource"] + ("/" + desired["subresource"] if desired.get("subresource") else "")
            allowed = self.cluster.allows(user, desired["verb"], desired.get("group", ""), target, desired.get("namespace", ""))
            return self.answer(201, dict(body, status={"allowed": allowed}))
        return self.act(verb, group, resource, namespace, name, query, body)

    def act(self, verb, group, resource, namespace, name, query, body):
        cluster = self.cluster
        if verb == "create":
            if cluster.key(group, resource, namespace, body["metadata"]["name"]) in cluster.objects:
                return self.refuse(409, "AlreadyExists", '%s "%s" already exists' % (of_group(resource, group), body["metadata"]["name"]))
            if resource == "jobs" and body["spec"]["template"]["spec"].get("restartPolicy") not in ("Never", "OnFailure"):
                wants = 'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'
                return self.refuse(422, "Invalid", 'Job.batch "%s" is invalid: %s' % (body["metadata"]["name"], wants))
            cluster.put(group, resource, namespace, body)
            cluster.save()
            return self.answer(201, body)
        if verb == "delete":
            found = cluster.objects.pop(cluster.key(group, resource, namespace, name), None)
            cluster.save()
            return self.answer(200, {"kind": "Status", "status": "Success"}) if found else self.not_found(resource, group, name)
        if verb == "patch":
            found = cluster.objects[cluster.key(group, resource, namespace, name)]
            found.update(body)
            cluster.save()
            return self.answer(200, found)
        items = cluster.pods(namespace or None) if resource == "pods" else None
        if items is None:
            items = cluster.find(group, resource, None if resource in CLUSTER_WIDE else namespace or None)
        if resource == "jobs":
            items = [dict(item, status=cluster.fate(item)[0]) for item in items]
        if name:
            items = [item for item in items if item["metadata"]["name"] == name]
            return self.answer(200, items[0]) if items else self.not_found(resource, group, name)
        for desired in urllib.parse.parse_qs(query).get("labelSelector", [""])[0].split(","):
            label, equals, value = desired.partition("=")
            items = [item for item in items if not equals or (item["metadata"].get("labels") or {}).get(label) == value]
        return self.answer(200, {"kind": LISTS.get(resource, "List"), "apiVersion": "v1", "metadata": {}, "items": items})

    def not_found(self, resource, group, name):
        self.refuse(404, "NotFound", '%s "%s" not found' % (of_group(resource, group), name))

    def refuse(self, status, reason, message):
        """Answer as the API does when it does not do what was asked."""
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": status}
        self.answer(status, body)

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


def of_group(resource, group):
    """Return a resource's name as the API's messages have it."""
    return resource + ("." + group if group else "")


def documents(text):
    """Yield (object, group, resource, namespace) of a file of manifests."""
    import yaml  # in the release's archive

    for item in yaml.safe_load_all(text):
        if item:
            yield (item, *KINDS[item["kind"]], item["metadata"].get("namespace", "default"))


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
    desired = ["127.0.0.1", "::1", "localhost", "kubernetes", socket.gethostname()] + list(config.get("tls-san") or [])
    text = ",".join(("IP:" if name.replace(".", "").isdigit() or ":" in name else "DNS:") + name for name in desired)
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


def options_of(words):
    """Return (words without options, {option: value}) of a kubectl command line."""
    found, left, words = {}, [], list(words)
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            name, _equals, value = word.partition("=")
            found[name] = value
        elif word in ("-n", "-o", "-f", "-l", "-p"):
            found[word] = words.pop(0)
        else:
            left.append(word)
    return left, found


def fail(text):
    print(text, file=sys.stderr)
    return 1


def not_ready(body):
    """Print what kubectl makes of a /readyz?verbose that failed: one line, its line ends escaped."""
    inner = json.dumps(body)[1:-1]
    return fail('Error from server (InternalError): an error on the server ("%s") has prevented the request from succeeding' % inner)


def no_events(options):
    """Say what kubectl says where no object of a kind is there: on stderr, and 0 all the same."""
    print("No resources found in %s namespace." % options.get("-n", "default"), file=sys.stderr)
    return 0


def static_kubectl(words):
    """Answer from the state file alone."""
    words, options = options_of(words)
    print("Warning: a warning of the TEST DOUBLE, on stderr as the real ones", file=sys.stderr)
    if "/readyz?verbose" in words:
        failing = state()["readyz"]
        if failing:
            return not_ready("\n".join(["[+]ping ok"] + ["[-]%s failed: reason withheld" % part for part in failing] + ["readyz check failed"]))
        print("[+]ping ok\nreadyz check passed")
        return 0
    if "nodes" in words:
        ready = state()["node_ready"]
        condition = {"type": "Ready", "status": "True" if ready else "False", "reason": "KubeletNotReady", "message": "container runtime is down"}
        status = {"allocatable": {"nvidia.com/gpu": str(state()["allocatable"])}, "conditions": [condition]}
        names = [socket.gethostname().lower()] + state().get("stale_nodes", [])
        print(json.dumps({"items": [{"metadata": {"name": name}, "status": status} for name in names]}))
        return 0
    if "events" in words:
        return no_events(options)
    if words[:1] == ["describe"] or {"pods", "rolebindings"} & set(words):
        print("Name: node\nReady: %s" % state()["node_ready"])  # for a person to read
        return 0
    return 1


def call(method, path, body=None):
    """Return (status, text) of a request as the administrator; status None without an answer."""
    port = int(configuration().get("https-listen-port", 6443))
    headers = {"Authorization": "Bearer %s" % admin_token()}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request("https://127.0.0.1:%d%s" % (port, path), data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5, context=ssl.create_default_context(cafile=TLS + "/server-ca.crt")) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except (OSError, ValueError):
        return None, ""


def answered(status, text, path=""):
    """Print an answer as kubectl does; return its exit status."""
    if status is None:
        return fail("The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?")
    if status < 400:
        print(text)
        return 0
    if path.startswith("/readyz"):
        return not_ready(text)
    found = json.loads(text)
    if status == 401:
        return fail("error: You must be logged in to the server (%s)" % found["message"])
    return fail("Error from server (%s): %s" % (found["reason"], found["message"]))


def path_of(kind, name, namespace):
    """Return the path of a resource, or of one object."""
    kinds = {resource: group for group, resource in KINDS.values()}
    kind = kind.partition(".")[0]
    resource = kind if kind in kinds else kind + ("es" if kind.endswith("s") else "s")
    group = kinds[resource]
    path = "/apis/%s/v1" % group if group else "/api/v1"
    return path + ("" if resource in CLUSTER_WIDE else "/namespaces/" + namespace) + "/" + resource + ("/" + name if name else "")


def kubectl(words):
    """get --raw PATH; get KINDS [NAME]; apply -f; delete -f; delete KIND/NAME ...; patch: through the API, as the administrator."""
    words, options = options_of(words)
    namespace = options.get("-n", options.get("--namespace", "default"))
    if words[0] == "get" and "--raw" in options:
        path = options["--raw"] or words[1]
        return answered(*call("GET", path), path)
    if words[:2] == ["get", "events"]:
        return no_events(options)
    if words[0] == "get":
        if "," not in words[1]:
            return answered(*call("GET", path_of(words[1], words[2] if len(words) > 2 else "", namespace)))
        items = []
        for kind in words[1].split(","):
            status, text = call("GET", path_of(kind, "", namespace))
            if status != 200:
                return answered(status, text)
            items += json.loads(text)["items"]
        print(json.dumps({"kind": "List", "items": items}))
        return 0
    if "-f" in options:
        with open(options["-f"], encoding="utf-8") as stream:
            requested = [(item, path_of(item["kind"].lower(), "", found)) for item, _group, _resource, found in documents(stream.read())]
    elif words[0] == "patch":
        return answered(*call("PATCH", path_of(words[1], words[2], namespace), json.loads(options["-p"])))
    elif words[0] == "delete":
        pairs = [word.split("/") for word in words[1:]]
        requested = [({"metadata": {"name": name}}, path_of(kind, "", namespace)) for kind, name in pairs]
    else:
        return fail('error: unknown command "%s" for "kubectl"' % words[0])
    for item, path in requested:
        where = path + "/" + item["metadata"]["name"]
        there = call("GET", where)[0] == 200
        if words[0] == "apply":
            status, text = (200, "") if there else call("POST", path, item)
        else:
            status, text = call("DELETE", where) if there or "--ignore-not-found" not in options else (200, "")
        if status is None or status >= 400:
            return answered(status, text)
        print("%s %s" % (item["metadata"]["name"], words[0]))
    return 0


def main():
    words = sys.argv[1:]
    if words[:1] == ["server"]:
        serve()
    if words[:1] == ["--version"]:
        print("%s version %s (TEST DOUBLE)" % (os.path.basename(sys.argv[0]), VERSION))
        return 0
    if words[:1] == ["check-config"]:
        missing = state().get("kernel_missing", [])
        bold, red, end = ("", "", "") if os.environ.get("NO_COLOR") else ("\033[1m", "\033[1;31m", "\033[m")
        for part in missing:
            print("- %s%s%s: %smissing (fail)%s" % (bold, part, end, red, end))
        for port in state().get("blocked_ports", []):
            print("  - %sTCP Port %d is blocked%s: %s (fail)%s" % (bold, port, end, red, end))
        return len(missing) + len(state().get("blocked_ports", []))
    if words[:1] == ["kubectl"]:
        return (static_kubectl if "token" in state() else kubectl)(words[1:])
    return 1


sys.exit(main())
