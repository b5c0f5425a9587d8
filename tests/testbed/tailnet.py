"""A tailnet of the real programs beside the test hosts: headscale and its relay on the gateway host, a release of Tailscale to install.

    tailnet.py available       exit 0 if the programs can be had here, else say why not and exit 3
    tailnet.py up              build what is not cached, run headscale on the gateway host, write build/testbed-NAME/tailnet.yml
    tailnet.py k3s             run the k3s double on the workers, on all interfaces as k3s does
    tailnet.py key             print a fresh auth key
    tailnet.py packages        serve the programs as a signed repository as well, in the layout of Tailscale's own; print its key's fingerprint

Both programs are built with Go from their modules at the versions below, and kept in the testbed's cache. The release is served from
the gateway host in the layout of Tailscale's own static tarballs, so that the role installs it as it would anywhere.
The hosts come from testbed.py up --tun. Standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time

import testbed
from testbed import CACHE, NAME, STATE, SUBNET, run, say

TAILSCALE, HEADSCALE = "1.94.1", "0.28.0"
PROGRAMS = CACHE / ("tailnet-tailscale%s-headscale%s" % (TAILSCALE, HEADSCALE))
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
RELEASE = "tailscale_%s_%s.tgz" % (TAILSCALE, ARCHITECTURE)
GATEWAY = NAME + "-gateway"
LOGIN_SERVER = "https://%s.10:8443" % SUBNET
DOMAIN = "beta9.tailnet.example"  # what the gateway double appends to a registered name
CONFIG = """
server_url: %(url)s
listen_addr: 0.0.0.0:8443
metrics_listen_addr: ""
grpc_listen_addr: 127.0.0.1:50443
noise: {private_key_path: /var/lib/headscale/noise_private.key}
prefixes: {v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48"}
derp:
  server:
    enabled: true
    region_id: 999
    region_code: test
    region_name: Test
    stun_listen_addr: 0.0.0.0:3478
    private_key_path: /var/lib/headscale/derp_server_private.key
    ipv4: %(address)s
  urls: []
  auto_update_enabled: false
disable_check_updates: true
database: {type: sqlite, sqlite: {path: /var/lib/headscale/db.sqlite}}
tls_cert_path: /etc/headscale/tls.crt
tls_key_path: /etc/headscale/tls.key
log: {level: info}
policy: {mode: database}
dns: {magic_dns: true, base_domain: %(domain)s, override_local_dns: false, nameservers: {global: []}}
unix_socket: /run/headscale/headscale.sock
unix_socket_permission: "0700"
""" % {"url": LOGIN_SERVER, "address": SUBNET + ".10", "domain": DOMAIN}
UNIT = """
[Service]
ExecStart=%s
RuntimeDirectory=headscale
StateDirectory=headscale
Restart=on-failure
[Install]
WantedBy=multi-user.target
"""


def why_not():
    """Return why the programs can't be had here, or None."""
    if all((PROGRAMS / name).exists() for name in ("tailscale", "tailscaled", "headscale")):
        return None
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "/dev/net/tun can't be used here"
    if not shutil.which("go"):
        return "Go is not installed, and Tailscale and headscale are not in the cache"
    for module, version in (("tailscale.com", TAILSCALE), ("github.com/juanfont/headscale", HEADSCALE)):
        asked = subprocess.run(["go", "mod", "download", "%s@v%s" % (module, version)], capture_output=True, text=True, check=False, cwd="/", timeout=300)
        if asked.returncode:
            return "Go can't fetch %s v%s: %s" % (module, version, (asked.stderr.strip().splitlines() or ["no reason given"])[-1])
    return None


def build():
    """Build the programs that are not in the cache."""
    if all((PROGRAMS / name).exists() for name in ("tailscale", "tailscaled", "headscale")):
        return
    partial = PROGRAMS.with_name(PROGRAMS.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    stamp = "-X tailscale.com/version.longStamp=%s -X tailscale.com/version.shortStamp=%s" % (TAILSCALE, TAILSCALE)
    compile_("tailscale.com", TAILSCALE, ["tailscale.com/cmd/tailscale", "tailscale.com/cmd/tailscaled"], stamp, partial)
    compile_("github.com/juanfont/headscale", HEADSCALE, ["github.com/juanfont/headscale/cmd/headscale"], "", partial)
    partial.rename(PROGRAMS)
    say("built in %d s" % (time.monotonic() - start))


def compile_(module, version, packages, stamp, folder):
    """Compile commands of a module at a version, with the checksums of dependencies that the module itself carries."""
    say("building %s v%s ..." % (module, version))
    found = json.loads(run("go", "mod", "download", "-json", "%s@v%s" % (module, version)))
    go = next(line.split()[1] for line in pathlib.Path(found["GoMod"]).read_text().splitlines() if line.startswith("go "))
    with tempfile.TemporaryDirectory() as work:
        (pathlib.Path(work) / "go.mod").write_text("module testbed\ngo %s\nrequire %s v%s\n" % (go, module, version))
        (pathlib.Path(work) / "go.sum").write_text((pathlib.Path(found["Dir"]) / "go.sum").read_text())
        command = ["nice", "go", "build", "-mod=mod", "-trimpath", "-ldflags", "-s -w " + stamp, "-o", str(folder) + "/"] + packages
        subprocess.run(command, check=True, env=dict(os.environ, CGO_ENABLED="0"), cwd=work)


def release():
    """Return the release's tarball, in the layout of Tailscale's own."""
    path = PROGRAMS / RELEASE
    if not path.exists():
        folder = RELEASE[: -len(".tgz")]
        partial = path.with_name(path.name + ".partial")
        with tarfile.open(partial, "w:gz", compresslevel=1) as archive:
            for name in ("tailscaled", "tailscale"):
                member = archive.gettarinfo(PROGRAMS / name, "%s/%s" % (folder, name))
                member.mode, member.uname, member.gname, member.uid, member.gid = 0o755, "root", "root", 0, 0
                with open(PROGRAMS / name, "rb") as stream:
                    archive.addfile(member, stream)
        partial.rename(path)
    return path


def copy(host, path, target, mode="0755"):
    """Copy a file into a host."""
    run("podman", "cp", str(path), "%s:%s" % (host, target))
    run("podman", "exec", host, "chmod", mode, target)


def put(host, path, text):
    """Write a text file in a host."""
    run("podman", "exec", "-i", host, "sh", "-c", "mkdir -p $(dirname %s); cat > %s" % (path, path), text_input=text)


def certificates():
    """Make a CA for these hosts, and a certificate of the control server."""
    folder = STATE / "tailnet"
    if (folder / "server.crt").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    request = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    run(*request, "-x509", "-days", "30", "-subj", "/CN=beta9 testbed CA", "-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.crt"))
    run(*request, "-subj", "/CN=headscale", "-keyout", str(folder / "server.key"), "-out", str(folder / "server.csr"))
    (folder / "names").write_text("subjectAltName=IP:%s.10,DNS:%s\n" % (SUBNET, GATEWAY))
    sign = ["openssl", "x509", "-req", "-days", "30", "-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"), "-CAcreateserial"]
    run(*sign, "-in", str(folder / "server.csr"), "-extfile", str(folder / "names"), "-out", str(folder / "server.crt"))
    return folder


