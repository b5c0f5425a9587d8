"""What runs as root in the guest of test_selinux.py: real sshd in sshd_session_t under an enforcing kernel.

It prints one line of JSON.

Run with an argument it is what Ansible would run in a session of sshd: what the product says of this host.
"""

from __future__ import annotations

import json
import os
import pathlib
import pwd
import subprocess
import sys
import time

sys.path.insert(0, "/srv/collections")
from ansible_collections.beta9.workers.plugins.module_utils.host import selinux
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import peers, sshd_effective

DOMAIN = "system_u:system_r:sshd_session_t:s0"
LISTEN, TARGET = ("127.77.0.9", 6443), "localhost:31994"
OWN = f"""Match User beta9-tunnel
    AuthorizedKeysFile {sshd_effective.KEYS_PATH}
    AllowTcpForwarding yes
    GatewayPorts clientspecified
    MaxSessions 0
"""
CLIENT = """Host *
    Port 22
    HostName 127.0.0.1
    IdentityFile /root/key
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel INFO
    ExitOnForwardFailure yes
"""


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def load(*sources):
    """Compile a policy and let the kernel take it."""
    status, _out, err = run("secilc", "-c", "33", "-o", "/root/policy", "-f", "/dev/null", *sources)
    assert status == 0, err
    handle = os.open("/sys/fs/selinux/load", os.O_WRONLY)
    os.write(handle, pathlib.Path("/root/policy").read_bytes())
    os.close(handle)


def prepare():
    run("ip", "link", "set", "lo", "up")
    run("useradd", "--system", "--shell", "/usr/sbin/nologin", "--no-create-home", "--password", "*", "beta9-tunnel")
    run("ssh-keygen", "-A")
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/key")
    key = peers.public_key(" ".join(pathlib.Path("/root/key.pub").read_text().split()[:2]))
    for path, text in (
        (sshd_effective.OWN_CONFIG, OWN),
        (sshd_effective.KEYS_PATH, peers.render_line("gpu-01", key, *LISTEN, [TARGET]) + "\n"),
        ("/root/.ssh/authorized_keys", key + "\n"),
        ("/root/client", CLIENT),
    ):
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text(text)
    pathlib.Path("/run/sshd").mkdir(exist_ok=True)


def start_sshd():
    """As the policy's transitions would start it."""
    if os.fork() == 0:
        pathlib.Path("/proc/self/attr/exec").write_text(DOMAIN)
        os.execv("/usr/sbin/sshd", ["/usr/sbin/sshd", "-o", "UsePAM=no"])
    os.wait()
    time.sleep(2)


def problems():
    """What the product says, in a session of root's at this sshd."""
    status, out, err = run("ssh", "-F", "/root/client", "root@gateway", "python3", "/srv/guest.py", "problems")
    return json.loads(out) if status == 0 else [f"{status}: {out}{err}"]


def tunnel():
    """Open the tunnel as a worker does. Return what ssh said where it ended, and who listens."""
    words = ["ssh", "-F", "/root/client", "-N", "-R", f"{LISTEN[0]}:{LISTEN[1]}:127.0.0.1:6443", "beta9-tunnel@gateway"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as started:
        time.sleep(6)
        _status, sockets, _err = run("ss", "-ltn")
        found = {"up": started.poll() is None, "listens": f"{LISTEN[0]}:{LISTEN[1]}" in sockets}
        found["domain"] = selinux.context_of(sshd_effective._session("beta9-tunnel") or 1)
        started.terminate()
        return dict(found, said=started.communicate()[0].strip())


def login():
    """Connect to the target through sshd; nothing listens there."""
    return run("ssh", "-F", "/root/client", "-W", TARGET, "beta9-tunnel@gateway")[2].strip()


def main():
    prepare()
    load("/srv/policy.cil")
    start_sshd()
    said = {"not enforcing": problems()}
    pathlib.Path("/sys/fs/selinux/enforce").write_text("1")
    started = time.monotonic()
    said.update(refused=problems(), seconds=time.monotonic() - started, tunnel_refused=tunnel(), login_refused=login())
    rules = "".join(word for word in str(said["refused"]).split("'") if word.startswith("(allow"))
    pathlib.Path("/root/remedy.cil").write_text(rules)
    load("/srv/policy.cil", "/root/remedy.cil")
    said.update(allowed=problems(), tunnel_allowed=tunnel(), login_allowed=login())
    pathlib.Path("/root/permissive.cil").write_text("(typepermissive sshd_session_t)")
    load("/srv/policy.cil", "/root/permissive.cil")
    said.update(permissive=problems())
    print("RESULT " + json.dumps(said), flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        answer = sshd_effective.ask(lambda words: run(*words), "beta9-tunnel")
        need = sshd_effective.Need(listen=LISTEN, permit_open=(TARGET,))
        print(json.dumps([problem._asdict() for problem in sshd_effective.problems(answer, need)]))
        assert pwd.getpwuid(os.geteuid()).pw_name == "root"
    else:
        main()
