"""What agent_install lets pip install: all that the lock names but pip itself, and the agent's own wheel, each with its hash."""

from __future__ import annotations

import hashlib
import pathlib

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
