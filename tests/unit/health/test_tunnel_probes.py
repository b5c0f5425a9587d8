"""The tunnel's probes: which state of units, processes and sockets is which finding, and that old lines of a journal make none."""

from __future__ import annotations

import http.client
import socket

import pytest
from ansible_collections.beta9.workers.plugins.module_utils import gateway
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import tunnel

from tests.unit.health.hosts import SSH, SSH_G, Host, code, journal, unit

LOGGED_IN = 'debug1: Connection established.\nAuthenticated to 192.0.2.10 ([192.0.2.10]:22) using "publickey".\n'


def test_a_tunnel_that_is_up_is_well_whatever_its_journal_says(monkeypatch):
    context = Host(monkeypatch)
    context.answers["journalctl"] = journal("Permission denied (publickey).", "Connection refused")
    assert code(tunnel.process, context) == "ok" and code(tunnel.listener, context) == "ok" and code(tunnel.options, context) == "ok"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"load": "masked", "active": "inactive", "main_pid": 0}, "masked"),
        ({"load": "not-found", "active": "inactive", "main_pid": 0}, "not_installed"),
        ({"active": "inactive", "main_pid": 0}, "stopped"),
        ({"active": "failed", "main_pid": 0}, "stopped"),
        ({"active": "deactivating"}, "stopped"),
        ({"active": "activating", "sub": "auto-restart", "main_pid": 0, "exit_status": 203}, "program"),
        ({"active": "activating", "sub": "auto-restart", "main_pid": 0, "exit_status": 217}, "account"),
        ({"active": "activating", "sub": "auto-restart", "main_pid": 0, "exit_status": 243}, "credential"),
        ({"active": "activating", "sub": "auto-restart", "main_pid": 0, "exit_status": 1}, "failing"),
    ],
)
def test_the_units_state_decides_not_what_was_said_before(monkeypatch, changes, expected):
    context = Host(monkeypatch, beta9_tunnel=unit(**changes))
    context.processes, context.listening = [], []
    context.answers["journalctl"] = journal("ssh: connect to host x port 22: Connection refused")
    assert code(tunnel.process, context) == expected


def test_a_stopped_unit_is_no_missing_option(monkeypatch):
    assert code(tunnel.options, Host(monkeypatch, beta9_tunnel=unit(load="masked", restart="no"))) == "ok"
    assert code(tunnel.options, Host(monkeypatch, beta9_tunnel=unit(restart="on-failure"))) == ""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Warning: remote port forwarding failed for listen port 6443", "listen_refused"),
        ("bind [127.0.0.1]:1994: Address already in use", "port_taken"),
        ("/etc/beta9/tunnel/ssh_config: line 3: Bad configuration option: foo", "config"),
        ("Permission denied (publickey).", "failing"),  # a login of our own tells that better: T08
        ("", "failing"),
    ],
)
def test_what_only_the_tunnels_own_ssh_knows_is_read_of_its_journal(monkeypatch, line, expected):
    context = Host(monkeypatch)
    context.processes, context.listening = context.processes[:1], []
    context.answers["journalctl"] = journal(line)
    assert code(tunnel.process, context) == expected
    asked = next(words for words in context.asked if words[0] == "journalctl")
    assert "_SYSTEMD_INVOCATION_ID=abc" in asked and "-r" in asked


def test_an_unreadable_journal_changes_no_verdict(monkeypatch):
    context = Host(monkeypatch, systemd_journald=unit(active="inactive"))
    context.processes, context.listening = context.processes[:1], []
    assert code(tunnel.process, context) == "failing"


def test_ssh_that_has_just_been_started_is_not_judged_yet(monkeypatch):
    context = Host(monkeypatch)
    context.listening, context.ages = [], {421: 1.0}
    assert code(tunnel.process, context).startswith("unknown") and code(tunnel.listener, context).startswith("unknown")
    context.ages = {421: 30.0}
    assert code(tunnel.process, context) == "failing" and code(tunnel.listener, context) == "none"


def test_autossh_that_has_just_been_started_is_not_judged_yet(monkeypatch):
    context = Host(monkeypatch, beta9_tunnel=unit(seconds=0.2))
    context.processes, context.listening = context.processes[:1], []
    assert code(tunnel.process, context).startswith("unknown")


