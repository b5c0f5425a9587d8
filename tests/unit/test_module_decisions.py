"""What modules decide, on real files, keys, sockets and locks, without a host to change."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import pwd
import shutil
import socket
import signal
import subprocess
import tarfile
import types

import pytest

from ansible_collections.beta9.workers.plugins.module_utils.host import openpgp, package_sets, secretfiles
from ansible_collections.beta9.workers.plugins.module_utils.tunnel import peers, sshd_effective
from ansible_collections.beta9.workers.plugins.modules import (
    agent_bundle,
    agent_install,
    host_initramfs,
    host_packages,
    host_repository,
    host_unit,
    k3s_install,
    machine_keepalive,
    nvidia_cdi,
    tailscale_node,
    tunnel_peer,
    tunnel_sshd,
)
from tests.conftest import ROOT

ME = pwd.getpwuid(os.geteuid()).pw_name
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGx4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHl4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4"


class Failed(Exception):
    """A module ended with fail_json."""


def module_of(check_mode=False, **params):
    """Return what a module's functions need of AnsibleModule."""

    def fail_json(**result):
        raise Failed(result["msg"])

    return types.SimpleNamespace(params=params, check_mode=check_mode, fail_json=fail_json, run_command=None)


# -- host_repository --


@pytest.fixture(scope="module")
def signing_keys(tmp_path_factory):
    """Two keys: (armoured, fingerprint) each, and both in one file."""
    if not shutil.which("gpg"):
        pytest.skip("gpg makes the keys")
    home = tmp_path_factory.mktemp("g")
    home.chmod(0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    found = []
    for name in ("a@example.com", "b@example.com"):
        subprocess.run([*gpg, "--quick-gen-key", name, "ed25519", "sign", "never"], check=True, capture_output=True)
        armoured = subprocess.run([*gpg, "--armor", "--export", name], check=True, capture_output=True).stdout
        found.append((armoured, openpgp.Key(armoured).fingerprints[0]))
    both = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True).stdout
    return found, both


def test_a_second_key_in_the_file_is_not_trusted(signing_keys):
    ((first, fingerprint), (second, other)), both = signing_keys
    assert host_repository.right_key(first, fingerprint).fingerprints == [fingerprint]
    for data, wanted in (
        (both, fingerprint),
        (both, other),
        (second, fingerprint),
        (b"<html>", fingerprint),
        (first + second, fingerprint),
    ):
        with pytest.raises(host_repository.Refused, match=wanted):
            host_repository.right_key(data, wanted)


def test_a_key_file_is_installed_as_it_was_written_here(signing_keys, tmp_path):
    ((first, fingerprint), (second, _other)), both = signing_keys
    path = tmp_path / "key.asc"
    right = host_repository.right_key(first, fingerprint).armour
    for content, good in ((None, False), (right, True), (right + b"\n", False), (both, False), (second, False)):
        if content is not None:
            path.write_bytes(content)
        assert host_repository.installed(str(path), fingerprint) is good


@pytest.mark.parametrize("text", [None, "", "ABCD", "g" * 40, "A" * 39, "A" * 65])
def test_fingerprint_that_is_none(text):
    with pytest.raises(host_repository.Refused, match="40 hexadecimal digits"):
        host_repository.expected({"fingerprint": text})
    assert host_repository.expected({"fingerprint": "ab " * 20}) == "AB" * 20


APT = {
    "manager": "apt",
    "name": "nvidia",
    "url": "https://repo.example.com/x/",
    "suite": "/",
    "components": [],
    "signed": "packages",
    "pin_version": "",
    "pin_packages": "",
}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "a\nb"},
        {"components": ["main\nURIs: http://evil"]},
        {"suite": "a b;c"},
        {"url": "https://h/ [trusted=yes]"},
        {"pin_version": "1\nPin: x"},
    ],
    ids=str,
)
def test_values_say_no_more_in_a_file_than_they_should(change):
    with pytest.raises(host_repository.Refused):
        host_repository.check_values(dict(APT, **change))
    host_repository.check_values(APT)


