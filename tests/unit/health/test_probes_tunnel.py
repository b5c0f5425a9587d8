"""The way to the gateway: what systemd, /proc, ssh and the gateway's port say, and what is made of it."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import http.server
import socket
import sys
import threading
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, units
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import evidence, tunnel
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import messages

from tests.unit.health.recorded import Context, told

# `ssh -G -F /etc/beta9/tunnel/ssh_config gateway` of OpenSSH 9.2, what matters of it
OPTIONS = """host gateway
user beta9-tunnel
hostname 10.89.77.10
port 22
exitonforwardfailure yes
stricthostkeychecking true
serveraliveinterval 15
serveralivecountmax 3
localforward [127.0.0.1]:1994 [localhost]:31994
remoteforward [127.77.1.1]:6443 [127.0.0.1]:6443
"""
CONFIGURED = {tunnel.SSH_CONFIG: "Host gateway\n", tunnel.KEY: "key"}
UNIT = """Id=beta9-tunnel.service
LoadState=%(load)s
ActiveState=%(active)s
MainPID=%(pid)d
NRestarts=%(restarts)d
Restart=%(restart)s
Result=%(result)s
ExecMainStatus=%(status)d
ExecMainStartTimestampMonotonic=%(started)d
InvocationID=0123
ExecStart={ path=%(program)s ; argv[]=%(program)s -N gateway ; ignore_errors=no ; start_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
"""


def unit(age=600.0, **changes):
    """Return what systemctl show says of a tunnel that was started so many seconds ago."""
    fields = {
        "load": "loaded",
        "active": "active",
        "pid": 800,
        "restarts": 0,
        "restart": "always",
        "result": "success",
        "status": 0,
        "program": sys.executable,
    }
    return {"systemctl show": UNIT % dict(fields, started=units.monotonic_us() - age * 1e6, **changes)}


def context(answers=None, files=..., url="http://127.0.0.1:1994", **config):
    return Context(dict({"ssh -G": OPTIONS}, **(answers or {})), CONFIGURED if files is ... else files, **dict({"gateway_url": url}, **config))


@pytest.fixture
def proc(monkeypatch):
    """Set the processes and listeners of the host: by default those of a tunnel that runs."""
    state = {
        "processes": [
            (800, 1, ["/usr/bin/autossh", "-M", "0", "-F", tunnel.SSH_CONFIG]),
            (801, 800, ["/usr/bin/ssh", "-N", "-F", tunnel.SSH_CONFIG, "gateway"]),
        ],
        "listeners": [{"process": "ssh", "pid": 801, "address": "127.0.0.1"}],
        "age": 600.0,
    }
    monkeypatch.setattr(tunnel, "SSH", sys.executable)
    monkeypatch.setattr(linux, "processes", lambda: state["processes"])
    monkeypatch.setattr(linux, "listeners", lambda port: state["listeners"])
    monkeypatch.setattr(linux, "process_age_seconds", lambda pid: state["age"])
    return state


# T06, V01: what ssh makes of the configuration


def test_options():
    seen = tunnel.options(context(unit()))
    assert told(seen) == ("ok", "") and seen["data"] == {"target_port": 31994} and "ServerAliveInterval 15" in seen["found"]


@pytest.mark.parametrize(
    ("was", "now", "found"),
    [
        ("serveraliveinterval 15", "serveraliveinterval 0", "ServerAliveInterval 0"),
        ("serveraliveinterval 15", "serveraliveinterval 61", "ServerAliveInterval 61"),
        ("serveraliveinterval 15\n", "", "ServerAliveInterval 0"),
        ("serveralivecountmax 3", "serveralivecountmax 4", "ServerAliveCountMax 4"),
        ("exitonforwardfailure yes", "exitonforwardfailure no", "ExitOnForwardFailure no"),
        ("stricthostkeychecking true", "stricthostkeychecking ask", "StrictHostKeyChecking ask"),
    ],
)
def test_options_that_let_a_dead_link_be(was, now, found):
    seen = tunnel.options(context(dict(unit(), **{"ssh -G": OPTIONS.replace(was, now)})))
    assert told(seen) == ("bad", "") and seen["found"] == found


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("interval 15", "interval 1"),
        ("interval 15", "interval 60"),
        ("countmax 3", "countmax 1"),
        ("checking true", "checking yes"),
    ],
)
def test_options_at_their_limits(was, now):
    assert told(tunnel.options(context(dict(unit(), **{"ssh -G": OPTIONS.replace(was, now)})))) == ("ok", "")


def test_options_of_an_unsupervised_tunnel_or_of_none():
    assert "Restart=no" in tunnel.options(context(unit(restart="no")))["found"]
    seen = tunnel.options(context(unit(), files={}))
    assert told(seen) == ("bad", "") and "does not exist" in seen["found"]
    refused = dict(unit(), **{"ssh -G": (255, "Bad configuration option: foo")})
    seen = tunnel.options(context(refused))
    assert told(seen) == ("bad", "") and "refuses the configuration: Bad configuration option" in seen["found"]
    with pytest.raises(engine.Unknown, match="refuses the configuration"):  # T06 is the one to tell
        tunnel.gateway_ssh(context(refused))


@pytest.mark.parametrize(
    ("restarts", "age", "expected"),
    [(3, 4.0, ("bad", "failing")), (2, 4.0, ("ok", "")), (9, 16.0, ("ok", "")), (0, 1.0, ("ok", ""))],
)
def test_unit_that_ends_again_and_again_between_two_ends(proc, monkeypatch, restarts, age, expected):
    monkeypatch.setattr(evidence, "restarts_within", lambda asked, name, seconds: restarts)
    assert told(tunnel.process(context(unit(restarts=restarts, age=age)))) == expected


@pytest.mark.parametrize("left", [0, 1])
def test_program_that_is_gone(proc, monkeypatch, left):
    """A tunnel that is up goes on without its programs; one that is not never comes up."""
    monkeypatch.setattr(tunnel, "SSH", "/nowhere/ssh")
    assert told(tunnel.process(context(unit()))) == ("ok", "")
    proc["processes"] = proc["processes"][:left]  # autossh goes on without ssh
    assert told(tunnel.process(context(unit()))) == ("bad", "program")


@pytest.mark.parametrize(("program", "code"), [("/nowhere/autossh", "program"), (sys.executable, "failing")])
def test_autossh_is_missing_only_where_the_unit_starts_it(proc, program, code):
    """systemd starts ssh itself on systems that have no autossh; between two tries no ssh is there."""
    proc["processes"] = []
    assert told(tunnel.process(context(unit(active="activating", pid=0, restarts=7, status=255, program=program)))) == ("bad", code)


def test_reverse():
    assert told(tunnel.reverse(context())) == ("ok", "")
    for line in ("", "remoteforward [127.77.1.1]:6444 [127.0.0.1]:64430"):
        without = OPTIONS.replace("remoteforward [127.77.1.1]:6443 [127.0.0.1]:6443", line)
        assert told(tunnel.reverse(context({"ssh -G": without}))) == ("bad", "")
    assert "does not exist" in tunnel.reverse(context(files={}))["found"]


@pytest.mark.parametrize(
    ("forward", "port", "target"),
    [
        ("[127.0.0.1]:1994 [localhost]:31994", 1994, ("localhost", 31994)),
        ("1994 [10.0.0.1]:31994", 1994, ("10.0.0.1", 31994)),
        ("[127.0.0.1]:1993 [localhost]:31993", 1994, None),
        ("[127.0.0.1]:1994 [::1]:31994", 1994, ("::1", 31994)),
        ("nonsense", 1994, None),
    ],
)
def test_target(forward, port, target):
    assert tunnel.target_of(forward, port) == target


@pytest.mark.parametrize(("url", "port"), [("http://127.0.0.1:1994", 1994), ("https://gate", 443), ("http://gate", 80)])
def test_local_port(url, port):
    assert tunnel.local_port(context(url=url)) == port


def test_gateway_of_the_agent(tmp_path):
    path = tmp_path / "agent.env"
    path.write_text("# BETA9_GATEWAY_PORT=1\nBETA9_GATEWAY_SCHEME=https\nBETA9_GATEWAY_HOST=gate\nBETA9_GATEWAY_PORT=31994\n\n#BETA9_GATEWAY_PORT=2\nword\n")
    assert tunnel.agents_gateway(str(path)) == "https://gate:31994"
    path.write_text("BETA9_GATEWAY_HOST=gate\n")
    assert tunnel.agents_gateway(str(path)) == tunnel.agents_gateway(str(tmp_path / "none")) == "http://127.0.0.1:1994"


# T01: unit and processes


def test_process(proc):
    seen = tunnel.process(context(unit()))
    assert told(seen) == ("ok", "") and seen["data"] == {"pid": 800}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"load": "masked", "active": "inactive", "pid": 0}, ("bad", "masked")),
        ({"load": "not-found", "active": "inactive", "pid": 0}, ("bad", "not_installed")),
        ({"active": "inactive", "pid": 0}, ("bad", "stopped")),
        ({"active": "failed", "pid": 0, "result": "exit-code"}, ("bad", "stopped")),
        ({"active": "activating", "pid": 0, "restarts": 7, "status": 255}, ("bad", "failing")),
        ({"active": "activating", "pid": 0, "restarts": 7, "status": 203}, ("bad", "program")),
        ({"active": "activating", "pid": 0, "restarts": 7, "status": 217}, ("bad", "account")),
        ({"active": "activating", "pid": 0, "restarts": 7, "status": 243}, ("bad", "credential")),
    ],
)
def test_process_of_a_unit_that_does_not_run(proc, changes, expected):
    proc["processes"], proc["listeners"] = [], []
    assert told(tunnel.process(context(unit(**changes)))) == expected


def test_result_is_told_of_a_failed_unit_only(proc):
    proc["processes"], proc["listeners"] = [], []
    assert "result exit-code" in tunnel.process(context(unit(active="failed", pid=0, result="exit-code")))["found"]
    assert "result" not in tunnel.process(context(unit(active="inactive", pid=0)))["found"]


def test_old_lines_do_not_name_what_is_wrong_now(proc, monkeypatch):
    """A stopped unit is stopped, whatever it said before."""
    monkeypatch.setattr(tunnel, "explanation", lambda *words: "1.5 host ssh[1]: Host key verification failed.")
    proc["processes"], proc["listeners"] = [], []
    assert told(tunnel.process(context(unit(active="inactive", pid=0)))) == ("bad", "stopped")
    seen = tunnel.process(context(unit(active="activating", pid=0, restarts=2)))
    assert told(seen) == ("bad", "failing") and "Host key verification failed" in seen["found"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("Error: remote port forwarding failed for listen port 6443", "listen_refused"),
        ("bind [127.0.0.1]:1994: Address already in use", "port_taken"),
        ("/etc/beta9/tunnel/ssh_config: line 3: Bad configuration option: foo", "config"),
        ("Permission denied (publickey).", "failing"),
        ("hello", "failing"),
    ],
)
def test_only_what_a_login_can_not_see_is_told_by_the_journal(proc, monkeypatch, line, code):
    monkeypatch.setattr(tunnel, "explanation", lambda *words: "1764100000.123 host ssh[801]: " + line)
    proc["processes"] = proc["processes"][:1]
    assert told(tunnel.process(context(unit()))) == ("bad", code)


def test_second_ssh(proc):
    proc["processes"].append((950, 1, ["ssh", "-N", "-L", "127.0.0.1:1994:localhost:31994", "gate"]))
    seen = tunnel.process(context(unit()))
    assert told(seen) == ("bad", "duplicate") and "pid 950 " in seen["found"]


@pytest.mark.parametrize(
    "words",
    [
        ["ssh", "-G", "-F", tunnel.SSH_CONFIG, "gateway"],
        ["ssh", "-F", tunnel.SSH_CONFIG, "-W", "localhost:31994", "gateway"],
        ["ssh", "-L", "11994:localhost:31994", "gate"],
        ["vim", tunnel.SSH_CONFIG],
        ["sshd", "-L", "1994:localhost:1"],
    ],
)
def test_what_does_not_forward_the_port(proc, words):
    proc["processes"].append((950, 1, words))
    assert told(tunnel.process(context(unit()))) == ("ok", "")


def test_tunnel_that_connects(proc):
    proc["listeners"], proc["age"] = [], 2.0
    with pytest.raises(engine.Unknown, match="is connecting"):
        tunnel.process(context(unit(age=2.0)))
    proc["age"] = 5.5
    assert told(tunnel.process(context(unit()))) == ("bad", "failing")
    proc["age"] = None
    assert told(tunnel.process(context(unit()))) == ("bad", "failing")


def test_tunnel_that_was_just_started(proc):
    proc["processes"] = proc["processes"][:1]
    with pytest.raises(engine.Unknown, match="its ssh not yet"):
        tunnel.process(context(unit(age=0.3)))
    assert told(tunnel.process(context(unit(age=3.0)))) == ("bad", "failing")


def test_port_of_another_program_is_for_t02(proc):
    proc["listeners"] = [{"process": "nginx", "pid": 77, "address": "127.0.0.1"}]
    with pytest.raises(engine.Unknown, match="nginx .pid 77. holds its port"):
        tunnel.process(context(unit()))


def test_systemd_that_does_not_answer(proc):
    with pytest.raises(engine.Unknown, match="systemctl does not answer"):
        tunnel.process(context({"systemctl show": (1, "Failed to connect to bus")}))


# T02


@pytest.mark.parametrize(
    ("listeners", "expected", "found"),
    [
        ([{"process": "ssh", "pid": 801, "address": "127.0.0.1"}], ("ok", ""), "ssh on 127.0.0.1:1994"),
        ([], ("bad", "none"), "port 1994"),
        (
            [{"process": "nginx", "pid": 77, "address": "0.0.0.0"}],
            ("bad", "foreign"),
            "nginx (pid 77) listens on 0.0.0.0",
        ),
        (
            [{"process": "ssh", "pid": 1, "address": "::1"}, {"process": "nc", "pid": 2, "address": "127.0.0.1"}],
            ("bad", "foreign"),
            "nc",
        ),
        (
            [{"process": None, "pid": None, "address": "::1"}, {"process": "ssh", "pid": 2, "address": "127.0.0.1"}],
            ("ok", ""),
            "ssh",
        ),
    ],
)
def test_listener(proc, listeners, expected, found):
    proc["listeners"] = listeners
    seen = tunnel.listener(context())
    assert told(seen) == expected and found in seen["found"]


def test_listener_without_rights(proc):
    proc["listeners"] = [{"process": None, "pid": None, "address": "127.0.0.1"}]
    with pytest.raises(engine.Unknown, match="only root"):
        tunnel.listener(context())


def test_listeners_are_read_once(proc, monkeypatch):
    calls = []
    monkeypatch.setattr(linux, "listeners", lambda port: calls.append(port) or proc["listeners"])
    asked = context(unit())
    tunnel.process(asked), tunnel.listener(asked)
    assert calls == [1994]


# T03, T04, T05, C03: against a real socket


class Gateway(threading.Thread):
    """Answers as it is told to: an HTTP server on a port of its own."""

    def __init__(self):
        super().__init__(daemon=True)
        gateway, self.statuses, self.date, self.seen = self, [], None, []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                gateway.seen.append((self.path, len(self.headers.get("X-Padding", ""))))
                status = gateway.statuses.pop(0) if gateway.statuses else 200
                if status == 0:
                    return  # an empty reply
                self.send_response_only(status)
                if gateway.date != "":
                    self.send_header("Date", gateway.date or email.utils.formatdate(usegmt=True))
                body = b'{"status":"ok"}' if status == 200 else b'{"status":"not ok","error":"redis"}'
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = "http://127.0.0.1:%d" % self.server.server_port
        self.start()

    def run(self):
        self.server.serve_forever(0.05)


@pytest.fixture
def gateway():
    found = Gateway()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_a_request_ends_with_its_time_though_the_answer_drips():
    """What one read may take is no limit of the whole: a port that sends a byte now and then would hold the health check."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip():
            with listener.accept()[0] as connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n")
                while not ended.wait(0.02):
                    connection.sendall(b"X: y\r\n")

        ended = threading.Event()
        threading.Thread(target=drip, daemon=True).start()
        started = time.monotonic()
        with pytest.raises((OSError, http.client.HTTPException)):
            tunnel.knock(context(url="http://127.0.0.1:%d" % listener.getsockname()[1]), timeout=0.3)
        took = time.monotonic() - started
        ended.set()
    assert took < 1.5


@pytest.mark.parametrize("listens", [True, False])
@pytest.mark.parametrize("gone", ["ssh", "all", ""])
def test_new_ssh_that_ends_at_once_whether_or_not_its_port_is_open_now(proc, monkeypatch, gone, listens):
    proc["age"] = 0.3
    looked = dict(proc, listeners=list(proc["listeners"]))

    def later(_seconds):
        if gone == "ssh":
            proc["processes"] = [*looked["processes"][:1], (802, 800, looked["processes"][1][2])]
        if gone == "all":
            proc["processes"] = looked["processes"][:1]
        proc["listeners"] = looked["listeners"]

    if not listens:
        proc["listeners"] = []
    monkeypatch.setattr(tunnel.time, "sleep", later)
    seen = tunnel.process(context(unit(age=0.4), dict(CONFIGURED)))
    assert told(seen) == (("bad", "failing") if gone else ("ok", "")) and ("ended at once" in seen["found"]) is bool(gone)


def test_ssh_of_some_seconds_is_not_waited_for(proc, monkeypatch):
    monkeypatch.setattr(tunnel.time, "sleep", lambda _seconds: pytest.fail("waited"))
    proc["age"] = 6.0
    assert told(tunnel.process(context(unit(age=6.1)))) == ("ok", "")


def test_connect(gateway, closed_port, monkeypatch):
    assert told(tunnel.connect(context(url=gateway.url))) == ("ok", "")
    seen = tunnel.connect(context(url="http://127.0.0.1:%d" % closed_port))
    assert told(seen) == ("bad", "refused") and "Connection refused" in seen["found"]

    def fails(error):
        def call(*_words, **_options):
            raise error

        return call

    monkeypatch.setattr(socket, "create_connection", fails(socket.gaierror(-2, "Name or service not known")))
    assert told(tunnel.connect(context(url="http://gate.invalid:1"))) == ("bad", "dns")
    monkeypatch.setattr(socket, "create_connection", fails(socket.timeout()))
    assert told(tunnel.connect(context(url="http://10.0.0.1:1"))) == ("bad", "timeout")


def test_health(gateway, closed_port):
    assert told(tunnel.health(context(url=gateway.url))) == ("ok", "") and gateway.seen[0][0] == "/api/v1/health"
    gateway.statuses = [500]
    assert told(tunnel.health(context(url=gateway.url))) == ("bad", "gateway_unhealthy")
    gateway.statuses = [0]
    assert told(tunnel.health(context(url=gateway.url, connection="direct"))) == ("bad", "empty_reply")
    assert tunnel.health(context(url="http://127.0.0.1:%d" % closed_port, connection="direct"))["outcome"] == "bad"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("channel 0: open failed: connect failed: Connection refused", "target_refused"),
        ("channel 0: open failed: connect failed: open failed", "target_denied"),
        ("Permission denied (publickey).", "empty_reply"),
    ],
)
def test_empty_reply_is_explained_by_a_login(gateway, line, code):
    gateway.statuses = [0]
    forward = OPTIONS.replace(":1994 ", ":%s " % gateway.url.rpartition(":")[2])
    asked = context({"ssh -G": forward, "ssh -v": (255, "Authenticated to 10.0.0.1\n" + line)}, url=gateway.url)
    assert told(tunnel.health(asked)) == ("bad", code)


