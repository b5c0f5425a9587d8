"""Files of a release of k3s: fetched over HTTP, verified, put in place, and brought back. systemctl and k3s itself are stand-ins."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import pathlib
import subprocess
import threading

import pytest

from ansible_collections.beta9.workers.plugins.module_utils.k3s import installer
from ansible_collections.beta9.workers.plugins.modules import k3s_install, k3s_ready

OLD, NEW = "v1.36.1+k3s1", "v1.36.2+k3s1"
PROGRAM = b'#!/bin/sh\necho "$(basename $0) version %s (5ac)"\n'


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; a file whose name ends in .cut is promised longer than it is."""

    def send_header(self, keyword, value):
        cut = keyword == "Content-Length" and self.path.endswith("cut")
        super().send_header(keyword, str(int(value) + 5) if cut else value)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def mirror(tmp_path):
    """A mirror: (URL, its folder)."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    handler = functools.partial(Mirror, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def refused(call, *arguments):
    with pytest.raises(installer.Refused) as caught:
        call(*arguments)
    return caught.value.code


def test_file_is_fetched_and_has_its_checksum(mirror, tmp_path):
    url, folder = mirror
    (folder / "k3s").write_bytes(b"program" * 500000)
    installer.fetch(url + "/k3s", str(tmp_path / "k3s"), digest(b"program" * 500000))
    assert (tmp_path / "k3s").read_bytes() == b"program" * 500000


@pytest.mark.parametrize(("name", "code"), [("k3s", "k3s_checksum"), ("cut", "k3s_download"), ("none", "k3s_download")])
def test_file_that_is_another_or_half_is_refused_and_nothing_stays(mirror, tmp_path, name, code):
    url, folder = mirror
    (folder / "k3s").write_bytes(b"damaged")
    (folder / "cut").write_bytes(b"program")
    assert refused(installer.fetch, f"{url}/{name}", str(tmp_path / "k3s"), digest(b"program")) == code
    assert not (tmp_path / "k3s").exists()


def test_disk_without_room_is_told(mirror, tmp_path):
    url, folder = mirror
    (folder / "k3s").write_bytes(b"program")
    assert refused(installer.fetch, url + "/k3s", str(tmp_path / "no/such/k3s"), digest(b"program")) == "k3s_write"
    if os.path.exists("/dev/full"):
        (tmp_path / "full").symlink_to("/dev/full")
        assert refused(installer.fetch, url + "/k3s", str(tmp_path / "full"), digest(b"program")) == "k3s_write"


def test_list_of_a_release(mirror):
    url, folder = mirror
    (folder / NEW).mkdir()
    (folder / NEW / "sums.txt").write_text("%s  k3s\n" % ("a" * 64))
    assert installer.fetch_sums(url, NEW, "sums.txt") == {"k3s": "a" * 64}
    (folder / NEW / "sums.txt").write_text("<html>")
    assert (
        refused(installer.fetch_sums, url, NEW, "sums.txt") == "k3s_checksum_list"
        and refused(installer.fetch_sums, url, OLD, "sums.txt") == "k3s_download"
    )
    assert refused(installer.fetch_sums, "http://127.0.0.1:9", NEW, "sums.txt") == "k3s_download"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host whose files of k3s are elsewhere."""
    root = tmp_path / "host"
    for name, path in {
        "BINARY": "bin/k3s",
        "IMAGES_DIR": "data/agent/images",
        "DATABASE_DIR": "data/server/db",
        "CONFIG_DIR": "etc/config.yaml.d",
        "STATE_DIR": "state",
        "RECORD": "state/installed.json",
        "PREVIOUS": "state/previous",
        "UNIT_FILE": "k3s.service",
    }.items():
        monkeypatch.setattr(installer, name, str(root / path))
    monkeypatch.setattr(
        k3s_install,
        "make_directories",
        lambda paths: [
            pathlib.Path(k3s_install.staged(path)).parent.mkdir(parents=True, exist_ok=True) for path in paths
        ],
    )
    monkeypatch.setattr(k3s_install.platform, "machine", lambda: "x86_64")
    (root / "bin").mkdir(parents=True)
    return root


class Module:
    """What the module's functions need of AnsibleModule: parameters, and commands that are noted or really run."""

    def __init__(self, check_mode=False, **params):
        self.check_mode, self.verbs = check_mode, []
        desired = {
            "version": NEW,
            "artifact_url": None,
            "binary_sha256": None,
            "insecure_mirror": True,
            "images": False,
            "extra_images": [],
            "checksums": None,
        }
        self.params = dict(desired, ca_path=None, **params)

    def run_command(self, words, check_rc=False, **_options):
        if words[0] == "systemctl":
            self.verbs.append(" ".join(words[1:]))
            return 0, "", ""
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr


def release(folder, version, program=None):
    """Put a release on the mirror."""
    place = folder / version
    place.mkdir(exist_ok=True)
    data = program or PROGRAM % version.encode()
    (place / "k3s").write_bytes(data)
    (place / "sha256sum-amd64.txt").write_text(f"{digest(data)}  k3s\n")


