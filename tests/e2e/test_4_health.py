"""The health check on real hosts: it changes nothing, tells who can't be judged apart from who is ill, and outlives what it looks at."""

from __future__ import annotations

import json
import subprocess
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog

from tests.e2e.test_1_onboard import recap

HEALTHY, UNHEALTHY, COULD_NOT_TELL = 0, 2, 4
# What machines of earlier tests left over expires by itself: none of it during a test
KEPT = """
for key in $(redis-cli --scan); do
  left=$(redis-cli ttl "$key"); if [ "$left" -ge 0 ] && [ "$left" -lt 120 ]; then redis-cli expire "$key" 120; fi
done"""
REDIS = """
for key in $(redis-cli --scan | sort); do echo "$key"
  case $(redis-cli type "$key") in hash) redis-cli hgetall "$key" ;; set) redis-cli smembers "$key" | sort ;; string) redis-cli get "$key" ;; esac
done"""


@pytest.fixture(scope="module")
def onboarded(testbed):
    """Both hosts ready; each test here leaves them so."""
    status, output = testbed.play("onboard_worker.yml")
    assert status == 0, output
    return testbed


def check(bed, tmp_path, *arguments):
    """Run the health check; return (exit status, output, {host: entry of health.json})."""
    status, output = bed.play("health_check.yml", "-e", "health_check_directory=%s" % tmp_path, *arguments)
    path = tmp_path / "health.json"
    assert path.exists(), output
    return status, output, {entry["host"]: entry for entry in json.loads(path.read_text())["hosts"]}


def roots(entry):
    return [verdict["id"] for verdict in entry["verdicts"] if verdict["root"]]


def statuses(entry):
    return {verdict["id"]: verdict["status"] for verdict in entry["verdicts"]}


def wait_healthy(bed):
    """Wait until both agents had a keepalive accepted."""
    for worker in bed.workers:
        bed.sh(worker, 'for n in $(seq 100); do grep -qs \'"status": "ready"\' /run/beta9-agent/state.json && exit 0; sleep 0.1; done; exit 1')


def test_onboarding_ends_with_it(onboarded):
    status, output = onboarded.play("onboard_worker.yml", health=True)
    assert status == 0 and "Verify the health of the onboarded hosts" in output, output
    assert sum(line.split()[2:3] == ["healthy"] for line in output.splitlines()) == 2, output
    assert all(row["changed"] == 0 for row in recap(output).values()), output


@pytest.mark.parametrize("options", [[], ["--check", "-e", "health_check_active=true"]])
def test_changes_nothing(onboarded, tmp_path, options):
    worker = onboarded.workers[0]
    check(onboarded, tmp_path)  # connections are open from here on
    for name in onboarded.workers:
        onboarded.sh(name, "systemctl stop beta9-agent; touch /root/mark; sleep 1.1")
    onboarded.sh(onboarded.gateway, KEPT)
    before = onboarded.sh(onboarded.gateway, REDIS)
    try:
        status, output, hosts = check(onboarded, tmp_path, *options)
        assert status == UNHEALTHY and roots(hosts[worker]) == ["P01"], output
        assert onboarded.sh(onboarded.gateway, REDIS) == before
        for name in onboarded.workers:
            paths = "/proc /sys /dev /run /tmp /var/log /var/lib/systemd"
            pruned = " -o ".join("-path %s" % path for path in paths.split())
            # beside what systemd makes in /var/tmp where it starts a unit with PrivateTmp=
            found = onboarded.sh(name, r"find / \( %s \) -prune -o -newer /root/mark -print" % pruned).splitlines()
            assert [path for path in found if path != "/var/tmp" and not path.startswith("/var/tmp/systemd-private-")] == []
    finally:
        for name in onboarded.workers:
            onboarded.sh(name, "systemctl start beta9-agent; rm /root/mark")
        wait_healthy(onboarded)


def test_tasks_report_has_one_task_a_check(onboarded, tmp_path):
    onboarded.sh(onboarded.workers[0], "systemctl stop beta9-tunnel")
    try:
        status, output, hosts = check(onboarded, tmp_path, "-e", "health_check_report=tasks")
    finally:
        onboarded.sh(onboarded.workers[0], "systemctl start beta9-tunnel")
        wait_healthy(onboarded)
    assert status == UNHEALTHY and roots(hosts[onboarded.workers[0]]) == ["T01"] and hosts[onboarded.workers[1]]["outcome"] == "healthy", output
    for entry in catalog.CHECKS:
        assert "%s %s" % (entry.id, entry.title) in output or statuses(hosts[onboarded.workers[0]]).get(entry.id) != "fail", entry.id
    assert "root cause: " in output and "PASS" in output


def test_same_cause_is_told_once(onboarded, tmp_path):
    onboarded.sh(onboarded.gateway, "systemctl stop redis-server")
    try:
        status, output, hosts = check(onboarded, tmp_path)
    finally:
        onboarded.sh(onboarded.gateway, "systemctl start redis-server")
    assert status == UNHEALTHY and [roots(entry) for entry in hosts.values()] == [["G09"], ["G09"]], output
    assert output.count("FAIL G09") == 1 and "FAIL G09  %s, %s" % onboarded.workers in output


