# Copyright: beta9.workers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""README and quick start: short, complete commands, and an inventory that Ansible reads."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/inventory/hosts.yml"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/guides").glob("*.md"))]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_names_its_inventory_and_a_playbook_that_exists(page):
    commands = re.findall(r"\$ (ansible-playbook .*)", page.read_text())
    for command in commands:
        playbook = re.search(r"(\S+\.yml|beta9\.workers\.\w+)(?= |$)", command.replace("-i hosts.yml", ""))
        assert playbook, command
        name = playbook[1].removeprefix("beta9.workers.").removesuffix(".yml") + ".yml"
        assert (ROOT / name).exists() or (ROOT / "playbooks" / name).exists(), command
        assert " -i " in command or playbook[1].startswith("awx/"), command  # on the controller itself


@pytest.mark.parametrize("page", ["README.md", "docs/guides/quick-start.md"])
def test_the_inventory_shown_is_the_example(page):
    blocks = re.findall(r"(?ms)^ *```yaml\n(.*?)^ *```", (ROOT / page).read_text())
    shown = textwrap.dedent(next(block for block in blocks if "beta9_gateway_url" in block))
    assert shown == EXAMPLE.read_text().split("\n", 2)[2]


def test_the_example_is_an_inventory_for_the_playbooks():
    done = subprocess.run(["ansible-inventory", "-i", EXAMPLE, "--list"], capture_output=True, text=True, cwd=ROOT, check=True)
    found = json.loads(done.stdout)
    assert found["gpu-hosts"]["hosts"] == ["gpu-01", "gpu-02"] and found["beta9_gateway"]["hosts"] == ["gateway.example.com"]
    for playbook, hosts in {"onboard_worker.yml": ["gpu-01", "gpu-02"], "prepare_gateway.yml": ["gateway.example.com"]}.items():
        command = ["ansible-playbook", "-i", EXAMPLE, playbook, "--list-hosts"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        assert sorted(re.findall(r"^      (\S+)$", done.stdout, re.MULTILINE)) == hosts, done.stdout


@pytest.mark.parametrize("part", [["--tags", "agent"], ["--start-at-task", "Ensure the agent runs"]])
def test_a_part_of_a_playbook_is_refused(part):
    command = ["ansible-playbook", "-i", EXAMPLE, "onboard_worker.yml", "--list-hosts", *part]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode and f"found {part[0]}" in " ".join(done.stderr.split()), done.stderr


def test_a_host_is_looked_at_before_it_is_onboarded():
    variables = json.dumps(
        {
            "ansible_python_interpreter": sys.executable,
            "beta9_before_onboarding": True,
            "beta9_gateway_host": "localhost",
            "beta9_gateway_url": "http://127.0.0.1:9",
            "beta9_pol": "gpu",
            "beta9_workers": "all",
        }
    )
    command = ["ansible-playbook", "-i", "here,", "-c", "local", "health_check.yml", "-e", variables, "-e", "ansible_become=false"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    output = " ".join(done.stdout.split())
    assert done.returncode == 2 and "Did you mean beta9_pool?" in output and "nothing was changed" in output, done.stdout + done.stderr
    assert "name the root causes" not in output


def test_make_help_lists_every_target():
    targets = re.findall(r"^\.PHONY: (\S+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    done = subprocess.run(["make", "--no-print-directory", "help"], capture_output=True, text=True, cwd=ROOT, check=True)
    assert re.findall(r"^  make (\S+) +\S", done.stdout, re.MULTILINE) == targets
