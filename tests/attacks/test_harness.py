"""The harness itself: a turned worker really lies."""

from __future__ import annotations

import pytest


@pytest.mark.long
def test_a_turned_worker_lies(ready, turn):
    worker = ready.workers[0]
    turn(worker, "ping", add={"ping": "a lie"})
    status, output = ready.play("tests/attacks/ping.yml", "--limit", worker)
    assert status == 0 and "a lie" in output, output
