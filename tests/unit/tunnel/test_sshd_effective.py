"""What sshd answers, against what a tunnel needs: the rules of sshd_config(5) for lists of users, ports and key types."""

import pytest

from ansible_collections.beta9.workers.plugins.module_utils.tunnel import sshd_effective as sshd


@pytest.mark.parametrize(
    "pattern, address, fits",
    [
        ("beta9-tunnel", None, True),
        ("beta9-*", "192.0.2.7", True),
        ("beta9-tunne?", None, True),
        ("[b]eta9-tunnel", None, False),
        ("root", None, False),
        ("beta9-tunnel@192.0.2.*", "192.0.2.7", True),
        ("beta9-tunnel@192.0.2.0/24", "192.0.2.7", True),
        ("beta9-tunnel@10.0.0.0/8", "192.0.2.7", False),
        ("beta9-tunnel@10.0.0.0/8", None, True),
        ("root@192.0.2.7", "192.0.2.7", False),
    ],
)
def test_entries_of_a_list_of_users(pattern, address, fits):
    assert sshd._fits_user(pattern, "beta9-tunnel", address, True) is fits


@pytest.mark.parametrize(
    "entries, fits",
    [("any", True), ("none", False), ("127.77.0.9:6443", True), ("6443", True), ("*:6443", True), ("127.77.0.9:*", True), ("127.0.0.1:6443 7000", False)],
)
def test_addresses_that_may_be_listened_on(entries, fits):
    answer = sshd.Answer({"permitlisten": [entries]}, [])
    assert (list(sshd._permits(answer, sshd.Need(listen=("127.77.0.9", 6443)))) == []) is fits


def test_the_line_is_named_that_says_the_value(tmp_path):
    included = tmp_path / "10-hardening.conf"
    included.write_text("# AllowUsers nobody\nAllowUsers root\n")
    main = tmp_path / "sshd_config"
    main.write_text(f'Include "{tmp_path}/*.conf"\nallowusers=admin\n')
    answer = sshd.Answer({"allowusers": ["root", "admin"]}, sshd.read_lines(str(main)))
    assert [(line.number, line.keyword, line.value) for line in answer.lines] == [
        (1, "include", f"{tmp_path}/*.conf"),
        (2, "allowusers", "root"),
        (2, "allowusers", "admin"),
    ]
    (problem,) = sshd._lists(answer, sshd.Need(), ["beta9-tunnel"])
    assert str(problem) == (
        f"AllowUsers: expected beta9-tunnel to be let in, found root admin ({included}:2). Add beta9-tunnel to AllowUsers in {included}:2, and reload sshd."
    )


@pytest.mark.parametrize(
    "settings, types",
    [
        ({}, ["ed25519", "ecdsa", "rsa"]),
        ({"pubkeyacceptedalgorithms": ["ecdsa-sha2-nistp256,rsa-sha2-512"]}, ["ecdsa", "rsa"]),
        ({"pubkeyacceptedkeytypes": ["ssh-ed25519"]}, ["ed25519"]),
        ({"pubkeyacceptedalgorithms": ["ssh-ed25519-cert-v01@openssh.com"]}, []),
    ],
)
def test_types_of_keys(settings, types):
    assert sshd.key_types(sshd.Answer(settings, [])) == types


def test_host_keys_of_kinds_that_workers_do_not_know_are_left_out(tmp_path):
    """OpenSSH 10.6 of the newest Debian makes a key of ML-DSA and Ed25519 beside the others."""
    lines = {"a": "ssh-mldsa44-ed25519 " + "A" * 1828, "b": "ssh-ed25519 " + "A" * 68 + " root@gatewäy", "c": "<html> A"}
    for name, line in lines.items():
        (tmp_path / f"{name}.pub").write_text(line + "\n")
    answer = sshd.Answer({"hostkey": [str(tmp_path / name) for name in lines]}, [])
    assert sshd.host_keys(lambda _command: (1, "", ""), answer) == ["ssh-ed25519 " + "A" * 68]
