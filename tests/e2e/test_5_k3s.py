"""k3s on real hosts, with a test double in the place of its program: install, refuse, upgrade, go back, take away.

Real are: hosts, systemd, tunnels, packet filter, TLS, files, downloads and checksums. The double enforces RBAC for real tokens, needs
newer databases to be taken back before an older version starts, and says in its version that it is one.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import pytest

from tests.e2e.conftest import ROOT
from tests.e2e.test_1_onboard import recap

sys.path.insert(0, str(ROOT / "tests/doubles/k3s"))
import release

OLD, NEW, BROKEN, NO_KUBELET = "v1.34.0+k3s1", "v1.34.1+k3s1", "v1.34.2+k3s1", "v1.34.3+k3s1"
SITE = ROOT / "build" / "k3s-site"
PORT = 8099
GPUS = """
for n in 1 2; do
    device=/opt/pci-double/pci/devices/0000:0$n:00.0
    mkdir -p "$device"; echo 0x10de > "$device/vendor"; echo 0x030200 > "$device/class"
done
grep -q ' /sys/bus ' /proc/mounts || mount --bind /opt/pci-double /sys/bus
printf '#!/bin/sh\\n# TEST DOUBLE\\n' > /usr/bin/nvidia-container-runtime; chmod 755 /usr/bin/nvidia-container-runtime"""
REQUEST = """
import json, ssl, sys, urllib.error, urllib.request
context = ssl._create_unverified_context()  # as the gateway does
for desired in json.load(sys.stdin):
    request = urllib.request.Request("https://%s:6443%s" % (desired["address"], desired["path"]), method=desired["method"])
    request.add_header("Authorization", "Bearer " + desired["token"])
    data = json.dumps(desired["body"]).encode() if desired["body"] else None
    try:
        answer = urllib.request.urlopen(request, data, context=context, timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    print(json.dumps([answer.getcode(), json.loads(answer.read() or "null")]))
"""


class Cluster:
    """Two workers with k3s behind one gateway, and the site that serves its releases."""

    def __init__(self, bed):
        self.bed = bed
        self.first, self.second = bed.workers
        self.addresses = {}
        address = json.loads(bed.inventory.read_text())["all"]["children"]["beta9_gateway"]["hosts"][bed.gateway]["ansible_host"]
        self.site = "http://%s:%d" % (address, PORT)

    def publish(self):
        """Make the releases and serve them from the gateway's host."""
        shutil.rmtree(SITE, ignore_errors=True)
        for version, fault in ((OLD, ""), (NEW, ""), (BROKEN, "never-ready"), (NO_KUBELET, "no-kubelet"), ("v1.35.0+k3s1", "")):
            release.build(SITE / "good", version, fault)
        for folder in ("damaged", "cut"):
            release.build(SITE / folder, NEW)
        with (SITE / "damaged" / NEW / "k3s").open("ab") as stream:
            stream.write(b"# damaged")
        (SITE / "fault.json").write_text(json.dumps({"truncate": "cut/%s/k3s" % NEW}))
        self.bed.sh(self.bed.gateway, "systemctl stop k3s-site 2>/dev/null; rm -rf /srv/k3s; mkdir -p /srv/k3s")
        subprocess.run(["podman", "cp", str(SITE) + "/.", self.bed.gateway + ":/srv/k3s"], check=True)
        subprocess.run(["podman", "cp", release.__file__, self.bed.gateway + ":/opt/k3s_release.py"], check=True)
        self.serve()

    def serve(self):
        """Start the site."""
        self.bed.sh(self.bed.gateway, "systemd-run -q --unit k3s-site python3 /opt/k3s_release.py serve /srv/k3s %d" % PORT)

    def settings(self, version=OLD, **variables):
        """Return the variables of a run."""
        desired = {
            "beta9_k3s": True,
            "beta9_nvidia": False,
            "k3s_version": version,
            "k3s_artifact_url": self.site + "/good",
            "k3s_insecure_mirror": True,
            "k3s_min_disk_mib": 50,
        }
        return {**desired, "k3s_wait_seconds": 60, "k3s_gpu_wait_seconds": 40, **variables}

    def onboard(self, *arguments, **variables):
        """Run the playbook with k3s on."""
        return self.bed.play("onboard_worker.yml", "-e", json.dumps(self.settings(**variables)), *arguments)

    def role(self, hosts, *arguments):
        """Run the role alone on {name in the inventory: (worker, variables)}. Return (exit status, output, {name: last words}, {name: recap})."""
        inventory = json.loads(self.bed.inventory.read_text())
        group = inventory["all"]["children"]["gpu-hosts"]
        reach, group["hosts"] = group["hosts"], {}
        for name, (worker, variables) in hosts.items():
            group["hosts"][name] = dict(reach[worker], **dict({"beta9_hostname": self.address(worker)}, **self.settings(**variables)))
        path = self.bed.inventory.parent / "k3s.yml"
        path.write_text(json.dumps(inventory))
        status, output = self.bed.play("tests/e2e/k3s_role.yml", "-i", str(path), *arguments, alone=True)
        words = {name: re.sub(r"\s+", " ", text.replace("''", "'")) for name, text in re.findall(r"^fatal: \[([^\]]+)\]: (.*?)\n\n", output, re.M | re.S)}
        # what preflight found is reported once for all hosts: "1. what: expected ..., found .... remedy on host, host"
        report = " ".join(
            re.sub(r"^ *- ", "", line).strip("' ") for line in output.partition("Report all problems]")[2].partition("\n\n")[0].splitlines()
        )
        for problem, where in re.findall(r"\b\d+\. (.*?) on ((?:all \d+ hosts)|[\w-]+(?:, [\w-]+)*)(?= \d+\. |$)", report.replace("''", "'")):
            for name in words if where.startswith("all") else where.split(", "):
                words[name] += " " + problem
        return status, output, words, recap(output)

    def inspect(self, worker):
        """Return (version of the program, version that the node tells, what k3s runs as, files that wait for verification)."""
        return self.bed.sh(
            worker,
            """
            k3s --version | cut -d' ' -f3
            k3s kubectl get nodes -o json | python3 -c 'import json, sys; print(json.load(sys.stdin)["items"][0]["status"]["nodeInfo"]["kubeletVersion"])'
            systemctl show -p MainPID --value k3s
            ls -A /usr/local/bin /var/lib/rancher/k3s/agent/images 2>/dev/null | grep -c beta9-new; true""",
        ).split()

    def token(self, worker):
        return self.bed.sh(worker, "cat /etc/beta9/credentials/k3s_token")

    def address(self, worker):
        """Return the address of a worker's k3s at the gateway; the last known one when it is no longer let in."""
        line = self.bed.sh(self.bed.gateway, "grep ':%s$' /etc/ssh/beta9-tunnel/authorized_keys 2>/dev/null; true" % worker)
        if line:
            self.addresses[worker] = re.search(r'permitlisten="([^:"]+):', line).group(1)
        return self.addresses[worker]

    def ask(self, worker, method, path, body=None):
        """Return (status, document) of one request."""
        return self.ask_all(worker, [(method, path, body)])[0]

    def ask_all(self, worker, requests):
        """Return [(status, document)]: asked on the gateway's host, through the tunnel, with the token that the worker registered."""
        fixed = {"address": self.address(worker), "token": self.token(worker)}
        asked = [dict(fixed, method=method, path=path, body=body) for method, path, body in requests]
        command = ["podman", "exec", "-i", self.bed.gateway, "python3", "-c", REQUEST]
        done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]