def test_stability(gateway, proc):
    asked = context({"journalctl": ""}, url=gateway.url, connection="direct")
    assert told(tunnel.stability(asked)) == ("ok", "") and len(gateway.seen) == 10
    gateway.statuses = [200, 0, 500]
    seen = tunnel.stability(asked)
    assert told(seen) == ("bad", "probes") and "2 of 10" in seen["found"]
    gateway.statuses = [0] * 10
    with pytest.raises(engine.Unknown, match="no request gets through"):
        tunnel.stability(asked)


LOST = "1764100000.1 host ssh[1]: Timeout, server 10.0.0.1 not responding."


@pytest.mark.parametrize(
    ("losses", "age", "expected"),
    [(4, 10.0, ("bad", "drops")), (3, 10.0, ("ok", "")), (9, 301.0, ("ok", "")), (4, 299.0, ("bad", "drops"))],
)
def test_drops_count_until_the_tunnel_has_settled(gateway, proc, monkeypatch, losses, age, expected):
    read = []
    monkeypatch.setattr(tunnel, "journal_of", lambda *words: read.append(words) or "\n".join([LOST] * losses))
    monkeypatch.setattr(tunnel, "local_port", lambda asked: 1994)
    proc["age"] = age
    asked = context(url=gateway.url)
    monkeypatch.setattr(tunnel, "knock", lambda asked, **options: None)
    seen = tunnel.stability(asked)
    assert told(seen) == expected and ("%d" % losses if age < 300 else "up for 5 min") in seen["found"]
    assert bool(read) == (age < 300), "a journal is read only where the verdict rests on it"


