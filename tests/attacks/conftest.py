"""Attacks on the product, performed: by a worker that its root has turned, by a hostile gateway, by a hostile mirror.

One file a kind of attack. A test performs the attack and then looks at what the attacker was after, not at what the product says alone.
`turn` makes a worker hostile: its Python adds to, or replaces, what every module or one of them returns.
"""

from __future__ import annotations

import json
import pathlib
import sys

import pytest

from tests.e2e import conftest as e2e

pytest_configure, testbed = e2e.pytest_configure, e2e.testbed
ROOT = e2e.ROOT
sys.path.insert(0, str(ROOT / "tools"))

# What stands where Ansible finds the worker's Python. Only Ansible's modules come as a program on standard input or as AnsiballZ file.
HOSTILE_PYTHON = r"""#!/usr/bin/REAL -I
import json, os, re, subprocess, sys
real, arguments = "/usr/bin/REAL", sys.argv[1:]
if arguments and "AnsiballZ" not in arguments[0]:
    os.execv(real, sys.argv)  # argv[0] tells the real one its virtual environment
program = open(arguments[0], "rb").read() if arguments else sys.stdin.buffer.read()
found = re.search(rb"ansible_collections[./]beta9[./]workers[./]plugins[./]modules[./](\w+)|ansible[./](?:modules|legacy)[./](\w+)", program)
name = next((group.decode() for group in (found.groups() if found else ()) if group), "")
lies = json.load(open("/opt/hostile.json"))
lie = lies.get(name, lies.get("*"))
if lie and lie.get("sleep"):
    import time; time.sleep(lie["sleep"])
done = subprocess.run([real], input=program, stdout=subprocess.PIPE)
out = done.stdout
if lie:
    if "raw" in lie:
        out = lie["raw"].encode("utf-8", "surrogatepass")
    else:
        try:
            head, brace, tail = out.partition(b"{")
            result = json.loads((brace + tail).decode())
            result = lie["replace"] if "replace" in lie else dict(result, **lie.get("add", {}))
            out = head + json.dumps(result).encode()
        except ValueError:
            pass
    with open("/var/log/hostile.log", "a") as log:
        log.write("%s %d\n" % (name, len(out)))
sys.stdout.buffer.write(out)
sys.stdout.flush()
sys.exit(0 if lie else done.returncode)
"""

# Takes every request, answers nothing useful, and keeps what it was told
LISTENER = r"""
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def any(self):
        with open("/var/log/listener.log", "a") as log:
            log.write(json.dumps({"path": self.path, "token": self.headers.get("Authorization", "")}) + "\n")
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"ok": true, "machines": [], "pools": []}')
    do_GET = do_POST = do_DELETE = any
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8099), Handler).serve_forever()
"""


class Turned:
    """Workers that were made hostile, and what they got."""

    def __init__(self, bed):
        self.bed, self.workers = bed, set()

    def __call__(self, worker, module="*", **lie):
        """Let a worker lie. lie: add={keys for the result}, replace={the result}, raw="its text", sleep=seconds. Later calls add to it."""
        text = self.bed.sh(worker, "cat /opt/hostile.json 2>/dev/null || echo '{}'")
        lies = json.dumps(dict(json.loads(text), **{module: lie}))
        self.put(worker, "/opt/hostile.json", lies)
        if worker not in self.workers:
            # a run that was cut off may have left it turned
            real = self.bed.sh(worker, "test -e /usr/bin/python3.honest || cp -P /usr/bin/python3 /usr/bin/python3.honest; readlink -f /usr/bin/python3.honest")
            self.put(worker, "/usr/bin/python3.new", HOSTILE_PYTHON.replace("REAL", real.rpartition("/")[2]))
            self.bed.sh(worker, "chmod 755 /usr/bin/python3.new; mv /usr/bin/python3.new /usr/bin/python3")
            self.workers.add(worker)

    def put(self, worker, path, text):
        """Write a file on a worker."""
        self.bed.sh(worker, "cat > %s <<'END-OF-FILE'\n%s\nEND-OF-FILE" % (path, text))

    def listen(self, worker):
        """Start the listener on a worker; return its address."""
        self.put(worker, "/opt/listener.py", LISTENER)
        self.bed.sh(
            worker,
            "rm -f /var/log/listener.log; systemctl stop listener 2>/dev/null; systemd-run -q --unit listener /usr/bin/python3 /opt/listener.py; sleep 0.5",
        )
        return "http://%s:8099" % self.address(worker)

    def heard(self, worker):
        """Return what the listener was told."""
        return self.bed.sh(worker, "cat /var/log/listener.log 2>/dev/null || true")

    def address(self, worker):
        """Return a worker's address."""
        return self.bed.sh(worker, "hostname -I").split()[0]

    def back(self):
        """Make all honest again."""
        for worker in self.workers:
            self.bed.sh(
                worker,
                "mv /usr/bin/python3.honest /usr/bin/python3 2>/dev/null; systemctl stop listener 2>/dev/null; "
                "rm -f /opt/hostile.json /opt/listener.py /var/log/hostile.log /var/log/listener.log",
                check=False,
            )
        self.workers.clear()


@pytest.fixture(scope="session")
def ready(testbed):
    """The hosts, both workers with a ready machine."""
    status, output = testbed.play("onboard_worker.yml")
    assert status == 0, output
    return testbed


@pytest.fixture
def turn(testbed):
    """Makes workers hostile for one test."""
    turned = Turned(testbed)
    turned.workers.update(testbed.workers)
    turned.back()
    yield turned
    turned.back()


@pytest.fixture
def admin_token(testbed):
    """The secret that the attacker is after."""
    return (testbed.inventory.parent / "admin_token").read_text()


@pytest.fixture
def empty_config(tmp_path):
    """The environment of an operator without the shipped ansible.cfg: facts are injected as variables there."""
    path = tmp_path / "ansible.cfg"
    path.write_text("[defaults]\n")
    return {"ANSIBLE_CONFIG": str(path), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")}


@pytest.fixture(scope="session", params=["2.17", "newest"])
def other_core(request):
    """A folder bin/ with the programs of the oldest and of the newest ansible-core that a Python here runs."""
    import matrix

    interpreters = matrix.pythons()
    minor = matrix.minors(next(iter(interpreters.values())))[-1] if request.param == "newest" else request.param
    matrix.BUILD.mkdir(parents=True, exist_ok=True)
    made = matrix.environment(minor, interpreters)
    if not made:
        pytest.skip("no Python here runs ansible-core %s" % minor)
    return pathlib.Path(made[0]) / "bin"