# What k3s and the kubelet leave on a host that the double does not: with the packet filter's program that k3s brings along, because
# these hosts have none of their own
TRACES = """
set -e
mkdir -p /etc/rancher/node /var/log/pods/default_worker_1/main /var/log/containers /run/netns /var/lib/cni/results
mkdir -p /usr/libexec/kubernetes/kubelet-plugins/volume/exec /var/lib/kubelet/pods/1/volumes
echo canary > /etc/rancher/node/password; echo log > /var/log/pods/default_worker_1/main/0.log
ln -s /var/log/pods/default_worker_1/main/0.log /var/log/containers/worker.log
mount -t tmpfs none /var/lib/kubelet/pods/1/volumes
: > /run/netns/cni-1; mount -t tmpfs none /run/netns 2>/dev/null && umount /run/netns; mount --bind /proc/self/ns/net /run/netns/cni-1
ip link add cni0 type bridge
aux=/var/lib/rancher/k3s/data/0123456789abcdef/bin/aux
mkdir -p $aux; cp -a /root/iptables-double/. $aux/
for family in iptables ip6tables; do
    $aux/$family-restore --noflush <<'END'
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-1 - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A PREROUTING -j CNI-HOSTPORT-DNAT
-A KUBE-SERVICES -j KUBE-SVC-1
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:FLANNEL-FWD - [0:0]
:OTHERS - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -j FLANNEL-FWD
-A INPUT -p tcp --dport 2222 -j OTHERS
COMMIT
END
done
"""
SNAPSHOT = r"""
find /etc /opt /root /run /srv /usr/local /usr/libexec /var/lib /var/log -xdev \
    \( -path /var/lib/dpkg -o -path /var/lib/apt -o -path /run/systemd -o -path /var/lib/systemd -o -path /run/log -o -path /var/log/journal \
    -o -path /run/udev \
    -o -path /root/.ansible -o -path '/run/user' -o -path /run/lock \) -prune -o -print 2>/dev/null | sort
sed 's/^/mount /' /proc/mounts | cut -d' ' -f1-3 | sort
nft list ruleset 2>/dev/null | grep -E '^\s+(ip|ip6|tcp|udp|meta|iifname|counter|jump|goto)' | grep -v OTHERS | sed 's/^/rule /'
ps -eo args --no-headers | grep -E '[k]3s|[c]ontainerd' | sed 's/^/process /'
ls /sys/class/net | sed 's/^/interface /'; true"""