@pytest.mark.parametrize(("offset", "expected"), [(0, "ok"), (25, "ok"), (-25, "ok"), (40, "bad"), (-40, "bad"), (7200, "bad")])
def test_clock(gateway, offset, expected):
    gateway.date = email.utils.formatdate(time.time() + offset, usegmt=True)
    seen = tunnel.clock(context(url=gateway.url))
    assert seen["outcome"] == expected and (offset <= 0 or seen["found"].startswith("-"))


@pytest.mark.parametrize(
    ("gateway_off", "controller_off", "expected"),
    [
        (7200, 0, ("bad", "gateway")),
        (-90, 3, ("bad", "gateway")),
        (7200, 7195, ("bad", "")),
        (-90, -85, ("bad", "")),
        (100, 60, ("bad", "")),  # all three differ
        (10, 7200, ("ok", "")),
    ],
)
def test_third_clock_tells_whose_is_off(gateway, gateway_off, controller_off, expected):
    gateway.date = email.utils.formatdate(time.time() + gateway_off, usegmt=True)
    assert told(tunnel.clock(context(url=gateway.url, asked=time.time() + controller_off))) == expected


def test_clock_without_a_date(gateway, closed_port):
    gateway.date = ""
    with pytest.raises(engine.Unknown, match="sends no Date"):
        tunnel.clock(context(url=gateway.url))
    with pytest.raises(engine.Unknown, match="gave no Date"):
        tunnel.clock(context(url="http://127.0.0.1:%d" % closed_port))


