"""What is decided about a driver, from recorded facts of hosts and the variables of every distribution."""

from __future__ import annotations

import copy

import pytest
import yaml
from ansible_collections.beta9.workers.plugins.module_utils.host import systems
from ansible_collections.beta9.workers.plugins.module_utils.nvidia import driver

from tests.conftest import ROOT

T4, V100, A100, H100, L4, P40, K80, M60, B200, RTX6000PRO = ("0x1eb8", "0x1db6", "0x20b2", "0x2330", "0x27b8", "0x1b38", "0x102d", "0x13f2", "0x2901", "0x2bb4")
FILES = {row.name.replace(" ", "-"): "ubuntu" if row.family == "ubuntu" else row.name.replace(" ", "-") for row in systems.SYSTEMS}
SYSTEMS = {name: yaml.safe_load((ROOT / f"roles/nvidia/vars/{file}.yml").read_text())["_nvidia_system"] for name, file in FILES.items()}
# uname -r and the kernel packages as these systems have them
KERNELS = {
    "debian-12": ("6.1.0-28-cloud-amd64", "cloud-amd64"),
    "debian-13": ("6.12.43+deb13-amd64", "amd64"),
    "ubuntu-22.04": ("6.8.0-52-generic", "generic-hwe-22.04"),
    "ubuntu-24.04": ("6.8.0-1021-aws", "aws"),
    "ubuntu-26.04": ("7.0.0-42-generic", "generic-hwe-26.04"),
    "rhel-9": ("5.14.0-503.14.1.el9_5.x86_64", ""),
    "rhel-10": ("6.12.0-55.20.1.el10_0.x86_64", ""),
}
WISH = {
    "required": False,
    "source": "",
    "branch": "580",
    "version": "",
    "flavour": "",
    "upgrade": False,
    "fabric_manager": "auto",
    "fabric_manager_package": "",
    "repository": {"url": "", "key_url": "", "key_fingerprint": ""},
}
NONE = {"version": "", "flavour": "", "signer": "", "path": ""}


def host(*devices, kernel="6.1.0-28-amd64", **more):
    """Return the facts of a host without a driver."""
    facts = {
        "system": "debian 12",
        "architecture": "x86_64",
        "kernel": kernel,
        "kernel_package": "amd64",
        "gpus": [{"address": "0000:0%d:00.0" % number, "device": device} for number, device in enumerate(devices)],
        "nvswitches": 0,
        "loaded": "",
        "nouveau": False,
        "module": dict(NONE),
        "library": {"version": "", "path": "", "how": ""},
        "other_kernels": [],
        "packages": {},
        "secure_boot": False,
        "secure_boot_key_enrolled": False,
        "boot_epoch": 1000.0,
        "installed_epoch": 500.0,
    }
    return dict(facts, **more)


def driven(loaded="580.95.05", module="580.95.05", library="580.95.05", how="package", **more):
    """Return the facts of a host with a driver."""
    return host(H100, loaded=loaded, module=dict(NONE, version=module), library={"version": library, "path": "/x", "how": how}, **more)


def plan(facts, system="debian-12", **desired):
    return driver.plan(facts, copy.deepcopy(SYSTEMS.get(system)), dict(WISH, **desired))


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (K80, "kepler"),
        (M60, "maxwell"),
        (P40, "pascal"),
        (V100, "volta"),
        (T4, "turing"),
        (A100, "ampere"),
        ("0x2236", "ampere"),
        (H100, "hopper"),
        ("0x2342", "hopper"),
        (L4, "ada"),
        ("0x26b9", "ada"),
        (B200, "blackwell"),
        (RTX6000PRO, "blackwell"),
        ("0x4fff", "newer than this table"),
        ("0x06c0", "older than Kepler"),
    ],
)
def test_generation(device, name):
    assert driver.generation(device).name == name


def test_generations_do_not_overlap():
    spans = sorted((low, high) for entry in driver.GENERATIONS for low, high in entry.ids)
    assert all(before[1] < after[0] for before, after in zip(spans, spans[1:]))


@pytest.mark.parametrize(("device", "flavour"), [(T4, "open"), (A100, "open"), (H100, "open"), (L4, "open"), (B200, "open"), (V100, "closed"), (P40, "closed")])
def test_flavour_by_generation(device, flavour):
    found = plan(host(device))
    assert (found["action"], found["flavour"], found["branch"], found["problems"]) == ("install", flavour, "580", [])


