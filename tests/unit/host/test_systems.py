"""Which system a host is, from os-release as these systems have it."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, systems

from tests.conftest import ROOT

RECORDED = ROOT / "tests/unit/host/os_release"
# file: (name, family, what it is made of, how that is known)
EXPECTED = {
    "debian-11": ("debian 11", "debian", "", "other"),
    "debian-12": ("debian 12", "debian", "debian 12", "table"),
    "debian-forky": ("debian forky", "debian", "", "other"),
    "ubuntu-20.04": ("ubuntu 20.04", "ubuntu", "", "other"),
    "ubuntu-22.04": ("ubuntu 22.04", "ubuntu", "ubuntu 22.04", "table"),
    "ubuntu-24.04": ("ubuntu 24.04", "ubuntu", "ubuntu 24.04", "table"),
    "ubuntu-26.04": ("ubuntu 26.04", "ubuntu", "ubuntu 26.04", "table"),
    "pop-22.04": ("pop 22.04", "ubuntu", "ubuntu 22.04", "like"),
    "linuxmint-22.3": ("linuxmint 22.3", "ubuntu", "ubuntu 24.04", "like"),
    "lmde-6": ("linuxmint 6", "debian", "debian 12", "like"),
    "dgx-7": ("ubuntu 24.04", "ubuntu", "ubuntu 24.04", "table"),
    "rhel-9": ("rhel 9.4", "rhel", "rhel 9", "table"),
    "rhel-10": ("rhel 10.0", "rhel", "rhel 10", "table"),
    "rocky-9": ("rocky 9.6", "rhel", "rhel 9", "table"),
    "rocky-10": ("rocky 10.1", "rhel", "rhel 10", "table"),
    "almalinux-9": ("almalinux 9.6", "rhel", "rhel 9", "table"),
    "almalinux-10": ("almalinux 10.0", "rhel", "rhel 10", "table"),
    "centos-stream-10": ("centos 10", "rhel", "rhel 10", "like"),
    "oracle-9": ("ol 9.5", "rhel", "rhel 9", "like"),
    "amazon-2023": ("amzn 2023", "rhel", "", "like"),
    "rhcos-9": ("rhcos 4.13", "rhel", "rhel 9", "like"),
    "rhel-8": ("rhel 8.7", "rhel", "", "other"),
    "fedora-44": ("fedora 44", "", "", ""),
    "arch": ("arch", "", "", ""),
}


def read(name):
    return linux.os_release(RECORDED / name)


def test_every_recording_is_looked_at():
    assert sorted(path.name for path in RECORDED.iterdir()) == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_system(name):
    found = systems.identify(read(name))
    assert (found.name, found.family, found.system.name if found.system else "", found.how) == EXPECTED[name]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("debian-11", "Upgrade the host to debian 12 or newer"),
        ("ubuntu-20.04", "Upgrade the host to ubuntu 22.04 or newer"),
        ("rhel-8", "Upgrade the host to rhel 9 or newer"),
        ("debian-forky", "preflight_systems at your own risk"),
        ("fedora-44", "Reinstall the host"),
    ],
)
def test_remedy(name, text):
    assert text in systems.remedy(read(name))


def test_newer_release_than_the_table_knows():
    assert systems.remedy({"ID": "ubuntu", "VERSION_ID": "28.04"}).startswith("Upgrade this collection")


@pytest.mark.parametrize("release", [{}, {"ID": "a b"}, {"ID": "../etc", "VERSION_ID": "1; rm"}, {"VERSION_CODENAME": "bookworm"}])
def test_nothing_is_believed_that_is_no_word(release):
    assert systems.identify(release)[1:] == ("", None, "") and " " not in systems.identify(release).name.strip(" ").replace("unknown bookworm", "")


def test_host_without_the_file(tmp_path):
    assert linux.os_release(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("programs", "manager"), [(("apt-get",), "apt"), (("apt-get", "dnf"), "apt"), (("dnf",), "dnf"), (("dnf5",), "dnf5"), ((), "")]
)
def test_package_manager(tmp_path, programs, manager):
    for program in programs:
        (tmp_path / program).touch()
    assert linux.package_manager(tmp_path) == manager


def test_dnf_that_is_dnf5(tmp_path):
    (tmp_path / "dnf5").touch()
    (tmp_path / "dnf").symlink_to("dnf5")
    assert linux.package_manager(tmp_path) == "dnf5"
