"""Real test hosts on this machine: podman containers that boot systemd, run sshd, and reach each other by name.

    testbed.py deps            install the Debian packages this needs (as root)
    testbed.py up [--workers N] [--tun]  build what is missing, start a gateway host and workers, write build/testbed/inventory.yml
    testbed.py up --gateway KIND --worker KIND [--worker KIND ...]  the same with hosts as people have them, see GATEWAYS and WORKERS
    testbed.py status          which hosts run
    testbed.py exec HOST CMD   run a command in a host
    testbed.py down            remove hosts and network (images stay cached)

One gateway host (b9-gateway: Debian 12, sshd, Redis, the gateway double) and workers b9-worker1 (Debian 12, reached as root),
b9-worker2 (Debian 13, reached as user ops with sudo), further ones alternating, unless --worker names their kinds. B9_TESTBED=NAME makes another set beside it,
with names that start with NAME. Standard library only.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import fcntl
import hashlib
import json
import os
import pathlib
import resource
import secrets
import shutil
import subprocess
import sys
import time
import zlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = os.environ.get("B9_TESTBED", "b9")  # several testbeds can stand side by side: b9 is the demo's
SUBNET = "10.89.%d" % {"b9": 77, "b9m": 78, "b9t": 79}.get(NAME, 80 + zlib.crc32(NAME.encode()) % 100)
STATE = ROOT / "build" / ("testbed" if NAME == "b9" else "testbed-" + NAME)
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "beta9-workers"
NETWORK, LABEL = NAME, "beta9-testbed=" + NAME
PACKAGES = (
    "podman runc conmon mmdebstrap containernetworking-plugins golang-github-containernetworking-plugin-dnsname iptables "
    "iproute2 openssh-client redis-server python3-redis python3-venv jq"
).split()
BARE = "systemd systemd-sysv dbus libpam-systemd openssh-server python3 sudo iproute2 ca-certificates procps".split()
DOUBLE = ["redis-server", "python3-redis", "curl"]
DNF = "dnf dnf-plugins-core rpm createrepo-c gnupg".split()
NEWEST = "testing"
IMAGES = {
    "debian12": ("bookworm", BARE),
    "debian13": ("trixie", BARE),
    "dnf": ("bookworm", BARE + DNF),  # dnf 4.14 is that of RHEL 9
    "newest": (NEWEST, BARE + ["sudo-rs", "rust-coreutils"]),
    "gateway": ("bookworm", BARE + DOUBLE),
    "gateway-debian13": ("trixie", BARE + DOUBLE),
    "gateway-newest": (NEWEST, BARE + DOUBLE),
}
# Hosts as people have them: (image, the user that Ansible logs in as, what is done to the host before that)
SOCKET = "systemctl disable -q --now ssh.service; ssh-keygen -A >/dev/null; systemctl enable -q --now ssh.socket"
UMASK = """sed -i 's/^UMASK.*/UMASK 077/' /etc/login.defs
for file in common-session common-session-noninteractive; do
    grep -q umask=077 /etc/pam.d/$file || echo 'session optional pam_umask.so umask=077' >> /etc/pam.d/$file
