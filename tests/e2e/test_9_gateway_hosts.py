"""Gateway hosts as people have them: hardened, with keys elsewhere, with an account that is locked out. Named before anything is changed."""

from __future__ import annotations

import contextlib
import re
import subprocess

import pytest

from tests.e2e.test_1_onboard import recap

HARDENING = "/etc/ssh/sshd_config.d/00-hardening.conf"


@contextlib.contextmanager
def changed(bed, script, back):
    """Change the gateway host by a script, let sshd read it, and undo that afterwards."""
    bed.sh(bed.gateway, script + "\nsystemctl reload ssh")
    try:
        yield
    finally:
        bed.sh(bed.gateway, back + "\nsystemctl reload ssh")


def hardened(bed, *lines):
    """Add lines to sshd's configuration, in a file that sshd reads before ours."""
    text = "\n".join(("# as hardening guides have it", *lines))
    return changed(bed, f"cat > {HARDENING} <<'END'\n{text}\nEND", f"rm {HARDENING}")


def flat(output):
    """Return the output with its line breaks and indentation taken out: messages are folded."""
    return re.sub(r"\s+", " ", output)


@pytest.fixture(scope="module")
def bed(testbed):
    """One worker onboarded is enough here."""
    status, output = testbed.play("onboard_worker.yml")
    assert status == 0, output
    return testbed


def refused(bed, *words, worker=True):
    """Both prepare_gateway and onboarding of a new worker name the cause; the second before it lets the worker in."""
    status, output = bed.play("prepare_gateway.yml")
    assert status != 0 and all(word in flat(output) for word in words), output
    if worker:
        one = bed.workers[0]
        before = bed.sh(bed.gateway, "cat /etc/ssh/beta9-tunnel/authorized_keys")
        bed.sh(one, "systemctl stop beta9-tunnel; rm /etc/beta9/credentials/tunnel_key")
        status, output = bed.play("onboard_worker.yml", "-l", one)
        assert status != 0 and all(word in flat(output) for word in words), output
        assert bed.sh(bed.gateway, "cat /etc/ssh/beta9-tunnel/authorized_keys") == before


def test_second_onboarding_while_the_tunnel_is_up(bed):
    """OpenSSH from 9.8 on calls a session's process sshd-session."""
    assert "sshd-session" in bed.sh(bed.gateway, "pgrep -u beta9-tunnel -l sshd")
    status, output = bed.play("onboard_worker.yml")
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output


@pytest.mark.long
def test_forwarding_disabled_for_everyone_is_allowed_to_the_account(bed):
    with hardened(bed, "DisableForwarding yes", "AllowTcpForwarding no", "PermitOpen none", "PermitListen none", "GatewayPorts no"):
        status, output = bed.play("prepare_gateway.yml")
        assert status == 0 and recap(output)[bed.gateway]["changed"] == 0, output
        bed.sh(bed.workers[0], "systemctl restart beta9-tunnel")
        status, output = bed.play("onboard_worker.yml")
        assert status == 0, output


@pytest.mark.long
def test_list_of_users_that_leaves_the_account_out(bed):
    with hardened(bed, "AllowUsers root admin@10.0.0.*"):
        refused(bed, "AllowUsers", f"{HARDENING}:2", "Add beta9-tunnel to AllowUsers")


@pytest.mark.long
@pytest.mark.parametrize(
    "lines, words",
    [
        (["DenyUsers bin beta9-*"], ["DenyUsers", f"{HARDENING}:2", "out of DenyUsers"]),
        (["AllowGroups root wheel"], ["AllowGroups", f"{HARDENING}:2", "usermod --append --groups root beta9-tunnel"]),
        (["Match User beta9-*", "    DisableForwarding yes"], ["DisableForwarding: expected no for beta9-tunnel, found yes", f"{HARDENING}:3"]),
        (["Match User beta9-*", "    AuthorizedKeysFile /etc/ssh/keys/%u"], ["AuthorizedKeysFile", f"{HARDENING}:3", "/etc/ssh/keys/%u"]),
    ],
)
def test_what_only_the_administrator_may_change(bed, lines, words):
    with hardened(bed, *lines):
        refused(bed, *words)