def test_repository_is_only_believed_with_its_key():
    sources = host_repository.texts(APT, "/etc/apt/keyrings/nvidia.asc")["/etc/apt/sources.list.d/nvidia.sources"]
    assert (
        "\nSigned-By: /etc/apt/keyrings/nvidia.asc\n" in sources
        and "\nURIs: https://repo.example.com/x/\nSuites: /\n" in sources
    )
    repo = host_repository.texts(dict(APT, manager="dnf"), "/etc/pki/rpm-gpg/nvidia.asc")[
        "/etc/yum.repos.d/nvidia.repo"
    ]
    assert "\ngpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/nvidia.asc\n" in repo
    [repo] = host_repository.texts(dict(APT, manager="dnf", signed="index"), "/k").values()
    assert "\ngpgcheck=0\nrepo_gpgcheck=1\ngpgkey=file:///k\n" in repo
    [repo] = host_repository.texts(dict(APT, manager="dnf", signed="both"), "/k").values()
    assert "\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file:///k\n" in repo
    pinned = host_repository.texts(dict(APT, pin_version="580.1", pin_packages="nvidia-*"), "/k")[
        "/etc/apt/preferences.d/nvidia"
    ]
    assert (
        "Pin: version 580.1.*\n" in pinned
        and "Pin: version 580.1-*\n" in pinned
        and pinned.count("Pin-Priority: 1001") == 2
    )
    assert host_repository.index_urls(APT) == ["https://repo.example.com/x/InRelease"]
    assert host_repository.index_urls(dict(APT, suite="a b")) == [
        "https://repo.example.com/x/dists/%s/InRelease" % suite for suite in "ab"
    ]
    assert host_repository.index_urls(dict(APT, manager="dnf")) == ["https://repo.example.com/x/repodata/repomd.xml"]


# -- agent_install --


def bundle(folder, *members):
    """Return (path, digest) of an archive of (name, content or type)."""
    path = folder / "bundle.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
            else:
                entry.type, entry.linkname = content.encode(), "/etc/passwd"
                archive.addfile(entry)
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target/wheels").mkdir(parents=True)
    return tmp_path / "target"


def test_bundle_is_unpacked(tmp_path, target):
    path, digest = bundle(tmp_path, ("requirements.txt", b"a"), ("wheels/b-1.0-py3-none-any.whl", b"b"))
    agent_install.unpack(path, digest, str(target))
    assert (target / "requirements.txt").read_bytes() == b"a" and (
        target / "wheels/b-1.0-py3-none-any.whl"
    ).read_bytes() == b"b"


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "wheels/../../evil.whl",
        "wheels/a/../../../evil.whl",
        "wheels/.hidden.whl",
        "wheels/a/b.whl",
        "wheels/x.txt",
        "setup.py",
        "wheels/a.whl\n",
    ],
)
def test_bundle_writes_nowhere_else(tmp_path, target, name):
    path, digest = bundle(tmp_path, (name, b"x"))
    with pytest.raises(ValueError, match="expected requirements.txt and wheels"):
        agent_install.unpack(path, digest, str(target))
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_bundle_has_plain_files_only(tmp_path, target, kind):
    path, digest = bundle(tmp_path, ("wheels/a.whl", kind.decode()))
    with pytest.raises(ValueError, match="expected requirements.txt and wheels"):
        agent_install.unpack(path, digest, str(target))


