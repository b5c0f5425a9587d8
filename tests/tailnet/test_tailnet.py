"""Tailscale mode with the real programs: what happens to nodes and keys, on real hosts."""

from __future__ import annotations

import json
import re
import threading
import time

import pytest

from tests.tailnet.conftest import STATE

WRONG = "wrong-key-0123456789abcdef-not-this-one"


def test_canary_key_is_nowhere(fresh):
    key = fresh.key()
    key_file = STATE / "tailnet" / "canary_key"
    key_file.write_text(key)
    status, output = fresh.onboard("-vvv", limit="gpu-hosts", tailscale_auth_key_file=str(key_file))
    assert status == 0, output[-4000:]
    refused = {"tailscale_auth_key_file": "", "tailscale_auth_key": key + "-but-wrong", "tailscale_tags": ["tag:x"], "tailscale_force_reauth": True}
    status, failed = fresh.onboard("-vvv", **refused)
    assert status != 0
    assert key not in output and key not in failed
    for host in (fresh.worker, fresh.other):
        script = """
        key=$(cat /root/.canary); rm /root/.canary
        journalctl --no-pager -o cat > /root/.journal
        cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' > /root/.argv
        grep -cF -e "$key" /root/.journal /root/.argv
        grep -rlF -e "$key" /etc /opt /run /tmp /var /home /usr/local | wc -l; rm /root/.journal /root/.argv"""
        fresh.sh(host, "umask 077; cat > /root/.canary <<'END'\n%s\nEND\n" % key)
        assert fresh.sh(host, script, check=False).split() == ["/root/.journal:0", "/root/.argv:0", "0"]


def test_gateway_reaches_both_by_their_registered_names(tailnet):
    names = {"%s.beta9.tailnet.example" % host for host in (tailnet.worker, tailnet.other)}
    assert tailnet.machines() == dict.fromkeys(names, "ready")
    for name in names:
        assert tailnet.sh(tailnet.gateway, "curl -sk -m 5 -o /dev/null -w '%%{http_code} %%{remote_ip}' https://%s:6443/" % name).startswith("401 100.64.")
    assert tailnet.health(tailnet.worker, beta9_k3s=True)[1] == []


def test_second_run_needs_no_key_and_restarts_nothing(tailnet):
    started = [tailnet.sh(host, "systemctl show -p ExecMainStartTimestampMonotonic tailscaled") for host in (tailnet.worker, tailnet.other)]
    status, output = tailnet.onboard(limit="gpu-hosts", tailscale_auth_key_file="")
    assert status == 0 and re.findall(r"changed=(\d+)", output) == ["0", "0"], output
    assert started == [tailnet.sh(host, "systemctl show -p ExecMainStartTimestampMonotonic tailscaled") for host in (tailnet.worker, tailnet.other)]


def test_direct_mode_registers_the_address(tailnet):
    address = tailnet.node(tailnet.worker)["TailscaleIPs"][0]
    status, output = tailnet.onboard(tailscale_gateway_mode="direct")
    # this gateway is not in direct mode, so the name can't resolve, and that is what onboarding says and the check has to find
    assert status != 0 and "Set tailscale.directRedisHost" in output, output
    assert address + ".beta9.tailnet.example" in tailnet.machines()
    verdicts, roots = tailnet.health(tailnet.worker)
    assert roots == ["V05"] and verdicts["V05"] == ("fail", "suffix")


def test_expired_key(tailnet):
    tailnet.sh(tailnet.gateway, "headscale nodes expire -i %s --output json" % tailnet.nodes()[tailnet.worker]["id"])
    assert tailnet.until(lambda: tailnet.node(tailnet.worker)["BackendState"] == "NeedsLogin")
    verdicts, roots = tailnet.health(tailnet.worker)
    assert roots == ["V03"] and verdicts["V03"] == ("fail", "expired")
    status, output = tailnet.onboard(tailscale_auth_key_file="")
    assert status != 0 and "its key expired. Set tailscale_auth_key_file" in output
    status, output = tailnet.onboard(tailscale_auth_key_file="", tailscale_auth_key=WRONG)
    assert status != 0 and "this one is wrong, used up or expired" in output and WRONG not in output
    status, output = tailnet.onboard()
    assert status == 0 and tailnet.node(tailnet.worker)["Self"]["Online"], output


def test_deleted_node(tailnet):
    tailnet.sh(tailnet.gateway, "headscale nodes delete --force -i %s" % tailnet.nodes()[tailnet.worker]["id"])
    assert tailnet.until(lambda: tailnet.worker not in json.dumps(tailnet.node(tailnet.gateway)["Peer"]))
    verdicts, roots = tailnet.health(tailnet.worker)
    assert roots == ["V04"] and verdicts["V04"] == ("fail", "unknown")
    status, output = tailnet.onboard()
    assert status == 0, output
    assert tailnet.health(tailnet.worker)[1] == []


