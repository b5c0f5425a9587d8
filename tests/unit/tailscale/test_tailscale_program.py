"""How tailscale is called: its key in no command line, and what its answers are taken for. The program is a stand-in."""

from __future__ import annotations

import json
import os
import subprocess
import types

import pytest

from ansible_collections.beta9.workers.plugins.module_utils.tailscale import cli
from ansible_collections.beta9.workers.plugins.modules import tailscale_node
from tests.doubles.commands import Commands

RUNNING = json.dumps({"BackendState": "Running"})


@pytest.fixture
def commands(tmp_path, monkeypatch):
    made = Commands(tmp_path / "bin")
    monkeypatch.setattr(cli, "PLACES", (str(tmp_path / "bin/tailscale"),))
    monkeypatch.setattr(cli.time, "sleep", lambda _seconds: None)
    return made


@pytest.fixture
def program(commands):
    """A function that returns the program with these answers."""

    def make(*answers):
        commands.add("tailscale", *answers)

        def run_command(words, pass_fds=(), **_options):
            done = subprocess.run(
                words,
                capture_output=True,
                text=True,
                pass_fds=pass_fds,
                check=False,
                env=dict(os.environ, **commands.environment()),
            )
            return done.returncode, done.stdout, done.stderr

        return cli.Program(types.SimpleNamespace(run_command=run_command, params={}))

    return make


def test_status_and_settings(program):
    assert program(("status", 0, RUNNING), ("debug prefs", 0, '{"CorpDNS": true}')).read() == (
        {"BackendState": "Running"},
        {"CorpDNS": True},
    )
    for answers in (("status", 1, "no"), ("status", 0, "[]"), ("status", 0, '{"BackendState": "NoState"}')):
        assert program(answers, ("debug prefs", 1, "")).read() == (None, None)
    assert (
        program(("version", 0, "1.90.1\n  more\n")).version() == "1.90.1"
        and program(("version", 1, "x")).version() == ""
    )


def test_program_that_is_not_there(commands, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    absent = cli.Program(types.SimpleNamespace(run_command=None))
    assert absent.path is None and absent.version() == "" and absent.read() == (None, None)


def test_key_is_in_no_command_line(program, commands):
    program(("up", 0, "")).login("up", "tskey-canary-0123456789", ["--hostname=w1"], 9)
    (words,) = commands.calls("tailscale")
    assert (
        words[1] == "up"
        and words[2].startswith("--auth-key=file:/proc/self/fd/")
        and words[3:] == ["--timeout=9s", "--hostname=w1"]
    )
    assert "canary" not in commands.log.read_text()


def test_key_can_be_read_by_the_program_and_by_nobody_else():
    handle = cli.secret_handle("tskey-canary")
    with open(f"/proc/self/fd/{handle}", encoding="ascii") as stream:
        assert stream.read().strip() == "tskey-canary"
    os.close(handle)


def test_refused_tags_are_asked_for_no_more_and_a_refusal_shows_no_key(program, commands):
    made = program(
        ("up", 1, f"x {cli.TAGS_REFUSED} y, key tskey-canary-0123456789"),
        ("status", 0, '{"Health": ["login error: no", "other"]}'),
    )
    with pytest.raises(cli.Failed) as caught:
        made.login("up", "tskey-canary-0123456789\n", ["--advertise-tags=tag:a"], 9)
    assert (
        "canary" not in str(caught.value)
        and "login error: no" in str(caught.value)
        and "other" not in str(caught.value)
    )
    assert [any("tags" in word for word in words) for words in commands.calls("tailscale") if words[1] == "up"] == [
        True,
        False,
    ]


def test_present_login(program):
    listed = "ID    Tailnet  Account\n1a2b  one      a@x\n3c4d  two      b@x*\n"
    assert (
        program(("switch --list", 0, listed)).profile() == "3c4d" and program(("switch --list", 0, "")).profile() == ""
    )
    with pytest.raises(cli.Failed, match="exit status 3"):
        program(("set", 3, "")).must("set", "--x")


WISH = {
    "login_server": "https://hs",
    "hostname": "w1",
    "accept_routes": None,
    "accept_dns": False,
    "tags": [],
    "timeout_seconds": 9,
}


def test_move_that_fails_goes_back_to_the_login_before(program, commands):
    made = program(("switch --list", 0, "1a2b x y*\n"), ("login", 1, "bad key"))
    plan = types.SimpleNamespace(action="move", settings={})
    with pytest.raises(cli.Failed):
        tailscale_node.apply(made, plan, WISH, "tskey")
    assert commands.calls("tailscale")[-1][1:] == ["switch", "1a2b"]
    steps, undo, after = tailscale_node.commands(made, plan, WISH, {})
    assert (
        "--auth-key=file:{key}" in steps[0]
        and steps[1] == tailscale_node.RESTART
        and undo[0][1:] == ["switch", "1a2b"]
        and after[0][-2:] == ["remove", "1a2b"]
    )


def test_settings_are_set_and_undone(program, commands):
    made = program()
    plan = types.SimpleNamespace(action=None, settings={"accept-dns": False})
    tailscale_node.apply(made, plan, WISH, "")
    assert commands.calls("tailscale")[-1][1:] == ["set", "--accept-dns=false"]
    steps, undo, after = tailscale_node.commands(made, plan, WISH, {"accept-dns": True})
    assert steps[0][1:] == ["set", "--accept-dns=false"] and undo[0][1:] == ["set", "--accept-dns=true"] and after == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"x {cli.TAGS_REFUSED}", "tagOwners"),
        (tailscale_node.SERVER_BROKE, "headscale 0.28"),
        ("invalid key: auth", "new auth key"),
        ("timeout", "https://hs"),
    ],
)
def test_failed_login_is_explained(text, words):
    assert words in tailscale_node.explain(text, WISH)
