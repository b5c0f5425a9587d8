"""What is made of firewalld's answers, as version 1.3 gave them. firewalld itself: tests/hosts/test_firewalld.py."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import firewalld
from ansible_collections.beta9.workers.plugins.modules import k3s_preflight

ZONES = {
    "public": {"interfaces": "eth0", "sources": "", "ports": "8080/tcp 9000-9010/tcp 53/udp"},
    "trusted": {"interfaces": "", "sources": "10.42.0.0/16 00:11:22:33:44:55 ipset:known fd00:42::/56", "ports": ""},
}
TARGETS = {"trusted": "ACCEPT"}


def answer(words):
    """Answer as firewall-cmd does."""
    asked = [word for word in words[1:] if not word.startswith("--zone=")]
    zone = next((word.partition("=")[2] for word in words if word.startswith("--zone=")), "")
    if asked == ["--get-active-zones"]:
        return 0, "public (default)\n  interfaces: eth0\ntrusted\n  sources: 10.42.0.0/16\n$(reboot)\n", ""
    if asked == ["--get-default-zone"]:
        return 0, "public\n", ""
    if asked == ["--permanent", "--get-target"]:
        return 0, TARGETS.get(zone, "default") + "\n", ""
    if asked[0].startswith("--list-"):
        return 0, ZONES[zone][asked[0][len("--list-") :]] + "\n", ""
    return (0, "running\n", "") if asked == ["--state"] else (2, "", "error")


def test_zones_are_read_once_each():
    found = firewalld.zones(answer)
    assert [(zone.name, zone.default, zone.accepts) for zone in found] == [
        ("public", True, False),
        ("trusted", False, True),
    ] and firewalld.running(answer)


@pytest.mark.parametrize(
    ("network", "accepted"),
    [
        ("10.42.0.0/16", True),
        ("10.42.7.0/24", True),
        ("10.0.0.0/8", False),
        ("10.43.0.0/16", False),
        ("fd00:42::/56", True),
        ("nonsense", False),
    ],
)
def test_network_of_pods(network, accepted):
    assert firewalld.accepts_pods(firewalld.zones(answer), network) is accepted


def test_pods_are_also_known_by_their_interface():
    zone = firewalld.Zone("pods", False, True, ["cni0"], [], [])
    assert firewalld.accepts_pods([zone], "10.42.0.0/16") and not firewalld.accepts_pods([zone._replace(accepts=False)], "10.42.0.0/16")


@pytest.mark.parametrize(("port", "opened"), [(8080, True), (9005, True), (9011, False), (53, False), (6443, False)])
def test_port(port, opened):
    assert firewalld.zones(answer)[0].opens(port) is opened
    assert firewalld.zones(answer)[1].opens(port)


def test_a_firewalld_that_is_not_there_does_not_run():
    def missing(_words):
        raise FileNotFoundError

    assert not firewalld.running(missing)


@pytest.mark.parametrize(
    ("params", "sources", "problems"),
    [
        ({}, ["10.42.0.0/16"], []),
        ({}, [], ["--zone=trusted --add-source=10.42.0.0/16 --add-source=10.43.0.0/16"]),
        (
            {"pod_network": "10.42.0.0/16,fd00::/56"},
            ["10.42.0.0/16"],
            ["--add-source=10.42.0.0/16 --add-source=fd00::/56 --add-source=10.43.0.0/16"],
        ),
        ({"inbound": True}, ["10.42.0.0/16"], ["--add-port=6443/tcp"]),  # that zone is for pods alone
        ({"inbound": True}, ["10.0.0.0/8"], []),  # whoever is trusted may connect
        ({"inbound": True}, [], ["--zone=trusted", "--add-port=6443/tcp"]),
    ],
)
def test_what_k3s_needs_of_it(params, sources, problems):
    params = dict({"pod_network": "10.42.0.0/16", "service_network": "10.43.0.0/16", "inbound": False}, **params)
    zone = firewalld.Zone("trusted" if sources else "public", not sources, bool(sources), [], sources, [])
    found = list(k3s_preflight.of_firewalld(params, [zone]))
    assert len(found) == len(problems) and all(word in problem["remedy"] for word, problem in zip(problems, found)), found
