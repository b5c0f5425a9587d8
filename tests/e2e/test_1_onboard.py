"""From bare hosts to ready machines, in every way that the path may be walked. In the order of the file: hosts are expensive."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest

from tests.e2e.conftest import ROOT, known_tokens


def recap(output):
    """Return {host: {"ok": n, "changed": n, ...}} of a play's recap."""
    rows = re.findall(r"^(\S+)\s+: (ok=.*)$", output, re.M)
    return {host: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text)} for host, text in rows}


def files(testbed):
    """Return a fingerprint of everything on the hosts that a playbook could write."""
    script = "find /etc /opt /usr/local /var/lib -xdev -newer /root/.mark -type f ! -path '/var/lib/systemd/*' ! -path '/var/lib/private/systemd/*' 2>/dev/null"
    return {host: testbed.sh(host, script) for host in (testbed.gateway,) + testbed.workers}


def mark(testbed):
    for host in (testbed.gateway,) + testbed.workers:
        testbed.sh(host, "touch /root/.mark; sleep 0.01")


def test_check_on_fresh_hosts_runs_through_and_writes_nothing(testbed):
    mark(testbed)
    writes = testbed.writes()
    status, output = testbed.play("onboard_worker.yml", "--check", "--diff", health=True)
    assert status == 0, output
    assert all(row["changed"] > 5 for row in recap(output).values())
    assert testbed.writes() == writes and not testbed.machines()
    assert files(testbed) == {host: "" for host in (testbed.gateway,) + testbed.workers}


def test_onboard_shows_one_table(testbed):
    status, output = testbed.play("onboard_worker.yml", health=True)
    assert status == 0, output
    assert sorted(testbed.machines().values()) == ["ready", "ready"]
    for worker in testbed.workers:
        assert re.search(r"%s +%s +gpu +ready +127\.77\.\d+\.\d+ +0 +0\.1\.0" % (worker, testbed.machine_id(worker)), output), output


def test_second_run_changes_nothing(onboarded):
    mark(onboarded)
    writes, machines = onboarded.writes(), onboarded.machines()
    started = [onboarded.sh(worker, "systemctl show -p ExecMainStartTimestampMonotonic beta9-agent beta9-tunnel") for worker in onboarded.workers]
    status, output = onboarded.play("onboard_worker.yml", "--diff")
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output
    assert "+++" not in output
    assert onboarded.machines() == machines and onboarded.writes() == writes
    assert started == [onboarded.sh(worker, "systemctl show -p ExecMainStartTimestampMonotonic beta9-agent beta9-tunnel") for worker in onboarded.workers]
    assert files(onboarded) == {host: "" for host in (onboarded.gateway,) + onboarded.workers}


def test_check_on_converged_hosts_tells_of_no_change(onboarded):
    status, output = onboarded.play("onboard_worker.yml", "--check", "--diff", health=True)
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output


def test_prepare_gateway_again_changes_nothing(testbed):
    status, output = testbed.play("prepare_gateway.yml")
    assert status == 0 and recap(output)[testbed.gateway]["changed"] == 0, output
    assert "PerSourceMaxStartups" in testbed.sh(testbed.gateway, "cat /etc/ssh/sshd_config.d/40-beta9-limits.conf")