def test_install_again_upgrade_and_back(mirror, host):
    url, folder = mirror
    for version in (OLD, NEW):
        release(folder, version)
    checked = k3s_install.run(Module(True, version=OLD, artifact_url=url))
    assert checked["changed"] and not os.path.exists(installer.BINARY)
    first = k3s_install.run(Module(version=OLD, artifact_url=url))
    assert first["changed"] and first["previous"] == "" and os.stat(installer.BINARY).st_mode & 0o777 == 0o755
    assert os.listdir(host / "bin") == ["k3s"] and installer.record()["version"] == OLD
    assert not k3s_install.run(Module(version=OLD, artifact_url="http://127.0.0.1:9"))["changed"]  # asks nobody
    (host / "k3s.service").write_text("")
    (host / "data/server/db").mkdir(parents=True)
    (host / "data/server/db/state").write_text("old")
    upgrade = Module(version=NEW, artifact_url=url)
    assert k3s_install.run(upgrade)["previous"] == OLD and upgrade.verbs == [
        "stop k3s.service",
        "--no-block start k3s.service",
    ]
    assert (host / "state/previous/version").read_text() == OLD and (
        host / "state/previous/db/state"
    ).read_text() == "old"
    (host / "data/server/db/state").write_text("new")
    back = Module()
    assert k3s_ready.go_back(back) == OLD and back.verbs == ["stop k3s.service", "--no-block start k3s.service"]
    assert (host / "data/server/db/state").read_text() == "old" and installer.record()["version"] == OLD
    assert installer.installed_version(back.run_command) == OLD and sorted(os.listdir(host / "data/server")) == ["db"]


@pytest.mark.parametrize("program", [PROGRAM % b"v1.0.0+k3s1", b"#!/bin/sh\nexit 1\n", b"\x7fELF of another machine"])
def test_program_that_does_not_run_or_is_another_is_not_put_in_place(mirror, host, program):
    url, folder = mirror
    release(folder, NEW, program)
    with pytest.raises((installer.Refused, OSError)):
        k3s_install.run(Module(artifact_url=url))
    assert not os.path.exists(installer.BINARY) and os.listdir(host / "bin") == []


def test_release_that_was_copied_to_the_host_is_verified_there(host):
    data = PROGRAM % NEW.encode()
    sums = f"{digest(data)}  k3s\n"
    first = k3s_install.run(Module(checksums=sums))
    assert first["needed"] == [{"name": "k3s", "dest": k3s_install.staged(installer.BINARY)}] and not first["changed"]
    pathlib.Path(k3s_install.staged(installer.BINARY)).write_bytes(b"damaged")
    assert refused(k3s_install.run, Module(checksums=sums)) == "k3s_checksum" and not os.path.exists(installer.BINARY)
    k3s_install.run(Module(checksums=sums))
    pathlib.Path(k3s_install.staged(installer.BINARY)).write_bytes(data)
    assert k3s_install.run(Module(checksums=sums))["changed"] and not k3s_install.run(Module(checksums=sums))["changed"]
    other = f"{'b' * 64}  k3s\n"
    assert k3s_install.missing(Module(checksums=other).params, {installer.BINARY: "k3s"}) == [installer.BINARY]


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"binary_sha256": "b" * 64}, "k3s_checksum_pinned"),
        ({"insecure_mirror": False}, "k3s_mirror_insecure"),
        ({"version": "latest"}, "k3s_version"),
    ],
)
def test_wishes_that_are_refused(mirror, host, params, code):
    url, folder = mirror
    release(folder, NEW)
    assert refused(k3s_install.run, Module(**dict({"artifact_url": url}, **params))) == code and not os.path.exists(
        installer.BINARY
    )


def test_own_images_have_their_own_checksums(mirror, host):
    url, folder = mirror
    release(folder, NEW)
    (folder / NEW / "x.tar").write_bytes(b"images")
    desired = {"artifact_url": url, "extra_images": [{"name": "x.tar", "sha256": digest(b"images").upper()}]}
    (host / "data/agent/images").mkdir(parents=True)
    assert k3s_install.run(Module(**desired))["changed"] and (host / "data/agent/images/x.tar").read_bytes() == b"images"
    assert not k3s_install.run(Module(**desired))["changed"]
    desired["extra_images"] = [{"name": "x.tar", "sha256": "c" * 64}]
    assert (
        refused(k3s_install.run, Module(**desired)) == "k3s_checksum"
        and (host / "data/agent/images/x.tar").read_bytes() == b"images"
    )


def test_upgrade_without_room_starts_the_old_one_again(mirror, host, monkeypatch):
    url, folder = mirror
    for version in (OLD, NEW):
        release(folder, version)
    k3s_install.run(Module(version=OLD, artifact_url=url))
    (host / "k3s.service").write_text("")

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(k3s_install.shutil, "copy2", full)
    upgrade = Module(version=NEW, artifact_url=url)
    assert refused(k3s_install.run, upgrade) == "k3s_write" and upgrade.verbs[-1] == "--no-block start k3s.service"
    assert (
        installer.installed_version(upgrade.run_command) == OLD
        and installer.record()["version"] == OLD
        and not os.path.exists(installer.PREVIOUS)
    )
