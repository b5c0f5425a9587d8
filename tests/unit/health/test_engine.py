"""The engine with probes that hang, crash, flood, and tell secrets."""

from __future__ import annotations

import threading
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, engine

CHECK = catalog.BY_ID["T04"]._replace(timeout_seconds=0.3)


def observe(function, deadline=5.0, **config):
    context = engine.Context(config)
    context.secrets.append("canary-secret-0123456789")
    return engine.observe([(CHECK, function), (CHECK._replace(id="T05"), lambda context: engine.ok("fine"))], context, deadline)


def test_hanging_probe_is_unknown_and_holds_nobody():
    forever, start = threading.Event(), time.monotonic()
    first, second = observe(lambda context: engine.ok(forever.wait(60)))
    assert first["outcome"] == "unknown" and "no result within" in first["found"] and second["outcome"] == "ok"
    assert time.monotonic() - start < 4.0
    forever.set()


def test_crashing_probe_is_a_crash_with_its_place():
    first, second = observe(lambda context: {}["missing"])
    assert first["outcome"] == "crash" and "KeyError" in first["found"] and "test_engine.py" in first["found"] and second["outcome"] == "ok"


def test_deadline_of_all():
    forever, start = threading.Event(), time.monotonic()
    context = engine.Context({})
    probes = [(CHECK._replace(id="X%02d" % number, timeout_seconds=60.0), lambda context: engine.ok(forever.wait(60))) for number in range(40)]
    assert {entry["outcome"] for entry in engine.observe(probes, context, 0.5)} == {"unknown"}
    assert time.monotonic() - start < 3.0
    forever.set()


def test_command_that_hangs_is_killed_with_its_children():
    start = time.monotonic()
    ran = engine.run_command(["sh", "-c", "sleep 60 & sleep 60"], 0.3)
    assert ran.status is None and time.monotonic() - start < 3.0


def test_flood_is_cut():
    ran = engine.run_command(["sh", "-c", "head -c 100000000 /dev/zero | tr '\\0' x"], 10.0)
    assert len(ran.output) < 2 * engine.OUTPUT_BYTES
    first, _second = observe(lambda context: engine.bad("", "x" * 10_000_000, "y" * 10_000_000))
    assert len(first["found"]) < 5000 and len(first["evidence"]) < 5000


def test_missing_program_is_unknown():
    first, _second = observe(lambda context: context.run("no-such-program-anywhere"))
    assert first["outcome"] == "unknown" and "not installed" in first["found"]


@pytest.mark.parametrize("text", ["canary-secret-0123456789", "Authorization: Bearer canary-other-0123456789", 'token="canary-third-0123456789"'])
def test_secrets_are_redacted(text):
    first, _second = observe(lambda context: engine.bad("", "found " + text, "evidence " + text))
    assert "canary" not in first["found"] + first["evidence"]


def test_shared_source_is_read_once_and_its_error_is_shared():
    context, calls = engine.Context({}), []

    def read():
        calls.append(1)
        raise engine.Unknown("no permission")

    for _attempt in range(3):
        with pytest.raises(engine.Unknown):
            context.shared("journal", read)
    assert len(calls) == 1