def bundle_iptables(bed, worker):
    """Bring this machine's iptables to a host as a k3s release has it: with all that it needs, and away from the PATH."""
    program = os.path.realpath(shutil.which("xtables-nft-multi") or "/usr/sbin/xtables-nft-multi")
    libraries = re.findall(r"=> (/\S+)", subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout)
    libraries = [path for path in libraries if "/libc.so" not in path]  # the host has its own
    modules = os.path.dirname(next(pathlib.Path("/usr/lib").glob("*/xtables/libxt_standard.so")))
    bed.sh(worker, "rm -rf /root/iptables-double; mkdir -p /root/iptables-double/lib")
    for path in (program, modules, *libraries):
        subprocess.run(
            ["podman", "cp", os.path.realpath(path) if path != modules else path, worker + ":/root/iptables-double/lib/" + os.path.basename(path)], check=True
        )
    names = " ".join(family + verb for family in ("iptables", "ip6tables") for verb in ("", "-save", "-restore"))
    bed.sh(
        worker,
        """
        cd /root/iptables-double
        for name in %s; do
            printf '#!/bin/sh\\nhere=$(dirname "$0")/lib\\n' > $name
            printf 'XTABLES_LIBDIR=$here/xtables LD_LIBRARY_PATH=$here exec $here/xtables-nft-multi %%s "$@"\\n' $name >> $name
            chmod 755 $name
        done"""
        % names,
    )


@pytest.fixture(scope="module")
def cluster(testbed):
    """Bare workers, the first with two GPUs on its bus, and a site with three releases."""
    made = Cluster(testbed)
    testbed.clean()
    for worker in testbed.workers:
        testbed.sh(worker, "systemctl disable -q --now k3s 2>/dev/null; rm -rf /var/lib/rancher /var/lib/beta9-k3s /etc/rancher /usr/local/bin/k3s; true")
    bundle_iptables(testbed, made.second)
    made.before = testbed.sh(made.second, SNAPSHOT).splitlines()
    testbed.sh(made.first, GPUS)
    made.publish()
    yield made
    # The hosts go on to the next file without k3s: test_offboarding... removes it, where it runs
    testbed.play("offboard_worker.yml")
    testbed.sh(made.first, "umount /sys/bus; rm -f /usr/bin/nvidia-container-runtime; true")
    testbed.sh(testbed.gateway, "systemctl stop k3s-site; true")


def test_canary_reaches_its_last_stage(cluster, tmp_path):
    """Onboarding from bare hosts, as loud as it can be, shows no token; then every check of k3s passes, the canary Job too."""
    status, output = cluster.onboard("-vvvv", "--diff")
    assert status == 0, output[-6000:]
    assert not any(cluster.token(worker) in output for worker in cluster.bed.workers)
    checks = ["K01", "K02", "K03", "K04", "K05", "K06", "V01", "V02", "V05", "U07", "G10", "G07", "M02"]
    options = {"beta9_k3s": True, "health_check_active": True, "health_check_only": checks, "health_check_directory": str(tmp_path)}
    status, output = cluster.bed.play("health_check.yml", "-e", json.dumps(options))
    hosts = {entry["host"]: {verdict["id"]: verdict for verdict in entry["verdicts"]} for entry in json.loads((tmp_path / "health.json").read_text())["hosts"]}
    for worker in cluster.bed.workers:
        found = {name: (verdict["status"], verdict["found"]) for name, verdict in hosts[worker].items() if name in checks}
        assert found["G10"] == ("pass", "completed"), output
        wrong = [name for name, (result, _text) in found.items() if result not in ("pass", "not_applicable", "unknown")]
        assert not wrong and all(found[name][0] == "pass" for name in ("K01", "K02", "K03", "K04", "K05", "K06", "V01", "V02")), found


def test_gateway_starts_and_follows_a_job_through_the_tunnel(cluster):
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    container = {"name": "worker", "image": "worker", "resources": {"limits": {"nvidia.com/gpu": "2"}}, "securityContext": {"privileged": True}}
    pod = {"restartPolicy": "Never", "hostNetwork": True, "runtimeClassName": "nvidia", "containers": [container]}
    spec = {"template": {"metadata": {"labels": {"app": "beta9-worker"}}, "spec": pod}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "worker-gpu-0", "labels": {"app": "beta9-worker"}}, "spec": spec}
    assert cluster.ask(cluster.first, "POST", jobs, job)[0] == 201
    wait_for(lambda: cluster.ask(cluster.first, "GET", jobs + "/worker-gpu-0")[1]["status"].get("succeeded"))
    status, pods = cluster.ask(cluster.first, "GET", "/api/v1/namespaces/default/pods?labelSelector=job-name%3Dworker-gpu-0")
    assert status == 200 and [pod["status"]["phase"] for pod in pods["items"]] == ["Succeeded"]
    assert cluster.ask(cluster.first, "DELETE", jobs + "/worker-gpu-0?propagationPolicy=Background")[0] == 200
    assert cluster.ask(cluster.first, "GET", jobs)[1]["items"] == []


