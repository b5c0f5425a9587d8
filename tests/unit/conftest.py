"""What holds in all unit tests."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import turn


@pytest.fixture(autouse=True)
def no_turn_on_this_host(monkeypatch, tmp_path):
    """A module that runs in this process must not hold this computer's turn until all tests are through."""
    monkeypatch.setattr(turn.take, "__defaults__", (turn.WAIT_SECONDS, str(tmp_path / "turn.lock")))
