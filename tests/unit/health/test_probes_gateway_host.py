"""The gateway host as the end of a tunnel: T09 of what sshd says (recorded of OpenSSH 9.2), G11 of who takes a connection."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import sshd_effective
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import gateway_host

from tests.unit.health.recorded import Context, told

TUNNEL = {"target": "localhost:31994", "listen": "127.77.1.2:6443", "port": 22, "user": "beta9-tunnel"}
KEYS = 'restrict,port-forwarding,permitopen="localhost:31994",permitlisten="127.77.1.2:6443" ssh-ed25519 AAAAC3Nza beta9-worker:gpu-01\n'


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """Return a function that makes a gateway host of which sshd_effective finds some problems."""

    def make(*problems, tunnel=..., keys=KEYS, listening=True, root=True, error=None):
        def ask(run, user, address=None):
            assert user == "beta9-tunnel" and run(["sshd", "-T"]) == (0, "", "")
            if error:
                raise sshd_effective.SshdError(error)
            return "answer"

        def found(answer, need):
            assert answer == "answer" and need.listen == ("127.77.1.2", 6443) and need.permit_open == ("localhost:31994",)
            return list(problems)

        monkeypatch.setattr(sshd_effective, "KEYS_PATH", str(tmp_path / "authorized_keys"))
        monkeypatch.setattr(sshd_effective, "ask", ask)
        monkeypatch.setattr(sshd_effective, "problems", found)
        monkeypatch.setattr(linux, "listeners", lambda port: [{"address": "0.0.0.0", "process": "sshd", "pid": 1}] if listening and port == 22 else [])
        monkeypatch.setattr(gateway_host.os, "geteuid", lambda: 0 if root else 1000)
        return Context({"sshd -T": ""}, {str(tmp_path / "authorized_keys"): keys}, machine={"tunnel": TUNNEL if tunnel is ... else tunnel})

    return make


def problem(what):
    return sshd_effective.Problem(what, "yes", "no", "/etc/ssh/sshd_config:3", "Correct it.")


def test_well(asked):
    assert told(gateway_host.sshd(asked())) == ("ok", "")


@pytest.mark.parametrize("what", sorted(gateway_host.CODES))
def test_each_problem_has_its_code_and_is_told_with_its_line(asked, what):
    seen = gateway_host.sshd(asked(problem(what), problem("DisableForwarding")))
    assert told(seen) == ("bad", gateway_host.CODES[what]) and "/etc/ssh/sshd_config:3" in seen["found"] and "DisableForwarding" in seen["evidence"]


@pytest.mark.parametrize(("what", "code"), [("DisableForwarding", "settings"), ("/etc/ssh/beta9-tunnel/authorized_keys", "keys_file")])
def test_other_problems(asked, what, code):
    assert told(gateway_host.sshd(asked(problem(what)))) == ("bad", code)


def test_sshd_that_is_not_there_or_refuses_itself(asked):
    assert told(gateway_host.sshd(asked(listening=False))) == ("bad", "not_listening")
    assert told(gateway_host.sshd(asked(error="line 3: Bad configuration option"))) == ("bad", "settings")


@pytest.mark.parametrize("keys", ["", KEYS.replace("127.77.1.2", "127.77.1.3"), "# " + KEYS])
def test_a_worker_without_a_line(asked, keys):
    assert told(gateway_host.sshd(asked(keys=keys))) == ("bad", "no_key")


def test_what_can_not_be_told(asked, monkeypatch):
    with pytest.raises(engine.Unknown, match="become"):
        gateway_host.sshd(asked(root=False))
    for tunnel in (None, {}, {"target": ""}):
        with pytest.raises(engine.Unknown, match="could not be read"):
            gateway_host.sshd(asked(tunnel=tunnel))
    context = asked()
    monkeypatch.setattr(sshd_effective, "KEYS_PATH", "/no/such/folder/authorized_keys")
    assert gateway_host.sshd(context)["outcome"] == "not_applicable"


def to(target, permitted=None):
    """Return a context of a gateway host whose keys may open a target."""
    return Context(files={sshd_effective.KEYS_PATH: 'restrict,permitopen="%s" x\n' % (permitted or target)}, machine={"tunnel": {"target": target}})


def test_target():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert told(gateway_host.target(to("127.0.0.1:%d" % port))) == ("ok", "")
    assert told(gateway_host.target(to("[127.0.0.1]:%d" % port))) == ("bad", "refused")
    assert told(gateway_host.target(to("no-such-host.invalid:1"))) == ("bad", "name")


def test_a_worker_names_no_target_that_its_key_may_not_open(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", None)
    with pytest.raises(engine.Unknown, match="may open"):
        gateway_host.target(to("127.0.0.1:22", "127.0.0.1:31994"))


def test_target_that_does_not_answer(monkeypatch):
    def silent(address, timeout):
        raise socket.timeout

    monkeypatch.setattr(socket, "create_connection", silent)
    context = to("localhost:31994")
    assert told(gateway_host.target(context)) == ("bad", "timeout")
    monkeypatch.undo()
    assert told(gateway_host.target(context)) == ("bad", "timeout")  # asked once for all workers with this target
