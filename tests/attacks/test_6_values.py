"""Values of variables that would say more in a file of root than they should: refused before the file is written."""

from __future__ import annotations

import json

import pytest

KEY_LINE = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4 attacker"
FILES = "/etc/beta9/agent.env /etc/beta9/tunnel/ssh_config /etc/beta9/tunnel/known_hosts /etc/systemd/system/beta9-tunnel.service"
# (variables, what the refusal says)
ATTACKS = [
    ({"beta9_private_ip": "10.0.0.7\nBETA9_GATEWAY_HOST=attacker.example"}, ["beta9_private_ip", "expected an IP address"]),
    ({"beta9_metrics_file": "/run/m\nBETA9_GATEWAY_HOST=attacker.example"}, ["beta9_metrics_file", "expected an absolute path"]),
    ({"autossh_gateway_user": "x\n    ProxyCommand sh -c 'id > /pwned'"}, ["autossh_gateway_user", "expected the name of an account"]),
    ({"autossh_forwards": [{"local_port": 1994, "target": 'localhost:31994"\n%s\n#"' % KEY_LINE}]}, ["expected host:port"]),
    ({"autossh_forwards": [{"local_port": 1994, "target": "*:*"}]}, ["expected host:port"]),
    ({"autossh_listen_address": "127.0.0.1"}, ["listen_address", "an address of this worker alone"]),
    ({"beta9_worker_ca_path": "/ca\nBETA9_GATEWAY_HOST=attacker.example"}, ["beta9_worker_ca_path", "expected an absolute path"]),
    ({"beta9_image_store": "/x\nBETA9_GATEWAY_HOST=attacker.example"}, ["beta9_image_store", "expected an absolute path"]),
    ({"beta9_hostname": "a\nBETA9_GATEWAY_HOST=attacker.example"}, ["beta9_hostname"]),
    ({"autossh_gateway_address": "10.0.0.1\n    ProxyCommand sh -c 'id > /pwned'"}, ["expected an address", "nothing was changed"]),
    ({"autossh_gateway_address": "%n"}, ["expected an address", "nothing was changed"]),
]


@pytest.fixture(scope="module")
def converged(testbed):
    """Both hosts ready, once for all tests that leave them so."""
    status, output = testbed.play("onboard_worker.yml")
    assert status == 0, output
    return testbed


def files(bed):
    """Return the text of every file that the values go to."""
    return bed.sh(bed.workers[0], "cat %s" % FILES) + bed.sh(bed.gateway, "cat /etc/ssh/beta9-tunnel/authorized_keys /etc/ssh/sshd_config.d/*")


@pytest.mark.parametrize("values, words", [pytest.param(*attack, marks=[pytest.mark.long] if index >= 2 else []) for index, attack in enumerate(ATTACKS)])
def test_a_value_with_more_in_it_reaches_no_file(converged, values, words):
    before = files(converged)
    status, output = converged.play("onboard_worker.yml", "-l", converged.workers[0], "-e", json.dumps(values))
    text = " ".join(output.split())
    assert status != 0 and files(converged) == before
    assert all(word in text for word in words), output


def test_the_key_of_another_worker_is_refused(converged):
    first, second = converged.workers
    key = converged.sh(first, "cat /etc/beta9/credentials/tunnel_key")
    other = converged.sh(second, "cat /etc/beta9/credentials/tunnel_key")
    before = files(converged)
    put = "umask 077; cat > /etc/beta9/credentials/tunnel_key <<'END'\n%s\nEND"
    try:
        converged.sh(second, put % key)
        status, output = converged.play("onboard_worker.yml", "-l", second)
        assert status != 0 and files(converged) == before
        assert "found it in the line of " + first in " ".join(output.split()), output
    finally:
        converged.sh(second, put % other + "\nsystemctl restart beta9-tunnel")


@pytest.mark.parametrize(
    "account", ["root", *(pytest.param(name, marks=pytest.mark.long) for name in ("sshd", "redis", "a\nMatch all\n    PermitRootLogin yes"))]
)
def test_an_account_that_the_role_did_not_make_is_left_alone(converged, account):
    before = files(converged), converged.sh(converged.gateway, "cat /etc/passwd")
    status, output = converged.play("prepare_gateway.yml", "-e", json.dumps({"gateway_host_user": account}))
    assert status != 0 and before == (files(converged), converged.sh(converged.gateway, "cat /etc/passwd"))
    assert "gateway_host_user: expected an account" in " ".join(output.split()) or "expected the name of an account" in output, output
