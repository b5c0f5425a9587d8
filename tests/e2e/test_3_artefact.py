"""The built artefact alone, without the checkout, does the same."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile

import pytest

from tests.e2e.conftest import BIN, ROOT
from tests.e2e.test_1_onboard import recap


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the artefact, install it, and return the folder to run in."""
    folder = tmp_path_factory.mktemp("artefact")
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(folder / "collections"))
    subprocess.run([BIN / "ansible-galaxy", "collection", "build", "--output-path", folder, ROOT], check=True, capture_output=True, env=environment)
    artefact = next(folder.glob("beta9-workers-*.tar.gz"))
    subprocess.run([BIN / "ansible-galaxy", "collection", "install", "--offline", artefact], check=True, capture_output=True, env=environment)
    return folder, artefact


def test_contains_what_it_needs_and_nothing_else(installed):
    with tarfile.open(installed[1]) as archive:
        names = archive.getnames()
    for name in ("plugins/module_utils/protocol.py", "agent_src/beta9_agent/protocol.py", "playbooks/onboard_worker.yml", "meta/runtime.yml"):
        assert name in names
    assert not [name for name in names if re.search(r"^(build|\.venv|\.git|collections/ansible_collections|dist|\.cache)(/|$)|__pycache__", name)]


def test_onboards_by_its_full_name(onboarded, installed):
    folder, _artefact = installed
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    environment.update(
        ANSIBLE_COLLECTIONS_PATH=str(folder / "collections"), ANSIBLE_NOCOLOR="1", PATH="%s:%s" % (BIN, os.environ["PATH"]), XDG_CACHE_HOME=str(folder)
    )
    for playbook in ("beta9.workers.prepare_gateway", "beta9.workers.onboard_worker"):
        done = subprocess.run(
            [BIN / "ansible-playbook", "-i", onboarded.inventory, playbook],
            cwd=folder,
            env=environment,
            text=True,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert done.returncode == 0 and all(row["changed"] == 0 for row in recap(done.stdout).values()), done.stdout
    assert len(re.findall(r" gpu +ready ", done.stdout)) == 2


def test_bare_checkout_warns_of_nothing(onboarded):
    status, output = onboarded.play("onboard_worker.yml", "-l", "gpu-hosts")
    assert status == 0 and "WARNING" not in output, output
