"""What all tests of checks and probes share."""

from __future__ import annotations

import pytest

from ansible_collections.beta9.workers.plugins.module_utils.host import units


@pytest.fixture(autouse=True)
def up_for_long(monkeypatch):
    """Units here were started minutes ago, also on a machine that was booted just now."""
    since_boot = units.monotonic_us
    monkeypatch.setattr(units, "monotonic_us", lambda: since_boot() + 1e12)
