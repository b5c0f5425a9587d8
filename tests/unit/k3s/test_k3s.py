"""Releases of k3s: names, versions, checksums, and what is known to be in place."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import subprocess
import threading

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.k3s import api, installer
from ansible_collections.beta9.workers.plugins.modules import k3s_ready, k3s_remove

SUM = "a" * 64


def code_of(call, *arguments):
    with pytest.raises(installer.Refused) as caught:
        call(*arguments)
    refused = caught.value
    assert refused.expected and refused.found and refused.remedy and refused.remedy in str(refused)
    assert set(refused.problem()) == {"what", "expected", "found", "remedy"}
    return refused.code


@pytest.mark.parametrize(
    "machine, binary, images",
    [("x86_64", "k3s", "k3s-airgap-images-amd64.tar.zst"), ("aarch64", "k3s-arm64", "k3s-airgap-images-arm64.tar.zst")],
)
def test_names_of_a_release(machine, binary, images):
    names = installer.release(machine)
    assert names == {"binary": binary, "images": images, "sums": names["sums"]} and names["sums"].startswith("sha256sum-")


@pytest.mark.parametrize("machine", ["riscv64", "i686", "s390x"])
def test_other_architectures_are_refused(machine):
    assert code_of(installer.release, machine) == "k3s_architecture"


def test_order_of_versions():
    order = ["v1.35.4+k3s1", "v1.36.0-rc1+k3s1", "v1.36.0+k3s1", "v1.36.0+k3s2", "v1.36.2+k3s1", "v1.36.10+k3s1", "v1.37.0+k3s1"]
    assert sorted(reversed(order), key=installer.version_key) == order


@pytest.mark.parametrize("text", ["latest", "1.36.2", "v1.36.2", "v1.36.2+rke2r1", "", None, "v1.36.2+k3s1; rm"])
def test_what_is_no_version(text):
    assert code_of(installer.version_key, text) == "k3s_version"


def test_steps():
    for current in (None, "v0.0.0", "v1.36.2+k3s1", "v1.36.0+k3s1", "v1.35.4+k3s1"):
        installer.check_step(current, "v1.36.2+k3s1")
    assert code_of(installer.check_step, "v1.36.2+k3s1", "v1.36.1+k3s1") == "k3s_downgrade"
    assert code_of(installer.check_step, "v1.36.2+k3s2", "v1.36.2+k3s1") == "k3s_downgrade"
    assert code_of(installer.check_step, "v1.34.6+k3s1", "v1.36.2+k3s1") == "k3s_step"


def test_list_of_checksums():
    text = "%s  k3s\n%s *k3s-airgap-images-amd64.tar.zst\nnot a line\n%s  k3s-images.txt\n" % (SUM, "b" * 64, "C" * 64)
    assert installer.parse_sums(text) == {"k3s": SUM, "k3s-airgap-images-amd64.tar.zst": "b" * 64}
    assert installer.parse_sums("<html>not found</html>") == {}


def test_operators_checksum_does_not_replace_the_releases():
    assert installer.expected_sum({"k3s": SUM}, "k3s", None, "here") == SUM
    assert installer.expected_sum({"k3s": SUM}, "k3s", SUM.upper(), "here") == SUM
    assert code_of(installer.expected_sum, {"k3s": SUM}, "k3s", "b" * 64, "here") == "k3s_checksum_pinned"
    assert code_of(installer.expected_sum, {}, "k3s", SUM, "here") == "k3s_checksum_list"


def test_plus_of_a_version_in_an_address():
    assert installer.url_of("https://mirror/k3s/", "v1.36.2+k3s1", "k3s") == "https://mirror/k3s/v1.36.2%2Bk3s1/k3s"


@pytest.fixture
def state(tmp_path, monkeypatch):
    """The record in another place."""
    monkeypatch.setattr(installer, "STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(installer, "RECORD", str(tmp_path / "state" / "installed.json"))
    return tmp_path


def test_what_is_in_place_is_known_without_reading_it(state):
    path = state / "k3s"
    path.write_bytes(b"program")
    assert installer.record() == {} and not installer.in_place(str(path), installer.record())
    installer.remember("v1.36.2+k3s1", {str(path): installer.digest_of(str(path))})
    assert installer.record()["version"] == "v1.36.2+k3s1" and installer.in_place(str(path), installer.record())
    os.utime(path, ns=(1, 1))
    assert not installer.in_place(str(path), installer.record())
    path.unlink()
    assert not installer.in_place(str(path), installer.record())


def test_damaged_record_is_none(state):
    (state / "state").mkdir()
    (state / "state" / "installed.json").write_text('{"version": ')
    assert installer.record() == {}


def test_damaged_file_is_refused_and_removed(tmp_path):
    path = tmp_path / "k3s"
    path.write_bytes(b"half")
    assert code_of(installer.verify, str(path), SUM) == "k3s_checksum" and not path.exists()


def test_k3s_of_another_origin(state, monkeypatch):
    unit, binary = state / "k3s.service", state / "k3s"
    monkeypatch.setattr(installer, "UNIT_FILE", str(unit))
    monkeypatch.setattr(installer, "BINARY", str(binary))
    assert installer.is_foreign() is None
    binary.write_text("")
    assert installer.is_foreign() == str(binary)
    unit.write_text("[Unit]\n")
    assert installer.is_foreign() == str(unit)
    unit.write_text("# %s\n[Unit]\n" % installer.MARK)
    assert installer.is_foreign() is None


@pytest.mark.parametrize(
    "text, version",
    [
        ("k3s version v1.36.2+k3s1 (0a1b2c3d)\ngo version go1.24.4\n", "v1.36.2+k3s1"),
        (".k3s.beta9-new version v1.36.2+k3s1 (0a1b2c3d)\n", "v1.36.2+k3s1"),
        ("k3s version unknown\n", None),
        ("", None),
    ],
)
def test_answer_to_version(text, version):
    """It begins with the name that the program is run by."""
    assert installer.told_version(text) == version


RULES = """*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-ABC - [0:0]
:FLANNEL-POSTRTG - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:MINE - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A PREROUTING -m comment --comment "like KUBE-SERVICES" -j MINE
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A KUBE-SERVICES -d 10.43.0.1/32 -p tcp -m comment --comment "default/kubernetes:https" -j KUBE-SVC-ABC
-A MINE -s 192.0.2.1/32 -j RETURN
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
*raw
:PREROUTING ACCEPT [0:0]
COMMIT
"""
REMOVED = """*nat
-D PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-D PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-D POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-F KUBE-SERVICES
-F KUBE-SVC-ABC
-F FLANNEL-POSTRTG
-F CNI-HOSTPORT-DNAT
-X KUBE-SERVICES
-X KUBE-SVC-ABC
-X FLANNEL-POSTRTG
-X CNI-HOSTPORT-DNAT
COMMIT
*filter
-D FORWARD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
"""


def test_rules_of_others_stay():
    assert "\n".join(k3s_remove.commands_of(RULES)) + "\n" == REMOVED
    assert k3s_remove.commands_of("\n".join(line for line in RULES.splitlines() if not any(word in line for word in ("KUBE", "CNI", "lann", "FLANNEL")))) == []


SYSTEMD = [
    "k3s.service: Main process exited, code=exited, status=1/FAILURE",
    "k3s.service: Failed with result 'exit-code'.",
    "Failed to start k3s.service - k3s of this beta9 worker.",
]
FATAL = 'level=fatal msg="kubelet exited: failed to run Kubelet: kubelet is configured to not run on a host using cgroup v1"'
OWN = ['time="2026-11-25T21:00:00Z" level=info msg="Starting k3s v1.36.2+k3s1"', 'time="2026-11-25T21:00:01Z" ' + FATAL]


def test_reason_in_the_journal_is_k3s_own_line():
    entries = [{"_SYSTEMD_UNIT": "k3s.service", "_SYSTEMD_INVOCATION_ID": "a", "MESSAGE": line} for line in OWN]
    entries += [{"_SYSTEMD_UNIT": "init.scope", "INVOCATION_ID": "a", "MESSAGE": line} for line in SYSTEMD]
    show = "Id=k3s.service\nLoadState=loaded\nActiveState=activating\nMainPID=0\nNRestarts=4\nInvocationID=a\n"
    journal = "\n".join(map(json.dumps, reversed(entries)))
    module = type("Module", (), {"run_command": staticmethod(lambda words: (0, show if words[0] == "systemctl" else journal, ""))})()
    assert k3s_ready.last_words(module) == FATAL


def test_node_of_this_host(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "CONFIG", str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml.d").mkdir()
    (tmp_path / "config.yaml.d" / "50-beta9.yaml").write_text("node-name: ours\n")
    assert api.node_name() == "ours"
    (tmp_path / "config.yaml.d" / "60-mine.yaml").write_text("node-name: 'mine'\n")
    assert api.node_name() == "mine"
    nodes = [{"metadata": {"name": name}} for name in ("earlier", "mine")]
    assert api.own_node(nodes) == (nodes[1], ["earlier"])
    assert api.own_node(nodes[:1]) == (nodes[0], []) and api.own_node([]) == (None, [])


def test_restart_interval_is_the_units():
    template = os.path.join(os.path.dirname(__file__), "../../../roles/k3s/templates/k3s.service.j2")
    with open(template, encoding="utf-8") as stream:
        assert "\nRestartSec=%d\n" % installer.RESTART_SECONDS in stream.read()


@pytest.mark.parametrize("base, pinned, insecure", [("https://m.example", "", False), ("http://m.example", SUM, False), ("http://m.example", "", True)])
def test_a_mirror_that_may_be_used(base, pinned, insecure):
    installer.check_mirror(base, "k3s", pinned, insecure)


def test_a_mirror_that_anybody_on_the_way_may_be():
    assert code_of(installer.check_mirror, "http://m.example", "k3s", "", False) == "k3s_mirror_insecure"


def test_certificate_is_what_the_server_shows_whoever_made_it(tmp_path):
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=k3s -keyout key -out crt"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    own = hashlib.sha256(ssl.PEM_cert_to_DER_cert((tmp_path / "crt").read_text())).hexdigest()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve():
            tls.wrap_socket(server.accept()[0], server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        assert api.certificate("127.0.0.1", port, 5) == own
        thread.join()
        with pytest.raises(OSError, match="timed out"):  # a server that takes connections and is silent
            api.certificate("127.0.0.1", port, 0.2)
    with pytest.raises(ConnectionRefusedError):
        api.certificate("127.0.0.1", port, 5)
