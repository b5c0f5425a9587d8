"""Sets of packages with a real dnf and rpm: install, hold, upgrade, downgrade, another stream, and what is refused."""

from __future__ import annotations

import pytest

from tests.packages.conftest import repository

OPEN = ["kernel-devel=5.14.0-427.el9", "kernel-headers", "nvidia-driver-cuda", "nvidia-persistenced", "kmod-nvidia-open-dkms"]
CLOSED = OPEN[:-1] + ["kmod-nvidia-latest-dkms"]
NAMES = "(kmod-nvidia|nvidia-(?!container))"
VERSIONS = r"(\d:)?(4|5|6|7)\d\d\.\d+"
LIBRARY = "nvidia-driver-cuda-libs"


def install(host, stream="nvidia-driver:580-open", **params):
    """Ask for the driver as role nvidia does."""
    desired = {"name": "nvidia-driver", "packages": OPEN, "branch": "580", "hold": NAMES, "hold_version": VERSIONS, "removable": NAMES}
    return host.module("host_packages", manager="dnf", **dict(desired, stream=stream, **params))


def test_first_installation_is_held_and_the_second_run_changes_nothing(driver):
    checked = install(driver, check=True)
    assert checked["changed"] and not driver.versions(), checked
    found = install(driver)
    assert found["changed"] and found["packages"]["nvidia-driver-cuda"].startswith("580.10.2-"), found
    assert set(found["held"]) == {"nvidia-driver-cuda", LIBRARY, "nvidia-persistenced", "kmod-nvidia-open-dkms"}
    assert driver.versions() == dict.fromkeys(found["held"], "580.10.2") | {"kernel-devel": "5.14.0", "dkms": "1.0"}
    assert driver.sh("rpm -q kernel-devel") == "kernel-devel-5.14.0-427.el9.noarch"
    for check in (True, False):
        assert not install(driver, check=check)["changed"]
    driver.sh("dnf -q -y upgrade --refresh")
    assert driver.versions()[LIBRARY] == "580.10.2"


@pytest.mark.long
def test_another_kernels_headers_come_beside_those_that_are_there(driver):
    driver.sh("dnf -q -y install kernel-devel-5.14.0-503.el9")
    assert install(driver)["changed"]
    assert driver.sh("rpm -q kernel-devel | sort").split() == ["kernel-devel-5.14.0-427.el9.noarch", "kernel-devel-5.14.0-503.el9.noarch"]
    assert not install(driver)["changed"]


@pytest.mark.long
def test_kernel_with_large_pages(driver):
    found = install(driver, packages=["kernel-64k-devel=5.14.0-427.el9"] + OPEN[1:])
    assert found["packages"]["kernel-64k-devel"] == "5.14.0-427.el9", found


@pytest.mark.long
def test_version_upgrade_and_downgrade(driver):
    assert install(driver, version="580.9.1")["packages"]["nvidia-driver-cuda"].startswith("580.9.1-")
    assert not install(driver, version="580.9.1")["changed"]
    assert not install(driver)["changed"]  # it is left as it is until an upgrade is asked for
    assert install(driver, upgrade=True)["changed"] and driver.versions()[LIBRARY] == "580.10.2"
    assert not install(driver, upgrade=True)["changed"]
    assert install(driver, version="580.9.1")["changed"] and driver.versions()[LIBRARY] == "580.9.1"
    assert driver.sh("grep -c ^nvidia-driver-cuda-libs- /etc/dnf/plugins/versionlock.list") == "1"


@pytest.mark.long
def test_another_stream_and_back(driver):
    install(driver)
    found = install(driver, stream="nvidia-driver:590-open", branch="590", upgrade=True)
    assert found["changed"] and driver.versions()[LIBRARY] == "590.1.1", found
    assert not install(driver, stream="nvidia-driver:590-open", branch="590", upgrade=True)["changed"]
    found = install(driver, upgrade=True)
    assert found["changed"] and driver.versions()[LIBRARY] == "580.10.2", found


@pytest.mark.long
def test_without_streams_the_branch_decides(host):
    repository(host, "flat")
    found = install(host, stream="")
    assert found["changed"] and set(driver_versions(host)) == {"580.10.2"}, found
    host.sh("dnf -q -y upgrade --refresh")
    assert set(driver_versions(host)) == {"580.10.2"}
    assert not install(host, stream="")["changed"]


def driver_versions(host):
    return [version for name, version in host.versions().items() if "nvidia" in name]


