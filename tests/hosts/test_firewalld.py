"""A worker with a real firewalld: what k3s needs is refused, until the commands ran that preflight names (long)."""

from __future__ import annotations

import os
import re

import pytest

from tests import seen
from tests.e2e.conftest import NAME, Testbed

WORKER = f"{NAME}-worker1"
HOW = "firewalld 1.3 of Debian 12 itself, with packets from a pod's network and from the gateway host"
# A pod as k3s' flannel makes one, and what listens where its API does
POD = """ip netns add pod; ip link add cni0 type bridge; ip link add veth0 type veth peer name eth0 netns pod
ip address add 10.42.0.1/24 dev cni0; ip link set veth0 master cni0; ip link set cni0 up; ip link set veth0 up
ip -n pod address add 10.42.0.5/24 dev eth0; ip -n pod link set eth0 up; ip -n pod route add default via 10.42.0.1
systemd-run --quiet --unit pod-api python3 -m http.server 6443; sleep 2"""
CONNECT = "python3 -c 'import socket,sys; socket.create_connection((sys.argv[1], 6443), 3); print(\"connected\")' %s 2>&1 | tail -1"


@pytest.fixture(scope="module")
def bed():
    found = Testbed()
    found.workers = (WORKER,)
    if not os.environ.get("B9_KEEP"):
        found.do("deps")
        found.do("down")
    found.do("up", "--workers", "1")
    packages = "firewalld netbase nftables python3-nftables"
    found.sh(
        WORKER,
        f"apt-get update -qq && apt-get install -qq -y --no-install-recommends {packages} >/dev/null && systemctl restart firewalld",
    )
    status, output = found.play("prepare_gateway.yml")
    assert status == 0, output
    yield found
    if not os.environ.get("B9_KEEP"):
        found.do("down")


def preflight(bed, connection):
    """Return what preflight says of firewalld, and the commands that it names."""
    more = [
        "-e",
        "beta9_k3s=true",
        "-e",
        f"beta9_connection={connection}",
        "-e",
        f"beta9_worker_gateway_url=http://{bed.gateway}:31994",
    ]
    _status, output = bed.play("onboard_worker.yml", "--check", "-l", WORKER, *more)
    text = " ".join(output.split())
    return re.findall(r"firewalld: expected (.*?), found", text), re.findall(
        r"Run: (firewall-cmd .*? firewall-cmd --reload)", text
    )


def test_pods_and_the_gateway_get_through_once_the_named_commands_ran(bed, request):
    seen.say(request, ("firewalld", "preflight of k3s names what is refused, and the commands that open it", HOW))
    missing, commands = preflight(bed, "autossh")
    assert missing == [
        "the addresses of pods (10.42.0.0/16) in a zone that accepts them"
    ]  # the gateway comes through the tunnel
    missing, commands = preflight(bed, "direct")
    assert missing[1:] == ["port 6443 open, because the gateway connects to it"] and len(commands) == 2
    bed.sh(WORKER, POD)
    address = bed.sh(WORKER, "hostname -i | cut -d' ' -f1")
    pod, gateway = (WORKER, "ip netns exec pod " + CONNECT % "10.42.0.1"), (bed.gateway, CONNECT % address)
    assert "No route to host" in bed.sh(*pod) and "No route to host" in bed.sh(*gateway)
    bed.sh(WORKER, commands[0])
    assert bed.sh(*pod) == "connected" and "No route to host" in bed.sh(*gateway)
    assert preflight(bed, "direct") == (missing[1:], commands[1:])
    bed.sh(WORKER, commands[1])
    assert bed.sh(*gateway) == "connected"
    assert preflight(bed, "direct") == ([], [])


def test_firewalld_that_does_not_run_is_not_asked(bed):
    bed.sh(WORKER, "firewall-cmd -q --permanent --zone=trusted --remove-source=10.42.0.0/16; systemctl stop firewalld")
    assert preflight(bed, "autossh") == ([], [])