def test_a_second_tunnel_is_found_and_a_look_at_the_first_is_none(monkeypatch):
    context = Host(monkeypatch)
    context.processes.append((900, 1, SSH[:1] + ["-W", "localhost:31994"] + SSH[2:]))
    context.processes.append((901, 1, SSH[:1] + ["-G"] + SSH[2:]))
    assert code(tunnel.process, context) == "ok"
    context.processes.append((902, 1, ["ssh", "-fNL", "1994:localhost:31994", "gateway"]))
    assert code(tunnel.process, context) == "duplicate"


def test_a_foreign_program_on_the_port_is_for_the_listener_to_tell(monkeypatch):
    context = Host(monkeypatch)
    context.listening = [{"address": "127.0.0.1", "process": "python3", "pid": 7}]
    assert code(tunnel.listener, context) == "foreign" and code(tunnel.process, context).startswith("unknown")


def test_whose_listener_it_is_can_only_root_see(monkeypatch):
    context = Host(monkeypatch)
    context.listening = [{"address": "127.0.0.1", "process": None, "pid": None}]
    assert code(tunnel.process, context) == "ok" and code(tunnel.listener, context).startswith("unknown")


# -- T08 --


def test_a_tunnel_that_carries_is_tried_only_where_that_is_asked_for(monkeypatch):
    context = Host(monkeypatch)
    assert code(tunnel.gateway_ssh, context) == "ok" and not [words for words in context.asked if words[:2] == ("ssh", "-v")]
    asked = Host(monkeypatch, {"login": True})
    asked.answers["ssh -v"] = (255, "ssh: connect to host 192.0.2.10 port 22: Connection refused\n")
    assert code(tunnel.gateway_ssh, asked) == "refused"


@pytest.mark.parametrize("answer", [(None, "debug1: Connection established.\n"), (255, "kex_exchange_identification: Connection closed by remote host\n")])
def test_a_login_that_load_or_many_others_hold_up_says_nothing_of_a_tunnel_that_carries(monkeypatch, answer):
    context = Host(monkeypatch, {"login": True})
    context.answers["ssh -v"] = answer
    assert code(tunnel.gateway_ssh, context) == "ok"
    context = Host(monkeypatch, {"login": True})
    context.answers["ssh -v"], context.knocks = answer, [OSError("x")]
    assert code(tunnel.gateway_ssh, context) in ("silent", "closed")


def test_a_tunnel_that_carries_small_packets_alone(monkeypatch):
    context = Host(monkeypatch)
    context.knocks = [None, socket.timeout()]
    assert code(tunnel.gateway_ssh, context) == "stalled" and ("knock", tunnel.LARGE_BYTES) in context.asked


def test_a_gateway_that_refuses_a_long_header_was_reached(monkeypatch):
    context = Host(monkeypatch)
    context.knocks = [None, http.client.HTTPException("HTTP 431")]
    assert code(tunnel.gateway_ssh, context) == "ok"


@pytest.mark.parametrize(
    ("status", "output", "expected"),
    [
        (255, "ssh: connect to host 192.0.2.10 port 22: Connection refused\n", "refused"),
        (None, "debug1: Connecting to 192.0.2.10 port 22.\n", "timeout"),
        (0, LOGGED_IN, "ok"),
        (255, LOGGED_IN + "channel 0: open failed: connect failed: Connection refused\n", "ok"),  # the gateway's affair: T04
        (255, LOGGED_IN + "channel 0: open failed: administratively prohibited: open failed\n", "forward_refused"),
    ],
)
def test_a_tunnel_that_carries_nothing_is_tried_by_a_login(monkeypatch, status, output, expected):
    context = Host(monkeypatch)
    context.knocks, context.answers["ssh -v"] = [OSError("refused")], (status, output)
    assert code(tunnel.gateway_ssh, context) == expected
    login = next(words for words in context.asked if words[:2] == ("ssh", "-v"))
    assert login[login.index("-W") + 1] == "localhost:31994" and login[login.index("-i") + 1] == tunnel.KEY


@pytest.mark.parametrize("missing", ["/etc/beta9/tunnel/ssh_config", "/etc/beta9/credentials/tunnel_key"])
def test_what_is_needed_for_a_login_and_is_not_there_is_unknown(monkeypatch, missing):
    context = Host(monkeypatch)
    context.knocks = [OSError("refused")]
    del context.files[missing]
    assert code(tunnel.gateway_ssh, context).startswith("unknown")