# T08


def test_gateway_ssh_in_use(gateway):
    seen = tunnel.gateway_ssh(context(url=gateway.url))
    assert (
        told(seen) == ("ok", "") and seen["found"] == "10.89.77.10 port 22, in use" and [padding for _path, padding in gateway.seen] == [0, tunnel.LARGE_BYTES]
    )


def test_gateway_ssh_that_carries_small_packets_only(gateway, monkeypatch):
    def knock(_context, timeout, padding=0):
        if padding:
            raise socket.timeout

    monkeypatch.setattr(tunnel, "knock", knock)
    assert told(tunnel.gateway_ssh(context(url=gateway.url))) == ("bad", "stalled")


@pytest.mark.parametrize(
    ("output", "status", "expected"),
    [
        (
            "debug1: Connecting to 10.0.0.1 port 22.\nssh: connect to host 10.0.0.1 port 22: Connection refused",
            255,
            ("bad", "refused"),
        ),
        ("debug1: Connecting to 10.0.0.1 port 22.\n", None, ("bad", "timeout")),
        ("ssh: Could not resolve hostname gate: Name or service not known", 255, ("bad", "name")),
        ("Host key verification failed.", 255, ("bad", "host_key")),
        ("Authenticated to 10.0.0.1\nchannel 0: open failed: connect failed: Connection refused", 255, ("ok", "")),
        ("Authenticated to 10.0.0.1\n", 0, ("ok", "")),
    ],
)
def test_gateway_ssh_by_a_login(monkeypatch, output, status, expected):
    monkeypatch.setattr(tunnel, "carries", lambda asked: False)
    asked = context({"ssh -v": (status, output)})
    seen = tunnel.gateway_ssh(asked)
    assert told(seen) == expected and "10.89.77.10 port 22" in seen["found"]
    (login,) = [command for command in asked.commands if command.startswith("ssh -v")]
    assert "-i " + tunnel.KEY in login and login.endswith("-W localhost:31994 gateway")


