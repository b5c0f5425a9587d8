"""The built artefact alone, without the checkout, does the same."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile

import pytest

from tests.e2e.conftest import BIN, ROOT
from tests.e2e.test_1_onboard import recap


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """Make the release twice, the second time elsewhere, later, in another time zone, without rights for others. Return both folders."""
    made = []
    for number in range(2):
        folder = tmp_path_factory.mktemp("release") / "tree"
        command = "umask %s; git clone --quiet %s %s && cd %s && exec %s tools/dist.py" % (("022", "077")[number], ROOT, folder, folder, sys.executable)
        subprocess.run(["bash", "-c", command], check=True, capture_output=True, env=dict(os.environ, TZ=("UTC", "Asia/Tokyo")[number]))
        made.append(folder / "dist")
    return made


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """Install the artefact, put the agent where a closed network has it, and return the folder to run in."""
    folder = tmp_path_factory.mktemp("artefact")
    artefact = next(dist[0].glob("beta9-workers-*.tar.gz"))
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(folder / "collections"))
    subprocess.run([BIN / "ansible-galaxy", "collection", "install", "--offline", artefact], check=True, capture_output=True, env=environment)
    (folder / ".cache/beta9-workers/agent").mkdir(parents=True)
    for bundle in dist[0].glob("*.tar"):
        shutil.copy(bundle, folder / ".cache/beta9-workers/agent")
    return folder, artefact


def test_same_bytes_twice(dist):
    sums = [(folder / "SHA256SUMS").read_text() for folder in dist]
    assert sums[0] == sums[1] and len(sums[0].splitlines()) == 3
    for line in sums[0].splitlines():
        digest, name = line.split()
        assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for folder in dist)


def test_contains_what_it_needs_and_nothing_else(installed):
    with tarfile.open(installed[1]) as archive:
        names = archive.getnames()
    for name in ("plugins/module_utils/gateway/protocol.py", "agent_src/beta9_agent/protocol.py", "playbooks/onboard_worker.yml", "meta/runtime.yml"):
        assert name in names
    unwanted = re.compile(r"^(build|\.venv|\.git|collections/ansible_collections|dist|\.cache|tests|tools|molecule)(/|$)|__pycache__")
    assert not [name for name in names if unwanted.search(name)]


def play(bed, folder, playbook, *arguments, inventory=None):
    """Run a playbook by its full name, without the checkout, its ansible.cfg and a package index; return (status, output)."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    environment.update(ANSIBLE_COLLECTIONS_PATH=str(folder / "collections"), ANSIBLE_NOCOLOR="1")
    environment.update(PATH=f"{BIN}:{os.environ['PATH']}")
    environment["ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS"] = "ignore"  # the one setting that the guide asks for
    environment.update(HOME=str(folder), PIP_INDEX_URL="http://127.0.0.1:9/", PIP_CONFIG_FILE=os.devnull)
    command = [BIN / "ansible-playbook", "-i", inventory or bed.inventory, "beta9.workers." + playbook, *arguments]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, check=False, **output)
    return done.returncode, done.stdout


def test_demo_of_the_artefact_alone(onboarded, installed):
    """Away with a worker, back again, nothing to change, healthy."""
    worker = onboarded.workers[1]
    for playbook, *arguments in (("offboard_worker", "-l", worker), ("onboard_worker", "-l", worker)):
        status, output = play(onboarded, installed[0], playbook, *arguments)
        assert status == 0, output
    for playbook in ("prepare_gateway", "onboard_worker"):
        status, output = play(onboarded, installed[0], playbook, "-e", "beta9_onboard_health=false")
        assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output
    assert len(re.findall(r" gpu +ready ", output)) == 2


def test_bare_checkout_warns_of_nothing(onboarded):
    status, output = onboarded.play("onboard_worker.yml", "-l", "gpu-hosts")
    assert status == 0 and "[WARNING]" not in output, output


@pytest.mark.long
def test_sample_of_a_run_in_the_guide_is_what_is_printed(testbed, installed, tmp_path):
    """To the letter, by the installed artefact alone with the default callback."""
    testbed.clean()
    inventory = json.loads(testbed.inventory.read_text())
    groups = inventory["all"]["children"]
    groups["gpu-hosts"]["hosts"] = {f"b9-worker{number}": reach for number, reach in enumerate(groups["gpu-hosts"]["hosts"].values(), 1)}
    groups["beta9_gateway"]["hosts"] = {"b9-gateway": next(iter(groups["beta9_gateway"]["hosts"].values()))}
    path = tmp_path / "hosts.yml"
    path.write_text(json.dumps(inventory))
    samples = re.findall(
        r"^\$ ansible-playbook -i hosts\.yml beta9\.workers\.onboard_worker (.*)\n((?:(?!```).*\n)+)", (ROOT / "docs/guides/playbooks.md").read_text(), re.M
    )
    assert len(samples) == 2
    for arguments, text in samples:
        status, output = play(testbed, installed[0], "onboard_worker", *arguments.split(), inventory=path)
        assert status != 0 and "[WARNING]" not in output, output
        for part in text.replace("/srv/hosts.yml", str(path)).split("...\n" if "TASK" in text else "... "):
            assert part in output if "TASK" in part else " ".join(part.replace("[ERROR]:", "").split()) in " ".join(output.split()), (part, output)
