"""The image that AWX runs jobs in: ansible-builder accepts its definition, and what the collection needs is in it."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_ansible_builder_creates_the_context(tmp_path):
    command = [str(pathlib.Path(sys.executable).parent / "ansible-builder"), "create", "--file", "execution-environment.yml", "--context", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    containerfile = (tmp_path / "Containerfile").read_text()
    assert "ansible-core>=2.17" in containerfile and "ansible-runner" in containerfile
    assert "pip>=" in (tmp_path / "_build/requirements.txt").read_text() and "openssh-clients" in (tmp_path / "_build/bindep.txt").read_text()


def test_what_the_collection_says_it_needs():
    definition = yaml.safe_load((ROOT / "meta/execution-environment.yml").read_text())
    assert definition["version"] == 1
    for path in definition["dependencies"].values():
        assert [line for line in (ROOT / path).read_text().splitlines() if line and not line.startswith("#")], path


def test_core_of_the_image_is_one_that_the_collection_supports():
    wanted = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["requires_ansible"]
    image = yaml.safe_load((ROOT / "execution-environment.yml").read_text())["dependencies"]["ansible_core"]["package_pip"]
    assert wanted.replace(".0", "") in image
