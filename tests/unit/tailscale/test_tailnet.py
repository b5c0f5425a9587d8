"""What follows from tailscale's own words. The states were seen with tailscaled 1.94.1 on headscale 0.28.0."""

from __future__ import annotations

import copy

import pytest

from ansible_collections.beta9.workers.plugins.module_utils.tailscale import tailnet

SERVER = "https://headscale.example.com"
STATUS = {
    "Version": "1.94.1-t123",
    "TUN": True,
    "BackendState": "Running",
    "TailscaleIPs": ["100.64.0.2", "fd7a:115c:a1e0::2"],
    "Self": {"DNSName": "gpu-01.beta9.tailnet.example.", "Online": True},
    "Health": [],
    "Peer": {"k": {"DNSName": "gateway.beta9.tailnet.example.", "TailscaleIPs": ["100.64.0.1"], "Online": True}},
}
PREFS = {"ControlURL": SERVER, "RouteAll": False, "CorpDNS": False, "Hostname": "gpu-01", "LoggedOut": False}
WISH = {"login_server": SERVER, "hostname": "gpu-01", "tags": [], "accept_routes": False, "accept_dns": False, "has_key": False, "force_reauth": False}


def status(**changes):
    """Return a status with other values; a name in lower case goes to Self, one in upper case to the top."""
    found = copy.deepcopy(STATUS)
    for name, value in changes.items():
        target = found if name in found else found["Self"]
        target[name] = value
    return found


def plan(seen=None, prefs=None, **desired):
    return tailnet.plan(seen or STATUS, dict(PREFS, **prefs or {}), dict(WISH, **desired))


def test_a_node_as_wished_is_left_alone_and_needs_no_key():
    assert plan() == (None, {}, None)


@pytest.mark.parametrize(
    "seen, prefs",
    [
        (status(BackendState="NeedsLogin"), {}),
        (status(BackendState="NeedsLogin", Expired=True, KeyExpiry="2026-01-01T00:00:00Z"), {}),
        (status(KeyExpiry="2020-01-01T00:00:00.123456789Z"), {}),
        (status(BackendState="NoState"), {"ControlURL": ""}),
        (status(BackendState="Stopped"), {"LoggedOut": True}),
    ],
)
def test_a_key_is_demanded_only_for_a_login(seen, prefs):
    assert plan(seen, prefs).problem.code == "key_needed"
    assert plan(seen, prefs, has_key=True).action == "login"


def test_a_node_that_was_taken_down_is_resumed_without_key():
    assert plan(status(BackendState="Stopped")) == ("resume", {}, None)


def test_settings_are_changed_one_by_one():
    assert plan(prefs={"CorpDNS": True, "Hostname": "old"}).settings == {"accept-dns": False, "hostname": "gpu-01"}
    assert tailnet.flags({"accept-dns": False, "hostname": "gpu-01"}) == ["--accept-dns=false", "--hostname=gpu-01"]
    assert plan(prefs={"CorpDNS": True, "Hostname": "old"}, hostname="", accept_dns=None).settings == {}


def test_another_server_only_by_force_and_with_a_key():
    assert plan(login_server="https://other.example.com").problem.code == "other_server"
    assert plan(login_server="https://other.example.com", force_reauth=True).problem.code == "key_needed"
    assert plan(login_server="https://other.example.com", force_reauth=True, has_key=True).action == "move"
    assert plan(force_reauth=True, has_key=True).action is None  # force alone is no reason


def test_the_names_of_tailscales_own_server_are_one():
    assert plan(prefs={"ControlURL": "https://controlplane.tailscale.com"}, login_server="").action is None
    assert tailnet.same_server("https://login.tailscale.com/", "")
    assert not tailnet.same_server("", SERVER)


def test_tags_are_compared_with_what_the_server_granted():
    assert plan(tags=["tag:gpu"]).problem.code == "other_tags"
    assert plan(status(Tags=["tag:gpu", "tag:a"]), tags=["tag:a", "tag:gpu"]).problem is None


def test_a_name_that_another_node_has_is_not_asked_for():
    found = plan(prefs={"Hostname": "old"}, hostname="gateway")
    assert found.problem.code == "duplicate" and "100.64.0.1 (online)" in found.problem.found and found.settings == {}


def test_approval_is_said():
    assert plan(status(BackendState="NeedsMachineAuth"), has_key=True).problem.code == "approval"


def test_a_deleted_node_is_one_that_nobody_sees():
    assert tailnet.forgotten(STATUS, ["100.64.0.9"])
    assert not tailnet.forgotten(STATUS, ["100.64.0.2"])
    assert not tailnet.forgotten(STATUS, [])
    assert not tailnet.forgotten(status(BackendState="NeedsLogin"), ["100.64.0.9"])


def test_nodes_of_an_oauth_secret_are_not_ephemeral():
    assert tailnet.key_text("tskey-client-abc\n") == "tskey-client-abc?ephemeral=false&preauthorized=true"
    assert tailnet.key_text("tskey-client-abc?ephemeral=true") == "tskey-client-abc?ephemeral=true"
    assert tailnet.key_text(" tskey-auth-abc\n") == "tskey-auth-abc"


@pytest.mark.parametrize(
    "connection, by_tailnet",
    [
        ("100.64.0.9 40000 100.64.0.2 22", True),
        ("fd7a:115c:a1e0::9 40000 fd7a:115c:a1e0::2 22", True),
        ("100.128.0.1 1 10.0.0.1 22", False),
        ("10.0.0.9 1 10.0.0.2 22", False),
        ("", False),
        (None, False),
    ],
)
def test_whether_ansible_came_by_the_tailnet(connection, by_tailnet):
    assert tailnet.came_by_tailnet(connection) is by_tailnet


@pytest.mark.parametrize(
    "seen, prefs, code",
    [
        (STATUS, {}, None),
        (status(BackendState="NeedsLogin"), {}, "login"),
        (status(BackendState="NeedsLogin", Expired=True), {}, "expired"),
        (status(BackendState="Stopped"), {}, "down"),
        (status(BackendState="Stopped"), {"ControlURL": "https://other.example.com"}, "server"),
        (status(BackendState="NeedsMachineAuth"), {}, "approval"),
        (status(BackendState="Starting"), {}, "offline"),
        (status(Online=False), {}, "offline"),
        (status(DNSName="gpu-01-1.beta9.tailnet.example."), {}, "duplicate"),
        (status(DNSName="gateway.beta9.tailnet.example."), {"Hostname": "gateway"}, "duplicate"),
        (status(KeyExpiry="2026-01-10T00:00:00Z"), {}, "expiring"),
        (status(KeyExpiry="2026-03-10T00:00:00Z"), {}, None),
        (status(KeyExpiry="0001-01-01T00:00:00Z"), {}, None),
        (status(Health=["no home relay"]), {}, "health"),
    ],
)
def test_verdict(seen, prefs, code):
    now = tailnet.expiry_epoch("2026-01-01T00:00:00Z")
    assert tailnet.verdict(seen, dict(PREFS, **prefs), {"login_server": SERVER}, now)[0] == code