def test_bundle_of_another_digest_or_behind_a_link_is_refused(tmp_path, target):
    path, digest = bundle(tmp_path, ("requirements.txt", b"a"))
    with pytest.raises(ValueError, match="expected SHA-256"):
        agent_install.unpack(path, "0" * 64, str(target))
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError):
        agent_install.unpack(str(tmp_path / "link"), digest, str(target))
    with pytest.raises(ValueError, match="plain file"):
        agent_install.unpack("/dev/null", digest, str(target))
    assert not list(target.glob("*.txt"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_others_own_or_may_write_is_foreign(tmp_path):
    directory = tmp_path / "agent"
    assert agent_install.foreign(str(directory)) == ""
    (directory / "versions").mkdir(parents=True)
    path = directory / "versions/python"
    path.write_text("")
    path.chmod(0o755)
    (directory / "versions").chmod(0o755)
    directory.chmod(0o755)
    (directory / "current").symlink_to("versions")
    assert agent_install.foreign(str(directory)) == ""
    for mode in (0o775, 0o757):
        path.chmod(mode)
        assert agent_install.foreign(str(directory)) == "%s has mode %04o" % (path, mode)
    path.chmod(0o755)
    os.chown(path, 1234, 0)
    assert agent_install.foreign(str(directory)) == "%s belongs to uid 1234" % path
    agent_install.discard(str(directory), "")
    assert path.exists()
    agent_install.discard(str(directory), "x")
    assert not directory.exists()


def test_version_of_the_agent_is_that_of_its_sources(tmp_path):
    shutil.copytree(ROOT / "agent_src", tmp_path / "a")
    before = agent_bundle.version_of(str(tmp_path / "a"))
    assert before == agent_bundle.version_of(str(ROOT / "agent_src"))
    (tmp_path / "a/requirements.txt").open("a").write("\n")
    assert agent_bundle.version_of(str(tmp_path / "a")) != before
    wrong = agent_bundle.execute(
        {"source": str(tmp_path / "a"), "cache": str(tmp_path / "c"), "architectures": ["riscv64"]}, False
    )
    assert wrong["failed"] and wrong["code"] == "architecture_unknown" and "x86_64" in wrong["msg"]
    checked = agent_bundle.execute(
        {"source": str(tmp_path / "a"), "cache": str(tmp_path / "c"), "architectures": ["x86_64"]}, True
    )
    assert checked["bundles"]["x86_64"]["sha256"] == "" and not (tmp_path / "c").exists()


# -- host_unit and tunnel_sshd: which verbs --

UP = {
    "LoadState": "loaded",
    "ActiveState": "active",
    "UnitFileState": "enabled",
    "NeedDaemonReload": "no",
    "FragmentPath": "",
}
UNIT = {"name": "x.service", "state": "started", "files": [], "reload_files": []}
LONG_AGO = {
    "ExecMainStartTimestampMonotonic": "1",
    "StateChangeTimestampMonotonic": "1",
    "ActiveEnterTimestampMonotonic": "1",
}


@pytest.mark.parametrize(
    ("params", "unit", "verbs"),
    [
        ({}, {}, []),
        ({}, {"NeedDaemonReload": "yes"}, ["daemon-reload"]),
        (
            {},
            {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": ""},
            ["daemon-reload", "enable", "start"],
        ),
        ({}, {"LoadState": "error", "ActiveState": "failed"}, ["daemon-reload", "start"]),
        ({}, {"LoadState": "bad-setting", "ActiveState": "inactive"}, ["daemon-reload", "start"]),
        ({}, {"UnitFileState": "disabled"}, ["enable"]),
        ({}, {"UnitFileState": ""}, ["enable"]),
        ({}, {"ActiveState": "failed"}, ["start"]),
        ({}, {"ActiveState": "deactivating"}, ["start"]),
        ({"files": ["new"]}, LONG_AGO, ["restart"]),
        ({"files": ["old"]}, {}, []),
        ({"state": "reloaded", "files": ["new"]}, LONG_AGO, ["reload"]),
        ({"reload_files": ["new"]}, LONG_AGO, ["reload"]),
        ({"reload_files": ["new"]}, dict(LONG_AGO, ActiveState="reloading"), ["reload"]),
        ({"reload_files": ["new"]}, dict(LONG_AGO, ActiveState="activating"), ["restart"]),
        ({"reload_files": ["new"]}, dict(LONG_AGO, ActiveState="inactive"), ["start"]),
        ({"state": "absent"}, {}, ["disable --now"]),
        ({"state": "absent"}, {"ActiveState": "inactive", "UnitFileState": "enabled"}, ["disable --now"]),
        ({"state": "absent"}, {"ActiveState": "failed", "UnitFileState": "disabled"}, []),
        ({"state": "absent"}, {"LoadState": "not-found", "ActiveState": "inactive", "UnitFileState": None}, []),
        ({"state": "absent"}, {"LoadState": "not-found", "ActiveState": "active", "UnitFileState": ""}, []),
    ],
    ids=str,
)
def test_what_a_unit_needs(tmp_path, params, unit, verbs):
    (tmp_path / "new").write_text("")
    params = {
        name: [str(tmp_path / "new") for _file in value if _file == "new"] if isinstance(value, list) else value
        for name, value in params.items()
    }
    found, reason = host_unit.plan(dict(UNIT, **params), dict(UP, **unit))
    assert found == verbs and bool(reason) == any(params.get(name) for name in ("files", "reload_files"))


def sshd(**units):
    """Return units as module tunnel_sshd sees them."""
    return {
        name.replace("_", "."): dict(LONG_AGO, Id=name.replace("_", "."), ActiveState="active", **more)
        for name, more in units.items()
    }


@pytest.mark.parametrize(
    ("found", "command"),
    [
        (sshd(ssh_service={}), ["reload", "ssh.service"]),
        (sshd(ssh_service={}, ssh_socket={"Triggers": "ssh.service"}), ["try-restart", "ssh.service"]),
        (sshd(ssh_socket={"Triggers": "ssh@.service"}), []),
        ({}, None),
    ],
)
def test_how_sshd_reads_its_files(tmp_path, found, command):
    (tmp_path / "new").write_text("")
    assert tunnel_sshd.plan(found, [str(tmp_path / "new")]) == command
    assert tunnel_sshd.plan(found, []) == ([] if command is not None else None)


# -- tunnel_peer: two at a time, and who listens --


def test_register_is_changed_by_one_at_a_time(tmp_path):
    with tunnel_peer.locked(str(tmp_path)):
        handle = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


@pytest.fixture
def listening():
    """A socket that this account listens on, on an address of its own."""
    with socket.create_server(("127.77.9.9", 0)) as listener:
        yield listener.getsockname()


def test_place_of_a_tunnel_is_free_or_held_by_its_own_account(listening):
    address, port = listening
    assert (
        tunnel_peer.occupied("127.77.9.10", port, "nobody") is None and tunnel_peer.occupied(address, port, ME) is None
    )
    assert "(pid %d) on %s" % (os.getpid(), address) in tunnel_peer.occupied(address, port, "nobody")


@pytest.mark.parametrize(
    ("change", "key", "outcome"),
    [
        ({}, KEY, "refused"),
        ({"identity": "new"}, KEY, "refused"),
        ({"identity": "this"}, KEY, "ended"),
        ({"tunnel_runs": True}, KEY, None),
        ({}, OTHER_KEY, None),
        ({"user": "nobody"}, KEY, None),
    ],
)
def test_tunnel_of_another_host_of_this_name(listening, change, key, outcome):
    address, port = listening
    params = dict({"tunnel_runs": False, "user": ME, "listen_port": port, "identity": "", "name": "gpu-1"}, **change)
    peer = {"key": OTHER_KEY, "address": address}
    if outcome == "refused":
        with pytest.raises(peers.PeerError, match="two hosts with one name"):
            tunnel_peer.other_tunnel(params, peer, key)
    else:
        assert tunnel_peer.other_tunnel(params, peer, key) == (os.getpid() if outcome else None)
    assert (
        tunnel_peer.other_tunnel(params, None, key) is None
        and tunnel_peer.other_tunnel(params, dict(peer, key=None), key) is None
    )


@pytest.fixture
def register(tmp_path, monkeypatch):
    """Return a function that runs apply() on a register; sshd itself is asked on test hosts."""
    monkeypatch.setattr(
        tunnel_peer, "verify", lambda *_arguments: (["ssh-ed25519 HOSTKEY"], [sshd_effective.key_type(KEY)])
    )
    (tmp_path / "keys").write_text("# by hand\n")
    os.chmod(tmp_path / "keys", 0o644)

    def run(check_mode=False, **change):
        params = {
            "name": "gpu-1",
            "state": "present",
            "public_key": KEY,
            "user": ME,
            "identity": "",
            "tunnel_runs": True,
            "worker_address": None,
        }
        params.update(
            path=str(tmp_path / "keys"),
            listen_address=None,
            listen_port=6443,
            permit_open=["localhost:31994"],
        )
        return tunnel_peer.apply(module_of(check_mode, **dict(params, **change)), dict(params, **change))

    run.path = tmp_path / "keys"
    return run


def test_worker_is_let_in_once_and_out_again(register):
    assert register(check_mode=True)["changed"] and register.path.read_text() == "# by hand\n"
    first = register()
    assert first["changed"] and KEY in register.path.read_text() and first["host_keys"] == ["ssh-ed25519 HOSTKEY"]
    assert not register()["changed"]
    os.chmod(register.path, 0o600)
    assert register(check_mode=True)["changed"] and register.path.stat().st_mode & 0o777 == 0o600
    assert register()["changed"] and register.path.stat().st_mode & 0o777 == 0o644
    assert register(state="absent", check_mode=True)["changed"] and register(state="absent")["changed"]
    assert not register(state="absent")["changed"] and register.path.read_text() == "# by hand\n"


def test_key_of_another_worker(register):
    """A copied host: its key is refused, made again, or taken from the other, as was said."""
    register(name="gpu-2")
    before = register.path.read_text()
    with pytest.raises(peers.PeerError, match="gpu-2"):
        register()
    told = register(identity="new")
    assert told["copied"] and not told["changed"] and register.path.read_text() == before
    assert register(identity="this")["changed"] and list(peers.parse(register.path.read_text())) == ["gpu-1"]
    assert "copied" not in register(identity="new")


# -- host_packages: what a package manager may be asked for --


class Manager:
    """A package manager that has versions 1 and 2 of everything."""

    download_path = "/"

    def __init__(self, outlook=None, held=(), **installed):
        self.now, self.asked, self.frozen = dict(installed), [], set(held)
        self.outlook = dict({"install": {}, "remove": [], "download": 0, "space": 0}, **(outlook or {}))

    def refresh(self):
        self.asked.append("refresh")
        return ""

    def available(self, _name):
        return ["2", "1"]

    def spec(self, name, version):
        return name + ("=" + version if version else "")

    def simulate(self, specs):
        self.asked.append(("simulate", specs))
        return dict(
            self.outlook,
            install=self.outlook["install"]
            or {spec.partition("=")[0]: spec.partition("=")[2] or "2" for spec in specs},
        )

    def held(self):
        return self.frozen

    def fetch(self, specs):
        self.asked.append(("fetch", specs))

    def install(self, specs):
        self.asked.append(("install", specs))
        self.now.update({spec.partition("=")[0]: spec.partition("=")[2] or "2" for spec in specs})

    def installed(self):
        return self.now

    def has(self, name, version):
        return self.now.get(name) == version


PACKAGES = {
    "name": "set",
    "packages": ["a", "b"],
    "version": "",
    "branch": "",
    "upgrade": False,
    "stream": "",
    "removable": "(?!)",
    "hold": "",
    "hold_version": "",
    "hold_names": [],
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    monkeypatch.setattr(host_packages.linux, "PACKAGE_SETS_DIR", str(tmp_path / "sets"))

    def run(manager, check_mode=False, begun=None, **params):
        record = host_packages.Record("set")
        if begun is not None:
            record.write(begun)
        return host_packages.install(
            module_of(check_mode, **dict(PACKAGES, **params)), manager, record, dict(manager.now)
        )

    return run


def test_set_is_fetched_before_it_is_installed_and_remembered_meanwhile(install):
    manager = Manager(a="1")
    assert install(manager) == ({"b": "2"}, [], True)
    assert [step if isinstance(step, str) else step[0] for step in manager.asked] == [
        "refresh",
        "simulate",
        "fetch",
        "install",
    ]
    assert host_packages.Record("set").read() == {"b": ""}
    host_packages.Record("set").forget()
    assert host_packages.Record("set").read() == {} and install(Manager(a="1", b="1")) == ({}, [], False)


def test_check_mode_asks_and_changes_nothing(install):
    manager = Manager()
    assert (
        install(manager, check_mode=True)[2]
        and [step[0] for step in manager.asked] == ["simulate"]
        and host_packages.Record("set").read() == {}
    )


def test_what_was_begun_is_ended(install):
    manager = Manager(a="1", b="1")
    coming, _removed, changed = install(manager, begun={"c": ""})
    assert changed and coming == {"c": "2"} and manager.now["c"] == "2"


def test_version_that_was_wished_for(install):
    manager = Manager(a="1", b="2")
    assert install(manager, version="2")[0] == {"a": "2"} and manager.asked[1] == ("simulate", ["a=2"])
    with pytest.raises(package_sets.PackageError, match="version 3"):
        install(Manager(a="1"), version="3")
    assert install(Manager(a="1", b="1"), upgrade=True)[2]


@pytest.mark.parametrize(
    ("outlook", "held", "params", "words"),
    [
        ({"remove": ["other"]}, (), {}, "other would be removed"),
        ({"remove": ["other"]}, (), {"removable": "oth"}, None),
        ({}, ("b",), {}, "held by somebody else"),
        ({}, ("b",), {"hold": "b"}, None),
        ({}, ("b",), {"hold_names": ["b"]}, None),
        ({}, ("z",), {}, None),
    ],
)
def test_packages_of_others_stay(install, outlook, held, params, words):
    manager = Manager(outlook, held)
    if words is None:
        assert install(manager, **params)[2]
    else:
        with pytest.raises(package_sets.PackageError, match=words):
            install(manager, **params)
        assert "install" not in [step[0] for step in manager.asked] and manager.now == {}


def test_one_of_several_versions_is_asked_for_by_name_and_version(install):
    manager = Manager(a="1")
    assert install(manager, packages=["a=2"])[0] == {"a": "2"} and manager.asked[1] == ("simulate", ["a=2"])
    host_packages.Record("set").forget()
    assert install(Manager(a="1"), packages=["a=1"]) == ({}, [], False)


def test_package_that_would_not_come_is_missed(install):
    with pytest.raises(package_sets.PackageError, match="b is neither installed nor would be"):
        install(Manager({"install": {"a": "2"}}))


def test_branch(install):
    """As Ubuntu's transitional packages: one has the name of the branch, and brings another."""
    desired = {"branch": "2", "hold_version": r"\d+\."}
    assert install(Manager({"install": {"a": "2.1", "b": "1-2", "other": "9.1"}}), **desired)[2]
    host_packages.Record("set").forget()
    with pytest.raises(package_sets.PackageError, match="packages of branch 2 alone, found that b 3.1 would come"):
        install(Manager({"install": {"a": "2.1", "b": "3.1", "other": "9.1"}}), **desired)
    manager = Manager()
    manager.available = lambda _name: ["10.3", "2.10", "2.9"]
    install(manager, branch="2")
    assert manager.asked[1] == ("simulate", ["a=2.10", "b=2.10"])


# -- others --


@pytest.mark.parametrize(
    ("params", "names"),
    [({}, 1), ({"images": True}, 2), ({"extra_images": [{"name": "x.tar", "sha256": "A"}]}, 2)],
)
def test_files_of_a_release(params, names, monkeypatch):
    monkeypatch.setattr(k3s_install.platform, "machine", lambda: "x86_64")
    desired = dict({"images": False, "extra_images": []}, **params)
    assert len(k3s_install.desired(desired)) == names
    for wrong in ("../x.tar", "x.sh", "a/b.tar"):
        with pytest.raises(k3s_install.installer.Refused):
            k3s_install.desired(dict(desired, extra_images=[{"name": wrong, "sha256": ""}]))
    assert (
        os.path.dirname(k3s_install.staged("/a/b.tar")) == "/a"
        and os.path.basename(k3s_install.staged(k3s_install.installer.BINARY)) == "k3s"
    )


def test_login_asks_for_what_was_wished():
    desired = {
        "login_server": "",
        "hostname": "w1",
        "accept_routes": False,
        "accept_dns": None,
        "tags": ["tag:b", "tag:a"],
        "timeout_seconds": 5,
    }
    flags = tailscale_node.login_flags(desired)
    assert (
        "--advertise-tags=tag:a,tag:b" in flags
        and "--accept-routes=false" in flags
        and not any("accept-dns" in flag for flag in flags)
    )


def test_specification_of_ours_and_of_nobody(tmp_path):
    assert nvidia_cdi.read(str(tmp_path / "none")) == "" and nvidia_cdi.MARK.startswith("# ")
    answers = {"text": (0, 'cdiVersion: "0.5.0"\nkind: nvidia.com/gpu\ndevices:\n- name: "0"\n', "")}
    module = module_of()
    module.run_command = lambda _words: answers["text"]
    assert nvidia_cdi.generate(module).startswith(nvidia_cdi.MARK)
    for answers["text"] in ((1, "", "no driver"), (0, "devices: []\n", "")):
        with pytest.raises(Failed, match="expected at least one device"):
            nvidia_cdi.generate(module)


def test_images_of_installed_kernels_only(tmp_path, monkeypatch):
    monkeypatch.setattr(host_initramfs.glob, "glob", lambda _pattern: ["/lib/modules/6.1", "/lib/modules/6.2"])
    (tmp_path / "initrd.img-6.1").write_text("")
    (tmp_path / "initrd.img-5.0").write_text("")
    assert host_initramfs.images(str(tmp_path / "initrd.img-%s")) == [str(tmp_path / "initrd.img-6.1")]


# -- secretfiles --


def test_secret_is_never_readable_and_a_killed_run_is_taken_over(tmp_path):
    path = tmp_path / "token"
    (tmp_path / "elsewhere").write_text("kept")
    (tmp_path / "token.beta9-new").symlink_to(tmp_path / "elsewhere")  # what somebody else put in the way
    before = os.umask(0)
    try:
        assert secretfiles.write(str(path), "one", 0o640)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640 and (tmp_path / "elsewhere").read_text() == "kept"
    before = os.umask(0o077)
    try:
        secretfiles.replace(str(path), b"two", 0o644)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644 and sorted(os.listdir(tmp_path)) == ["elsewhere", "token"]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        secretfiles.replace(str(tmp_path / "folder"), b"x", 0o600)
    assert os.listdir(tmp_path) == ["folder"]


def test_link_is_replaced_by_a_file(tmp_path):
    (tmp_path / "elsewhere").write_text("one")
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")
    assert secretfiles.write(str(tmp_path / "token"), "one") and not (tmp_path / "token").is_symlink()
    assert not secretfiles.write(str(tmp_path / "token"), "one")
    assert (
        secretfiles.write(str(tmp_path / "token"), "two", check_mode=True) and (tmp_path / "token").read_text() == "one"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_and_directories_are_repaired(tmp_path, monkeypatch):
    path = tmp_path / "own/token"
    monkeypatch.setattr(secretfiles, "OWN", (str(tmp_path / "own"),))
    secretfiles.write(str(path), "one")
    os.chown(path, 1234, 1234)
    assert secretfiles.write(str(path), "one", check_mode=True) and path.stat().st_uid == 1234
    assert secretfiles.write(str(path), "one") and (path.stat().st_uid, path.stat().st_gid) == (0, 0)
    for folder, wrong in ((path.parent, 0o775), (tmp_path, 0o777)):
        folder.chmod(wrong)
        if folder == tmp_path:
            secretfiles.write(str(tmp_path / "plain"), "x")
        else:
            assert secretfiles.write(str(path), "one")
        assert folder.stat().st_mode & 0o022 == 0
    tmp_path.chmod(0o1777)  # as /tmp is: nobody replaces another's file there
    secretfiles.write(str(tmp_path / "plain"), "x")
    assert tmp_path.stat().st_mode & 0o7777 == 0o1777


def test_nobody_puts_a_file_in_the_way_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(secretfiles, "remove", lambda _paths: False)
    (tmp_path / "token.beta9-new").write_text("of somebody else")
    with pytest.raises(FileExistsError):
        secretfiles.replace(str(tmp_path / "token"), b"x", 0o600)


def test_tunnel_of_the_other_host_is_ended_and_not_in_check_mode(register, monkeypatch):
    register()
    ended: list = []
    monkeypatch.setattr(tunnel_peer, "other_tunnel", lambda *_arguments: 4194305)  # no process has this number
    monkeypatch.setattr(tunnel_peer.os, "kill", lambda *arguments: ended.append(arguments))
    assert register(check_mode=True, public_key=OTHER_KEY)["changed"] and ended == []
    assert register(public_key=OTHER_KEY)["changed"] and ended == [(4194305, signal.SIGTERM)]


@pytest.mark.parametrize(("ready", "before"), [([], "not ready"), (["1165a9b7"], "not ready"), (["1165a9b7", "1165a9b6"], "ready")])
def test_keepalive_changes_what_is_not_ready_yet(ready, before):
    client = types.SimpleNamespace(list_ready=lambda pool, provider: [{"id": name} for name in ready])
    params = {"machine_id": "1165a9b6", "pool": "gpu", "provider": "generic", "agent_version": "x", "metrics": {}}
    plan = machine_keepalive.plan(client, params)
    assert plan.before == {"status": before} and plan.changed == (before != "ready")
