"""What root reads of the agent's user: bounded in time, size and form."""

from __future__ import annotations

import json
import os
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.agent import statefile
from beta9_agent import state as agents_own

STATE = {"pid": 814, "status": "ready", "reloads": 1, "loaded": ["psutil"], "problem": {"code": "c", "cause": "d", "remedy": "e", "retryable": True}}


def prepare(kind, path):
    """Put something at path that a program which reads it trustfully would never come back from, or believe."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "link to a secret":
        (path.parent / "secret").write_text(json.dumps(STATE))
        path.symlink_to(path.parent / "secret")
    elif kind == "directory":
        path.mkdir()
    elif kind == "huge":
        path.write_text(json.dumps(dict(STATE, more="x" * statefile.MAX_BYTES)))
    else:
        path.write_text(kind)


@pytest.mark.parametrize("kind", ["fifo", "link to a device", "link to a secret", "directory", "huge", "[" * 200000, "[]", "5", "{", "\\ud800", ""])
def test_what_is_no_state_is_none_and_nobody_waits(tmp_path, kind):
    path = tmp_path / "state.json"
    prepare(kind, path)
    assert statefile.of(str(path)) == {}
    with pytest.raises((OSError, ValueError)):
        agents_own.read(str(path))


def test_a_state_is_read(tmp_path):
    (tmp_path / "state.json").write_text(json.dumps(STATE))
    assert statefile.of(str(tmp_path / "state.json")) == STATE == agents_own.read(str(tmp_path / "state.json"))


@pytest.mark.parametrize("ahead", [90, -7200])
def test_times_are_told_by_the_clock_as_it_is_now(tmp_path, ahead):
    """It was set so many seconds ahead since the agent wrote them."""
    now, boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
    times = {"next_epoch": 5, "last_keepalive_epoch": -50, "updated_epoch": -10}
    then = {name: now - ahead + seconds for name, seconds in times.items()}
    then.update(updated_boottime=boot - 10, registration_epochs=[now - ahead - 100], gateway_keepalive_epoch=7)
    (tmp_path / "state.json").write_text(json.dumps(then))
    found = statefile.of(str(tmp_path / "state.json"))
    assert {name: round(found[name] - now) for name in times} == times and found["gateway_keepalive_epoch"] == 7
    assert [round(moment - now) for moment in found["registration_epochs"]] == [-100]


@pytest.mark.parametrize(
    "field, value",
    [
        ("pid", "814"), ("pid", True), ("reloads", 1.5), ("next_epoch", 1e300), ("next_epoch", "x"), ("status", 5), ("problem", []),
        ("problem", {"code": "c"}), ("problem", {"code": 5, "cause": "d", "remedy": "e"}), ("loaded", "psutil"), ("loaded", [{}]),
        ("registration_epochs", [None]), ("sent", "register"), ("unheard_of", 1),
    ],
)  # fmt: skip
def test_a_field_of_another_type_is_left_out(field, value):
    assert field not in statefile.parse(json.dumps({field: value}))


def test_texts_are_one_line_and_short():
    assert statefile.parse(json.dumps({"status": "a\n\x1b[31mb\x00", "gpu_problem": "x" * 5000})) == {"status": "a [31mb ", "gpu_problem": "x" * 2000}
