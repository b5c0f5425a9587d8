"""Where the operator's token and the machines' tokens lie while Ansible runs: in no file of the controller, and in none of a login user."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.conftest import ROOT

PROGRAMS = pathlib.Path(sys.executable).parent
MACHINE_TOKEN = "canary-machine-0123456789abcdef"


def start(tmp_path, task, **environment):
    """Start a play of one task on the controller, as an operator without an ansible.cfg would."""
    play = [{"hosts": "localhost", "gather_facts": False, "vars": {"ansible_python_interpreter": sys.executable}, "tasks": [task]}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BETA9_", "ANSIBLE_"))}
    places = {"ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"), "ANSIBLE_REMOTE_TEMP": str(tmp_path / "remote"), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    environment = dict(kept, ANSIBLE_COLLECTIONS_PATH=str(ROOT / "collections"), ANSIBLE_PIPELINING="false", **places, **environment)
    command = [str(PROGRAMS / "ansible-playbook"), "-i", "localhost,", "-c", "local", "-vvvv", str(tmp_path / "play.yml")]
    return subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def holding(tmp_path, secret):
    """Return the files below the places for temporary files that hold a secret, packed ones too."""
    places = [str(tmp_path / name) for name in ("local", "remote", "tmp")]
    found = subprocess.run(["grep", "-rlaF", secret, *places], capture_output=True, text=True, check=False).stdout.split()
    return found + [str(path) for place in places for path in pathlib.Path(place).rglob("AnsiballZ_*")]


@pytest.mark.parametrize("module", ["pool_info", pytest.param("machine_info", marks=pytest.mark.long)])
def test_a_killed_controller_leaves_no_file_with_the_admin_token(gateway, tmp_path, module):
    gateway.fault({"route": "*", "mode": "slow", "seconds": 30})
    arguments = {"gateway_url": gateway.url, "token": gateway.admin_token, "timeout": 60}
    process = start(tmp_path, {"beta9.workers." + module: arguments})
    deadline = time.monotonic() + 60
    try:
        while not any("TASK" in line for line in process.stdout):
            assert time.monotonic() < deadline
        time.sleep(5)  # it waits for the gateway now
        assert process.poll() is None
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert holding(tmp_path, gateway.admin_token) == []


def test_a_machines_token_reaches_the_host_on_standard_input(tmp_path):
    """Pipelining is off, and temporary files are kept, so that they can be looked at."""
    arguments = {"machine_id": "1165a9b6", "pool": "gpu", "machine_token": MACHINE_TOKEN}
    arguments.update(directory=str(tmp_path / "credentials"), fact_path=str(tmp_path / "facts.d/beta9.fact"))
    process = start(tmp_path, {"beta9.workers.machine_credentials": arguments}, ANSIBLE_KEEP_REMOTE_FILES="true")
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0 and MACHINE_TOKEN not in output, output
    assert (tmp_path / "credentials/machine_token").read_text() == MACHINE_TOKEN
    assert holding(tmp_path, MACHINE_TOKEN) == []


def test_no_file_either_where_another_python_is_named_for_workers(gateway, tmp_path):
    """The gateway is asked by the Python that runs Ansible, whatever -e ansible_python_interpreter says."""
    task = {"beta9.workers.pool_info": {"gateway_url": gateway.url, "token": gateway.admin_token}, "vars": {"ansible_python_interpreter": "/nonexistent"}}
    process = start(tmp_path, task)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 0 and gateway.admin_token not in output, output
