"""What agent_install lets pip install: all that the lock names but pip itself, and the agent's own wheel, each with its hash."""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess
import sys

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.agent import service
from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.modules import agent_install

LOCK = pathlib.Path(__file__).resolve().parents[3] / "agent_src" / "requirements.txt"


def test_requirements(tmp_path):
    own = tmp_path / "beta9_agent-0.1.0-py3-none-any.whl"
    own.write_bytes(b"a wheel")
    locked = LOCK.read_text()
    found = agent_install.requirements(locked, str(own))
    names = [line.partition("==")[0] for line in locked.splitlines() if "==" in line]
    assert "pip" in names and [line.partition("==")[0] for line in found.splitlines() if "==" in line] == [name for name in names if name != "pip"]
    pips = locked[locked.index("pip==") :].partition("--hash=")[2].split()[0]
    assert pips in locked and pips not in found
    assert found.count("--hash=sha256:") == locked.count("--hash=sha256:")  # pip's is gone, its own came
    assert found.endswith("%s --hash=sha256:%s\n" % (own, hashlib.sha256(b"a wheel").hexdigest()))


@pytest.fixture
def version(tmp_path, monkeypatch):
    """A directory with one version whose interpreter is real; its packages are so as far as importing them goes."""
    monkeypatch.setattr(linux, "HIDDEN", ("/nowhere/",))  # the tests' own Python may be in a home
    folder = tmp_path / "versions" / "0.1.0-abc"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for name in ("beta9_agent", "psutil", "httpx", "pynvml"):
        (packages / (name + ".py")).write_text("__version__ = '0.1.0'\n")
    (folder / ".complete").touch()
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o022)
    return folder


def run_command(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_installed_means_that_the_interpreter_runs_this_version(version):
    directory = str(version.parents[1])
    assert service.installed(directory, "0.1.0-abc", run_command)
    assert not service.installed(directory, "0.2.0-def", run_command)
    library = next(version.glob("lib/python*"))
    library.rename(library.with_name("python3.1"))  # what an upgrade of the distribution leaves: packages of a Python that is gone
    assert not service.installed(directory, "0.1.0-abc", run_command)
    library.with_name("python3.1").rename(library)
    (version / "bin" / "python").unlink()
    (version / "bin" / "python").symlink_to("/usr/bin/python3.1")
    assert not service.installed(directory, "0.1.0-abc", run_command)


def test_interpreter_that_the_unit_does_not_see(version, monkeypatch):
    monkeypatch.setattr(linux, "HIDDEN", (os.path.dirname(os.path.realpath(sys.executable)),))
    assert not service.installed(str(version.parents[1]), "0.1.0-abc", run_command)


def test_interpreter_of_the_agent(tmp_path, monkeypatch):
    """The one that runs the module if it is new enough and in the unit's sight; else the newest of the system (RHEL 9: python3.12 beside 3.9)."""
    for name in ("python3", "python3.9", "python3.10", "python3.12", "python3.12-config", "python3.8"):
        (tmp_path / name).touch(mode=0o755)
    (tmp_path / "python3.13").touch(mode=0o644)
    monkeypatch.setattr(sys, "_base_executable", "/usr/bin/python3", raising=False)
    monkeypatch.setattr(sys, "version_info", (3, 11, 2))
    assert service.interpreter(tmp_path) == "/usr/bin/python3"
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    assert service.interpreter(tmp_path) == str(tmp_path / "python3.12")
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    monkeypatch.setattr(sys, "_base_executable", "/home/me/bin/python3")
    assert service.interpreter(tmp_path) == str(tmp_path / "python3.12")
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    assert service.interpreter(tmp_path / "none") == ""