done"""
# Nothing listens at this proxy: a question that goes through it fails. apt has its own way out, as where people have such proxies
PROXY = """for name in http_proxy https_proxy HTTP_PROXY HTTPS_PROXY; do echo "$name=http://127.0.0.1:9"; done > /etc/environment
echo 'Acquire::http::Proxy "DIRECT"; Acquire::https::Proxy "DIRECT";' > /etc/apt/apt.conf.d/10proxy"""
# The userland of RHEL 9 as far as the product sees it: dnf 4.14 instead of apt, no autossh, and what the system says it is
EL9 = """mv -f /usr/bin/apt-get /usr/bin/apt-get.away 2>/dev/null || true
cat > /usr/lib/os-release <<'END'
%s
END
echo 9 > /etc/dnf/vars/releasever; mkdir -p /etc/yum.repos.d /etc/rpm; echo '%_dbpath /var/lib/rpm' > /etc/rpm/macros
printf '[main]\\nenabled=0\\n' > /etc/dnf/plugins/local.conf
grep -q platform:el9 /etc/dnf/dnf.conf || echo module_platform_id=platform:el9 >> /etc/dnf/dnf.conf"""
EL9 = EL9.replace("%s", (ROOT / "tests/unit/host/os_release/rocky-9").read_text().strip(), 1)
# sudo and coreutils as Ubuntu 26.04 has them, the other sudo beside it
RUST = """[ -e /usr/bin/sudo.ws ] || cp -p /usr/bin/sudo /usr/bin/sudo.ws; ln -sf sudo-rs /usr/bin/sudo
for name in $(coreutils --list); do ln -sf coreutils "/usr/bin/$name"; done"""
GATEWAYS = {
    "debian12": ("gateway", "root", ""),
    "debian13": ("gateway-debian13", "root", ""),
    "socket": ("gateway-debian13", "root", SOCKET),  # Debian 13 with sshd started by ssh.socket
    "newest": ("gateway-newest", "root", ""),
}
WORKERS = {
    "debian12": ("debian12", "root", ""),
    "debian13": ("debian13", "ops", ""),  # with sudo
    "umask": ("debian12", "root", UMASK),  # 077 for every login
    "proxy": ("debian12", "root", PROXY),  # http_proxy in /etc/environment
    "newest": ("newest", "ops", RUST),
    "el9": ("dnf", "root", EL9),
}
# Units that make no sense in a container and would leave it "degraded"
MASKED = "systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-resolved.service getty.target console-getty.service".split()
HOST_KEYS = r"[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n"


def say(text):
    print("testbed: " + text, flush=True)


def run(*command, check=True, quiet=True, text_input=None, timeout=600):
    """Run a command; return its output. Its errors are shown when it fails."""
    done = subprocess.run(command, capture_output=quiet, text=True, check=False, input=text_input, timeout=timeout)
    if check and done.returncode:
        sys.exit("testbed: %s failed (%d)\n%s%s" % (" ".join(command), done.returncode, done.stdout or "", done.stderr or ""))
    return (done.stdout or "").strip() if done.returncode == 0 else None


def deps():
    """Install the packages that are missing. Needs root and Debian."""
    installed = run("dpkg-query", "-W", "-f", "${Package} ${Status}\n") or ""
    missing = [name for name in PACKAGES if "\n%s install ok installed" % name not in "\n" + installed]
    if not missing:
        return
    if os.geteuid():
        sys.exit("testbed: expected root, to install: " + " ".join(missing))
    say("installing " + " ".join(missing))
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment, stdout=subprocess.DEVNULL)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends"] + missing, check=True, env=environment, stdout=subprocess.DEVNULL)


def hooks():
    """Return what is done to a new image."""
    return (
        ['--customize-hook=mkdir -p "$1/usr/local/share/ca-certificates"']
        + ["--customize-hook=copy-in %s /usr/local/share/ca-certificates" % path for path in local_certificates()]
        + [
            '--customize-hook=chroot "$1" update-ca-certificates >/dev/null',
            # every host makes its own
            '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*; mkdir -p "$1/etc/systemd/system/ssh.service.d"',
            '--customize-hook=printf "%s" > "$1/etc/systemd/system/ssh.service.d/host-keys.conf"' % HOST_KEYS,
            '--customize-hook=chroot "$1" systemctl mask ' + " ".join(MASKED),
            '--customize-hook=chroot "$1" useradd -m -s /bin/bash ops',
            '--customize-hook=echo "ops ALL=(ALL) NOPASSWD: ALL" > "$1/etc/sudoers.d/ops"',
            # an empty machine-id, not a missing one: with that the first boot would enable every unit
            '--customize-hook=rm -f "$1"/etc/hostname; : > "$1/etc/machine-id"',
        ]
    )


def image_tag(name):
    """Return the tag of an image, which changes with its recipe."""
    recipe = json.dumps([IMAGES[name], hooks(), [path.read_text() for path in local_certificates()]])
    return "localhost/beta9-testbed-%s:%s" % (name, hashlib.sha256(recipe.encode()).hexdigest()[:12])


def local_certificates():
    """Return the CA certificates that this machine adds to the distribution's: its package mirrors may need them."""
    return sorted(pathlib.Path("/usr/local/share/ca-certificates").glob("*.crt"))