def test_login_without_key_forward_or_configuration(monkeypatch):
    monkeypatch.setattr(tunnel, "carries", lambda asked: False)
    with pytest.raises(engine.Unknown, match="tunnel_key does not exist"):
        tunnel.gateway_ssh(context(files={tunnel.SSH_CONFIG: "x"}))
    with pytest.raises(engine.Unknown, match="no LocalForward"):
        tunnel.gateway_ssh(context({"ssh -G": OPTIONS.replace(":1994", ":1995")}))
    with pytest.raises(engine.Unknown, match="ssh_config does not exist"):
        tunnel.gateway_ssh(context(files={}))


@pytest.mark.parametrize(
    "answer",
    [
        (None, "debug1: Connection established.\n"),
        (255, "kex_exchange_identification: Connection closed by remote host\n"),
    ],
)
def test_login_that_load_or_many_others_hold_up_says_nothing_of_a_tunnel_that_carries(gateway, monkeypatch, answer):
    monkeypatch.setattr(tunnel, "local_port", lambda context: 1994)
    monkeypatch.setattr(tunnel, "carries", lambda context: True)
    monkeypatch.setattr(tunnel, "knock", lambda context, timeout, padding=0: None)
    asked = context({"ssh -v": answer}, url=gateway.url, login=True)
    assert told(tunnel.gateway_ssh(asked)) == ("ok", "")