def test_no_token_anywhere(onboarded):
    """Every secret of the testbed, searched in what a -vvv run prints, in journals, process lists, facts and files."""
    secrets = {}
    for worker in onboarded.workers:
        secrets[worker + " token"] = onboarded.sh(worker, "cat /etc/beta9/credentials/machine_token")
        secrets[worker + " key"] = onboarded.sh(worker, "sed -n 3p /etc/beta9/credentials/tunnel_key")
    secrets["admin"] = (onboarded.inventory.parent / "admin_token").read_text()
    onboarded.clean()
    status, output = onboarded.play("onboard_worker.yml", "-vvvv", "--diff", health=True)
    assert status == 0, output[-3000:]
    for worker in onboarded.workers:
        secrets[worker + " new token"] = onboarded.sh(worker, "cat /etc/beta9/credentials/machine_token")
        secrets[worker + " new key"] = onboarded.sh(worker, "sed -n 3p /etc/beta9/credentials/tunnel_key")
        modes = onboarded.sh(worker, "cd /etc/beta9/credentials; stat -c '%F %a %U' . *").splitlines()
        assert set(modes) == {"directory 700 root", "regular file 600 root"}
        fact = json.loads(onboarded.sh(worker, "cat /etc/ansible/facts.d/beta9.fact"))
        assert set(fact) == {"machine_id", "pool", "provider"}
    assert all(len(secret) > 20 for secret in secrets.values())
    assert not [name for name, secret in secrets.items() if secret in output]
    pattern = "\n".join(secrets.values())
    for host in (onboarded.gateway,) + onboarded.workers:
        found = onboarded.sh(
            host,
            """
            cat > /dev/shm/secrets <<'END'
%s
END
            journalctl --no-pager -o export | grep -acF -f /dev/shm/secrets
            cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -acF -f /dev/shm/secrets
            cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' ' | grep -acF -f /dev/shm/secrets
            grep -rlaF -f /dev/shm/secrets /etc /opt /run /tmp /var /root /home 2>/dev/null |
                grep -vE '^/etc/beta9/credentials/|^/run/credentials/|^/run/beta9-agent/credentials/|^/var/lib/redis/|^/etc/beta9-gateway-double.token' | wc -l
            rm /dev/shm/secrets; true"""
            % pattern,
        ).split()
        assert found == ["0", "0", "0", "0"], (host, found)


def test_worker_is_ready_again_after_a_reboot(onboarded):
    worker = onboarded.workers[0]
    identity = onboarded.machine_id(worker)
    onboarded.sh(onboarded.gateway, "redis-cli del provider:machine:generic:gpu:%s" % identity)
    subprocess.run(["podman", "restart", "--time", "5", worker], check=True, capture_output=True)
    deadline = time.monotonic() + 90
    while onboarded.machines().get(identity) != "ready":
        assert time.monotonic() < deadline, onboarded.sh(worker, "journalctl -u beta9-agent -u beta9-tunnel -n 30 --no-pager", check=False)
        time.sleep(0.5)


@pytest.mark.long
def test_packages_that_a_killed_run_left_half_installed_are_finished(onboarded):
    worker = onboarded.workers[0]
    onboarded.sh(
        worker,
        """
        cd /tmp && apt-get -qq download autossh && dpkg --unpack autossh_*.deb && rm autossh_*.deb
        mkdir -p /var/lib/beta9/package-sets && echo '{"autossh": "", "openssh-client": ""}' > /var/lib/beta9/package-sets/tunnel.json""",
    )
    assert "autossh" in onboarded.sh(worker, "dpkg --audit")
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)
    assert status == 0 and recap(output)[worker]["changed"] == 1, output
    assert onboarded.sh(worker, "dpkg --audit; ls /var/lib/beta9/package-sets 2>/dev/null || true").split() == []
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)
    assert status == 0 and recap(output)[worker]["changed"] == 0, output


@pytest.mark.long
def test_state_that_expired_comes_back_without_a_run(onboarded):
    worker = onboarded.workers[1]
    identity = onboarded.machine_id(worker)
    onboarded.sh(onboarded.gateway, "redis-cli del provider:machine:generic:gpu:%s" % identity)
    deadline = time.monotonic() + 75
    while onboarded.machines().get(identity) != "ready":
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.long
def test_refused_token_gets_a_new_machine_and_the_old_one_goes(onboarded):
    worker = onboarded.workers[0]
    before = onboarded.machine_id(worker)
    onboarded.sh(
        onboarded.gateway,
        """
        for key in $(redis-cli --scan --pattern 'double:token:*'); do
            [ "$(redis-cli hget $key machine_id)" = %s ] && redis-cli hset $key active 0; done
        redis-cli --scan --pattern 'workspace:authorization:token:*' | xargs -r redis-cli del"""
        % before,
    )
    # the agent's last keepalive was accepted, and its next one is up to a minute away
    status, output = onboarded.play("onboard_worker.yml")
    assert status == 0, output
    after = onboarded.machine_id(worker)
    assert known_tokens(onboarded, before) == "0" and known_tokens(onboarded, after) == "1"
    assert after != before and onboarded.machines() == {after: "ready", onboarded.machine_id(onboarded.workers[1]): "ready"}


