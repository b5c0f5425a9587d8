"""What systemctl and journalctl print, as recorded on Debian 12 (systemd 252) and 13 (257), and what probes get of it."""

from __future__ import annotations

import json
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import units
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import evidence

from tests.unit.health.recorded import Context

SHOW = """Restart=always
Type=notify
NRestarts=3
MainPID=900
Result=success
ExecMainStartTimestampMonotonic=5000000
ExecMainStatus=0
Id=beta9-agent.service
LoadState=loaded
ActiveState=active
SubState=running
ActiveEnterTimestampMonotonic=6000000
InvocationID=0123abcd

Id=beta9-tunnel.service
LoadState=not-found
ActiveState=inactive
MainPID=0
NRestarts=[not set]

Id=systemd-journald.service
LoadState=loaded
ActiveState=active
"""
AGENT = "beta9-agent.service"


@pytest.fixture(autouse=True)
def journals(monkeypatch, tmp_path):
    path = tmp_path / "system.journal"
    path.write_text("x")
    monkeypatch.setattr(units, "JOURNALS", (str(path),))
    monkeypatch.setattr(units.readable, "__defaults__", ((str(path),),))
    return path


def context(journal="", **answers):
    return Context(dict({"systemctl show": SHOW, "journalctl": journal}, **answers))


def test_units_are_asked_for_together():
    asked = context()
    agent, tunnel, other = (evidence.unit_of(asked, name) for name in (AGENT, "beta9-tunnel.service", "other.service"))
    assert (agent.load, agent.active, agent.sub, agent.main_pid, agent.restarts, agent.restart) == (
        "loaded",
        "active",
        "running",
        900,
        3,
        "always",
    )
    assert (agent.result, agent.exit_status, agent.started_us, agent.invocation) == (
        "success",
        0,
        5000000,
        "0123abcd",
    )
    assert (tunnel.load, tunnel.active, tunnel.main_pid, tunnel.restarts) == (
        "not-found",
        "inactive",
        0,
        0,
    ) and other == units.Unit()
    (command,) = asked.commands
    assert AGENT in command and "beta9-tunnel.service" in command and "--property=" + units.PROPERTIES in command


def test_systemd_that_does_not_answer():
    with pytest.raises(engine.Unknown, match="systemctl does not answer: Failed to connect to bus"):
        evidence.unit_of(Context({"systemctl show": (1, "Failed to connect to bus\n")}), AGENT)


def test_journal_is_of_the_present_start_and_newest_first():
    asked = context("3.0 h a[1]: c\n2.0 h a[1]: b\n1.0 h a[1]: a\n")
    assert evidence.journal_of(asked, AGENT) == "1.0 h a[1]: a\n2.0 h a[1]: b\n3.0 h a[1]: c"
    command = asked.commands[-1].split()
    assert "-r" in command and "_SYSTEMD_INVOCATION_ID=0123abcd" in command and "--since" not in command
    evidence.journal_of(asked, AGENT, 60.0)
    words = asked.commands[-1].split()
    assert abs(float(words[words.index("--since") + 1][1:]) - (time.time() - 60)) < 5


def test_journal_of_whichever_start():
    asked = context("1.0 h a[1]: a\n")
    evidence.journal_of(asked, AGENT, None, present_start=False)
    words = asked.commands[-1].split()
    assert words[-2:] == ["-u", AGENT] and abs(float(words[words.index("--since") + 1][1:]) - (time.time() - evidence.SETTLED_SECONDS)) < 5
    assert not any("INVOCATION" in word for word in words)


def test_journal_is_read_once_for_each_question():
    asked = context("1.0 h a[1]: a\n")
    for _turn in range(3):
        evidence.journal_of(asked, AGENT), evidence.journal_of(asked, AGENT, 60.0), evidence.journal_of(asked, AGENT, 60.0, present_start=False)
        evidence.restarts_within(asked, AGENT, 60.0), evidence.restarts_within(asked, AGENT, 3600.0)
    assert len([command for command in asked.commands if command.startswith("journalctl")]) == 5


