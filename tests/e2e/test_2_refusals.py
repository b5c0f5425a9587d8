"""What must not work does not, and says why: restricted keys, and bad input of every kind."""

from __future__ import annotations

import json
import re

import pytest

from tests.e2e.test_1_onboard import recap


def ssh(bed, worker, *options):
    """Try something with a worker's own tunnel key; return what ssh says."""
    listed = " ".join("'%s'" % option for option in options)
    return bed.sh(
        worker,
        """
        umask 077; cp /etc/beta9/credentials/tunnel_key /dev/shm/key
        sed '/Forward/d' /etc/beta9/tunnel/ssh_config > /dev/shm/config
        timeout 8 ssh -F /dev/shm/config -i /dev/shm/key %s 2>&1; echo "status $?"; rm /dev/shm/key /dev/shm/config"""
        % listed,
        check=False,
    )


def test_key_opens_no_shell_and_runs_no_command(converged):
    worker = converged.workers[0]
    for options in (["gateway", "id"], ["-tt", "gateway"], ["-s", "gateway", "sftp"]):
        answer = ssh(converged, worker, *options)
        assert "uid=" not in answer and not answer.endswith("status 0"), answer


def test_key_reaches_no_other_port(converged):
    answer = ssh(converged, converged.workers[0], "-W", "localhost:6379", "gateway")
    assert "administratively prohibited" in answer or "not permitted" in answer, answer


def test_key_listens_nowhere_else(converged):
    first, second = converged.workers
    other = re.search(r'permitlisten="([0-9.]+):6443".*%s' % second, converged.sh(converged.gateway, "cat /etc/ssh/beta9-tunnel/authorized_keys")).group(1)
    converged.sh(second, "systemctl stop beta9-tunnel")  # so that nothing but the permission is in the way
    try:
        for listen in (other + ":6443", "0.0.0.0:6443", "127.0.0.1:7777"):
            answer = ssh(converged, first, "-N", "-o", "ExitOnForwardFailure=yes", "-R", listen + ":127.0.0.1:6443", "gateway")
            assert "remote port forwarding failed" in answer, (listen, answer)
    finally:
        converged.sh(second, "systemctl start beta9-tunnel")


@pytest.fixture(scope="module")
def converged(testbed):
    """Both hosts ready, once for all tests that leave them so."""
    status, output = testbed.play("onboard_worker.yml")
    assert status == 0, output
    return testbed


@pytest.fixture
def unchanged(converged):
    """After a refused run the hosts and the gateway are as before, and the other worker was not disturbed."""
    machines = converged.machines()
    yield converged
    assert converged.machines() == machines


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"beta9_pool": "gqu"}, ["beta9_pool", "expected one of the gateway's pools: cpu, gpu", "found gqu", "Did you mean gpu?"]),
        pytest.param({"beta9_pool": ""}, ["beta9_pool", "Set beta9_pool"], marks=pytest.mark.long),
        pytest.param({"beta9_gateway_url": ""}, ["beta9_gateway_url", "http://gateway.example.com:31994"], marks=pytest.mark.long),
        pytest.param({"beta9_gateway_url": "gateway:31994"}, ["beta9_gateway_url"], marks=pytest.mark.long),
        pytest.param({"beta9_gateway_url": "http://127.0.0.1:9"}, ["http://127.0.0.1:9", "nothing listens"], marks=pytest.mark.long),
        pytest.param({"beta9_connection": "carrier-pigeon"}, ["beta9_connection", "autossh, tailscale, direct"], marks=pytest.mark.long),
        ({"beta9_machine_id": "XYZ"}, ["beta9_machine_id", "8 lower-case hexadecimal"]),
        pytest.param({"beta9_max_memory": "16GB"}, ["beta9_max_memory", "16Gi", "'16GB'"], marks=pytest.mark.long),
        pytest.param({"beta9_max_cpu": "8"}, ["beta9_max_cpu", "8000m"], marks=pytest.mark.long),
        pytest.param({"agent_keepalive_interval": 600}, ["agent_keepalive_interval", "5 to 240"], marks=pytest.mark.long),
    ],
)
def test_bad_variable_is_named_before_anything_is_changed(unchanged, variables, words):
    status, output = unchanged.play("onboard_worker.yml", "-e", json.dumps(variables))
    assert status != 0
    plain = " ".join(output.split()).replace("''", "'")
    for word in words + ["nothing was changed"]:
        assert word in plain, output
    assert all(row["changed"] == 0 for row in recap(output).values()), output