def build(name):
    """Build one image from Debian packages, unless it is there. Another run that is about to make it is waited for."""
    tag = image_tag(name)
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / (name + ".lock"), "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if run("podman", "image", "exists", tag, check=False) is None:
            make(name, tag)


def make(name, tag):
    """Make one image."""
    suite, packages = IMAGES[name]
    archive = CACHE / (tag.rpartition("/")[2].replace(":", "-") + ".tar")
    if not archive.exists():
        say("building image %s (%s) ..." % (name, suite))
        start = time.monotonic()
        partial = archive.with_suffix(".partial.tar")
        fresh = ['--aptopt=Acquire::Check-Valid-Until "false"'] if suite == NEWEST else []
        run("mmdebstrap", "--quiet", "--variant=minbase", *fresh, "--include=" + ",".join(packages), *hooks(), suite, str(partial))
        partial.rename(archive)
        say("image %s built in %d s" % (name, time.monotonic() - start))
    run("podman", "import", str(archive), tag)


def hosts(gateway, workers):
    """Return the hosts as (name, image, address, user, preparation), given the gateway's and the workers' kinds."""
    found = [(NAME + "-gateway", GATEWAYS[gateway][0], SUBNET + ".10", *GATEWAYS[gateway][1:])]
    for number, kind in enumerate(workers, 1):
        image, user, preparation = WORKERS[kind]
        found.append(("%s-worker%d" % (NAME, number), image, "%s.%d" % (SUBNET, 10 + number), user, preparation))
    return found


def limits():
    """Return podman's options for limits that this machine permits: its own defaults may be above them."""
    options = []
    for kind, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        hard = resource.getrlimit(number)[1]
        hard = 32768 if hard == resource.RLIM_INFINITY else min(hard, 32768)
        options += ["--ulimit", "%s=%d:%d" % (kind, hard, hard)]
    return options


def start(name, image, address, tun=False):
    """Start one host, or make sure that it runs. With tun it may make network interfaces and a firewall of its own."""
    if run("podman", "inspect", "--format", "{{.State.Running}}", name, check=False) == "true" and run("podman", "exec", name, "true", check=False) is None:
        run("podman", "rm", "--force", "--time", "0", name)  # podman believes that it runs, but its processes are gone
    if run("podman", "container", "exists", name, check=False) is None:
        # crun refuses hybrid cgroups; where runc is installed it runs everywhere
        runtime = ["--runtime", shutil.which("runc")] if shutil.which("runc") else []
        # init does this itself except in a container, where systemd's credentials then stay invisible to their service
        boot, newest = "mount --make-rshared /; exec /sbin/init", IMAGES[image][0] == NEWEST
        if newest:  # systemd from 258 on refuses hybrid cgroups
            boot = "umount -R -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; " + boot
        run(
            "podman",
            *runtime,
            "run",
            "--detach",
            "--systemd=always",
            "--name",
            name,
            "--hostname",
            name,
            "--network",
            NETWORK,
            "--ip",
            address,
            # as on a real host, so that systemd's sandboxing is real (systemd 257 refuses some of it otherwise), and the packet filter
            "--cap-add",
            "SYS_ADMIN,SYS_PTRACE,NET_ADMIN" + (",NET_RAW" if tun else ""),
            *(["--device", "/dev/net/tun"] if tun else []),
            *(["--cgroupns=private"] if newest else []),
            "--label",
            LABEL,
            *limits(),
            image_tag(image),
            "/bin/sh",
            "-c",
            boot,
        )
    elif run("podman", "inspect", "--format", "{{.State.Running}}", name) != "true":
        run("podman", "start", name)


