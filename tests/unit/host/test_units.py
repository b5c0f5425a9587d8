"""Units and their journal, from what systemd and journalctl print: recorded on Debian 12 (systemd 252) and Debian 13 (257)."""

from __future__ import annotations

import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils import units

# systemctl show beta9-tunnel beta9-agent nosuch --property=...: one block a unit, properties in systemd's own order
SHOWN = """Restart=always
MainPID=416
Result=success
NRestarts=0
ExecMainStartTimestampMonotonic=986808300
ExecMainStatus=0
Id=beta9-tunnel.service
LoadState=loaded
ActiveState=active
SubState=running
ActiveEnterTimestampMonotonic=986808535
InvocationID=5b05581a164447b8833b21ca65f4057d

Restart=always
MainPID=0
Result=exit-code
NRestarts=53
ExecMainStartTimestampMonotonic=996912255
ExecMainStatus=203
Id=beta9-agent.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart
ActiveEnterTimestampMonotonic=0
InvocationID=7bd324aec0cd4cfb88a25d05f0ddd1c2

Restart=no
MainPID=0
Result=success
NRestarts=0
ExecMainStartTimestampMonotonic=0
ExecMainStatus=0
Id=nosuch.service
LoadState=not-found
ActiveState=inactive
SubState=dead
ActiveEnterTimestampMonotonic=0
InvocationID=
"""
NEWEST_FIRST = "1795642108.627160 w python[536]: INFO ready\n1795642108.594140 w python[536]: INFO starting\n"


def test_units_are_told_apart():
    found = units.parse(SHOWN)
    assert set(found) == {"beta9-tunnel.service", "beta9-agent.service", "nosuch.service"}
    tunnel, agent, nothing = found.values()
    assert (tunnel.main_pid, tunnel.active, tunnel.invocation) == (416, "active", "5b05581a164447b8833b21ca65f4057d")
    assert (agent.restarts, agent.exec_code, agent.result) == (53, "program", "exit-code")
    assert nothing == units.Unit(restart="no", result="success")


@pytest.mark.parametrize("status", sorted(units.EXEC_CODES))
def test_what_systemd_could_not_start_has_a_code_only_while_nothing_runs(status):
    assert units.Unit(exit_status=status).exec_code == units.EXEC_CODES[status]
    assert units.Unit(exit_status=status, main_pid=1).exec_code == "" and units.Unit(exit_status=1).exec_code == ""


@pytest.mark.parametrize("text", ["", "MainPID=1\n", "Id=\nMainPID=1\n", "Id=x.service\nMainPID=[not set]\nNRestarts=-1\n"])
def test_what_is_odd_is_no_unit_or_has_no_numbers(text):
    assert all(unit.main_pid == 0 and unit.restarts == 0 for unit in units.parse(text).values())


def test_ages_count_from_now():
    now = time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6
    unit = units.Unit(active="active", main_pid=1, started_us=int(now - 5e6), active_us=int(now - 3e6))
    assert 5 <= unit.age_seconds() < 6 and 3 <= unit.up_seconds() < 4
    assert unit._replace(main_pid=0).age_seconds() == 0 and unit._replace(active="activating").up_seconds() == 0


def recorder(output="", status=0):
    calls = []

    def run(*words):
        calls.append(words)
        return status, output

    return run, calls


def test_journal_is_of_the_present_start_newest_read_and_oldest_first():
    run, calls = recorder(NEWEST_FIRST)
    text = units.journal(run, "a.service", units.Unit(invocation="abc"), lines=7, seconds=60)
    assert [line.split(": ")[1] for line in text.splitlines()] == ["INFO starting", "INFO ready"]
    assert "-r" in calls[0] and "_SYSTEMD_INVOCATION_ID=abc" in calls[0] and calls[0][calls[0].index("-n") + 1] == "7"
    since = float(calls[0][calls[0].index("--since") + 1][1:])
    assert abs(time.time() - 60 - since) < 3


def test_journal_of_a_unit_that_never_started_is_asked_by_name():
    run, calls = recorder()
    assert units.journal(run, "a.service", units.Unit()) == "" and calls[0][-2:] == ("-u", "a.service") and "--since" not in calls[0]


def test_last_exits_are_of_whichever_start():
    run, calls = recorder(NEWEST_FIRST)
    assert units.last_exits(run, "a.service", 60).endswith("INFO ready") and not any("INVOCATION" in word for word in calls[0])


def test_restarts_are_counted_by_systemds_own_message():
    run, calls = recorder("a: Scheduled restart job, restart counter is at 2.\na: Scheduled restart job, restart counter is at 1.\n")
    assert units.restarts_within(run, "a.service", 3600) == 2
    assert "MESSAGE_ID=5eb03494b6584870a536b337290809b3" in calls[0] and "UNIT=a.service" in calls[0]


def test_a_journal_that_fails_is_unreadable():
    run, _calls = recorder("No journal files were opened due to insufficient permissions.\n", status=1)
    with pytest.raises(units.Unreadable, match="insufficient permissions"):
        units.journal(run, "a.service", units.Unit())


@pytest.mark.parametrize(("load", "active", "words"), [("masked", "inactive", "masked"), ("loaded", "inactive", "inactive"), ("loaded", "failed", "failed")])
def test_a_journal_that_nobody_writes_is_unreadable(load, active, words):
    with pytest.raises(units.Unreadable, match=words):
        units.readable(units.Unit(load=load, active=active))


def test_a_journal_that_may_not_be_read_or_is_not_there_is_unreadable(tmp_path, monkeypatch):
    folder = tmp_path / "journal" / "machine"
    folder.mkdir(parents=True)
    pattern = (str(tmp_path / "journal/*/system.journal"),)
    with pytest.raises(units.Unreadable):
        units.readable(units.Unit(load="loaded", active="active"), pattern)
    (folder / "system.journal").write_text("x")
    units.readable(units.Unit(load="loaded", active="active"), pattern)
    units.readable(None, pattern)
    monkeypatch.setattr(units.os, "access", lambda path, mode: False)
    with pytest.raises(units.Unreadable, match="become"):
        units.readable(None, pattern)


def test_times_are_left_out():
    assert units.without_times("1.5 host python[1]: a: b\nno time here\n") == "python[1]: a: b\nno time here"
    assert units.without_times("1.5 h x\n2.5 h y\n3.5 h z\n", 2) == "y\nz"