FORBIDDEN = (
    ("GET", "/api/v1/namespaces/default/secrets"),
    ("GET", "/api/v1/namespaces/default/secrets/beta9-gateway"),
    ("GET", "/api/v1/secrets"),
    ("GET", "/api/v1/nodes"),
    ("GET", "/api/v1/namespaces"),
    ("GET", "/api/v1/namespaces/default/configmaps"),
    ("GET", "/api/v1/namespaces/kube-system/pods"),
    ("GET", "/apis/batch/v1/namespaces/kube-system/jobs"),
    ("POST", "/apis/batch/v1/namespaces/kube-system/jobs"),
    ("POST", "/api/v1/namespaces/default/pods"),
    ("POST", "/api/v1/namespaces/default/pods/any/exec?command=id"),
    ("GET", "/api/v1/namespaces/default/pods/any/log"),
    ("DELETE", "/api/v1/namespaces/default/pods/any"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"),
    ("POST", "/api/v1/namespaces/default/serviceaccounts/default/token"),
)


def test_its_token_is_refused_everything_else(cluster):
    requests = [(method, path, {"metadata": {"name": "any"}} if method == "POST" else None) for method, path in FORBIDDEN]
    answers = cluster.ask_all(cluster.first, requests)
    assert len(answers) == len(FORBIDDEN)
    assert [(status, "forbidden" in answer["message"]) for status, answer in answers] == [(403, True)] * len(FORBIDDEN), answers


def test_both_apis_are_reached_at_their_own_addresses_only(cluster):
    script = """
import hashlib, ssl, subprocess, sys
for name in sys.argv[1:]:
    pem = ssl.get_server_certificate((name, 6443), timeout=4)
    text = subprocess.run(["openssl", "x509", "-noout", "-ext", "subjectAltName"], input=pem, capture_output=True, text=True, check=True).stdout
    print(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest(), name in text)"""
    addresses = [cluster.address(worker) for worker in cluster.bed.workers]
    command = ["podman", "exec", cluster.bed.gateway, "python3", "-c", script, *addresses]
    rows = [line.split() for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()]
    assert addresses[0] != addresses[1] and rows[0][0] != rows[1][0] and [row[1] for row in rows] == ["True", "True"]
    assert cluster.ask(cluster.second, "GET", "/api/v1/namespaces/default/pods")[0] == 200
    for host in json.loads(cluster.bed.inventory.read_text())["all"]["children"]["gpu-hosts"]["hosts"].values():
        reached = cluster.bed.sh(cluster.bed.gateway, "curl -sk -m 2 -o /dev/null https://%s:6443/version; echo $?" % host["ansible_host"])
        assert reached == "28", "the API is open to the network: curl ends with %s" % reached


def test_second_run_changes_nothing_and_needs_no_site(cluster):
    before = [cluster.inspect(worker) for worker in cluster.bed.workers]
    cluster.bed.sh(cluster.bed.gateway, "systemctl stop k3s-site")
    try:
        status, output = cluster.onboard("--diff")
    finally:
        cluster.serve()
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output
    assert [cluster.inspect(worker) for worker in cluster.bed.workers] == before


def test_token_is_nowhere_but_in_its_file(cluster):
    token = cluster.token(cluster.first)
    assert cluster.bed.sh(cluster.first, "stat -c '%a %U' /etc/beta9/credentials/k3s_token") == "600 root"
    found = cluster.bed.sh(
        cluster.first,
        """
        cat > /dev/shm/secret <<'END'
%s
END
        journalctl --no-pager -o export | grep -acF -f /dev/shm/secret
        cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -acF -f /dev/shm/secret
        grep -rlaF -f /dev/shm/secret /etc /opt /run /tmp /var/log /root /home 2>/dev/null |
            grep -vE '^/etc/beta9/credentials/|^/run/credentials/|^/run/beta9-agent/credentials/' | wc -l
        rm /dev/shm/secret; true"""
        % token,
    ).split()
    assert found == ["0", "0", "0"]
    kept = cluster.bed.sh(cluster.bed.gateway, "redis-cli hget provider:machine:generic:gpu:%s token" % cluster.bed.machine_id(cluster.first))
    assert kept == token, "the gateway was not told the service account's token"


REFUSED = {
    "pin": ({"k3s_binary_sha256": "0" * 64}, "k3s_binary_sha256: expected the release's own checksum"),
    "offline": ({"k3s_artifact_url": "http://127.0.0.1:9", "k3s_insecure_mirror": True}, "or set k3s_airgap_dir"),
    "unknown": ({"version": "v1.34.9+k3s1"}, "this release is not there"),
    "word": ({"version": "latest"}, "expected a release of k3s like"),
    "older": ({"version": "v1.33.4+k3s1"}, "offboard the host and onboard it again"),
    "leap": ({"version": "v1.36.0+k3s1"}, "one minor version at a time"),
    "full": ({"k3s_min_disk_mib": 10**9}, "MiB free at /var/lib/rancher"),
    # hosts of the testbed have the cgroups of this machine
    **({} if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else {"cgroups": ({"version": "v1.35.0+k3s1"}, "cgroups: expected version 2")}),
    "airgap": ({"k3s_airgap_dir": "/nowhere"}, "no k3s, no sha256sum-amd64.txt, no k3s-airgap-images-amd64.tar.zst"),
}


@pytest.mark.long
def test_refused_before_anything_changes(cluster):
    """One host under many names, each with its own mistake. The other host's port is taken, then its k3s is somebody else's."""
    state = cluster.inspect(cluster.first)
    hosts = {name: (cluster.first, dict({"version": NEW}, **variables)) for name, (variables, _message) in REFUSED.items()}
    cluster.bed.sh(cluster.second, "systemctl stop k3s; systemd-run -q --unit squatter python3 -m http.server 6443; sleep 0.7")
    try:
        status, output, words, _recap = cluster.role(dict(hosts, port=(cluster.second, {})))
        cluster.bed.sh(cluster.second, "systemctl stop squatter; mv /var/lib/beta9-k3s /root/kept; sed -i '1s/.*/# by hand/' /etc/systemd/system/k3s.service")
        foreign = cluster.role({"foreign": (cluster.second, {})})[2]
        left = cluster.bed.play("offboard_worker.yml", "-l", cluster.second, "--check")[1]
    finally:
        cluster.bed.sh(cluster.second, "systemctl stop squatter 2>/dev/null; mv /root/kept /var/lib/beta9-k3s; true")
    assert status != 0
    for name, (_variables, message) in REFUSED.items():
        assert message in words[name] and "nothing was changed" in words[name], (name, words[name])
    assert re.search(r"port 6443: expected free, or held by k3s, found python3 \(pid \d+\)", words["port"]), words["port"]
    assert "k3s.service of another origin" in foreign["foreign"], foreign
    assert re.search(r"Remove k3s\] \*+\nok:", left), left
    assert cluster.inspect(cluster.first) == state


@pytest.mark.long
def test_bad_downloads_and_full_disks_leave_the_old_version(cluster):
    """No room beside the program; none to keep program and database aside; a program that is not what its checksum says; half of one."""
    status, output, _words, _recap = cluster.role({"again": (cluster.second, {})})
    assert status == 0, output
    before = cluster.inspect(cluster.second)
    small = "mkdir -p /small; mount -t tmpfs -o size=%s none /small; cp -a %s/* /small/; mount --bind /small %s"
    cluster.bed.sh(cluster.second, small % ("320k", "/usr/local/bin", "/usr/local/bin"))
    cluster.bed.sh(cluster.first, small % ("200k", "/var/lib/beta9-k3s", "/var/lib/beta9-k3s"))
    try:
        _status, output, words, _recap = cluster.role({"aside": (cluster.first, {"version": NEW}), "beside": (cluster.second, {"version": NEW})})
        assert cluster.inspect(cluster.second) == before
        wait_for(lambda: cluster.inspect(cluster.first)[:2] == [OLD, OLD])
    finally:
        cluster.bed.sh(cluster.second, "umount /usr/local/bin; umount /small")
        cluster.bed.sh(cluster.first, "umount /var/lib/beta9-k3s; umount /small")
    for name in ("aside", "beside"):
        assert "No space left on device" in words[name] and "Free some space" in words[name], output
    assert "%s goes on running" % OLD in words["aside"]
    states = {worker: cluster.inspect(worker) for worker in cluster.bed.workers}
    bad = (("damaged", cluster.first), ("cut", cluster.second))
    desired = {name: (worker, {"version": NEW, "k3s_artifact_url": cluster.site + "/" + name}) for name, worker in bad}
    desired.update(gpus=(cluster.first, {"k3s_gpus": 3, "k3s_gpu_wait_seconds": 1}), runtime=(cluster.second, {"k3s_gpus": 1}))
    words = cluster.role(desired)[2]
    assert re.search(r"expected SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}", words["damaged"]), words
    assert "the transfer ended early" in words["cut"], words
    assert "expected 3 allocatable nvidia.com/gpu within 1 s, found: 2 GPUs are allocatable" in words["gpus"], words
    assert "expected the NVIDIA container runtime in containerd's configuration" in words["runtime"], words
    assert {worker: cluster.inspect(worker) for worker in cluster.bed.workers} == states


@pytest.mark.long
def test_upgrade(cluster):
    """One host is upgraded; the other gets another choice of rights. Then the first is left alone, and the second gets its old rights."""
    before = cluster.token(cluster.first)
    assert cluster.ask(cluster.second, "GET", "/api/v1/nodes")[0] == 403
    desired = {"upgrade": (cluster.first, {"version": NEW}), "rights": (cluster.second, {"beta9_k3s_rbac": "cluster-admin"})}
    status, output, _words, _recap = cluster.role(desired)
    assert status == 0, output
    assert cluster.inspect(cluster.first)[:2] == [NEW, NEW]
    assert cluster.token(cluster.first) == before and cluster.ask(cluster.first, "GET", "/api/v1/namespaces/default/pods")[0] == 200
    assert cluster.bed.sh(cluster.first, "ls /var/lib/beta9-k3s") == "installed.json"
    wait_for(lambda: cluster.ask(cluster.second, "GET", "/api/v1/nodes")[0] == 200)
    status, output, _words, table = cluster.role({"upgrade": (cluster.first, {"version": NEW}), "rights": (cluster.second, {})})
    assert status == 0 and table["upgrade"]["changed"] == 0, output
    wait_for(lambda: cluster.ask(cluster.second, "GET", "/api/v1/nodes")[0] == 403)


def wait_for(condition, seconds=15):
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


KILLED = """
systemctl stop k3s; mkdir -m 700 /var/lib/beta9-k3s/previous; cd /var/lib/beta9-k3s/previous
cp -a /usr/local/bin/k3s /var/lib/rancher/k3s/server/db /etc/rancher/k3s/config.yaml.d . && printf %s > version
python3 -c 'import urllib.request as u; open("/usr/local/bin/k3s", "wb").write(u.urlopen("%s/good/%s/k3s").read())'"""


@pytest.mark.long
def test_upgrade_that_fails_is_taken_back(cluster):
    """On one host in one run; on the other the run was killed when the new program was in place, and the next one decides."""
    cluster.bed.sh(cluster.second, KILLED % (OLD, cluster.site, BROKEN.replace("+", "%2B")))
    desired = {"version": BROKEN, "k3s_wait_seconds": 15}
    status, output, words, _recap = cluster.role({"whole": (cluster.first, desired), "killed": (cluster.second, desired)})
    assert status != 0
    for name, worker, version in (("whole", cluster.first, NEW), ("killed", cluster.second, OLD)):
        assert "poststarthook/rbac/bootstrap-roles" in words[name], output
        assert "Went back to %s with its database and settings, which is Ready" % version in words[name], output
        assert cluster.inspect(worker)[:2] == [version, version]
        assert cluster.ask(worker, "GET", "/apis/batch/v1/namespaces/default/jobs")[0] == 200
    status, output, _words, table = cluster.role({"whole": (cluster.first, {"version": NEW}), "killed": (cluster.second, {})})
    assert status == 0 and table["whole"]["changed"] == 0, output


@pytest.mark.long
def test_upgrade_whose_kubelet_does_not_start_is_taken_back(cluster):
    """The API shows the node as Ready all the time, because it was before. The GPUs that the other host has no more take their plugin along."""
    token, plugin = cluster.token(cluster.first), "k3s kubectl get daemonsets -n kube-system -o json | grep -c beta9-nvidia; true"
    jobs = "/apis/batch/v1/namespaces/default/jobs"
    pod = {"restartPolicy": "Never", "containers": [{"name": "kept", "image": "kept"}]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "kept"}, "spec": {"template": {"spec": pod}}}
    assert cluster.ask(cluster.first, "POST", jobs, job)[0] == 201
    status, output, words, _recap = cluster.role({"kubelet": (cluster.first, {"version": NO_KUBELET, "k3s_wait_seconds": 25})})
    assert status != 0 and "kubelet exited" in words["kubelet"] and "Went back to %s" % NEW in words["kubelet"], output
    assert "which is Ready" in words["kubelet"] and cluster.inspect(cluster.first)[:2] == [NEW, NEW], output
    assert cluster.token(cluster.first) == token and cluster.ask(cluster.first, "GET", jobs + "/kept")[0] == 200
    assert cluster.ask(cluster.first, "DELETE", jobs + "/kept")[0] == 200
    assert cluster.bed.sh(cluster.first, plugin) == "1"
    status, output, _words, table = cluster.role({"none": (cluster.first, {"version": NEW, "beta9_gpus": 0})})
    assert status == 0 and table["none"]["changed"] == 1, output
    assert cluster.bed.sh(cluster.first, plugin) == "0"
    assert cluster.bed.sh(cluster.first, "ls /var/lib/rancher/k3s/server/manifests") == "beta9-gateway.yaml"