KILL_AFTER = [
    "Read the pools",
    "Verify variables and host",
    "Ensure the tunnel's user exists",
    "Ensure a key for the tunnel",
    "Authorize the key on the gateway host",
    "Configure the tunnel",
    "Ensure the tunnel runs",
    "Verify the tunnel",
    "Create a machine and store its credentials",
    "Ensure the agent is installed",
    "Copy the agent",
    "Configure the agent",
    "Ensure the agent runs",
    "Wait until a keepalive is accepted",
]


@pytest.mark.parametrize("task", [pytest.param(task, marks=[pytest.mark.long] if number != 7 else []) for number, task in enumerate(KILL_AFTER)])
def test_killed_run_is_finished_by_the_next(testbed, task):
    """SIGKILL to the whole process group as soon as the task after this one is announced."""
    testbed.clean()
    if task == "Copy the agent":
        testbed.sh(testbed.workers[0], "rm -rf /opt/beta9-agent")
    process = subprocess.Popen(
        testbed.command("onboard_worker.yml"),
        cwd=ROOT,
        env=testbed.environment(PYTHONUNBUFFERED="1"),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    seen = False
    for line in process.stdout:
        if line.startswith("TASK [") and seen:
            break
        seen = seen or re.match(r"TASK \[.*%s\]" % re.escape(task), line)
    assert seen, "the task was never announced"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # modules that still run on the hosts end by themselves
    status, output = testbed.play("onboard_worker.yml")
    assert status == 0, output
    assert testbed.machines() == {testbed.machine_id(worker): "ready" for worker in testbed.workers}
    status, output = testbed.play("onboard_worker.yml")
    assert all(row["changed"] == 0 for row in recap(output).values()), output


@pytest.mark.long
@pytest.mark.parametrize(("mode", "tunnel"), [("direct", "inactive"), ("autossh", "active")])
def test_another_connection_takes_over(onboarded, mode, tunnel):
    """The machine stays, ready by the new connection; what the old one had is gone."""
    before = onboarded.machines()
    arguments = ("onboard_worker.yml", "-e", f"beta9_connection={mode}")
    status, output = onboarded.play(*arguments, health=True)
    assert status == 0 and onboarded.machines() == before, output
    for worker in onboarded.workers:
        assert onboarded.sh(worker, "systemctl is-active beta9-tunnel || true") == tunnel
        keys = onboarded.sh(onboarded.gateway, "cat /etc/ssh/beta9-tunnel/authorized_keys")
        assert (worker in keys) is (tunnel == "active")
        address = onboarded.sh(worker, "grep BETA9_HOSTNAME= /etc/beta9/agent.env")
        assert ("127.77." in address) is (tunnel == "active")
    status, output = onboarded.play(*arguments, "--diff")
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output


def test_offboard_leaves_nothing(onboarded):
    worker = onboarded.workers[1]
    before = onboarded.machine_id(worker)
    assert known_tokens(onboarded, before) == "1"
    status, output = onboarded.play("offboard_worker.yml", "-l", worker)
    assert status == 0 and known_tokens(onboarded, before) == "0", output
    assert onboarded.machines() == {onboarded.machine_id(onboarded.workers[0]): "ready"}
    left = onboarded.sh(
        worker,
        """ls -d /etc/beta9 /etc/ansible/facts.d/beta9.fact /opt/beta9-agent /etc/systemd/system/beta9-* /var/lib/private/beta9-agent \
                                       /usr/local/bin/beta9-agent 2>/dev/null
                                   systemctl list-units --all --plain --no-legend 'beta9-*'; getent passwd beta9-tunnel; true""",
    )
    assert left == ""
    assert worker not in onboarded.sh(onboarded.gateway, "cat /etc/ssh/beta9-tunnel/authorized_keys")
    status, output = onboarded.play("offboard_worker.yml", "-l", worker)
    assert status == 0 and recap(output)[worker]["changed"] == 0, output
