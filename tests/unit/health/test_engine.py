"""The engine with probes that hang, crash, flood, and tell secrets."""

from __future__ import annotations

import threading
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import linux
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


def alive(text):
    """Return the processes whose command line holds a text."""
    return [pid for pid, _parent, words in linux.processes() if text in " ".join(words)]


def test_command_that_hangs_is_killed_with_its_children():
    mark, start = "3141592%d" % (time.time_ns() % 1000), time.monotonic()
    ran = engine.run_command(["sh", "-c", "sleep %s & sleep %s" % (mark, mark)], 0.3)
    deadline = time.monotonic() + 5
    while alive("sleep " + mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ran.status is None and not alive("sleep " + mark) and time.monotonic() - start < 5.0


def test_command_that_ends():
    ran = engine.run_command(["sh", "-c", "cat; echo err >&2; exit 3"], 5.0, "from stdin\n")
    assert (ran.status, ran.output, ran.missing) == (3, "from stdin\nerr\n", False)
    assert engine.run_command(["sh", "-c", "cat"], 5.0).output == "", "stdin is empty, not the terminal"
    assert engine.run_command(["sh", "-c", "echo $LC_ALL $PAGER"], 5.0).output == "C cat\n"


def test_command_that_has_said_enough_is_ended():
    start = time.monotonic()
    ran = engine.run_command(["sh", "-c", "echo one; echo two >&2; exec sleep 60"], 30.0, until="two")
    assert (ran.status, ran.output) == (None, "one\ntwo\n") and time.monotonic() - start < 5
    assert engine.run_command(["sh", "-c", "echo one; exit 3"], 5.0, until="two").status == 3


def test_program_that_may_not_run(tmp_path):
    path = tmp_path / "program"
    path.write_text("x")
    for name in (str(path), "/no/such/program"):
        ran = engine.run_command([name], 1.0)
        assert ran.missing and ran.status == 127 and name in ran.output


def test_context_tells_missing_from_late():
    context = engine.Context({})
    with pytest.raises(engine.Missing, match="no-such-program"):
        context.run("no-such-program")
    with pytest.raises(engine.Unknown, match="sleep did not end within 0.2 s") as late:
        context.run("/bin/sleep", "60", timeout=0.2)
    assert not isinstance(late.value, engine.Missing)
    assert context.run("/bin/sleep", "60", timeout=0.2, hangs=True).status is None
    assert context.run("echo", "x").output == "x\n"


def test_files(tmp_path):
    context, path = engine.Context({}), tmp_path / "file"
    path.write_bytes(b"text \xff")
    assert context.read(str(path)) == "text \ufffd" and context.read(str(tmp_path / "none")) is None
    with pytest.raises(engine.Unknown, match="can't be read"):
        context.read(str(tmp_path))


def test_narrowed_context_shares_what_was_read():
    context = engine.Context({"pool": "gpu", "kube": True})
    other = context.narrowed(pool="cpu")
    assert other.config == {"pool": "cpu", "kube": True} and context.config["pool"] == "gpu"
    context.shared("x", lambda: 1)
    other.secrets.append("canary-secret-0123456789")
    assert other.shared("x", lambda: 2) == 1 and "canary" not in context.redact("canary-secret-0123456789")
    assert other.redis_lock is context.redis_lock


@pytest.mark.parametrize(("secret", "shown"), [("1234567", True), ("12345678", False)])
def test_only_what_is_long_enough_is_a_secret(secret, shown):
    context = engine.Context({})
    context.secrets.append(secret)
    assert (secret in context.redact("it is %s." % secret)) is shown


@pytest.mark.parametrize(("length", "cut"), [(engine.EVIDENCE_BYTES, False), (engine.EVIDENCE_BYTES + 1, True)])
def test_evidence_is_cut_at_its_limit(length, cut):
    text = engine.Context({}).redact("x" * length)
    assert text == "x" * engine.EVIDENCE_BYTES + (" [cut]" if cut else "")


def test_observations_are_whole():
    first, second = observe(lambda context: engine.bad("code", "found", "evidence", number=1))
    assert {name: first[name] for name in ("id", "outcome", "code", "found", "evidence", "data")} == {
        "id": "T04", "outcome": "bad", "code": "code", "found": "found", "evidence": "evidence", "data": {"number": 1}
    }  # fmt: skip
    assert (second["id"], second["outcome"], second["found"], second["code"]) == ("T05", "ok", "fine", "")
    assert 0 <= first["seconds"] < 1.0
    seen = observe(lambda context: engine.warn("code", "found", "evidence", x=1))[0]
    assert (seen["outcome"], seen["code"], seen["found"], seen["evidence"], seen["data"]) == ("warn", "code", "found", "evidence", {"x": 1})
    seen = observe(lambda context: engine.ok("found", "evidence", x=1))[0]
    assert (seen["outcome"], seen["code"], seen["found"], seen["evidence"], seen["data"]) == ("ok", "", "found", "evidence", {"x": 1})
    assert observe(lambda context: engine.not_applicable("found", x=1))[0]["data"] == {"x": 1}


def test_seconds_are_those_of_the_probe():
    first, second = observe(lambda context: engine.ok(time.sleep(0.25)))
    assert 0.2 < first["seconds"] < 2.0 and second["seconds"] < 0.2


def test_time_of_a_probe_that_hangs_is_told():
    forever = threading.Event()
    first, _second = observe(lambda context: engine.ok(forever.wait(60)))
    assert 1.0 <= first["seconds"] < 3.0 and first["found"] in ("no result within 1 s", "no result within 2 s")
    forever.set()


def test_probes_run_side_by_side():
    context, both = engine.Context({}), threading.Barrier(2, timeout=5)
    seen = engine.observe(
        [(CHECK._replace(id=name, timeout_seconds=5.0), lambda context: engine.ok(both.wait() >= 0)) for name in ("X01", "X02")], context, 8.0
    )
    assert [entry["outcome"] for entry in seen] == ["ok", "ok"]


def test_threads_are_daemons():
    """One that hangs must not keep the module from ending."""
    kinds = []
    observe(lambda context: engine.ok(kinds.append(threading.current_thread().daemon)))
    assert kinds == [True]


def test_warnings_are_kept_apart_from_answers():
    script = "echo answer; echo Warning: deprecated >&2; head -c 300000 /dev/zero | tr '\\0' x >&2"
    ran = engine.run_command(["sh", "-c", script], 10.0, apart=True)
    assert ran.status == 0 and ran.output == "answer\n" and ran.errors.startswith("Warning: deprecated\nxxx") and len(ran.errors) > 300000
    assert engine.run_command(["sh", "-c", "echo answer; echo words >&2"], 10.0).output == "answer\nwords\n"


def test_so_many_threads_at_a_time(monkeypatch):
    monkeypatch.setattr(engine, "MAX_THREADS", 1)
    under_way, most = [], []

    def probe(_context):
        under_way.append(1)
        most.append(len(under_way))
        threading.Event().wait(0.05)
        under_way.pop()
        return engine.ok()

    engine.observe([(CHECK._replace(id="X%02d" % number, timeout_seconds=5.0), probe) for number in range(4)], engine.Context({}), 8.0)
    assert most == [1, 1, 1, 1]
