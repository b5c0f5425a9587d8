"""What apt says, read right: recorded output. dnf is asked for real in tests/packages."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import package_sets
from ansible_collections.beta9.workers.plugins.module_utils.nvidia import gpu_host

SIMULATED = """Reading package lists...
Inst libcuda1 [580.1.1-1] (580.2.2-1 NVIDIA:1.0 [amd64]) []
Inst nvidia-driver-cuda (580.2.2-1 NVIDIA:1.0 [amd64])
Remv nvidia-kernel-dkms [580.1.1-1]
Conf libcuda1 (580.2.2-1 NVIDIA:1.0 [amd64])
"""
SIZES = """The following NEW packages will be installed:
  nvidia-driver-cuda
Need to get 41.7 MB/44.1 MB of archives.
After this operation, 71.2 MB of additional disk space will be used.
Abort.
"""


class Manager:
    """A package manager that says what it is told to say."""

    def __init__(self, *answers):
        self.answers, self.commands = list(answers), []

    def __call__(self, command, check_rc=False):
        self.commands.append(command)
        return self.answers.pop(0)


def test_apt_tells_what_it_would_do():
    run = Manager((0, SIMULATED, ""), (1, SIZES, ""))
    found = package_sets.Apt(run).simulate(["nvidia-driver-cuda=580.2.2-1"])
    assert found == {
        "install": {"libcuda1": "580.2.2-1", "nvidia-driver-cuda": "580.2.2-1"},
        "remove": ["nvidia-kernel-dkms"],
        "download": 44100000,
        "space": 71200000,
    }
    assert "--simulate" in run.commands[0] and "--assume-no" in run.commands[1] and "--assume-yes" not in run.commands[1]


def test_dnf_holds_only_what_is_locked_to_its_version(monkeypatch, tmp_path):
    lock = tmp_path / "versionlock.list"
    lock.write_text("# Added lock\nnvidia-driver-cuda-3:580.1.1-1.el9.*\nkmod-nvidia-open-dkms-3:580.2.2-1.el9.*\nother-1.0-1.noarch\n")
    monkeypatch.setattr(package_sets, "VERSIONLOCK", str(lock))
    run = Manager((0, "nvidia-driver-cuda 580.2.2-1.el9\nkmod-nvidia-open-dkms 580.2.2-1.el9\nother 1.0-1\n", ""))
    assert package_sets.Dnf(run).held() == {"kmod-nvidia-open-dkms", "other"}


@pytest.mark.parametrize(
    ("full", "desired", "same"),
    [
        ("580.95.05-1", "580.95.05", True),
        ("2:580.95.05-1", "580.95.05", True),
        ("580.95.051-1", "580.95.05", False),
        ("1.20.0-1", "1.20.0-1", True),
        ("", "1", False),
    ],
)
def test_version(full, desired, same):
    assert package_sets.is_version(full, desired) == same


def test_room():
    package_sets.room([("/usr", 0), ("/var/cache/apt/not-there", 1)])
    with pytest.raises(package_sets.PackageError, match="disk: expected .* MB free at /usr, found .* MB. Free some space"):
        package_sets.room([("/usr", 10**18)])


def test_cdi_names():
    head = "---\ncontainerEdits:\n  hooks:\n  - hookName: createContainer\n    name: no\n"
    text = head + 'devices:\n- containerEdits:\n    env: []\n  name: "0"\n- name: all\nkind: nvidia.com/gpu\n'
    assert gpu_host.cdi_names(text) == ["0", "all"]
    assert gpu_host.cdi_names("devices: []\n") == gpu_host.cdi_names("") == []
    assert gpu_host.cdi_names("devices:\n  - name: gpu0\n") == ["gpu0"]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ((0, "0 8\n"), ""),
        ((0, "802 0\n"), "fabric manager"),
        ((0, "803 0"), "different versions"),
        ((0, "700 0"), "error 700"),
        ((None, ""), "hangs"),
        ((1, "OSError: libcuda.so.1: cannot open shared object file"), "libcuda.so.1"),
    ],
)
def test_cuda_answer(answer, word):
    found = gpu_host.cuda_devices(lambda command: answer)
    assert word in found["error"] and bool(found["error"]) == bool(word)


def test_modinfo_of_debian_and_of_nvidia():
    nvidia = "filename:       /lib/modules/6.1/updates/dkms/nvidia.ko\nversion:        580.95.05\nlicense:        Dual MIT/GPL\n"
    nvidia += "signer:         DKMS module signing key\n"
    assert gpu_host.module_on_disk(lambda command: (0, nvidia)) == {
        "version": "580.95.05",
        "flavour": "open",
        "signer": "DKMS module signing key",
        "path": "/lib/modules/6.1/updates/dkms/nvidia.ko",
    }
    debian = "filename:       /lib/modules/6.1/updates/dkms/nvidia-current.ko\nversion:        535.261.03\nlicense:        NVIDIA\n"
    answers = {"nvidia-current": (0, debian)}
    assert gpu_host.module_on_disk(lambda command: answers.get(command[-1], (1, "modinfo: ERROR: Module nvidia not found.")))["flavour"] == "closed"
    assert gpu_host.module_on_disk(lambda command: (127, ""))["version"] == ""