def test_all_problems_of_a_host_in_one_message(unchanged):
    _status, output = unchanged.play("onboard_worker.yml", "-e", json.dumps({"beta9_pool": "gqu", "beta9_max_memory": "16GB", "preflight_min_disk_mib": 10**9}))
    assert "3 problems, nothing was changed" in output, output


def token_of_kind(bed, kind):
    """Plant a token of another kind in the gateway."""
    text = "canary-%s-0123456789abcdef" % kind
    bed.sh(bed.gateway, "redis-cli hset double:token:$(printf %%s %s | sha256sum | cut -d' ' -f1) kind %s active 1 >/dev/null" % (text, kind))
    return text


@pytest.mark.parametrize("kind", [pytest.param("machine", marks=pytest.mark.long), "workspace", pytest.param("unknown", marks=pytest.mark.long)])
def test_other_token_on_the_admin_api(unchanged, kind, tmp_path):
    path = tmp_path / "token"
    path.write_text(token_of_kind(unchanged, kind) if kind != "unknown" else "canary-unknown-0123456789abcdef")
    status, output = unchanged.play("onboard_worker.yml", "-e", "beta9_admin_token_file=%s" % path)
    assert status != 0 and "beta9_admin_token_file" in output and "nothing was changed" in output, output
    assert "canary" not in output


def test_admin_token_on_the_machine_api_is_replaced(onboarded):
    worker = onboarded.workers[0]
    admin = (onboarded.inventory.parent / "admin_token").read_text()
    before = onboarded.machine_id(worker)
    onboarded.sh(worker, "printf %%s '%s' > /etc/beta9/credentials/machine_token; systemctl restart --no-block beta9-agent; sleep 1" % admin)
    assert "token_wrong_type" in onboarded.sh(worker, "cat /run/beta9-agent/state.json")
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)
    assert status == 0, output
    # nothing on the host proves any more that the old machine is its own: it is left to expire
    assert onboarded.machine_id(worker) != before and onboarded.machines()[onboarded.machine_id(worker)] == "ready"


def test_port_taken_by_another_program(onboarded):
    worker, other = onboarded.workers
    onboarded.sh(worker, "systemctl stop beta9-tunnel; systemd-run -q --unit squatter python3 -m http.server 1994 --bind 127.0.0.1; sleep 0.5")
    try:
        status, output = onboarded.play("onboard_worker.yml")
        assert status != 0 and "port 1994" in output and "python3" in output, output
        assert re.search(other + r" +[0-9a-f]{8} +gpu +ready", output), output
    finally:
        onboarded.sh(worker, "systemctl stop squatter; systemctl start beta9-tunnel")


@pytest.mark.long
def test_changed_host_key_of_the_gateway(onboarded):
    worker = onboarded.workers[0]
    onboarded.sh(
        worker,
        """cp /etc/beta9/tunnel/known_hosts /dev/shm/known
        ssh-keygen -q -t ed25519 -N '' -f /dev/shm/fake
        sed -i "s#ssh-ed25519 .*#$(cut -d' ' -f1,2 /dev/shm/fake.pub)#; /ecdsa/d; /ssh-rsa/d" /etc/beta9/tunnel/known_hosts
        systemctl restart --no-block beta9-tunnel; sleep 3""",
    )
    journal = onboarded.sh(worker, "journalctl -u beta9-tunnel -n 20 --no-pager; rm /dev/shm/fake*")
    assert "Host key verification failed" in journal or "IDENTIFICATION HAS CHANGED" in journal, journal
    status, output = onboarded.play("onboard_worker.yml", "-l", worker)  # pins what Ansible itself verified
    assert status == 0, output
    assert onboarded.sh(worker, "diff /dev/shm/known /etc/beta9/tunnel/known_hosts && rm /dev/shm/known") == ""