def test_without_sudo_it_tells_less_and_says_so(onboarded, tmp_path):
    worker = onboarded.workers[1]
    assert onboarded.sh(worker, "ls /etc/sudoers.d | grep -v README"), "the worker's user has its sudo from there"
    onboarded.sh(worker, "mkdir -p /root/kept; mv /etc/sudoers.d/* /root/kept/; systemctl stop beta9-tunnel")
    try:
        status, output, hosts = check(onboarded, tmp_path, "-l", worker)
        assert status == UNHEALTHY and roots(hosts[worker]) == ["T01"], output
        assert "without root's rights" in hosts[worker]["message"]
        assert "run with become" in " ".join(verdict["found"] for verdict in hosts[worker]["verdicts"] if verdict["status"] == "unknown")
    finally:
        onboarded.sh(worker, "mv /root/kept/* /etc/sudoers.d/; rmdir /root/kept; systemctl start beta9-tunnel")
        wait_healthy(onboarded)


def test_host_without_agent(onboarded, tmp_path):
    worker = onboarded.workers[0]
    onboarded.sh(worker, "systemctl stop beta9-agent; mv /opt/beta9-agent /opt/kept; mv /etc/ansible/facts.d/beta9.fact /root/kept.fact")
    try:
        status, output, hosts = check(onboarded, tmp_path, "-l", worker)
        assert status == UNHEALTHY and roots(hosts[worker]) == ["C01"] and "never onboarded" in output
        onboarded.sh(worker, "mv /root/kept.fact /etc/ansible/facts.d/beta9.fact")
        status, output, hosts = check(onboarded, tmp_path, "-l", worker)
        found = statuses(hosts[worker])
        assert status == UNHEALTHY and "P03" in roots(hosts[worker]) and found["T04"] == found["A01"] == "pass", output
    finally:
        onboarded.sh(worker, "mv /root/kept.fact /etc/ansible/facts.d/beta9.fact 2>/dev/null; mv /opt/kept /opt/beta9-agent; systemctl start beta9-agent")
        wait_healthy(onboarded)


def test_probes_that_hang_or_print_without_end(onboarded, tmp_path):
    worker = onboarded.workers[0]
    onboarded.sh(
        worker,
        """
        printf '#!/bin/sh\\nexec sleep infinity\\n' > /usr/local/bin/timedatectl
        printf '#!/bin/sh\\nexec yes "Bearer no-end-of-output"\\n' > /usr/local/bin/journalctl
        chmod 755 /usr/local/bin/timedatectl /usr/local/bin/journalctl""",
    )
    try:
        start = time.monotonic()
        status, output, hosts = check(onboarded, tmp_path, "-l", worker)
        assert time.monotonic() - start < 40
        found = statuses(hosts[worker])
        assert found["T01"] == found["T04"] == found["A01"] == found["P01"] == "pass" and "fail" not in found.values(), output
        assert status == HEALTHY and max(len(verdict["evidence"]) for verdict in hosts[worker]["verdicts"]) <= 4200
    finally:
        onboarded.sh(worker, "rm -f /usr/local/bin/timedatectl /usr/local/bin/journalctl; pkill -x yes; pkill -x sleep; true")


@pytest.mark.long
def test_host_that_dies_during_the_check(onboarded, tmp_path):
    """The host stops answering between the first byte of the probes and their result; the other host is judged all the same."""
    worker, other = onboarded.workers
    onboarded.sh(worker, "printf '#!/bin/sh\\nexec sleep infinity\\n' > /usr/local/bin/journalctl; chmod 755 /usr/local/bin/journalctl")
    command = onboarded.command("health_check.yml", "-e", "health_check_directory=%s" % tmp_path, "-e", "health_check_deadline_seconds=5")
    start = time.monotonic()
    process = subprocess.Popen(command, cwd=onboarded.root, env=onboarded.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        onboarded.sh(worker, "for n in $(seq 200); do pgrep -x sleep >/dev/null && exit 0; sleep 0.05; done; exit 1")
        subprocess.run(["podman", "pause", worker], check=True, capture_output=True)
        output, _nothing = process.communicate(timeout=60)
    finally:
        process.kill()
        subprocess.run(["podman", "unpause", worker], check=False, capture_output=True)
        onboarded.sh(worker, "rm -f /usr/local/bin/journalctl; pkill -x sleep; true")
    assert process.returncode == COULD_NOT_TELL and time.monotonic() - start < 40, output
    hosts = {entry["host"]: entry for entry in json.loads((tmp_path / "health.json").read_text())["hosts"]}
    assert hosts[worker]["outcome"] == "unreachable" and "stopped answering" in hosts[worker]["message"], output
    assert hosts[other]["outcome"] == "healthy", output


@pytest.mark.long
def test_waits_for_health(onboarded, tmp_path):
    worker = onboarded.workers[0]
    onboarded.sh(worker, "systemctl stop beta9-tunnel; systemd-run -q --on-active=5 systemctl start beta9-tunnel")
    status, output, _hosts = check(onboarded, tmp_path, "-l", worker, "-e", "health_check_wait_seconds=60")
    assert status == HEALTHY, output


def test_shows_no_secret(onboarded, tmp_path):
    """Neither on a healthy host nor on one whose log holds its own token."""
    tokens = [onboarded.sh(worker, "cat /etc/beta9/credentials/machine_token") for worker in onboarded.workers]
    tokens.append((onboarded.inventory.parent / "admin_token").read_text().strip())
    worker = onboarded.workers[0]
    onboarded.sh(worker, "systemctl kill -s KILL beta9-agent; systemd-cat -t beta9-agent sh -c 'cat /etc/beta9/credentials/machine_token'")
    status, output, _hosts = check(onboarded, tmp_path, "-vvvv", "--diff", "-e", "health_check_report=tasks")
    text = output + "".join(path.read_text() for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 5 and status in (HEALTHY, UNHEALTHY)
    for token in tokens:
        assert token not in text, text[max(0, text.index(token) - 300) : text.index(token)]