@pytest.mark.long
def test_account_that_was_deleted_and_one_that_is_revoked(cluster):
    """Onboarding makes a Secret again that somebody deleted, with its token; rotation makes another account, and the old token is refused."""
    before = {worker: cluster.token(worker) for worker in cluster.bed.workers}
    cluster.bed.sh(cluster.second, "k3s kubectl delete secret/beta9-gateway -n default")
    status, output, _words, table = cluster.role({"deleted": (cluster.second, {})})
    assert status == 0 and table["deleted"]["changed"] == 0, output
    assert cluster.ask(cluster.second, "GET", "/api/v1/namespaces/default/pods")[0] == 200 and cluster.token(cluster.second) == before[cluster.second]
    status, output = cluster.bed.play("rotate_token.yml", "-l", cluster.second)
    assert status == 0, output
    after = cluster.token(cluster.second)
    assert after != before[cluster.second] and after not in output
    assert cluster.ask(cluster.second, "GET", "/api/v1/namespaces/default/pods")[0] == 200
    kept = cluster.bed.sh(cluster.bed.gateway, "redis-cli hget provider:machine:generic:gpu:%s token" % cluster.bed.machine_id(cluster.second))
    assert kept == after, "the gateway was not told the new token"
    cluster.bed.sh(
        cluster.second, "cp -a /etc/beta9/credentials/k3s_token /root/kept-token; printf %%s %s > /etc/beta9/credentials/k3s_token" % before[cluster.second]
    )
    try:
        assert cluster.ask(cluster.second, "GET", "/api/v1/namespaces/default/pods")[0] == 401
    finally:
        cluster.bed.sh(cluster.second, "mv /root/kept-token /etc/beta9/credentials/k3s_token")