@pytest.mark.long
def test_ports_that_another_match_forbids(bed):
    """Which ports a worker needs is known when it is let in."""
    with hardened(bed, "Match User beta9-tunnel", "    PermitListen none"):
        status, output = bed.play("onboard_worker.yml", "-l", bed.workers[0])
        assert status != 0 and "PermitListen: expected 127.77." in flat(output) and f"({HARDENING}:3)" in flat(output), output


@pytest.mark.long
def test_configuration_without_include(bed):
    with changed(bed, "cp /etc/ssh/sshd_config /root/kept; sed -i '/^Include/d' /etc/ssh/sshd_config", "mv /root/kept /etc/ssh/sshd_config"):
        refused(bed, "Include", "/etc/ssh/sshd_config:1", "Add as its first line: Include /etc/ssh/sshd_config.d/*.conf")


@pytest.mark.long
def test_host_keys_elsewhere_are_pinned(bed):
    """One key in a directory of its own, without its public half; the others' public files are no keys of this sshd."""
    key = bed.sh(bed.gateway, "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub")
    move = "mkdir /etc/ssh/keys && mv /etc/ssh/ssh_host_ed25519_key /etc/ssh/keys/key && mv /etc/ssh/ssh_host_ed25519_key.pub /root/"
    back = "mv /etc/ssh/keys/key /etc/ssh/ssh_host_ed25519_key; mv /root/ssh_host_ed25519_key.pub /etc/ssh/; rmdir /etc/ssh/keys"
    with changed(bed, f"{move}; echo 'HostKey /etc/ssh/keys/key' > {HARDENING}", f"rm {HARDENING}; {back}"):
        bed.sh(bed.workers[0], "rm /etc/beta9/tunnel/known_hosts; systemctl stop beta9-tunnel")
        status, output = bed.play("onboard_worker.yml", "-l", bed.workers[0])
        assert status == 0, output
        known = bed.sh(bed.workers[0], "cat /etc/beta9/tunnel/known_hosts")
        assert [line.split()[2] for line in known.splitlines()] == [key]
    status, output = bed.play("onboard_worker.yml", "-l", bed.workers[0])
    assert status == 0, output


@pytest.mark.long
def test_no_host_key_leaves_known_hosts_as_it_was(bed):
    """sshd holds its keys in memory: the files may be gone while it runs."""
    before = bed.sh(bed.workers[0], "cat /etc/beta9/tunnel/known_hosts")
    bed.sh(bed.gateway, "mkdir /root/keys; mv /etc/ssh/ssh_host_* /root/keys/")
    try:
        status, output = bed.play("onboard_worker.yml", "-l", bed.workers[0])
        assert status != 0 and ("no hostkeys available" in output or "HostKey" in output), output
    finally:
        bed.sh(bed.gateway, "mv /root/keys/* /etc/ssh/; rmdir /root/keys")
    assert bed.sh(bed.workers[0], "cat /etc/beta9/tunnel/known_hosts") == before != ""


@pytest.mark.long
def test_ed25519_refused_as_in_fips_mode(bed):
    worker = bed.workers[0]
    with hardened(bed, "PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256,rsa-sha2-512,rsa-sha2-256,ssh-ed25519-cert-v01@openssh.com"):
        # Ansible's own key is an ed25519 one: its connection to the gateway host stays as it was
        bed.sh(bed.gateway, f"printf 'Match User root\\n    PubkeyAcceptedAlgorithms +ssh-ed25519\\n' >> {HARDENING}; systemctl reload ssh")
        status, output = bed.play("onboard_worker.yml", "-l", worker)
        assert status == 0, output
        assert "ecdsa-sha2-nistp256" in bed.sh(worker, "ssh-keygen -y -f /etc/beta9/credentials/tunnel_key")
        bed.sh(worker, "systemctl restart beta9-tunnel")
        status, output = bed.play("onboard_worker.yml", "-l", worker)
        assert status == 0 and recap(output)[worker]["changed"] == 0, output


