"""Run a module as Ansible does: a process of its own, arguments as JSON in a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.fixture
def run_module(tmp_path):
    """Return a function that runs a module; its result has "_raw", everything the process wrote."""

    def run(name, /, check=False, diff=True, env=None, **params):
        arguments = tmp_path / "arguments.json"
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": dict(params, _ansible_check_mode=check, _ansible_diff=diff)}))
        environment = {key: value for key, value in os.environ.items() if not key.startswith("BETA9_")}
        environment.update(env or {}, PYTHONPATH=str(ROOT / "collections"))
        script = ROOT / "collections/ansible_collections/beta9/workers/plugins/modules" / (name + ".py")
        done = subprocess.run([sys.executable, str(script), str(arguments)], capture_output=True, text=True, env=environment, check=False, timeout=60)
        assert done.stdout.strip(), done.stderr
        return dict(json.loads(done.stdout.strip().splitlines()[-1]), _raw=done.stdout + done.stderr)

    return run


@pytest.fixture
def admin(gateway):
    """Parameters of an operator's module."""
    return {"gateway_url": gateway.url, "token": gateway.admin_token, "timeout": 3}


@pytest.fixture
def created(gateway, run_module, admin):
    """A pending machine, and the parameters of a worker's module that go with it."""
    result = run_module("machine", pool="gpu", **admin)
    token = result["registration_token"]
    assert not result.get("failed"), result
    return {"gateway_url": gateway.url, "token": token, "machine_id": result["machine"]["id"], "pool": "gpu", "timeout": 3}


FACTS = {"hostname": "127.77.3.9", "cpu": "8000m", "memory": "16Gi", "gpu_count": 1, "private_ip": "10.0.0.7"}