@pytest.mark.long
def test_branch_that_is_another_one_is_refused(host):
    """As Ubuntu's transitional packages are: what is asked for has the name, and brings another branch."""
    repository(host, "flat")
    found = install(host, stream="", branch="585")
    assert found["failed"] and "packages of branch 585 alone" in found["msg"] and "590.1.1" in found["msg"] and not host.versions(), found


@pytest.mark.long
def test_closed_flavour_is_another_stream(driver):
    install(driver)
    found = install(driver, stream="nvidia-driver:580-dkms", packages=CLOSED, upgrade=True)
    assert found["changed"] and "kmod-nvidia-latest-dkms" in driver.versions(), found


@pytest.mark.parametrize(
    ("params", "words"),
    [
        pytest.param({"packages": ["kernel-devel=5.14.0-1.el9"]}, ["no package matches kernel-devel-5.14.0-1.el9"], marks=pytest.mark.long),
        pytest.param({"packages": ["no-such-package"]}, ["no package matches no-such-package"], marks=pytest.mark.long),
        pytest.param({"version": "580.99"}, ["version 580.99", "580.9.1-1.el9"], marks=pytest.mark.long),
        pytest.param({"stream": "nvidia-driver:999-open"}, ["module stream", "nvidia-driver:999-open", "dnf module list"], marks=pytest.mark.long),
    ],
)
def test_refused_and_nothing_is_changed(driver, params, words):
    found = install(driver, **params)
    assert found["failed"] and all(word in found["msg"] for word in words) and not driver.versions(), found


@pytest.mark.long
def test_epel_is_named_only_where_dkms_is_missing(host):
    repository(host)
    host.sh("rm /etc/yum.repos.d/base.repo")
    found = install(host, packages=["kmod-nvidia-open-dkms"])
    assert found["failed"] and "dkms is in EPEL" in found["msg"], found


@pytest.mark.long
def test_packages_of_others_that_are_locked_stay(host):
    repository(host, "flat")
    host.sh("dnf -q -y install dkms nvidia-driver-cuda-580.9.1 && dnf -q versionlock add dkms nvidia-driver-cuda")
    found = install(host, stream="", hold="kmod", upgrade=True)
    assert found["failed"] and "held by somebody else" in found["msg"] and "dnf versionlock delete" in found["msg"], found


def test_wrong_fingerprint_and_wrong_signature(host):
    found = repository(host, fingerprint="0" * 40)
    assert found["failed"] and "Nothing was changed" in found["msg"] and host.sh("ls /etc/yum.repos.d") == "base.repo", found
    assert repository(host, "forged")["changed"]
    found = install(host, stream="")
    assert found["failed"] and "GPG" in found["msg"] and not host.versions(), found


@pytest.mark.long
def test_repository_that_signs_both(host):
    """As Tailscale's: neither packages nor index are believed without their signature."""
    assert repository(host, "flat", signed="both")["changed"]
    assert install(host, stream="")["changed"] and not repository(host, "flat", signed="both")["changed"]
    for name in ("driver", "toolkit"):
        host.sh("rm /etc/yum.repos.d/beta9-*.repo; dnf -q clean all")
        found = repository(host, name, signed="both")
        if "msg" not in found:
            desired = {"manager": "dnf", "name": name, "packages": ["nvidia-container-toolkit"], "version": "1.17.8"}
            found = host.module("host_packages", **desired)
        expected = "an index that the key signs" if name == "driver" else "GPG"
        assert found["failed"] and expected in found["msg"], found


@pytest.mark.long
def test_repository_that_signs_its_index(host):
    assert repository(host, "toolkit", signed="index")["changed"]
    desired = {"manager": "dnf", "name": "toolkit", "packages": ["nvidia-container-toolkit"], "version": "1.17.8", "hold": "nvidia-container"}
    assert host.module("host_packages", **desired)["changed"] and host.versions() == {"nvidia-container-toolkit": "1.17.8"}
    assert not repository(host, "toolkit", signed="index")["changed"]
    host.sh("cp -a /srv/rpm/toolkit /srv/rpm/tampered; sed -i 's/<revision>/<revision>9/' /srv/rpm/tampered/repodata/repomd.xml")
    found = repository(host, "tampered", signed="index")
    assert found["failed"] and "an index that the key signs" in found["msg"], found


def test_dnf5_is_refused_by_name(host):
    host.sh("mv /usr/bin/dnf /usr/bin/dnf.away; touch /usr/bin/dnf5; ln -s dnf5 /usr/bin/dnf")
    try:
        found = install(host)
    finally:
        host.sh("rm /usr/bin/dnf /usr/bin/dnf5; mv /usr/bin/dnf.away /usr/bin/dnf")
    assert found["failed"] and "expected apt, or dnf 4, found dnf5" in found["msg"], found
