"""Versions of the agent side by side, and whether the one that runs is ready: real files, a real process, a stand-in for systemctl."""

from __future__ import annotations

import json
import os
import time
import types

import pytest

from ansible_collections.beta9.workers.plugins.module_utils.agent import records, service
from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.modules import agent_switch

READY = {"pid": 7, "status": "ready", "next_action": "keepalive", "agent_version": "0.1.0", "gpu_count": 1}
REFUSED = {"code": "token_unknown", "cause": "the token is unknown", "remedy": "Check it.", "retryable": False}


class Exit(Exception):
    """A module ended; its result."""

    def __init__(self, failed, result):
        super().__init__(result.get("msg", ""))
        self.failed, self.result = failed, result


class Systemctl:
    """Answers show, and notes all else. onto: what a restart makes of the unit and the state."""

    def __init__(self, state_file, **properties):
        self.state_file = state_file
        self.properties = dict({"ActiveState": "active", "MainPID": "7", "Job": "", "NRestarts": "0", "Result": "success"}, **properties)
        self.verbs, self.after = [], {}
        self.state(READY)

    def state(self, state):
        self.state_file.write_text(json.dumps(state))

    def run_command(self, words, **_options):
        if words[0] == "systemctl" and words[1] == "show":
            return 0, "".join(f"{name}={value}\n" for name, value in self.properties.items()), ""
        if words[0] != "systemctl":
            return 0, "", ""
        self.verbs.append(" ".join(words[1:]))
        if words[1] == "restart" and self.after:
            self.state(self.after.pop("state"))
        return 0, "", ""

    def module(self, check_mode=False, **params):
        def end(failed):
            def exit_with(**result):
                raise Exit(failed, result)

            return exit_with

        return types.SimpleNamespace(
            params=params,
            _name="agent_switch",
            check_mode=check_mode,
            run_command=self.run_command,
            fail_json=end(True),
            exit_json=end(False),
        )


@pytest.fixture
def unit(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "AGENT_STATE", str(tmp_path / "state.json"))
    return Systemctl(tmp_path / "state.json")


def wait(unit, seconds=0.0, **options):
    return service.wait_ready(unit.module(), seconds, **options)


def test_ready_is_what_the_agent_of_this_unit_says(unit):
    assert wait(unit) == (True, {"status": "ready", "agent_version": "0.1.0", "gpu_count": 1})
    for change in ({"MainPID": "8"}, {"ActiveState": "activating"}, {"Job": "12"}):
        unit.properties = dict({"ActiveState": "active", "MainPID": "7", "Job": "", "NRestarts": "0"}, **change)
        assert wait(unit)[0] is False
    unit.properties.update(Job="")
    unit.state(dict(READY, next_action="register"))
    assert wait(unit)[0] is False


def test_problem_that_waiting_does_not_resolve_ends_the_waiting(unit):
    unit.state(dict(READY, status="degraded", problem=REFUSED, next_epoch=time.time() + 60))
    start = time.monotonic()
    ready, told = wait(unit, 30)
    assert not ready and (told["code"], told["cause"], told["remedy"]) == (
        "token_unknown",
        "the token is unknown",
        "Check it.",
    )
    assert time.monotonic() - start < 5


def test_one_that_may_pass_is_waited_for(unit):
    unit.state(dict(READY, status="degraded", problem=dict(REFUSED, retryable=True), next_epoch=time.time() + 60))
    start = time.monotonic()
    assert not wait(unit, 0.6)[0] and time.monotonic() - start >= 0.5


def test_crashes_end_the_waiting_where_they_count(unit):
    class Crashing(Systemctl):
        def run_command(self, words, **options):
            self.properties["NRestarts"] = str(int(self.properties["NRestarts"]) + 1)
            return super().run_command(words, **options)

    crashing, start = Crashing(unit.state_file, ActiveState="activating", MainPID="0"), time.monotonic()
    ready, told = wait(crashing, 30, crashes=service.CRASHES)
    assert not ready and told["status"] == "stopped" and told["code"] == "agent_not_running" and time.monotonic() - start < 5


def test_link_and_versions(tmp_path):
    for name in ("1", "2", "3"):
        (tmp_path / "versions" / name).mkdir(parents=True)
    assert service.current(str(tmp_path)) == ""
    (tmp_path / ".current.new").write_text("left over")
    for name in ("1", "2", "2"):
        service.point(str(tmp_path), name)
        assert service.current(str(tmp_path)) == name
    service.prune(str(tmp_path), ("2", "1"))
    assert sorted(os.listdir(tmp_path / "versions")) == ["1", "2"] and sorted(os.listdir(tmp_path)) == [
        "current",
        "versions",
    ]


# -- the switch from one version to another --


