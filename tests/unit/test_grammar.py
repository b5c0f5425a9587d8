"""One validator per grammar: what may be written into a file of root."""

import pytest

from ansible_collections.beta9.workers.plugins.module_utils import grammar

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"
LONG = ".".join(["a" * 62] * 4)  # 251 characters
GOOD = {
    "address": ["10.0.0.7", "2001:db8::1"],
    "cpu": ["8000m"],
    "forwards": [[{"local_port": 1994, "target": "localhost:31994"}, {"local_port": 1993, "target": "[::1]:31993"}]],
    "gpu_ids": ["none", "0", "0,2", "GPU-5ac1e0b2-0000", "MIG-GPU-1/2/3"],
    "host": ["gateway", "gateway.example.com", "10.0.0.7", "2001:db8::1", "xn--bcher-kva.example", LONG + ".b"],
    "host_port": ["localhost:31994", "10.0.0.7:1", "[2001:db8::1]:65535"],
    "image": ["nvcr.io/nvidia/k8s-device-plugin:v0.19.3", "localhost:5000/a/b", "busybox", "a/b@sha256:" + 64 * "0"],
    "interface": ["lo", "flannel.1", "eth0"],
    "listen_address": ["127.77.3.9", "10.0.0.7", "2001:db8::9"],
    "log_format": ["text", "json"],
    "machine_id": ["1165a9b6"],
    "memory": ["16Gi"],
    "network": ["127.77.0.0/16", "2001:db8::/64"],
    "own_account": ["beta9-tunnel", "tunnel2"],
    "path": ["/", "/var/lib/rancher/k3s", "/etc/beta9/ca+intermediate@1.pem"],
    "pool_name": ["gpu", "gpu.a-100"],
    "port": [1, 65535],
    "provider_name": ["generic"],
    "public_key": [KEY],
    "repository_url": ["https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)", "https://a.example/el9/$basearch/"],
    "seconds": [1, 86400],
    "url": ["http://gateway", "https://gw.example.com:1994", "http://[2001:db8::1]:80", "https://mirror.example.com/k3s/v1.31%2Bk3s1", "http://10.0.0.1/"],
    "user_name": ["root", "beta9-tunnel", "_x"],
    "word": ["580", "590.48.01-0ubuntu1", "main", "non-free-firmware", "1:2~rc+b"],
    "worker_name": ["gpu-01", "gpu_01.example.com", "2001:db8::5"],
}
NEVER = [
    None, "", " ", 5.5, True, [], {}, "a b", "a\nb", "a\n", "\na", "a\rb", "a\0b", "a\x1bb", 'a"b', "a'b", "a,b c", "%h", "a%nb", "*", "*:*", "?",
    "a:*", "*:31994", "$(id)", "`id`", "${HOME}", "{{ x }}", "a;b", "a#b", "é", "\u2028", "a\\b", "../x", "x" * 5000, "1" * 5000,
]  # fmt: skip
MORE = {
    "address": ["127.77", "1.2.3.4/8", "fe80::1%eth0", "010.0.0.1", 7],
    "forwards": [
        [],
        [{"local_port": 1994}],
        [{"local_port": 1994, "target": "a:1", "extra": 1}],
        [{"local_port": 1994, "target": "a:1"}, {"local_port": "1994", "target": "b:2"}],
        [{"local_port": 1994, "target": 'a:1",command="sh'}],
    ],
    "host": ["-a", "a-", "a..b", "1.2.3", "a_b", "127.0.0.1:80", LONG + ".bc"],
    "host_port": ["localhost", "localhost:0", "localhost:65536", ":80", "[::1]", "::1:80", "*:80", "localhost:*", "localhost:80 "],
    "listen_address": ["0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "255.255.255.255", "::ffff:127.0.0.1", "localhost"],
    "network": ["127.77.0.1/16", "127.77.0.0", "0.0.0.0"],
    "own_account": ["root", "sshd", "www-data", "nobody", "systemd-network", "_apt", "Root", "ubuntu\n"],
    "path": ["etc/x", "/a/../b", "/a b", "/a\nb", "~/x", "/%h"],
    "port": [0, 65536, -1, "080000", "22 ", "22\n"],
    "public_key": ["ssh-dss AAAAAAAAAAAAAAAAAAAA", "ssh-ed25519", 'command="sh" ' + KEY, KEY + "\n" + KEY, KEY + " a\nb", KEY + " \x1b"],
    "repository_url": ["https://x/$(id)", "https://x/\nenabled=1", "file:///tmp"],
    "url": ["ftp://x", "http://", "http://u:p@x", "http://x?y", "http://x#y", "http://x y", "http://x:99999", "http://a\nb", "http://*", "http://[::1", "//x"],
    "user_name": ["-a", "A", "a.b", "1a", "a" * 33],
    "worker_name": ["-a", "gpu 01", "a beta9-worker:b", "a\nb"],
}


def test_every_grammar_is_tried_and_offered_by_the_filter():
    import yaml

    from ansible_collections.beta9.workers.plugins.filter import valid

    assert set(GOOD) == set(grammar.GRAMMARS) == set(yaml.safe_load(valid.DOCUMENTATION)["options"]["grammar"]["choices"])


@pytest.mark.parametrize("name", sorted(GOOD))
def test_what_fits_is_returned_as_it_is(name):
    for value in GOOD[name]:
        assert grammar.GRAMMARS[name](value, "x") == value


@pytest.mark.parametrize("name", sorted(GOOD))
def test_what_does_not_fit_is_refused_and_named_in_few_words(name):
    for value in NEVER + MORE.get(name, []):
        with pytest.raises(grammar.InvalidField) as refusal:
            pytest.fail("%.60r was taken" % grammar.GRAMMARS[name](value, "some_variable"))
        assert str(refusal.value).startswith("some_variable") and "expected" in str(refusal.value)
        assert len(str(refusal.value)) < 300 and str(refusal.value).isprintable()


def test_numbers_may_come_as_text():
    assert grammar.port("22") == 22 and grammar.seconds("15") == 15 and grammar.gpu_ids(0) == "0" and grammar.gpu_ids("0, 2") == "0,2"


def test_address_of_a_redis_is_never_shown():
    for good in ("redis://127.0.0.1:6379/0", "rediss://user:canary@redis.example.com:6380", "redis://:a%2Fb@[fd00::1]", "redis://h/3"):
        assert grammar.redis_url(good) == good
    for wrong in ("redis://canary@", "http://canary@h:1", "redis://u:canary@h:99999", "redis://h:1/0\n", "redis://:canary/x@h:1", "redis://h:x", None):
        with pytest.raises(grammar.InvalidField) as refusal:
            grammar.redis_url(wrong)
        assert "canary" not in str(refusal.value)


def test_list_names_the_entry_that_is_wrong():
    check = grammar.each(grammar.port)
    assert check([1, 2], "ports") == [1, 2] and grammar.each(grammar.host)("gw", "hosts") == ["gw"]
    with pytest.raises(grammar.InvalidField, match=r"ports\[1\]"):
        check([1, 0], "ports")