def test_ends_of_the_tunnel_are_told_to_the_gateway_host():
    found = tunnel.ends_of(
        {
            "localforward": ["[127.0.0.1]:1994 [localhost]:31994"],
            "remoteforward": ["[127.77.1.2]:6443 [127.0.0.1]:6443"],
            "port": ["2222"],
        },
        1994,
    )
    assert found == {"target": "localhost:31994", "listen": "127.77.1.2:6443", "port": "2222", "user": ""}
    assert tunnel.ends_of({}, 1994) == {"target": "", "listen": "", "port": "22", "user": ""}


def test_login_is_tried_where_it_is_asked_for(gateway):
    forward = OPTIONS.replace(":1994 ", ":%s " % gateway.url.rpartition(":")[2])
    asked = context({"ssh -G": forward, "ssh -v": (255, "Permission denied (publickey).")}, url=gateway.url, login=True)
    assert told(tunnel.gateway_ssh(asked)) == ("bad", "key_refused")
    admitted = (None, "debug1: Server accepts key\nAuthenticated to 10.0.0.1\n")  # that far, and no further
    asked = context({"ssh -G": forward, "ssh -v": admitted}, url=gateway.url, login=True)
    seen = tunnel.gateway_ssh(asked)
    assert told(seen) == ("ok", "") and "gets through" in seen["found"] and asked.untils == [messages.ADMITTED]