def test_stopped_tailscaled_heals_itself(tailnet):
    tailnet.sh(tailnet.worker, "systemctl stop tailscaled")
    verdicts, roots = tailnet.health(tailnet.worker)
    assert roots == ["V03"] and verdicts["V03"] == ("fail", "stopped")
    status, output = tailnet.play("heal_worker.yml", limit=tailnet.worker)
    assert status == 0 and re.search(r"V03 tailscale.state +started tailscaled +healed", output), output


def test_no_token_leaves_by_another_way(tailnet):
    tailnet.sh(tailnet.worker, "systemctl stop tailscaled")
    refused = "import socket\ntry:\n socket.create_connection(('100.64.0.1', 31994), 3); print('connected')\nexcept OSError as e: print(e)"
    said = tailnet.sh(tailnet.worker, 'python3 -c "%s"' % refused)
    tailnet.sh(tailnet.worker, "systemctl start tailscaled")
    assert "refused" in said


def test_node_that_was_taken_down(tailnet):
    tailnet.sh(tailnet.worker, "tailscale down")
    verdicts, roots = tailnet.health(tailnet.worker)
    assert roots == ["V03"] and verdicts["V03"] == ("fail", "down")
    status, output = tailnet.onboard(tailscale_auth_key_file="")
    assert status == 0, output


def test_failed_runs_leave_the_login_alone(tailnet):
    before = tailnet.node(tailnet.worker)["Self"]["PublicKey"]
    elsewhere = "https://%s:9443" % tailnet.sh(tailnet.gateway, "hostname -I").split()[0]
    status, output = tailnet.onboard(tailscale_login_server=elsewhere)
    assert status != 0 and "or set tailscale_force_reauth=true" in output
    verdicts, roots = tailnet.health(tailnet.worker, tailscale_login_server=elsewhere)
    assert roots == ["V03"] and verdicts["V03"] == ("fail", "server")
    status, output = tailnet.onboard(tailscale_login_server=elsewhere, tailscale_force_reauth=True, tailscale_wait_seconds=8)
    assert status != 0 and "Check tailscale_login_server" in output
    status, output = tailnet.onboard(tailscale_auth_key_file="", tailscale_auth_key=WRONG, tailscale_tags=["tag:x"], tailscale_force_reauth=True)
    assert status != 0 and "auth-key not found" in output
    assert tailnet.until(lambda: tailnet.node(tailnet.worker)["Self"]["Online"])
    assert tailnet.node(tailnet.worker)["Self"]["PublicKey"] == before
    assert tailnet.health(tailnet.worker)[1] == []


def test_login_with_tags_by_force(tailnet):
    tagged = json.loads(tailnet.sh(tailnet.gateway, "headscale preauthkeys create --reusable --expiration 1h --tags tag:gpu --output json"))["key"]
    desired = {"tailscale_auth_key_file": "", "tailscale_auth_key": tagged, "tailscale_tags": ["tag:gpu"]}
    status, output = tailnet.onboard(limit=tailnet.other, **desired)
    assert status != 0 and "or set tailscale_force_reauth=true" in output
    # to headscale that is another node, and the old one still has the name
    status, output = tailnet.onboard(limit=tailnet.other, tailscale_force_reauth=True, **desired)
    assert status != 0 and "(offline) has that name" in output, output
    tailnet.sh(tailnet.gateway, "headscale nodes delete --force -i %s" % tailnet.nodes()[tailnet.other]["id"])
    new = next(entry for name, entry in tailnet.nodes().items() if name.startswith(tailnet.other))
    tailnet.sh(tailnet.gateway, "headscale nodes rename -i %s %s" % (new["id"], tailnet.other))
    assert tailnet.until(lambda: tailnet.node(tailnet.other)["Self"]["DNSName"].startswith(tailnet.other + "."))
    status, output = tailnet.onboard(limit=tailnet.other, tailscale_force_reauth=True, **desired)
    assert status == 0, output
    assert tailnet.node(tailnet.other)["Self"]["Tags"] == ["tag:gpu"]
    status, output = tailnet.onboard(limit=tailnet.other, tailscale_force_reauth=True, **desired)
    assert status == 0 and re.findall(r"changed=(\d+)", output) == ["0"], output
    # without tags again: a headscale 0.28 crashes in the login (its issue 3241) until it has forgotten the node
    tailnet.sh(tailnet.other, "tailscale logout")
    status, output = tailnet.onboard(limit=tailnet.other, tailscale_wait_seconds=10)
    assert status == 0 or "The control server itself failed: see its log" in " ".join(output.split()), output
    if status:
        tailnet.sh(tailnet.gateway, "headscale nodes delete --force -i %s" % tailnet.nodes()[tailnet.other]["id"])
    status, output = tailnet.onboard(limit=tailnet.other)
    assert status == 0, output