def prepare(name, user, preparation, public_key):
    """Wait for the host's init, make it the kind of host that is asked for, give it host keys and let the controller in."""
    deadline = time.monotonic() + 60
    while run("podman", "exec", name, "systemctl", "is-active", "multi-user.target", check=False) != "active":
        if time.monotonic() > deadline:
            sys.exit("testbed: %s: systemd did not come up: %s" % (name, run("podman", "exec", name, "systemctl", "--failed", check=False)))
        time.sleep(0.2)
    script = """set -e
    %(preparation)s
    for _ in $(seq 100); do systemctl is-active -q ssh ssh.socket && break; sleep 0.2; done
    home=$(getent passwd %(user)s | cut -d: -f6)
    install -d -m 700 -o %(user)s -g %(user)s "$home/.ssh"
    printf '%%s\\n' '%(key)s' > "$home/.ssh/authorized_keys"
    chown %(user)s: "$home/.ssh/authorized_keys"; chmod 600 "$home/.ssh/authorized_keys"
    """ % {"user": user, "key": public_key, "preparation": preparation}
    run("podman", "exec", "-i", name, "bash", text_input=script)


def gateway_double():
    """Install and start the gateway double on the gateway host, with the same admin token as before."""
    source = ROOT / "tests" / "doubles" / "gateway"
    token_file = STATE / "admin_token"
    if not token_file.exists():
        token_file.touch(mode=0o600)
        token_file.write_text(secrets.token_urlsafe(32))
    config = {
        "listen": "0.0.0.0:31994",
        "redis": "redis://127.0.0.1:6379/0",
        "admin_token_file": "/etc/beta9-gateway-double.token",
        "log": "/var/log/beta9-gateway-double.log",
        "state_ttl_seconds": int(os.environ.get("B9_STATE_TTL_SECONDS", "300")),
        "pending_ttl_seconds": 3600,
        "hostname_mode": os.environ.get("B9_HOSTNAME_MODE", "direct"),
        "tailnet_connected": os.environ.get("B9_TAILNET_CONNECTED", "1") == "1",
        "pools": [
            {"name": "gpu", "provider": "generic", "gpu": "A10G", "machine_creation": True},
            {"name": "cpu", "provider": "generic", "gpu": "", "machine_creation": True},
            {"name": "home", "mode": "local"},
        ],
    }
    archive = subprocess.run(["tar", "-C", str(source), "--exclude=__pycache__", "-c", "."], check=True, capture_output=True).stdout
    digest = hashlib.sha256(archive + json.dumps(config).encode() + token_file.read_bytes()).hexdigest()
    if run("podman", "exec", NAME + "-gateway", "cat", "/opt/beta9-gateway-double/.digest", check=False) == digest:
        return
    unpack = subprocess.run(
        ["podman", "exec", "-i", NAME + "-gateway", "sh", "-c", "mkdir -p /opt/beta9-gateway-double && tar -C /opt/beta9-gateway-double -x"],
        input=archive,
        check=False,
    )
    if unpack.returncode:
        sys.exit("testbed: the gateway double could not be copied")
    for path, text in (
        ("/etc/beta9-gateway-double.json", json.dumps(config)),
        ("/etc/beta9-gateway-double.token", token_file.read_text()),
        ("/opt/beta9-gateway-double/.digest", digest),
    ):
        run("podman", "exec", "-i", NAME + "-gateway", "sh", "-c", "umask 077; cat > " + path, text_input=text)
    run(
        "podman",
        "exec",
        NAME + "-gateway",
        "sh",
        "-c",
        "systemctl enable -q --now redis-server; cp /opt/beta9-gateway-double/beta9-gateway-double.service /etc/systemd/system/ && "
        "systemctl daemon-reload && systemctl enable -q beta9-gateway-double && systemctl restart beta9-gateway-double",
    )


def inventory(members):
    """Return the inventory as YAML text (which JSON is)."""
    key, known = STATE / "id_ed25519", STATE / "known_hosts"
    workers = {}
    for name, image, address, user, _preparation in members[1:]:
        workers[name] = {"ansible_host": address, "ansible_user": user}
        if IMAGES[image][0] == NEWEST:  # which has no number yet, and is supported by nobody
            workers[name]["preflight_systems"] = ["debian"]
        if user != "root":
            workers[name]["ansible_become"] = True
    return (
        json.dumps(
            {
                "all": {
                    "vars": {
                        "ansible_ssh_private_key_file": str(key),
                        "ansible_python_interpreter": "/usr/bin/python3",
                        "ansible_ssh_common_args": "-o UserKnownHostsFile=%s -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes" % known,
                        "beta9_gateway_url": "http://%s:31994" % members[0][2],
                        "beta9_admin_token_file": str(STATE / "admin_token"),
                        "beta9_connection": "autossh",
                        "beta9_redis_url": "redis://127.0.0.1:6379/0",
                    },
                    "children": {
                        "beta9_gateway": {"hosts": {members[0][0]: {"ansible_host": members[0][2], "ansible_user": "root"}}},
                        "gpu-hosts": {"hosts": workers, "vars": {"beta9_pool": "gpu"}},
                    },
                }
            },
            indent=2,
        )
        + "\n"
    )