@pytest.mark.long
def test_registries_and_pull_secrets(cluster):
    """Both are written where only root reads them, in use, and in no output; what is taken out of the variables is taken out of the cluster."""
    desired = {
        "k3s_registries": {"mirrors": {"docker.io": {"endpoint": ["https://mirror.example.com"]}}},
        "k3s_image_pull_secrets": [{"registry": "registry.example.com", "username": "puller", "password": "canary-pull-0123456789"}],
    }
    status, output, _words, _table = cluster.role({"pull": (cluster.second, desired)}, "-vvv", "--diff")
    assert status == 0 and "canary-pull" not in output and "cHVsbGVyOmNhbmFye" not in output, output
    look = "stat -c '%a %U' /etc/rancher/k3s/registries.yaml /var/lib/rancher/k3s/server/manifests/beta9-pull-secret.yaml; "
    assert cluster.bed.sh(cluster.second, look).splitlines() == ["600 root", "600 root"]
    account = "k3s kubectl get serviceaccount default -n default -o json | grep -c beta9-pull; true"
    secret = "k3s kubectl get secret beta9-pull -n default -o json | grep -c dockerconfigjson; true"
    assert cluster.bed.sh(cluster.second, account) == "1"
    wait_for(lambda: cluster.bed.sh(cluster.second, secret) != "0")
    status, output, _words, table = cluster.role({"pull": (cluster.second, desired)})
    assert status == 0 and table["pull"]["changed"] == 0, output
    status, output, _words, _table = cluster.role({"pull": (cluster.second, {})})
    assert status == 0 and cluster.bed.sh(cluster.second, secret) == "0", output