def test_duplicate_name(tailnet):
    status, output = tailnet.onboard(limit=tailnet.other, tailscale_hostname=tailnet.worker)
    assert status != 0 and "for this node alone" in output
    assert tailnet.node(tailnet.other)["Self"]["DNSName"].startswith(tailnet.other)  # it was not even asked for
    tailnet.sh(tailnet.other, "tailscale set --hostname=" + tailnet.worker)
    assert tailnet.until(lambda: tailnet.node(tailnet.other)["Self"]["DNSName"].startswith(tailnet.worker))
    verdicts, roots = tailnet.health(tailnet.other)
    assert "V03" in roots and verdicts["V03"] == ("fail", "duplicate")
    status, output = tailnet.onboard(limit=tailnet.other)
    assert status == 0, output
    assert tailnet.until(lambda: tailnet.node(tailnet.other)["Self"]["DNSName"].startswith(tailnet.other))


def test_relayed_way_is_a_warning_with_figures(tailnet):
    tailnet.sh(tailnet.worker, "echo TS_DEBUG_ALWAYS_USE_DERP=1 >> /etc/default/tailscaled; systemctl restart tailscaled")
    try:
        assert tailnet.until(lambda: tailnet.node(tailnet.worker)["Self"]["Online"])
        status, output = tailnet.play("health_check.yml", limit=tailnet.worker, health_check_skip=["K05"])
        assert "WARN V04" in output and re.search(r"via DERP\(test\) in [0-9.]+ms", output), output
    finally:
        tailnet.sh(tailnet.worker, "rm /etc/default/tailscaled; systemctl restart tailscaled")


@pytest.fixture
def by_the_tailnet(tailnet):
    """The worker's variables for an Ansible that comes in over the tailnet, by way of the gateway host."""
    inventory = json.loads((STATE / "inventory.yml").read_text())["all"]
    address = tailnet.node(tailnet.worker)["TailscaleIPs"][0]
    known = (STATE / "known_hosts").read_text()
    line = [line for line in known.splitlines() if line.startswith(tailnet.worker + ",") and "ed25519" in line][0]
    (STATE / "known_hosts").write_text(known + "%s %s\n" % (address, line.split(" ", 1)[1]))
    options = inventory["vars"]["ansible_ssh_common_args"]
    gateway = inventory["children"]["beta9_gateway"]["hosts"][tailnet.gateway]["ansible_host"]
    jump = "-o ProxyCommand='ssh %s -i %s -W %%h:%%p root@%s'" % (options, STATE / "id_ed25519", gateway)
    yield {"ansible_host": address, "ansible_ssh_common_args": options + " " + jump}
    (STATE / "known_hosts").write_text(known)


def through(tailnet, variables, **more):
    """Onboard the worker with host variables of its own."""
    extra = STATE / "through.yml"
    extra.write_text(json.dumps({"all": {"hosts": {tailnet.worker: variables}}}))
    return tailnet.onboard("-i", str(extra), **more)


def test_changes_over_the_tailnet_are_confirmed_or_undone(tailnet, by_the_tailnet):
    status, output = through(tailnet, by_the_tailnet, tailscale_accept_routes=True)
    assert status == 0 and "Confirm" in output, output
    assert '"RouteAll": true' in tailnet.sh(tailnet.worker, "tailscale debug prefs")
    with tailnet.direct_gateway():
        status, output = through(tailnet, by_the_tailnet, beta9_connection="autossh")
    assert status != 0 and "Ansible came in over the tailnet" in output, output
    before = tailnet.node(tailnet.worker)["Self"]["PublicKey"]
    elsewhere = "https://%s:9443" % tailnet.sh(tailnet.gateway, "hostname -I").split()[0]
    status, output = through(tailnet, by_the_tailnet, tailscale_login_server=elsewhere, tailscale_force_reauth=True, tailscale_wait_seconds=10)
    assert status != 0
    assert tailnet.until(lambda: tailnet.node(tailnet.worker)["Self"]["Online"], 60)  # it came back by itself
    assert tailnet.node(tailnet.worker)["Self"]["PublicKey"] == before