def room_for_inits():
    """Let the kernel give every host's systemd its inotify instances: the usual 128 are used up by about 20 hosts, which then do not boot."""
    path = pathlib.Path("/proc/sys/fs/inotify/max_user_instances")
    if int(path.read_text()) < 1024 and os.access(path, os.W_OK):
        say("raising fs.inotify.max_user_instances to 1024 until the next boot")
        path.write_text("1024")


def up(gateway, workers, tun=False):
    """Start everything that is not running, and write how to reach it. Takes the kinds of the hosts."""
    room_for_inits()
    STATE.mkdir(parents=True, exist_ok=True)
    members = hosts(gateway, workers)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(build, sorted({member[1] for member in members})))
    if run("podman", "network", "exists", NETWORK, check=False) is None:
        run("podman", "network", "create", "--subnet", SUBNET + ".0/24", NETWORK)
    key = STATE / "id_ed25519"
    if not key.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "beta9-testbed", "-f", str(key))
    public = (STATE / "id_ed25519.pub").read_text().strip()
    for name, image, address, _user, _preparation in members:
        start(name, image, address, tun)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda member: prepare(member[0], member[3], member[4], public), members))
    lines = []
    for name, _image, address, _user, _preparation in members:
        for host_key in run("podman", "exec", name, "sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub").splitlines():
            lines.append("%s,%s %s" % (name, address, " ".join(host_key.split()[:2])))
    (STATE / "known_hosts").write_text("\n".join(lines) + "\n")
    gateway_double()
    (STATE / "inventory.yml").write_text(inventory(members))
    say("%d hosts are up; inventory: %s" % (len(members), (STATE / "inventory.yml").relative_to(ROOT) if STATE.is_relative_to(ROOT) else STATE))


def mine():
    """Return the names of this testbed's containers."""
    return (run("podman", "ps", "--all", "--filter", "label=" + LABEL, "--format", "{{.Names}}") or "").split()


def down():
    """Remove the hosts and what belongs to them; cached images stay."""
    names = mine()
    if names:
        if run("podman", "rm", "--force", "--time", "2", *names, check=False) is None:  # on a busy machine one ends while it is being stopped
            run("podman", "rm", "--force", "--time", "0", *mine())
    if run("podman", "network", "exists", NETWORK, check=False) is not None:
        run("podman", "network", "rm", NETWORK)
    shutil.rmtree(STATE, ignore_errors=True)
    say("removed %d hosts" % len(names))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("deps")
    up_parser = verbs.add_parser("up")
    up_parser.add_argument("--workers", type=int, default=2)
    up_parser.add_argument("--gateway", choices=sorted(GATEWAYS), default="debian12", help="kind of the gateway host")
    up_parser.add_argument("--worker", choices=sorted(WORKERS), action="append", help="kind of one worker, instead of --workers; may be repeated")
    up_parser.add_argument("--tun", action="store_true", help="hosts may make network interfaces, as a VPN does")
    verbs.add_parser("down")
    verbs.add_parser("status")
    execute = verbs.add_parser("exec")
    execute.add_argument("host")
    execute.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.verb == "deps":
        deps()
    elif arguments.verb == "up":
        up(arguments.gateway, arguments.worker or [("debian12", "debian13")[number % 2] for number in range(arguments.workers)], arguments.tun)
    elif arguments.verb == "down":
        down()
    elif arguments.verb == "status":
        print(run("podman", "ps", "--all", "--filter", "label=" + LABEL, "--format", "table {{.Names}}\t{{.Status}}"))
    else:
        sys.exit(subprocess.run(["podman", "exec", arguments.host] + arguments.command, check=False).returncode)


if __name__ == "__main__":
    main()