@pytest.mark.long
def test_host_with_another_name_stays_the_same_node(cluster):
    """The Node of a name that the host had before is told of, and is no reason to fail."""
    names = 'k3s kubectl get nodes -o json | grep -o \'"name": "[^"]*\' | cut -d\'"\' -f4'
    before = cluster.bed.sh(cluster.second, names)
    cluster.bed.sh(cluster.second, "hostname renamed; systemctl restart k3s; sleep 4")
    try:
        assert cluster.bed.sh(cluster.second, names) == before
        stale = '{"kind": "Node", "metadata": {"name": "earlier"}, "status": {"conditions": []}}'
        cluster.bed.sh(cluster.second, "echo '%s' > /root/stale.yaml; k3s kubectl apply -f /root/stale.yaml" % stale)
        status, output, _words, table = cluster.role({"renamed": (cluster.second, {})})
        assert status == 0 and table["renamed"]["changed"] == 0 and "there is earlier, of an earlier host name" in output, output
    finally:
        cluster.bed.sh(cluster.second, "hostname %s; k3s kubectl delete node/earlier; rm -f /root/stale.yaml" % cluster.second)


@pytest.mark.long
def test_offboarding_drains_first_and_leaves_nothing(cluster):
    worker, bed = cluster.second, cluster.bed
    bed.sh(worker, TRACES)
    entry = {"machineId": bed.machine_id(worker), "poolName": "gpu", "status": "available", "activeContainers": [{"containerId": "c-1"}], "stubborn": True}
    bed.sh(bed.gateway, "redis-cli hset double:workers w-1 '%s'" % json.dumps(entry))
    status, output = bed.play("offboard_worker.yml", "-l", worker, "-e", "machine_drain_seconds=2")
    assert status != 0 and "w-1 runs 1" in output and cluster.inspect(worker)[0] == OLD, output
    assert json.loads(bed.sh(bed.gateway, "redis-cli hget double:workers w-1"))["status"] == "disabled"
    bed.sh(bed.gateway, "redis-cli hset double:workers w-1 '%s'" % json.dumps(dict(entry, stubborn=False)))
    status, output = bed.play("offboard_worker.yml")
    assert status == 0, output
    assert json.loads(bed.sh(bed.gateway, "redis-cli hget double:workers w-1"))["activeContainers"] == []
    for name in bed.workers:
        left = bed.sh(
            name,
            """ls -d /etc/rancher /var/lib/rancher /var/lib/kubelet /usr/local/bin/k3s /var/lib/beta9-k3s /etc/beta9 /etc/systemd/system/k3s.service \
                /etc/systemd/system/beta9-* 2>/dev/null; nft list tables | grep -vxE 'table ip6? (nat|filter|mangle)'; ss -ltn 'sport = :6443' | tail -n +2
                systemctl list-units --all --plain --no-legend 'k3s*' 'beta9-*'""",
        )
        assert left == "", name
    # packages and the package manager's logs stay, and a login leaves traces of its own
    theirs = ("/etc/logcheck", "/etc/nftables.conf", "/var/log/apt/", "/var/log/dpkg.log", "/run/motd.dynamic", "mount tmpfs /run/user/")
    left = {line for line in bed.sh(worker, SNAPSHOT).splitlines() if not line.startswith(theirs)} - set(cluster.before) - {"/run/netns"}
    assert left == set(), "\n".join(sorted(left))
    others = "/root/iptables-double/iptables-save | grep -c OTHERS; /root/iptables-double/iptables-save | grep -cE 'KUBE|CNI|FLANNEL'; true"
    assert bed.sh(worker, others).split() == ["2", "0"]
    status, output = bed.play("offboard_worker.yml")
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output
    bed.sh(bed.gateway, "redis-cli del double:workers")