def test_the_key_may_not_be_readable(monkeypatch):
    context = Host(monkeypatch)
    context.knocks = [OSError("refused")]
    context.files["/etc/beta9/credentials/tunnel_key"] = engine.Unknown("may not be read: run with become")
    assert "become" in code(tunnel.gateway_ssh, context)


def test_the_gateway_host_is_told_the_tunnels_ends(monkeypatch):
    seen = tunnel.gateway_ssh(Host(monkeypatch))["data"]["tunnel"]
    assert seen == {"target": "localhost:31994", "listen": "127.77.113.65:6443", "port": "22", "user": "beta9-tunnel"}
    assert tunnel.ends_of({}, 1994) == {"target": "", "listen": "", "port": "22", "user": ""}


# -- T04, T05, T06 --


@pytest.mark.parametrize(
    ("problem", "said", "connection", "expected"),
    [
        ("empty", "channel 0: open failed: connect failed: Connection refused\n", "autossh", "target_refused"),
        ("empty", "channel 0: open failed: connect failed: open failed\n", "autossh", "target_denied"),
        ("empty", "", "autossh", "empty_reply"),
        ("reset", "channel 0: open failed: connect failed: Connection refused\n", "autossh", "target_refused"),
        ("empty", "channel 0: open failed: connect failed: Connection refused\n", "direct", "empty_reply"),
        ("timeout", "channel 0: open failed: connect failed: Connection refused\n", "autossh", "timeout"),
    ],
)
def test_health_names_what_is_beyond_the_tunnel(monkeypatch, problem, said, connection, expected):
    class Client:
        def health(self):
            raise gateway.GatewayError(gateway.protocol.classify(None, problem), "GET", "http://x")

    context = Host(monkeypatch, {"connection": connection})
    context.answers["ssh -v"] = (255 if said else 0, LOGGED_IN + said)
    monkeypatch.setattr(tunnel, "client_of", lambda context, timeout=4: Client())
    assert code(tunnel.health, context) == expected


LOST = ["client_loop: send disconnect: Broken pipe"] * 4


@pytest.mark.parametrize(
    ("lines", "age", "expected"), [(LOST, 20.0, "drops"), (LOST, 600.0, "ok"), (LOST[:3], 20.0, "ok"), (["Permission denied (publickey)."] * 9, 20.0, "ok")]
)
def test_drops_count_where_they_are_not_over(monkeypatch, lines, age, expected):
    context = Host(monkeypatch)
    context.answers["journalctl"], context.ages = journal(*lines), {421: age}
    assert code(tunnel.stability, context) == expected


def test_requests_that_fail_now(monkeypatch):
    context = Host(monkeypatch)
    context.knocks = [OSError("x"), None]
    assert code(tunnel.stability, context) == "probes"
    context.knocks = [OSError("x")]
    assert code(tunnel.stability, context).startswith("unknown")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("serveraliveinterval 15", "serveraliveinterval 0"),
        ("serveraliveinterval 15", "serveraliveinterval 61"),
        ("serveralivecountmax 3", "serveralivecountmax 4"),
        ("exitonforwardfailure yes", "exitonforwardfailure no"),
        ("stricthostkeychecking true", "stricthostkeychecking accept-new"),
    ],
)
def test_each_option_is_looked_at(monkeypatch, before, after):
    context = Host(monkeypatch)
    context.answers["ssh -G"] = (0, SSH_G.replace(before, after))
    assert code(tunnel.options, context) == ""


@pytest.mark.parametrize("interval", ["1", "60"])
def test_limits_of_the_interval_are_well(monkeypatch, interval):
    context = Host(monkeypatch)
    context.answers["ssh -G"] = (0, SSH_G.replace("serveraliveinterval 15", "serveraliveinterval " + interval))
    assert code(tunnel.options, context) == "ok"


def test_reverse_forward(monkeypatch):
    context = Host(monkeypatch)
    assert code(tunnel.reverse, context) == "ok"
    other = Host(monkeypatch)
    other.answers["ssh -G"] = (0, "\n".join(line for line in SSH_G.splitlines() if "remoteforward" not in line))
    assert code(tunnel.reverse, other) == ""