@pytest.mark.long
@pytest.mark.parametrize(
    "script, back, words",
    [
        ("chage --expiredate 1 beta9-tunnel", "chage --expiredate -1 beta9-tunnel", ["expired", "chage --expiredate -1 beta9-tunnel"]),
        pytest.param(
            f"usermod --lock beta9-tunnel; echo UsePAM no > {HARDENING}",
            f"usermod --unlock beta9-tunnel 2>/dev/null || usermod -p '*' beta9-tunnel; rm {HARDENING}",
            ["locked", "usermod --unlock beta9-tunnel"],
        ),
    ],
)
def test_account_that_may_not_log_in(bed, script, back, words):
    """Named where a worker is let in; prepare_gateway restores it."""
    worker = bed.workers[0]
    with changed(bed, script, back):
        bed.sh(worker, "systemctl stop beta9-tunnel")
        status, output = bed.play("onboard_worker.yml", "-l", worker)
        assert status != 0 and all(word in flat(output) for word in words), output
        status, output = bed.play("prepare_gateway.yml")
        assert status == 0, output
        status, output = bed.play("onboard_worker.yml", "-l", worker)
        assert status == 0, output


@pytest.mark.long
def test_umask_of_the_gateway_hosts_logins(bed):
    """sshd reads authorized_keys as the account: what Ansible writes there is for it to read all the same."""
    login, fresh = "/etc/pam.d/common-session", {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no"}
    bed.sh(bed.gateway, f"cp -p {login} /root/login; echo 'session optional pam_umask.so umask=027' >> {login}; rm -r /etc/ssh/beta9-tunnel")
    try:
        status, output = bed.play("prepare_gateway.yml", **fresh)
        assert status == 0, output
        status, output = bed.play("onboard_worker.yml", **fresh)
        assert status == 0, output
    finally:
        bed.sh(bed.gateway, f"cp -p /root/login {login}")
    look = "stat -c '%a %U' /etc/ssh/beta9-tunnel /etc/ssh/beta9-tunnel/authorized_keys /etc/ssh/sshd_config.d/50-beta9-tunnel.conf"
    assert bed.sh(bed.gateway, look).splitlines() == ["755 root", "644 root", "644 root"]
    bed.sh(bed.workers[0], "systemctl restart beta9-tunnel")
    status, output = bed.play("onboard_worker.yml")
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output


@pytest.mark.long
def test_cause_that_was_repaired_is_named_no_more(bed):
    """The gateway's key was another one, then it was repaired, then the gateway was away: minutes apart, in one journal."""
    worker, known = bed.workers[0], "/etc/beta9/tunnel/known_hosts"
    bed.sh(
        worker,
        f"""ssh-keygen -q -t ed25519 -N '' -f /root/other
        sed -i "s|ssh-ed25519 .*|$(cut -d' ' -f1,2 /root/other.pub)|; /ssh-ed25519/!d" {known}; rm /root/other*
        systemctl restart beta9-tunnel; sleep 4; journalctl -u beta9-tunnel -n 20 | grep 'Host key verification failed'""",
    )
    status, output = bed.play("onboard_worker.yml", "-l", worker)
    assert status == 0, output
    module = ["-m", "beta9.workers.gateway_reachable", "-a", "url=http://127.0.0.1:1994 unit=beta9-tunnel.service wait_seconds=1"]
    bed.sh(bed.gateway, "systemctl stop beta9-gateway-double")
    try:
        command = [bed.command("")[0].replace("ansible-playbook", "ansible"), "-i", str(bed.inventory), worker, *module]
        done = subprocess.run(command, cwd=bed.root, env=bed.environment(), capture_output=True, text=True, check=False)
    finally:
        bed.sh(bed.gateway, "systemctl start beta9-gateway-double")
    assert done.returncode != 0 and "refused" in done.stdout and "host key" not in done.stdout.lower(), done.stdout + done.stderr