def test_mixed_generations_take_what_serves_all():
    assert plan(host(V100, A100))["flavour"] == "closed"
    assert [entry["what"] for entry in plan(host(V100, B200))["problems"]] == ["GPUs"]


@pytest.mark.parametrize("system", sorted(SYSTEMS))
@pytest.mark.parametrize("device", [H100, V100])
def test_every_distribution_names_its_packages(system, device):
    kernel, kernel_package = KERNELS[system]
    own = {"repository": dict(WISH["repository"], key_fingerprint="A" * 40)} if system == "rhel-10" else {}
    found = plan(host(device, kernel=kernel, kernel_package=kernel_package), system, **own)
    assert not found["problems"] and found["packages"] and "{" not in " ".join(found["packages"] + [str(value) for value in found["repository"].values()])
    asked = "kernel-devel=" + kernel.rpartition(".")[0] if system.startswith("rhel") else kernel
    assert any(asked in name for name in found["packages"])
    for source in SYSTEMS[system]["sources"].values():
        assert set(source) == {"branch", "signed", "pin", "stream", "packages", "fabric_manager", "repository"}
        if "key_url" in source["repository"]:
            assert len(source["repository"]["key_fingerprint"]) == (0 if system == "rhel-10" else 40)


def test_names_as_recorded():
    """As NVIDIA's and the distributions' documents name them."""
    ubuntu = host(A100, kernel="6.8.0-52-generic", kernel_package="generic-hwe-22.04")
    assert plan(ubuntu, "ubuntu-22.04")["packages"] == [
        "linux-modules-nvidia-580-server-open-6.8.0-52-generic",
        "linux-modules-nvidia-580-server-open-generic-hwe-22.04",
        "linux-image-generic-hwe-22.04",
        "nvidia-headless-no-dkms-580-server-open",
        "nvidia-utils-580-server",
    ]
    assert plan(dict(ubuntu, gpus=host(V100)["gpus"]), "ubuntu-22.04")["packages"][3] == "nvidia-headless-no-dkms-580-server"
    rocky = plan(host(A100, kernel="5.14.0-503.el9.x86_64", kernel_package=""), "rhel-9")
    assert rocky["stream"] == "nvidia-driver:580-open" and "kmod-nvidia-open-dkms" in rocky["packages"]
    assert rocky["repository"]["url"] == "https://developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64/"
    assert "/sbsa/" in plan(host(H100, architecture="aarch64"), "debian-13")["repository"]["url"]
    debian = plan(host(A100))
    assert "nvidia-driver-cuda" in debian["packages"] and debian["pin"] == "580"
    assert plan(host(A100), version="580.95.05")["pin"] == "580.95.05"


@pytest.mark.parametrize(
    ("facts", "system", "desired", "words"),
    [
        (host(H100, system="fedora 42"), None, {}, ["fedora 42", "debian 12", "beta9_nvidia: false"]),
        (host(H100, architecture="ppc64le"), "debian-12", {}, ["ppc64le"]),
        (host(K80), "debian-12", {}, ["kepler", "418 to 470", "branch 580", "too old"]),
        (host("0x06c0"), "debian-12", {}, ["older than Kepler", "too old"]),
        (host(P40), "debian-12", {"branch": "590"}, ["pascal", "418 to 580", "branch 590", "nvidia_branch"]),
        (host(B200), "debian-12", {"source": "distribution"}, ["blackwell", "570 or newer", "branch 535", "another nvidia_source"]),
        (host(B200), "debian-12", {"flavour": "closed"}, ["nvidia_flavour", "open for blackwell"]),
        (host(H100), "debian-12", {"source": "ppa"}, ["nvidia_source", "distribution, nvidia"]),
        (host(H100), "debian-12", {"branch": "latest"}, ["nvidia_branch", "latest"]),
        (host(H100), "debian-12", {"version": "570.1.1"}, ["nvidia_version", "branch 580", "570.1.1"]),
        (host(H100, secure_boot=True), "debian-12", {}, ["Secure Boot", "mokutil --import /var/lib/dkms/mok.pub", "Enroll MOK"]),
        (host(H100, nvswitches=4), "rhel-9", {}, ["fabric manager", "nvidia_fabric_manager_package"]),
        (host(required=True), "debian-12", {"required": True}, ["nvidia_required", "passthrough"]),
        (driven(how="run"), "debian-12", {"upgrade": True}, ["nvidia-uninstall", ".run"]),
        (driven(loaded="", module="", how="run"), "debian-12", {}, ["a module for the running kernel", "nvidia-uninstall"]),
    ],
)
def test_problem(facts, system, desired, words):
    found = plan(facts, system, **desired)
    text = " ".join(" ".join(entry.values()) for entry in found["problems"])
    assert len(found["problems"]) == 1 and all(word in text for word in words), found["problems"]


