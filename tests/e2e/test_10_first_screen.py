# Copyright: beta9.workers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The first screen, as a new user does it: a fresh clone, the example inventory, and the blocks of README and quick start pasted as they are."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import textwrap
import time

import pytest
import yaml

pytestmark = pytest.mark.long
HOSTS = {"gpu-01": 0, "gpu-02": 1}


def blocks(text):
    """Return the console blocks of a page as scripts; an example with a third host is tried with the first."""
    found = [textwrap.dedent(block) for block in re.findall(r"(?ms)^ *```console\n(.*?)^ *```", text)]
    return ["\n".join(line[2:] for line in block.splitlines() if line.startswith("$ ")).replace("gpu-07", "gpu-01") for block in found]


@pytest.fixture(scope="module")
def clone(testbed, tmp_path_factory):
    """Return a function that pastes a script into a shell at the top of a fresh clone, with the admin token as what is typed."""
    folder = tmp_path_factory.mktemp("first") / "workers"
    subprocess.run(["git", "clone", "--quiet", testbed.root, folder], check=True)
    given = json.loads(testbed.inventory.read_text())["all"]
    token = pathlib.Path(given["vars"]["beta9_admin_token_file"]).read_text(encoding="utf-8").strip()

    def paste(script):
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env={name: value for name, value in testbed.environment(BETA9_TOKEN=token).items() if name != "ANSIBLE_CONFIG"},
            input=token + "\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
            check=False,
        )
        print(done.stdout)
        return done.returncode, done.stdout

    def fill_in():
        """Fill in the hosts, as README says."""
        path = folder / "hosts.yml"
        inventory = yaml.safe_load(path.read_text())
        top, children = inventory["all"], given["children"]
        top["vars"]["beta9_gateway_url"] = given["vars"]["beta9_gateway_url"]
        top["vars"].update({name: value for name, value in given["vars"].items() if name.startswith("ansible_")})
        hosts = top["children"]["beta9_gateway"]["hosts"]
        hosts["gateway.example.com"] = children["beta9_gateway"]["hosts"][testbed.gateway]
        for name, place in HOSTS.items():
            top["children"]["gpu-hosts"]["hosts"][name] = children["gpu-hosts"]["hosts"][testbed.workers[place]]
        path.write_text(yaml.safe_dump(inventory))

    paste.folder, paste.fill_in = folder, fill_in
    return paste


def test_readme(testbed, clone):
    """Hosts that nobody prepared, to two ready machines and a fault that is diagnosed and healed."""
    testbed.sh(testbed.gateway, "userdel beta9-tunnel; rm -rf /etc/ssh/beta9-tunnel /etc/ssh/sshd_config.d/*beta9*; systemctl reload ssh || true", check=False)
    readme = (clone.folder / "README.md").read_text()
    _teaser, install, copy, onboard, wrong, _days = blocks(readme)
    assert "make dist" in install  # test_3_artefact installs the artefact
    start = time.monotonic()
    assert clone(copy)[0] == 0
    clone.fill_in()
    status, output = clone("set -e\n" + onboard)
    assert status == 0 and "Nothing prevents onboard_worker.yml on gpu-01, gpu-02" in output
    assert len(re.findall(r"gpu-0\d +\w{8} +gpu +ready", output)) == 2, output
    assert testbed.machines() == {testbed.machine_id(worker): "ready" for worker in testbed.workers}
    testbed.sh(testbed.workers[0], "systemctl stop beta9-tunnel")
    check, heal = wrong.splitlines()
    status, output = clone(check)
    assert status == 2 and "FAIL T01  gpu-01" in output and "on gpu-01: systemctl restart beta9-tunnel" in output
    print("to ready machines and a diagnosed fault: %d s" % (time.monotonic() - start))
    assert clone(heal)[0] == 0


def test_agent_is_on_the_path(testbed, clone):
    for worker in testbed.workers:
        assert "status       ready" in testbed.sh(worker, "beta9-agent status")
        assert "wrong          nothing" in testbed.sh(worker, "cd / && beta9-agent doctor")
        assert "usage: beta9-agent" in testbed.sh(worker, "beta9-agent")
    assert "status       ready" in testbed.sh(testbed.workers[1], "runuser -u ops -- beta9-agent status")


def test_the_page_tells_what_changed(testbed, clone):
    command = "ansible-playbook -i hosts.yml health_check.yml -e health_check_directory=health"
    assert clone(command)[0] == 0
    testbed.sh(testbed.workers[0], "systemctl stop beta9-tunnel")
    status, output = clone(command)
    assert status == 2 and re.search(r"FAIL T01  gpu-01  \(new\)", output)
    testbed.sh(testbed.workers[0], "systemctl start beta9-tunnel")
    clone("ansible-playbook -i hosts.yml health_check.yml -e health_check_wait_seconds=60 -l gpu-01")
    status, output = clone(command)
    assert status == 0 and "GONE T01  gpu-01" in output
    page = (clone.folder / "health" / "health.html").read_text()
    assert "0 new, 0 still there, 1 gone" in page and page.count("<g><title>") == 3


def test_quick_start(testbed, clone):
    made, install, onboard = blocks((clone.folder / "docs/guides/quick-start.md").read_text())
    assert "make demo" in made and "ansible-galaxy" in install
    status, output = clone("set -e\n" + onboard)
    assert status == 0 and len(re.findall(r"gpu-0\d +\w{8} +gpu +ready", output)) == 2, output


def test_the_commands_of_day_2(testbed, clone):
    upgrade, rotate, offboard, batches, retry = blocks((clone.folder / "README.md").read_text())[-1].splitlines()
    assert "@onboard_worker.retry" in retry  # there is such a file only where a host failed
    assert clone(offboard)[0] == 0 and len(testbed.machines()) == 1
    assert testbed.sh(testbed.workers[1], "command -v beta9-agent || true") == ""
    assert clone(batches)[0] == 0 and set(testbed.machines().values()) == {"ready"} and len(testbed.machines()) == 2
    for command in (upgrade, rotate):
        assert clone(command)[0] == 0 and set(testbed.machines().values()) == {"ready"}, command
