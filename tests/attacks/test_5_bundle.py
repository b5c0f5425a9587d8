"""A local user of a worker who prepares what root is about to run."""

from __future__ import annotations

import io
import pathlib
import subprocess
import tarfile
import zipfile

import pytest

from ansible_collections.beta9.workers.plugins.modules import agent_bundle

PREDICTABLE = "/var/tmp/beta9-agent.tar"
RUN = "import os; open('/pwned', 'w').write(str(os.geteuid()))\n"
# Holds the file open, waits until somebody takes it over, and writes it again
REWRITE = """
import os, time
evil = open('/home/mallory/evil.tar', 'rb').read()
handle = os.open('%s', os.O_RDWR | os.O_CREAT, 0o666)
os.write(handle, open('/home/mallory/release.tar', 'rb').read())
while os.fstat(handle).st_uid == os.getuid():
    time.sleep(0.001)
time.sleep(0.1)
os.ftruncate(handle, 0)
os.pwrite(handle, evil, 0)
"""


def evil_bundle(release):
    """Return a bundle whose pip is the attacker's."""
    program = io.BytesIO()
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("pip/__main__.py", RUN)
    out = io.BytesIO()
    with tarfile.open(release) as source, tarfile.open(fileobj=out, mode="w") as target:
        for member in source:
            content = program.getvalue() if "/pip-" in member.name else source.extractfile(member).read()
            member.size = len(content)
            target.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture(scope="module")
def release(ready):
    """The release's bundle, as every user of the product can have it."""
    version = agent_bundle.version_of(str(ready.root / "agent_src"))
    return pathlib.Path("~/.cache/beta9-workers/agent/beta9-agent-%s-x86_64.tar" % version).expanduser()


def without_agent(bed, worker):
    """Remove the installed agent, as on a bare host."""
    bed.sh(worker, "systemctl stop beta9-agent; rm -rf /opt/beta9-agent /pwned %s; id -u mallory >/dev/null 2>&1 || useradd -m mallory" % PREDICTABLE)


def test_a_file_that_a_user_prepared_is_not_run(testbed, release, tmp_path):
    worker = testbed.workers[0]
    without_agent(testbed, worker)
    (tmp_path / "evil.tar").write_bytes(evil_bundle(release))
    for path, name in ((release, "release.tar"), (tmp_path / "evil.tar", "evil.tar")):
        subprocess.run(["podman", "cp", str(path), "%s:/home/mallory/%s" % (worker, name)], check=True)
    (tmp_path / "rewrite.py").write_text(REWRITE % PREDICTABLE)
    subprocess.run(["podman", "cp", str(tmp_path / "rewrite.py"), worker + ":/home/mallory/rewrite.py"], check=True)
    testbed.sh(worker, "systemctl reset-failed mallory 2>/dev/null; systemd-run -q --unit mallory --uid mallory python3 /home/mallory/rewrite.py")
    try:
        status, output = testbed.play("onboard_worker.yml", "-l", worker)
    finally:
        testbed.sh(worker, "systemctl stop mallory; rm -f " + PREDICTABLE, check=False)
    assert testbed.sh(worker, "cat /pwned 2>/dev/null || true") == "" and status == 0, output


@pytest.mark.long
def test_a_directory_in_the_way_of_a_file_of_ours_is_in_no_way(testbed, release):
    worker = testbed.workers[0]
    without_agent(testbed, worker)
    testbed.sh(worker, "runuser -u mallory mkdir " + PREDICTABLE)
    try:
        status, output = testbed.play("onboard_worker.yml", "-l", worker)
    finally:
        testbed.sh(worker, "rm -rf " + PREDICTABLE)
    assert status == 0, output


@pytest.mark.long
def test_modules_in_the_home_of_who_logs_in_are_not_loaded_by_root(testbed, release):
    worker = testbed.workers[1]  # reached as user ops, who may become root by a password or a key only
    without_agent(testbed, worker)
    names = "venv ensurepip argparse httpcore psutil beta9_agent"
    testbed.sh(worker, "for name in %s; do runuser -u ops -- sh -c \"echo '%s' > ~ops/$name.py\"; done" % (names, RUN.strip().replace("'", '\\"')))
    try:
        status, output = testbed.play("onboard_worker.yml", "-l", worker)
    finally:
        testbed.sh(worker, "cd ~ops; for name in %s; do rm $name.py; done" % names)
    assert testbed.sh(worker, "cat /pwned 2>/dev/null || true") == "" and status == 0, output


@pytest.mark.long
def test_another_bundle_than_the_controller_s_is_refused(testbed, release, tmp_path):
    worker = testbed.workers[0]
    without_agent(testbed, worker)
    (tmp_path / "evil.tar").write_bytes(evil_bundle(release))
    subprocess.run(["podman", "cp", str(tmp_path / "evil.tar"), worker + ":/root/evil.tar"], check=True)
    play = tmp_path / "play.yml"
    play.write_text(
        "- hosts: %s\n  gather_facts: false\n  become: true\n  tasks:\n"
        "    - beta9.workers.agent_install: {version: 9.9.9-evil, bundle: /root/evil.tar, sha256: %s}\n" % (worker, agent_bundle.digest(str(release)))
    )
    status, output = testbed.play(str(play))
    assert status != 0 and "expected SHA-256" in output, output
    assert testbed.sh(worker, "cat /pwned; ls /opt/beta9-agent/versions 2>/dev/null || true", check=False) == ""


@pytest.mark.long
def test_what_somebody_else_had_a_hand_in_is_installed_again(testbed, release):
    worker = testbed.workers[0]
    without_agent(testbed, worker)
    testbed.sh(
        worker,
        "d=/opt/beta9-agent/versions/%s; mkdir -p $d/bin; printf '#!/bin/sh\\nid -u > /pwned\\n' > $d/bin/python; chmod 755 $d/bin/python; touch $d/.complete; "
        "ln -s versions/${d##*/} /opt/beta9-agent/current; chown -R mallory /opt/beta9-agent" % agent_bundle.version_of(str(testbed.root / "agent_src")),
    )
    status, output = testbed.play("onboard_worker.yml", "-l", worker)
    assert status == 0, output
    assert testbed.sh(worker, "cat /pwned 2>/dev/null; find /opt/beta9-agent ! -user root | head -n 3") == ""