@pytest.fixture
def switch(tmp_path, unit, monkeypatch):
    """Return a function that runs agent_switch; versions a and b are there, a runs."""
    for name in ("a", "b"):
        (tmp_path / "agent/versions" / name).mkdir(parents=True)
    service.point(str(tmp_path / "agent"), "a")
    (tmp_path / "unit").write_text("of a")
    monkeypatch.setattr(records, "AGENT_DIRECTORY", str(tmp_path / "agent"))
    monkeypatch.setattr(
        service,
        "installed",
        lambda directory, version, _run: os.path.isdir(os.path.join(directory, "versions", version)),
    )

    def run(version="b", content="of b", check_mode=False, **params):
        desired = {
            "version": version,
            "files": [{"path": str(tmp_path / "unit"), "content": content, "mode": "0644"}],
            "wait_seconds": 0,
            **params,
        }
        monkeypatch.setattr(agent_switch, "AnsibleModule", lambda **_options: unit.module(check_mode, **desired))
        with pytest.raises(Exit) as caught:
            agent_switch.main()
        return caught.value

    run.current = lambda: (service.current(str(tmp_path / "agent")), (tmp_path / "unit").read_text())
    run.versions = lambda: sorted(os.listdir(tmp_path / "agent/versions"))
    run.journal = tmp_path / "agent" / agent_switch.JOURNAL
    return run


def test_switch_that_works(switch, unit):
    assert switch(check_mode=True).result["changed"] and switch.current() == ("a", "of a") and not unit.verbs
    ended = switch()
    assert not ended.failed and ended.result["changed"] and ended.result["previous"] == "a" and switch.current() == ("b", "of b")
    assert unit.verbs == ["daemon-reload", "restart --no-block beta9-agent.service"] and not switch.journal.exists()
    assert [entry["after_header"].rpartition("/")[2] for entry in ended.result["diff"]] == ["agent", "unit"]
    again = switch()
    assert not again.failed and not again.result["changed"] and len(unit.verbs) == 2


def test_switch_that_does_not_is_taken_back(switch, unit):
    unit.after = {"state": dict(READY, status="degraded", problem=REFUSED)}
    ended = switch()
    assert ended.failed and ended.result["changed"] and switch.current() == ("a", "of a") and switch.versions() == ["a"]
    assert len(unit.verbs) == 4 and not switch.journal.exists() and "The version before, a, runs again" in ended.result["msg"]


def test_switch_that_nobody_saw_the_end_of_is_finished(switch, unit, tmp_path):
    switch.journal.write_text(json.dumps({"from": "a", "to": "b", "files": [{"path": str(tmp_path / "unit"), "content": "of a", "mode": "0644"}]}))
    service.point(str(tmp_path / "agent"), "b")
    (tmp_path / "unit").write_text("of b")
    unit.state(dict(READY, status="degraded", problem=REFUSED))
    ended = switch()
    assert ended.failed and switch.current() == ("a", "of a") and not switch.journal.exists()


def test_another_version_than_the_one_that_was_tried(switch, unit, tmp_path):
    (tmp_path / "agent/versions/c").mkdir()
    switch.journal.write_text(json.dumps({"from": "a", "to": "b", "files": [{"path": str(tmp_path / "unit"), "content": "of a", "mode": "0644"}]}))
    service.point(str(tmp_path / "agent"), "b")
    ended = switch(version="c", content="of c")
    assert not ended.failed and switch.current() == ("c", "of c") and switch.versions() == ["a", "c"] and ended.result["previous"] == "a"


def test_nothing_to_switch_from_or_to(switch, tmp_path):
    assert switch(version="z").result["code"] == "version_absent" and switch.current() == ("a", "of a")
    (tmp_path / "agent/current").unlink()
    assert switch().result["code"] == "agent_absent"


# -- facts of a host --


def test_facts_of_this_machine(tmp_path):
    (tmp_path / "os-release").write_text("# x\nID=debian\nVERSION_ID=\"12\"\nNAME='A'\nbroken\n")
    assert linux.os_release(str(tmp_path / "os-release")) == {"ID": "debian", "VERSION_ID": "12", "NAME": "A"}
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\nMemTotal:  2097152 kB\n")
    assert linux.memory_mib(str(tmp_path / "meminfo")) == 2048
    (tmp_path / "none").write_text("MemFree: 1 kB\n")
    with pytest.raises(ValueError):
        linux.memory_mib(str(tmp_path / "none"))
    disk = os.statvfs(tmp_path)
    assert abs(linux.disk_free_mib(str(tmp_path / "no/such")) - disk.f_bavail * disk.f_frsize // 1048576) < 1000
    assert linux.source_address("127.0.0.1") == "127.0.0.1"
    age = linux.process_age_seconds(os.getpid())
    assert 0 < age < 3600 and linux.process_age_seconds(2**22 + 1) is None
    assert abs(linux.boot_epoch() - (time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))) < 2


def test_tokens_are_told_by_marks(tmp_path):
    from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol

    (tmp_path / "machine_token").write_text("canary-new-0123456789\n")
    (tmp_path / "machine_token.before").write_text("canary-old-0123456789\n")
    marks = records.token_marks(str(tmp_path), {"machine_id": "b", "replaces": {"machine_id": "a"}})
    assert protocol.marked("canary-new-0123456789", marks["b"]) and protocol.marked("canary-old-0123456789", marks["a"])
    assert records.token_marks(str(tmp_path), {}) == {} and records.token_marks(str(tmp_path / "none"), {"machine_id": "b"}) == {}
    assert protocol.marked("canary-new-0123456789", records.token_file_mark(str(tmp_path / "machine_token")))
    (tmp_path / "k3s").write_text("a b")
    assert records.token_file_mark(str(tmp_path / "k3s")) == records.token_file_mark(str(tmp_path / "none")) == ""