def headscale(*words):
    """Run headscale's own command; return what it prints as JSON."""
    return json.loads(run("podman", "exec", GATEWAY, "headscale", *words, "--output", "json"))


def key():
    """Return a fresh auth key for one hour, for any number of hosts."""
    user = next(entry["id"] for entry in headscale("users", "list") if entry["name"] == "beta9")
    return headscale("preauthkeys", "create", "--user", str(user), "--reusable", "--expiration", "1h")["key"]


def up():
    """Run the control server and the artefact server on the gateway host."""
    reason = why_not()
    if reason:
        print("tailnet: not available: " + reason)
        sys.exit(3)
    build()
    folder = certificates()
    for host in testbed.mine():  # every host trusts the control server's CA, as a site's own CA is trusted
        put(host, "/usr/local/share/ca-certificates/beta9-testbed.crt", (folder / "ca.crt").read_text())
        run("podman", "exec", host, "sh", "-c", "update-ca-certificates >/dev/null 2>&1")
    copy(GATEWAY, PROGRAMS / "headscale", "/usr/local/bin/headscale")
    put(GATEWAY, "/etc/headscale/config.yaml", CONFIG)
    put(GATEWAY, "/etc/headscale/tls.crt", (folder / "server.crt").read_text())
    put(GATEWAY, "/etc/headscale/tls.key", (folder / "server.key").read_text())
    put(GATEWAY, "/etc/systemd/system/headscale.service", UNIT % "/usr/local/bin/headscale serve")
    put(GATEWAY, "/etc/systemd/system/artefacts.service", UNIT % "/usr/bin/python3 -m http.server 8480 --directory /srv/artefacts")
    run("podman", "exec", GATEWAY, "mkdir", "-p", "/srv/artefacts")
    copy(GATEWAY, release(), "/srv/artefacts/" + RELEASE, "0644")
    run("podman", "exec", GATEWAY, "sh", "-c", "systemctl daemon-reload; systemctl enable -q --now headscale artefacts; systemctl restart headscale")
    deadline = time.monotonic() + 30
    while run("podman", "exec", GATEWAY, "headscale", "users", "list", check=False) is None:
        if time.monotonic() > deadline:
            sys.exit("tailnet: headscale did not come up\n%s" % run("podman", "exec", GATEWAY, "journalctl", "-u", "headscale", "-n", "20", "--no-pager"))
        time.sleep(0.2)
    if not any(entry["name"] == "beta9" for entry in headscale("users", "list") or []):
        headscale("users", "create", "beta9")
    fresh, key_file, canary = key(), STATE / "tailnet" / "auth_key", STATE / "tailnet" / "canary"
    for path in (key_file, canary):  # tests take the first one away, and look for the second where it must not be
        path.touch(mode=0o600)
        path.write_text(fresh)
    settings = {
        "beta9_connection": "tailscale",
        "tailscale_login_server": LOGIN_SERVER,
        "tailnet_key": str(key_file),
        "tailnet_canary": str(canary),
        "tailscale_auth_key_file": "{{ tailnet_key if tailnet_key is file else '' }}",
        "tailscale_version": TAILSCALE,
        "tailscale_artifact_url": "http://%s.10:8480/%s" % (SUBNET, RELEASE),
        "tailscale_artifact_checksum": hashlib.sha256(release().read_bytes()).hexdigest(),
    }
    (STATE / "tailnet.yml").write_text(json.dumps({"all": {"vars": settings}}, indent=2) + "\n")
    say("headscale %s is up at %s" % (HEADSCALE, LOGIN_SERVER))