def test_controller_refuses_a_gateway_with_another_host_key(onboarded, tmp_path):
    """The gateway host's key as the controller knows it is not the one it shows: the step is named, the workers stay as they are."""
    known = onboarded.inventory.parent / "known_hosts"
    text = known.read_text()
    machines = onboarded.machines()
    keys = {line.split()[0].split(",")[0]: line.split()[2] for line in text.splitlines() if "ssh-ed25519" in line}
    fake = "\n".join(
        line.replace(keys[onboarded.gateway], keys[onboarded.workers[0]])
        for line in text.splitlines()
        if onboarded.gateway not in line or "ssh-ed25519" in line
    )
    try:
        known.write_text(fake + "\n")
        status, output = onboarded.play("onboard_worker.yml", ANSIBLE_SSH_CONTROL_PATH_DIR=str(tmp_path))
    finally:
        known.write_text(text)
    assert status != 0 and onboarded.gateway in output and "host key" in output.lower(), output
    assert onboarded.machines() == machines


def test_unreachable_worker_among_good_ones(onboarded, tmp_path):
    inventory = json.loads(onboarded.inventory.read_text())
    hosts = inventory["all"]["children"]["gpu-hosts"]["hosts"]
    hosts["b9t-absent"] = {"ansible_host": "10.89.79.250", "ansible_user": "root", "ansible_ssh_timeout": 3}
    path = tmp_path / "inventory.json"
    path.write_text(json.dumps(inventory))
    status, output = onboarded.play("onboard_worker.yml", "-i", str(path))
    assert status != 0
    assert re.search(r"b9t-absent +- +gpu +unreachable", output), output
    for worker in onboarded.workers:
        assert re.search(worker + r" +[0-9a-f]{8} +gpu +ready", output), output
    # what failed can be gone on with, and nothing else is
    retry = onboarded.root / "onboard_worker.retry"
    assert retry.read_text().split() == ["b9t-absent"] and "--limit @" in output
    hosts["b9t-absent"] = hosts[onboarded.workers[0]]
    path.write_text(json.dumps(inventory))
    status, output = onboarded.play("onboard_worker.yml", "-i", str(path), "--limit", "@onboard_worker.retry", "--list-hosts")
    retry.unlink()
    assert status == 0 and "hosts (1)" in output and onboarded.workers[1] not in output, output


@pytest.mark.long
def test_gateway_down_during_the_run(onboarded):
    onboarded.sh(onboarded.gateway, "systemctl stop beta9-gateway-double")
    try:
        status, output = onboarded.play("onboard_worker.yml")
        assert status != 0 and "nothing listens" in output and "nothing was changed" in output, output
    finally:
        onboarded.sh(onboarded.gateway, "systemctl start beta9-gateway-double")


@pytest.mark.long
def test_two_workers_may_not_share_a_listen_address(onboarded):
    status, output = onboarded.play("onboard_worker.yml", "-e", "autossh_listen_address=127.77.9.9")
    assert status != 0 and re.search(r"listen_address: 127\.77\.9\.9 belongs to worker (%s|%s) already" % onboarded.workers, output), output
    assert len(re.findall(r" gpu +ready +127\.77\.9\.9 ", output)) == 1 and len(re.findall(r" gpu +FAILED ", output)) == 1
    status, output = onboarded.play("onboard_worker.yml")
    assert status == 0 and len(re.findall(r" gpu +ready ", output)) == 2, output