def test_restarts_are_systemds_own_messages():
    asked = context(starts("s r s r s"))
    assert evidence.restarts_within(asked, AGENT, 3600.0) == 2
    words = asked.commands[-1].split()
    assert {"MESSAGE_ID=" + units.RESTART_SCHEDULED, "MESSAGE_ID=" + units.STARTING, "UNIT=" + AGENT} <= set(words)
    assert abs(float(words[words.index("--since") + 1][1:]) - (time.time() - 3600)) < 5


@pytest.mark.parametrize(
    ("happened", "count"),
    [
        ("", 0),
        ("r s r s r", 3),  # the first start is further back than what is asked for
        ("s r s r s r s s", 0),  # started by hand while systemd waited: NRestarts still says 3
        ("s r s r s r s s r s", 1),
        ("s r s s r s r s", 2),
        ("s r s r s r s l", 0),  # systemd was faster than the one who repaired it, who reloaded it then
        ("s r s r s l r s", 1),
        ("r r r", 3),  # not every systemd tells each start
    ],
)
def test_restarts_before_a_start_or_reload_by_hand_are_over(happened, count):
    assert evidence.restarts_within(context(starts(happened)), AGENT, 600.0) == count


def starts(happened):
    """Return what journalctl prints, newest first, of starts (s), reloads (l) and restarts that systemd scheduled (r), given oldest first."""
    ids = {"s": units.STARTING, "l": units.RELOADED, "r": units.RESTART_SCHEDULED}
    return "".join('{"_BOOT_ID":"0a","MESSAGE_ID":"%s","__REALTIME_TIMESTAMP":"1"}\n' % ids[kind] for kind in reversed(happened.split()))


def test_explanation_is_no_verdict():
    asked = context(journal=(1, "Failed to open files: Permission denied\n"))
    assert evidence.explanation(asked, AGENT) == ""
    with pytest.raises(engine.Unknown, match="journalctl: Failed to open files"):
        evidence.journal_of(asked, AGENT)
    assert evidence.explanation(context("1.0 h a[1]: a\n"), AGENT, 5.0) == "1.0 h a[1]: a"


@pytest.mark.parametrize(
    ("was", "now", "match"),
    [
        ("ActiveState=active\n", "ActiveState=inactive\n", "is inactive"),
        ("LoadState=loaded", "LoadState=masked", "is masked"),
    ],
)
def test_journald_that_does_not_run(was, now, match):
    head, last = SHOW.rsplit("\n\n", 1)
    stopped = head + "\n\n" + last.replace("ActiveState=active", "ActiveState=inactive").replace(was if "Load" in was else "\0", now)
    with pytest.raises(engine.Unknown, match=match):
        evidence.journal_of(Context({"systemctl show": stopped, "journalctl": ""}), AGENT)


def test_journal_that_may_not_be_read(journals):
    journals.unlink()
    with pytest.raises(engine.Unknown, match="may not be read|keeps no journal"):
        evidence.journal_of(context(), AGENT)


@pytest.mark.parametrize(
    ("status", "pid", "code"),
    [
        (200, 0, "folder"),
        (203, 0, "program"),
        (217, 0, "account"),
        (226, 0, "sandbox"),
        (243, 0, "credential"),
        (1, 0, ""),
        (203, 7, ""),
    ],
)
def test_exit_status_of_systemd_itself(status, pid, code):
    assert units.Unit(exit_status=status, main_pid=pid).exec_code == code


def test_ages():
    now = units.monotonic_us()
    assert 9.9 < units.Unit(main_pid=1, started_us=int(now - 10e6)).age_seconds() < 12
    assert units.Unit(main_pid=0, started_us=int(now - 10e6)).age_seconds() == units.Unit(main_pid=1).age_seconds() == 0.0


