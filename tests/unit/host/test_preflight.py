"""Every problem of a host, with what was expected, what was found, and what to do."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import linux, preflight

PARAMS = {
    "settings": {"gateway_url": "http://gateway:31994", "gpus": 1},
    "systems": ["slackware"],
    "min_memory_mib": 512,
    "min_disk_mib": 1024,
    "tunnel_port": 1994,
    "controller_epoch": 1000.0,
    "max_clock_skew_seconds": 30,
}
FACTS = {
    "system": "debian 12",
    "system_family": "debian",
    "system_base": "debian 12",
    "system_how": "table",
    "system_remedy": "Upgrade it.",
    "architecture": "x86_64",
    "agent_python": "/usr/bin/python3.11",
    "agent_python_package": "",
    "container": "",
    "tegra": False,
    "manager": "apt",
    "usr_read_only": False,
    "python": "3.11",
    "interpreter": "/usr/bin/python3",
    "interpreter_hidden": False,
    "noexec": False,
    "root": True,
    "systemd": True,
    "memory_mib": 4096,
    "disk_free_mib": 9999,
    "epoch": 1001.0,
    "gpu_pci_count": 1,
    "resolved": {"gateway": ["10.0.0.1"]},
    "tunnel_listeners": [{"process": "ssh", "pid": 1, "address": "127.0.0.1"}],
}


def test_good_host_has_none():
    assert preflight.problems(PARAMS, FACTS) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"gpu_pci_count": 0}, "GPUs"),
        ({"system": "debian 11", "system_how": "other"}, "operating system"),
        ({"system": "arch", "system_how": ""}, "operating system"),
        ({"architecture": "riscv64"}, "architecture"),
        ({"usr_read_only": True}, "/usr"),
        ({"manager": ""}, "package manager"),
        ({"manager": "dnf5"}, "package manager"),
        ({"python": "3.9", "agent_python": ""}, "Python"),
        ({"interpreter": "/home/me/bin/python3", "interpreter_hidden": True}, "Python"),
        ({"noexec": True}, "/opt"),
        ({"root": False}, "privileges"),
        ({"systemd": False}, "init system"),
        ({"memory_mib": 100}, "memory"),
        ({"disk_free_mib": 1}, "disk"),
        ({"epoch": 2000.0}, "clock"),
        ({"resolved": {"gateway": []}}, "name resolution"),
        ({"tunnel_listeners": [{"process": "nginx", "pid": 7, "address": "0.0.0.0"}]}, "port 1994"),
    ],
)
def test_host(change, what):
    found = preflight.problems(PARAMS, dict(FACTS, **change))
    assert [entry["what"] for entry in found] == [what] and all(found[0].values())


@pytest.mark.parametrize(
    ("kind", "found", "remedy"),
    [
        ("", "none running", "booted with systemd"),
        ("wsl", "Windows Subsystem", "/etc/wsl.conf"),
        ("lxc", "LXC container", "image that starts systemd"),
        ("docker", "container (docker)", "Onboard the host that the container runs on"),
    ],
)
def test_host_without_systemd(kind, found, remedy):
    [problem] = preflight.problems(PARAMS, dict(FACTS, systemd=False, container=kind))
    assert found in problem["found"] and remedy in problem["remedy"]


def test_systems_that_the_operator_accepts():
    for system in ("slackware", "slackware 15.0"):
        assert preflight.problems(PARAMS, dict(FACTS, system=system, system_how="")) == []


def test_old_python_is_no_problem_where_a_newer_one_is_there_or_comes():
    assert preflight.problems(PARAMS, dict(FACTS, python="3.9")) == []
    assert preflight.problems(PARAMS, dict(FACTS, python="3.9", agent_python="", agent_python_package="python3.12")) == []


def test_system_is_judged_only_where_it_is_asked():
    strange = dict(FACTS, system="arch", system_how="", manager="", architecture="riscv64", usr_read_only=True)
    assert preflight.problems(dict(PARAMS, systems=None), strange) == []


def test_warnings():
    assert preflight.warnings(FACTS) == []
    [text] = preflight.warnings(dict(FACTS, system="pop 22.04", system_base="ubuntu 22.04", system_how="like"))
    assert text.startswith("pop 22.04 is not in the support matrix: it is treated as ubuntu 22.04")
    [text] = preflight.warnings(dict(FACTS, system="amzn 2023", system_base="", system_family="rhel", system_how="like"))
    assert "treated as rhel" in text
    assert "Windows Subsystem" in preflight.warnings(dict(FACTS, container="wsl"))[0]
    assert "NVIDIA Jetson" in preflight.warnings(dict(FACTS, tegra=True))[0] and preflight.warnings(FACTS) == []


@pytest.mark.parametrize(
    ("compatible", "tegra"),
    [
        (b"nvidia,p3768-0000+p3767-0005-super\0nvidia,p3767-0005\0nvidia,tegra234\0", True),  # a Jetson Orin Nano
        (b"raspberrypi,5-model-b\0brcm,bcm2712\0", False),
        (b"", False),
        (None, False),
    ],
)
def test_a_jetson_is_known_by_its_device_tree(tmp_path, compatible, tegra):
    if compatible is not None:
        (tmp_path / "compatible").write_bytes(compatible)
    assert linux.tegra(tmp_path / "compatible") is tegra


def test_each_problem_is_told_once_with_its_hosts():
    pool, disk = preflight.problem("beta9_pool", "a pool", "gqu", "Correct it."), preflight.problem("disk", "1 MiB", "0 MiB", "Free some.")
    assert preflight.lines({"a": [pool], "b": [pool, disk], "c": []}) == [
        "1. beta9_pool: expected a pool, found gqu.",
        "   Correct it.",
        "   on a, b",
        "2. disk: expected 1 MiB, found 0 MiB.",
        "   Free some.",
        "   on b",
    ]
    assert preflight.lines({name: [pool] for name in "ab"})[2] == "   on all 2 hosts"
    assert preflight.lines(dict({str(number): [pool] for number in range(60)}, x=[]))[2].endswith("8, 9 and 50 more")
    assert preflight.lines({"a": []}) == []
