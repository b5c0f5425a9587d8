"""The gateway host's register of workers: text in, text out."""

import pytest

from ansible_collections.beta9.workers.plugins.module_utils.tunnel import peers

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"
NETWORK = "127.77.0.0/16"


def line(name, address):
    return peers.render_line(name, KEY, address, 6443, ["localhost:31994"])


def test_a_line_permits_its_own_forwards_and_nothing_else():
    assert line("gpu-01", "127.77.0.9") == (
        'restrict,port-forwarding,permitopen="localhost:31994",permitlisten="127.77.0.9:6443" ' + KEY + " beta9-worker:gpu-01"
    )


def test_what_is_written_is_read_back():
    text = peers.with_line("", "gpu-01", line("gpu-01", "127.77.0.9"))
    assert peers.parse(text) == {"gpu-01": {"line": line("gpu-01", "127.77.0.9"), "address": "127.77.0.9", "key": KEY}}


def test_other_lines_are_kept_and_in_order():
    foreign = "# by hand\nssh-ed25519 AAAA somebody\n"
    text = peers.with_line(foreign + line("a", "127.77.0.1") + "\n" + line("b", "127.77.0.2") + "\n", "a", line("a", "127.77.0.3"))
    assert text.splitlines() == foreign.splitlines() + [line("a", "127.77.0.3"), line("b", "127.77.0.2")]
    assert peers.with_line(text, "a", None).splitlines() == foreign.splitlines() + [line("b", "127.77.0.2")]


def test_a_name_that_contains_another_is_not_mistaken_for_it():
    text = line("gpu-1", "127.77.0.1") + "\n" + line("gpu-11", "127.77.0.2") + "\n"
    assert list(peers.parse(peers.with_line(text, "gpu-1", None))) == ["gpu-11"]


def test_the_address_follows_from_the_name_and_stays():
    first = peers.choose_address("gpu-01", {}, NETWORK)
    assert first == peers.choose_address("gpu-01", {}, NETWORK)
    held = {"gpu-01": {"line": "", "address": "127.77.200.1"}}
    assert peers.choose_address("gpu-01", held, NETWORK) == "127.77.200.1"


def test_a_hash_that_meets_a_used_address_takes_another_one():
    first = peers.choose_address("gpu-01", {}, NETWORK)
    assert peers.choose_address("gpu-01", {"other": {"line": "", "address": first}}, NETWORK) not in (first, None)


def test_500_workers_get_500_addresses():
    held = {}
    for number in range(500):
        name = "gpu-%d" % number
        held[name] = {"line": "", "address": peers.choose_address(name, held, "127.77.0.0/22")}
    assert len({peer["address"] for peer in held.values()}) == 500


def test_a_wanted_address_of_another_worker_is_refused_by_name():
    with pytest.raises(peers.PeerError, match="127.77.0.9 belongs to worker gpu-02"):
        peers.choose_address("gpu-01", {"gpu-02": {"line": "", "address": "127.77.0.9"}}, NETWORK, wanted="127.77.0.9")


@pytest.mark.parametrize(
    "network, wanted, text",
    [
        ("127.77.0.0/16", "127.77", "expected an IP address"),
        ("127.77.0.0/16", "127.0.0.1", "expected an address of this worker alone"),
        ("127.77.0.0/16", "0.0.0.0", "expected an address of this worker alone"),
        ("nonsense", None, "expected a network"),
        ("127.77.0.0/30", None, "no free address"),
    ],
)
def test_wishes_that_can_not_be_granted(network, wanted, text):
    held = {"a": {"line": "", "address": "127.77.0.1"}, "b": {"line": "", "address": "127.77.0.2"}}
    with pytest.raises(peers.PeerError, match=text):
        peers.choose_address("gpu-01", held, network, wanted)


@pytest.mark.parametrize("text", ["", "nonsense", "ssh-ed25519", KEY + "\n" + KEY, 'command="sh" ' + KEY, "ssh-dss AAAA"])
def test_what_is_no_public_key_is_refused(text):
    with pytest.raises(peers.PeerError, match="public_key"):
        peers.public_key(text)


ESCAPE = 'localhost:1"\nssh-ed25519 AAAA attacker\n#"'


@pytest.mark.parametrize("targets", [[ESCAPE], ["*:*"], ["localhost:*"], ['a:1",command="sh'], ["localhost"], [""], []])
def test_what_is_no_target_reaches_no_line(targets):
    with pytest.raises(peers.PeerError, match="permit_open: expected .*host:port"):
        peers.render_line("gpu-01", KEY, "127.77.0.9", 6443, targets)


@pytest.mark.parametrize("name", ["gpu 01", "gpu-01\nssh-ed25519 AAAA x", "a beta9-worker:gpu-02", "", '"'])
def test_what_is_no_name_reaches_no_line_and_removes_none(name):
    text = line("gpu-02", "127.77.0.2") + "\n"
    for attempt in (lambda: line(name, "127.77.0.9"), lambda: peers.with_line(text, name, None)):
        with pytest.raises(peers.PeerError, match="name: expected"):
            attempt()


@pytest.mark.parametrize("address, port", [("127.0.0.1", 6443), ("*", 6443), ("127.77.0.9", 0), ("127.77.0.9", '1",command="sh')])
def test_what_is_no_place_of_its_own_reaches_no_line(address, port):
    with pytest.raises(peers.PeerError, match="listen_"):
        peers.render_line("gpu-01", KEY, address, port, ["localhost:31994"])


def test_the_key_of_another_line_is_refused_by_its_owner():
    text = line("gpu-02", "127.77.0.2") + "\n"
    with pytest.raises(peers.PeerError, match="gpu-02"):
        peers.refuse_foreign_key(text, "gpu-01", KEY)
    with pytest.raises(peers.PeerError, match="somebody"):
        peers.refuse_foreign_key(KEY + " admin@laptop\n", "gpu-01", KEY)
    peers.refuse_foreign_key(text + "# " + KEY, "gpu-02", KEY)


def test_only_the_last_word_names_a_worker():
    text = line("gpu-02", "127.77.0.2") + "\nssh-ed25519 AAAA beta9-worker:gpu-02 of old\n"
    assert list(peers.parse(text)) == ["gpu-02"] and peers.with_line(text, "gpu-02", None) == text.splitlines()[1] + "\n"


def test_an_ipv6_address_is_written_in_brackets_and_read_back():
    written = peers.render_line("gpu-01", KEY, "2001:db8::9", 6443, ["[::1]:31994"])
    assert 'permitlisten="[2001:db8::9]:6443"' in written and peers.parse(written)["gpu-01"]["address"] == "2001:db8::9"


def test_a_key_loses_its_comment():
    assert peers.public_key(KEY + " root@gpu-01\n") == KEY


def test_lines_that_are_not_as_they_were_written_are_told():
    good = line("a", "127.77.0.1") + "\n# by hand\n\n"
    assert peers.strange(good) == []
    other = line("b", "127.77.0.2").replace("AAAAI", "AAAAJ")
    assert peers.strange(good + other + "\n") == []
    changes = [("restrict,", ""), (',permitopen="localhost:31994"', ""), ("localhost:31994", "*:*")]
    for bad in [KEY + " me", other + " x"] + [other.replace(*change) for change in changes]:
        assert len(peers.strange(good + bad + "\n")) == 1, bad
    assert peers.strange(good + line("b", "127.77.0.2")) == ["line 4 has the key of line 1"]