def test_times_are_left_out():
    text = "\n".join("176410000%d.5 host a[1]: line %d" % (number, number) for number in range(9))
    assert units.without_times(text) == "\n".join("a[1]: line %d" % number for number in range(5, 9))
    assert units.without_times(text, 1) == "a[1]: line 8" and units.without_times("no time here at all") == "no time here at all"


def entry(invocation, message=None, own=True, **more):
    """Return a line of `journalctl -o json`: of the unit's own process, or of systemd about it."""
    fields = {"_SYSTEMD_UNIT": AGENT, "_SYSTEMD_INVOCATION_ID": invocation} if own else {"_SYSTEMD_UNIT": "init.scope", "INVOCATION_ID": invocation}
    return json.dumps(dict(fields, MESSAGE=message, __REALTIME_TIMESTAMP="1", **more)) + "\n"


def runner(asked):
    """Return what units runs commands by."""

    def run(*command):
        ran = asked.run(*command)
        return ran.status, ran.output

    return run


def restarting(main_pid, restarts, active="activating"):
    """Return the answer of systemctl for a unit whose present start is `now`."""
    return (
        SHOW.replace("MainPID=900", f"MainPID={main_pid}")
        .replace("NRestarts=3", f"NRestarts={restarts}")
        .replace("0123abcd", "now", 1)
        .replace("ActiveState=active", f"ActiveState={active}", 1)
    )


ENDED = (
    entry("before", "RuntimeError: broken on purpose")
    + entry("before", "Main process exited, code=exited, status=1/FAILURE", own=False)
    + entry("before", "Scheduled restart job", own=False)
)


@pytest.mark.parametrize(
    ("systemctl", "entries", "words"),
    [
        # systemd has just started it again, and it has said nothing yet, or something that tells nothing of why it ended
        (restarting(901, 2), ENDED + entry("now", "Starting beta9 agent", own=False), "RuntimeError: broken on purpose"),
        (restarting(901, 2), ENDED + entry("now", "Starting", own=False) + entry("now", "agent 2 starts"), "RuntimeError: broken on purpose"),
        # it waits to be started again
        (restarting(0, 2), ENDED.replace("before", "now"), "RuntimeError: broken on purpose"),
        # a run that ended and said nothing has nothing to do with what an earlier one said
        (restarting(0, 1), entry("old", "keepalive accepted") + entry("now", "exited, status=0/SUCCESS", own=False), "systemd[1]: the last lines"),
        (
            restarting(901, 1),
            entry("old", "keepalive accepted") + entry("before", "exited", own=False) + entry("now", "Starting", own=False),
            "systemd[1]: the last lines",
        ),
        # stopped: its last run
        (restarting(0, 0, "failed"), entry("now", "no such setting") + entry("now", [195, 40]) + entry("now"), "no such setting"),
        (restarting(0, 0, "inactive"), "", "systemd[1]: the last lines"),
    ],
)  # fmt: skip
def test_what_a_unit_said_when_it_ended(systemctl, entries, words):
    asked = Context(
        {
            "systemctl show": systemctl,
            "journalctl": "2.0 h systemd[1]: the last lines\n",
            "journalctl -q -r -n 200 --no-pager -o json": "".join(reversed(entries.splitlines(True))),
        }
    )
    assert units.said(runner(asked), AGENT) == words
    assert any(f"_SYSTEMD_UNIT={AGENT} + UNIT={AGENT}" in command for command in asked.commands)


@pytest.mark.parametrize("systemctl", [restarting(901, 0), restarting(901, 5, "active")])
def test_what_a_unit_says_that_was_started_by_hand_or_runs(systemctl):
    asked = Context({"systemctl show": systemctl, "journalctl": "2.0 h python[901]: waits for the gateway\n"})
    assert units.said(runner(asked), AGENT) == "python[901]: waits for the gateway"
    assert "_SYSTEMD_INVOCATION_ID=now" in asked.commands[-1]