@pytest.mark.long
def test_hosts_without_internet_get_it_from_the_controller(cluster):
    """One bare host gets a good release with its images; the other one that was damaged on the way, then one that never becomes Ready."""
    good, damaged = ROOT / "build" / "k3s-airgap" / "good", ROOT / "build" / "k3s-airgap" / "damaged"
    for folder in (good, damaged):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(SITE / "good" / OLD, folder)
    (damaged / "k3s").write_bytes(b"not the program")
    (good / "plugin.tar").write_bytes(b"images of the plugin")
    images = [{"name": "plugin.tar", "sha256": hashlib.sha256(b"images of the plugin").hexdigest()}]
    offline = {"k3s_artifact_url": "http://127.0.0.1:9", "k3s_insecure_mirror": True, "beta9_gpus": 0, "beta9_hostname": "127.77.0.9"}
    desired = (cluster.second, dict(offline, k3s_airgap_dir=str(good), k3s_extra_images=images))
    bad = dict(offline, k3s_airgap_dir=str(SITE / "good" / BROKEN), version=BROKEN, k3s_wait_seconds=4)
    status, output, words, table = cluster.role({"good": desired, "never": (cluster.first, bad)}, "--check", "--diff")
    assert status == 0 and table["good"]["changed"] > 3, output
    assert cluster.bed.sh(cluster.second, "ls -d /usr/local/bin/k3s /var/lib/beta9-k3s /etc/rancher /var/lib/rancher /etc/beta9 2>/dev/null; true") == ""
    status, output, words, _recap = cluster.role({"good": desired, "damaged": (cluster.first, dict(offline, k3s_airgap_dir=str(damaged)))})
    assert list(words) == ["damaged"] and re.search("k3s: expected SHA-256 [0-9a-f]{64}, found", words["damaged"]), output
    assert cluster.bed.sh(cluster.first, "ls -A /usr/local/bin | grep k3s; systemctl is-active k3s; true") == "inactive"
    assert cluster.inspect(cluster.second)[:2] == [OLD, OLD]
    assert cluster.bed.sh(cluster.second, "ls -A /var/lib/rancher/k3s/agent/images").split() == ["k3s-airgap-images-amd64.tar.zst", "plugin.tar"]
    status, output, words, table = cluster.role({"good": desired, "never": (cluster.first, bad)})
    assert list(words) == ["never"] and "expected the node to be Ready within 4 s" in words["never"] and "journalctl -u k3s" in words["never"], output
    assert table["good"]["changed"] == 0, output
    status, output = cluster.bed.play("offboard_worker.yml")
    assert status == 0, output
