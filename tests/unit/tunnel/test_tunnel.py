"""What ssh says, as codes: each message, the latest of a journal, and how far a login of our own came."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import messages
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog

CONNECTED = "debug1: Connecting to 192.0.2.1 [192.0.2.1] port 22.\ndebug1: Connection established.\n"
BANNER = CONNECTED + "debug1: Remote protocol version 2.0, remote software version OpenSSH_9.2p1\n"
KEX = BANNER + "debug1: SSH2_MSG_KEXINIT sent\ndebug1: SSH2_MSG_KEXINIT received\n"
OFFERED = KEX + "debug1: SSH2_MSG_NEWKEYS received\ndebug1: Offering public key: /x ED25519 SHA256:x explicit\n"
ACCEPTED = OFFERED + "debug1: Server accepts key: /x ED25519 SHA256:x explicit\n"
AUTHENTICATED = ACCEPTED + 'Authenticated to 192.0.2.1 ([192.0.2.1]:22) using "publickey".\n'


@pytest.mark.parametrize(("code", "words"), messages.SIGNATURES)
def test_each_message(code, words):
    found = messages.explain("Starting\nssh: %s (more)\nssh exited with error status 255; restarting ssh\n" % words)
    assert found.code == code and words in found.line


def test_every_code_has_a_cause():
    known = {code for name in ("T01", "T04", "T08") for code in catalog.BY_ID[name].causes}
    assert {code for code, _words in messages.SIGNATURES} <= known


def test_latest_message_counts():
    assert messages.explain("connect: Connection refused\nPermission denied (publickey).\n").code == "key_refused"
    assert messages.explain("all is well\n") is None


def test_losses_are_of_established_connections():
    text = (
        "Timeout, server 192.0.2.1 not responding.\nConnection to 192.0.2.1 closed by remote host.\n"
        "kex_exchange_identification: Connection reset by peer\nssh: connect to host x port 22: Connection refused\n"
    )
    assert len(messages.losses(text)) == 2


@pytest.mark.parametrize(
    ("text", "finished", "code"),
    [
        ("ssh: Could not resolve hostname gw: Name or service not known\n", True, "name"),
        ("debug1: Connecting to x port 22.\nssh: connect to host x port 22: Connection refused\n", True, "refused"),
        ("debug1: Connecting to x port 22.\n", False, "timeout"),
        ("debug1: Reading configuration data /x\n", False, "name"),
        ("ssh: connect to host x port 22: Network is unreachable\n", True, "unreachable"),
        (CONNECTED + "kex_exchange_identification: Connection closed by remote host\nConnection closed by x port 22\n", True, "closed"),
        (
            CONNECTED + "debug1: kex_exchange_identification: banner line 0: HTTP/1.0 400 Bad\nkex_exchange_identification: Connection closed by x\n",
            True,
            "not_ssh",
        ),
        (BANNER + "Unable to negotiate with x port 22: no matching cipher found. Their offer: a,b\n", True, "algorithms"),
        (BANNER + "Unable to negotiate with x port 22: no matching host key type found. Their offer: ssh-rsa\n", True, "host_key"),
        (CONNECTED + "Connection timed out during banner exchange\nConnection to x port 22 timed out\n", True, "silent"),
        (CONNECTED, False, "silent"),
        (KEX, False, "stalled"),
        (KEX + "Connection reset by 192.0.2.1 port 22\n", True, "cut"),
        (KEX + "Host key verification failed.\n", True, "host_key"),
        (OFFERED + "b9@192.0.2.1: Permission denied (publickey).\n", True, "key_refused"),
        (OFFERED + "Connection closed by 192.0.2.1 port 22\n", True, "key_refused"),
        (ACCEPTED + "Connection closed by 192.0.2.1 port 22\n", True, "account_refused"),
        (OFFERED, False, "slow"),
        (AUTHENTICATED + "channel 0: open failed: administratively prohibited: open failed\n", True, "forward_refused"),
        (AUTHENTICATED + "channel 0: open failed: connect failed: Connection refused\n", True, "target_refused"),
        (AUTHENTICATED + "channel 0: open failed: connect failed: open failed\n", True, "target_denied"),
        (AUTHENTICATED, True, None),
        (AUTHENTICATED, False, None),
    ],
)
def test_login(text, finished, code):
    found = messages.login_problem(text, finished)
    assert (found.code if found else None) == code