def test_autossh_and_back(tailnet):
    seen, stop = [], threading.Event()

    def watch():
        while not stop.is_set():
            seen.append((time.monotonic(), sorted(tailnet.machines().values())))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        with tailnet.direct_gateway():
            status, output = tailnet.onboard(limit="gpu-hosts", beta9_connection="autossh")
        assert status == 0, output
        assert all(left_of_tailscale(tailnet, host) == "" for host in (tailnet.worker, tailnet.other))
        status, output = tailnet.onboard(limit="gpu-hosts")
        assert status == 0, output
    finally:
        stop.set()
        watcher.join()
    gaps, last_ready = [0.0], None
    for moment, states in seen:
        if states == ["ready", "ready"]:
            gaps.append(moment - (last_ready or moment))
            last_ready = moment
    print("longest time without two ready machines: %.1f s" % max(gaps))
    assert max(gaps) <= 60
    for host in (tailnet.worker, tailnet.other):
        assert tailnet.sh(host, "ls -d /etc/beta9/tunnel /etc/beta9/credentials/tunnel_key /etc/systemd/system/beta9-tunnel* 2>/dev/null", check=False) == ""
        assert tailnet.sh(host, "id -u beta9-tunnel 2>/dev/null", check=False) == ""
    assert tailnet.sh(tailnet.gateway, "cat /etc/ssh/beta9-tunnel/authorized_keys") == ""
    assert sorted(tailnet.nodes()) == sorted([tailnet.gateway, tailnet.worker, tailnet.other])  # back as the same nodes


def left_of_tailscale(tailnet, host):
    """Return what of the tailnet is left on a host, but for the identity by which it comes back as the same node."""
    return tailnet.sh(
        host,
        "ls -d /etc/beta9/tailscale /etc/systemd/system/tailscaled* /etc/systemd/system/beta9-firewall* /usr/local/*bin/tailscale* /run/tailscale "
        "/run/beta9-tailnet /var/cache/tailscale /sys/class/net/tailscale0 2>/dev/null; pgrep -x tailscaled; nft list tables | grep beta9; "
        "nft list ruleset | grep ts-; ip rule | grep -v 'local\\|main\\|default'",
        check=False,
    )


def away(tailnet, host):
    """Offboard a host, and delete its node: it forgot its identity, and comes back as another one."""
    status, output = tailnet.play("offboard_worker.yml", limit=host)
    assert status == 0, output
    tailnet.sh(tailnet.gateway, "headscale nodes delete --force -i %s" % tailnet.nodes()[host]["id"])


def test_package_of_a_repository(tailnet):
    """Without a static release: the source that somebody wrote by hand gives way, others who work on the packages are named."""
    source = json.loads((STATE / "tailnet.yml").read_text())["all"]["vars"]["tailscale_artifact_url"].rpartition("/")[0]
    package = {"tailscale_artifact_url": "", "tailscale_artifact_checksum": "", "tailscale_repository_url": source, "limit": tailnet.other}
    package["tailscale_repository_key_fingerprint"] = tailnet.do("tailnet.py", "packages").strip().splitlines()[-1]
    away(tailnet, tailnet.other)
    tailnet.sh(
        tailnet.other,
        f"""
        . /etc/os-release; touch /usr/share/keyrings/tailscale-archive-keyring.gpg
        key=/usr/share/keyrings/tailscale-archive-keyring.gpg
        echo "deb [signed-by=$key] {source}/debian $VERSION_CODENAME main" > /etc/apt/sources.list.d/tailscale.list
        systemd-run -q --unit holder python3 -c "import fcntl, time; f = open('/var/lib/dpkg/lock', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(99)"
        sleep 1""",
    )
    status, output = tailnet.onboard(beta9_package_lock_seconds=2, **package)
    tailnet.sh(tailnet.other, "systemctl stop holder")
    assert status != 0 and "/var/lib/dpkg/lock held by" in " ".join(output.split()), output
    assert tailnet.sh(tailnet.other, "command -v tailscale", check=False) == ""
    status, output = tailnet.onboard(**package)
    assert status == 0, output
    assert tailnet.sh(tailnet.other, "dpkg-query -W -f '${Version}' tailscale; ls /etc/apt/sources.list.d") == "1.94.1tailscale.sources"
    # nothing to change, also where a static release was asked for meanwhile: the package's program is as good
    for settings in (package, {"limit": tailnet.other}):
        status, output = tailnet.onboard(**settings)
        assert status == 0 and re.findall(r"changed=(\d+)", output) == ["0"], output
    away(tailnet, tailnet.other)
    assert left_of_tailscale(tailnet, tailnet.other) == ""


def test_offboarded_host_has_nothing_left(tailnet):
    status, output = tailnet.play("offboard_worker.yml", limit=tailnet.other)
    assert status == 0, output
    assert left_of_tailscale(tailnet, tailnet.other) == ""
    assert tailnet.sh(tailnet.other, "ls -d /var/lib/tailscale /etc/beta9 2>/dev/null", check=False) == ""
