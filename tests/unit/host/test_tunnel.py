"""What the tunnel's journal means."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils import tunnel


@pytest.mark.parametrize("text", [signature[0] for signature in tunnel.SIGNATURES])
def test_each_signature(text):
    cause, remedy, line = tunnel.explain("Starting\nssh: " + text + " (more)\nssh exited with error status 255; restarting ssh\n")
    assert cause and remedy and text in line


def test_latest_message_counts():
    assert "key" in tunnel.explain("connect: Connection refused\nPermission denied (publickey).\n")[0]


def test_nothing_known():
    assert tunnel.explain("all is well\n") is None
