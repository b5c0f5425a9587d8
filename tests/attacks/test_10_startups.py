"""A worker that holds connections to the gateway host's sshd without ever logging in: others still get in."""

from __future__ import annotations

# 105 connections, kept open without a word; sshd's LoginGraceTime is 120 s
HOLD = """
import socket, time
held = []
for _ in range(105):
    try:
        held.append(socket.create_connection(("%s", 22), timeout=2))
    except OSError:
        pass
time.sleep(90)
"""


def test_idle_connections_of_one_worker_keep_nobody_out(testbed):
    worker = testbed.workers[0]
    limit = testbed.sh(testbed.gateway, "sshd -T | grep -i ^persourcemaxstartups")
    assert limit == "persourcemaxstartups 10"
    assert "persourcepenalties" in testbed.sh(testbed.gateway, "sshd -T")  # from OpenSSH 9.8 on without our doing
    address = testbed.sh(testbed.gateway, "hostname -I").split()[0]
    testbed.sh(worker, "cat > /root/hold.py <<'END'\n%s\nEND\nsystemd-run -q --unit hold python3 /root/hold.py; sleep 2" % (HOLD % address))
    try:
        # from another address, ten logins one after the other
        script = (
            'n=0; for i in 1 2 3 4 5 6 7 8 9 10; do python3 -c \'import socket; s = socket.create_connection(("%s", 22), 5); s.settimeout(5); '
            'assert s.recv(64).startswith(b"SSH-")\' 2>/dev/null && n=$((n+1)); done; echo $n' % address
        )
        assert testbed.sh(testbed.workers[1], script) == "10"
    finally:
        testbed.sh(worker, "systemctl stop hold; rm -f /root/hold.py")