def k3s():
    """Run the k3s double on every worker."""
    state = {"listen": "0.0.0.0", "readyz": [], "node_ready": True, "allocatable": 0, "token": "k3s-double-token", "allowed": [], "kernel_missing": []}
    for host in testbed.mine():
        if host == GATEWAY:
            continue
        copy(host, testbed.ROOT / "tests/doubles/k3s/k3s_double.py", "/opt/k3s_double.py", "0644")
        put(host, "/usr/local/bin/k3s", '#!/bin/sh\n# TEST DOUBLE\nexec /usr/bin/python3 /opt/k3s_double.py "$@"\n')
        put(host, "/etc/beta9-k3s-double.json", json.dumps(state))
        put(host, "/etc/systemd/system/k3s.service", UNIT % "/usr/local/bin/k3s server")
        run(
            *("podman", "exec", host, "sh", "-c"),
            "chmod 755 /usr/local/bin/k3s; cd /etc; [ -e beta9-k3s-double.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 "
            "-nodes -days 30 -subj /CN=%s -keyout beta9-k3s-double.pem -out k3s.crt 2>/dev/null && cat k3s.crt >> beta9-k3s-double.pem; "
            "systemctl daemon-reload; systemctl enable -q --now k3s" % host,
        )


def packages():
    """Serve a repository for Debian 12 and 13 from the gateway host, and return the fingerprint of its key."""
    sys.path.insert(0, str(testbed.ROOT / "tests/doubles/gpu"))
    from build_packages import index, package  # pylint: disable=import-outside-toplevel,import-error

    service = "[Service]\nEnvironmentFile=-/etc/default/tailscaled\nExecStart=/usr/sbin/tailscaled --state=/var/lib/tailscale/tailscaled.state\n"
    service += "RuntimeDirectory=tailscale\nRuntimeDirectoryMode=0755\nStateDirectory=tailscale\nType=notify\n[Install]\nWantedBy=multi-user.target\n"
    files = {"usr/bin/tailscale": (PROGRAMS / "tailscale").read_bytes(), "usr/sbin/tailscaled": (PROGRAMS / "tailscaled").read_bytes()}
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work) / "debian"
        folder.mkdir()
        gpg = ["gpg", "--homedir", work, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
        run(*gpg, "--quick-gen-key", "repository@example.com", "rsa2048", "sign", "never")
        listed = run(*gpg, "--with-colons", "--list-keys", "repository@example.com")
        package(folder, "tailscale", TAILSCALE, dict(files, **{"lib/systemd/system/tailscaled.service": service}), architecture=ARCHITECTURE)
        index(folder, gpg)
        for codename in ("bookworm", "trixie"):
            run(*gpg, "--output", str(folder / (codename + ".noarmor.gpg")), "--export", "repository@example.com")
            layout(folder, codename, gpg)
        run("podman", "exec", GATEWAY, "rm", "-rf", "/srv/artefacts/debian")
        run("podman", "cp", str(folder), GATEWAY + ":/srv/artefacts/debian")
    return next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))


def layout(folder, codename, gpg):
    """Write dists/CODENAME of a repository, for the packages that lie in its folder."""
    below = "main/binary-%s/Packages" % ARCHITECTURE
    (folder / "dists" / codename / below).parent.mkdir(parents=True)
    text = (folder / "Packages").read_bytes()
    (folder / "dists" / codename / below).write_bytes(text)
    date = run("date", "-Ru").replace("+0000", "UTC")
    lines = ["Origin: Tailscale", "Suite: " + codename, "Codename: " + codename, "Date: " + date, "Architectures: " + ARCHITECTURE, "Components: main"]
    lines += ["SHA256:", " %s %d %s" % (hashlib.sha256(text).hexdigest(), len(text), below)]
    (folder / "dists" / codename / "Release").write_text("\n".join(lines) + "\n")
    run(*gpg, "--clearsign", "--output", str(folder / "dists" / codename / "InRelease"), str(folder / "dists" / codename / "Release"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["available", "up", "k3s", "key", "packages"])
    verb = parser.parse_args().verb
    if verb == "available":
        reason = why_not()
        print("tailnet: " + ("not available: " + reason if reason else "available"))
        sys.exit(3 if reason else 0)
    elif verb == "up":
        up()
    elif verb == "k3s":
        k3s()
    elif verb == "packages":
        print(packages())
    else:
        print(key())


if __name__ == "__main__":
    main()
