"""The execution environment is built for real, on a base image that is made here, and runs the collection's playbooks."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest
import yaml

from tests.testbed import testbed as hosts

ROOT = pathlib.Path(__file__).resolve().parents[2]
BASE, IMAGE = "localhost/beta9-ee-base", "localhost/beta9-ee"
# Debian in the place of the definition's CentOS image: its Python is in a virtual environment, because pip may not touch the system's
CONTAINERFILE = """\
FROM %s
RUN apt-get update -qq && apt-get install -qq -y python3-venv >/dev/null && python3 -m venv /opt/python
ENV PATH=/opt/python/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""


def podman(*arguments, text=None):
    done = subprocess.run(["podman", *arguments], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The image of execution-environment.yml with nothing changed but base image, package manager and interpreter."""
    hosts.build("debian13")
    folder = tmp_path_factory.mktemp("ee")
    podman("build", "--quiet", "--network", "host", "--tag", BASE, "--file", "-", text=CONTAINERFILE % hosts.image_tag("debian13"))
    definition = yaml.safe_load((ROOT / "execution-environment.yml").read_text())
    definition["images"]["base_image"]["name"] = BASE + ":latest"
    definition["options"] = {"package_manager_path": "/usr/bin/apt-get"}
    definition["dependencies"]["python_interpreter"] = {"python_path": "/opt/python/bin/python3"}
    for kind in ("python", "system"):
        definition["dependencies"][kind] = str(ROOT / definition["dependencies"][kind])
    (folder / "ee.yml").write_text(yaml.safe_dump(definition))
    builder = pathlib.Path(sys.executable).parent / "ansible-builder"
    done = subprocess.run(
        [
            *(builder, "build", "--file", "ee.yml", "--context", "context", "--tag", IMAGE, "--container-runtime", "podman"),
            "--extra-build-cli-args=--network host",
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    yield IMAGE
    podman("rmi", "--force", IMAGE, BASE)


def run(image, *command):
    """Run a command as AWX does: as a user without rights, with the project mounted."""
    project = ["--volume", "%s:/runner/project:ro" % ROOT, "--workdir", "/runner/project"]
    return podman("run", "--rm", "--network", "none", *hosts.limits(), *project, image, *command)


@pytest.mark.long
def test_it_holds_what_awx_and_the_playbooks_need(image):
    wanted = yaml.safe_load((ROOT / "execution-environment.yml").read_text())["dependencies"]["ansible_core"]["package_pip"]
    version = run(image, "ansible", "--version").split()[2].rstrip("]")
    assert (2, 17) <= tuple(map(int, version.split(".")[:2])) < (2, 20), (version, wanted)
    for program in ("ansible-runner", "ssh", "git", "rsync", "pip"):
        assert run(image, "sh", "-c", "command -v " + program), program


@pytest.mark.long
@pytest.mark.parametrize("playbook", sorted(path.name for path in ROOT.glob("playbooks/*.yml")))
def test_it_reads_every_playbook(image, playbook):
    output = run(image, "env", "ANSIBLE_LOCAL_TEMP=/tmp/ansible", "ansible-playbook", "--syntax-check", playbook)
    assert "playbook: " + playbook in output, output
