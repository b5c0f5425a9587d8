"""What is decided about a driver on the systems of 2026, from recorded facts."""

from __future__ import annotations

import pytest

from tests import seen
from tests.unit.nvidia.test_plan import B200, H100, T4, V100, WISH, host, plan

CHOICE = "the driver's packages, repository and branch are chosen"
FACTS = "facts in the form that such hosts report"
REPOSITORY = dict(WISH["repository"], key_fingerprint="A" * 40)


@pytest.mark.parametrize(
    ("system", "kernel", "kernel_package", "names", "path"),
    [
        ("rhel-9", "5.14.0-503.14.1.el9_5.aarch64+64k", "", ["kernel-64k-devel=5.14.0-503.14.1.el9_5", "kmod-nvidia-open-dkms"], "rhel9/sbsa/"),
        ("rhel-10", "6.12.0-55.20.1.el10_0.aarch64", "", ["kernel-devel=6.12.0-55.20.1.el10_0", "nvidia-driver-cuda"], "rhel10/sbsa/"),
        (
            "ubuntu-26.04",
            "7.0.0-42-generic-64k",
            "generic-64k",
            ["linux-modules-nvidia-580-server-open-7.0.0-42-generic-64k", "linux-modules-nvidia-580-server-open-generic-64k"],
            "",
        ),
        ("ubuntu-24.04", "6.8.0-1025-nvidia-64k", "nvidia-64k", ["linux-modules-nvidia-580-server-open-nvidia-64k"], ""),
        ("debian-13", "6.12.43+deb13-arm64", "arm64", ["linux-headers-arm64", "nvidia-kernel-open-dkms"], "debian13/sbsa/"),
    ],
)
def test_aarch64(request, system, kernel, kernel_package, names, path):
    seen.say(request, (f"{system.replace('-', ' ')}, aarch64", CHOICE, FACTS))
    facts = host(B200, kernel=kernel, kernel_package=kernel_package, architecture="aarch64")
    found = plan(facts, system, repository=REPOSITORY)
    assert not found["problems"] and found["flavour"] == "open" and set(names) <= set(found["packages"]), found
    assert path in found["repository"].get("url", "")


def test_debian_12_has_no_driver_for_aarch64():
    [problem] = plan(host(B200, architecture="aarch64"), "debian-12")["problems"]
    assert problem["expected"] == "architecture x86_64"


@pytest.mark.parametrize(
    ("kernel", "name"),
    [
        ("5.14.0-503.14.1.el9_5.x86_64", "kernel-devel=5.14.0-503.14.1.el9_5"),
        ("5.14.0-503.14.1.el9_5.x86_64+rt", "kernel-rt-devel=5.14.0-503.14.1.el9_5"),
        ("6.12.0-55.20.1.el10_0.aarch64+64k", "kernel-64k-devel=6.12.0-55.20.1.el10_0"),
    ],
)
def test_what_modules_are_built_with_is_asked_for_by_name_and_version(request, kernel, name):
    seen.say(request, ("rhel 9", CHOICE, FACTS))
    assert name in plan(host(H100, kernel=kernel, kernel_package=""), "rhel-9")["packages"]


def test_rhel_10_has_no_streams_and_its_key_has_to_be_confirmed(request):
    seen.say(request, ("rhel 10", CHOICE, FACTS))
    found = plan(host(H100, kernel="6.12.0-55.el10.x86_64", kernel_package=""), "rhel-10")
    assert found["stream"] == "" and found["branch"] == "580"
    [problem] = found["problems"]
    assert problem["what"] == "nvidia_repository_key_fingerprint" and "rhel10/x86_64/CDF6BA43.pub" in problem["expected"]


def test_closed_modules_end_with_branch_615():
    assert plan(host(T4), branch="615", flavour="closed")["problems"] == []
    [problem] = plan(host(T4), branch="620", flavour="closed")["problems"]
    assert problem["what"] == "nvidia_flavour" and problem["remedy"] == "Unset nvidia_flavour."
    assert plan(host(T4), branch="620")["flavour"] == "open"
    assert {problem["what"] for problem in plan(host(V100), branch="620")["problems"]} == {"GPU generation volta"}


def test_branch_is_kept_to_where_the_archive_has_several(request):
    seen.say(request, ("ubuntu 26.04", CHOICE, FACTS))
    assert plan(host(H100))["only_branch"] == "580"
    assert plan(host(H100, kernel="7.0.0-42-generic", kernel_package="generic"), "ubuntu-26.04", branch="590")["only_branch"] == "590"
    assert plan(host(T4), source="distribution")["only_branch"] == ""  # Debian's own: parts of it are of other branches