def test_kernel_is_held_where_its_modules_are_built_by_the_distribution():
    ubuntu = {"kernel": "6.8.0-52-generic", "kernel_package": "generic"}
    assert "linux-image-generic" in plan(host(H100, **ubuntu), "ubuntu-24.04")["hold"]
    assert "linux-image-generic" in plan(driven(packages={"linux-modules-nvidia-580-server-open-generic": "6.8.0"}, **ubuntu), "ubuntu-24.04")["hold"]
    assert plan(driven(packages={"nvidia-dkms-580": "580.1.1"}, **ubuntu), "ubuntu-24.04")["hold"] == [] == plan(host(H100))["hold"]


def test_secure_boot_stays_on_where_modules_are_signed_or_the_key_is_enrolled():
    assert not plan(host(H100, secure_boot=True), "ubuntu-24.04")["problems"]
    assert not plan(host(H100, secure_boot=True, secure_boot_key_enrolled=True))["problems"]


def test_fabric_manager_is_of_the_branch():
    assert "nvidia-fabricmanager-580" in plan(host(H100, nvswitches=4))["packages"]
    assert not [name for name in plan(host(H100, nvswitches=4), fabric_manager="false")["packages"] if "fabric" in name]
    assert "fm-580" in plan(host(H100), "rhel-9", fabric_manager="true", fabric_manager_package="fm-{branch}")["packages"]


def test_host_without_gpu_is_left_alone():
    found = plan(host())
    assert (found["action"], found["problems"]) == ("none", []) and "not applicable" in found["text"]
    assert driver.pending_reboot({"gpus": []}) == ""


@pytest.mark.parametrize(
    ("facts", "action", "word"),
    [
        (driven(), "keep", "from packages"),
        (driven(how="run"), "keep", ".run installer"),
        (driven(how="image"), "keep", "with the image"),
        (driven(loaded="535.1.1"), "keep", "reboot pending: the loaded driver is 535.1.1, the installed one 580.95.05"),
        (driven(loaded=""), "keep", "not loaded"),
        (driven(loaded="", nouveau=True), "keep", "nouveau is loaded"),
        (driven(loaded="", module=""), "install", "open kernel modules"),
        (driven(system="fedora 42"), "keep", "left as it is"),
    ],
)
def test_driver_that_is_there(facts, action, word):
    found = plan(facts, None if facts["system"] == "fedora 42" else "debian-12")
    assert found["action"] == action and word in found["text"] and not found["problems"], found


def test_upgrade_only_when_asked_for():
    assert plan(driven(loaded="570.1.1", module="570.1.1", library="570.1.1"))["action"] == "keep"
    assert plan(driven(loaded="570.1.1", module="570.1.1", library="570.1.1"), upgrade=True)["action"] == "upgrade"


@pytest.mark.parametrize(
    ("facts", "policy", "pending"),
    [
        (driven(), "if_needed", False),
        (driven(loaded="570.1.1"), "if_needed", True),
        (driven(loaded="570.1.1"), "never", True),
        (driven(module="570.1.1"), "if_needed", True),
        (driven(library="590.1.1"), "if_needed", True),
        (driven(installed_epoch=2000.0), "if_needed", False),
        (driven(installed_epoch=2000.0), "always", True),
        (driven(loaded="", nouveau=True), "if_needed", True),
        (driven(loaded=""), "always", False),
        (driven(loaded="", module="", other_kernels=["6.1.0-30-amd64"]), "if_needed", True),
        (driven(loaded="", module="", other_kernels=["6.1.0-9-amd64"]), "if_needed", False),
        (host(H100), "always", False),
    ],
)
def test_reboot_is_due(facts, policy, pending):
    assert bool(driver.pending_reboot(facts, policy)) == pending
