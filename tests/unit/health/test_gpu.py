"""The codes by which failures of a GPU are told apart, from what commands and files say."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils import gpu_host, host
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import gpu

NO_MODULE = {"version": "", "flavour": "", "signer": "", "path": ""}


class Context(engine.Context):
    """A context whose commands say what they are told to say."""

    def __init__(self, answers, gpus=None):
        super().__init__({"gpus": gpus})
        self.answers = answers

    def run(self, *command, timeout=4.0, stdin=None, hangs=False):
        answer = self.answers.get(command[0].rpartition("/")[2])
        if answer is None:
            raise engine.Unknown("%s is not installed" % command[0])
        if answer[0] is None and not hangs:
            raise engine.Unknown("%s did not end" % command[0])
        return engine.Ran(*answer)


def code_of(seen):
    """Return the code of what is wrong, None where nothing is."""
    return seen["code"] if seen["outcome"] in ("bad", "warn") else None


@pytest.fixture
def state(monkeypatch):
    """Return a function that sets what the host's files say."""

    def put(present=2, loaded="550.1.1", nouveau=False, module="550.1.1", signer="", library="550.1.1", secure=False):
        monkeypatch.setattr(host, "nvidia_pci_count", lambda: present)
        monkeypatch.setattr(gpu_host, "loaded_version", lambda: loaded)
        monkeypatch.setattr(gpu_host, "nouveau_loaded", lambda: nouveau)
        monkeypatch.setattr(gpu_host, "module_on_disk", lambda run: dict(NO_MODULE, version=module, signer=signer))
        monkeypatch.setattr(gpu_host, "library_version", lambda: (library, "/x"))
        monkeypatch.setattr(gpu_host, "secure_boot", lambda: secure)

    put()
    return put


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, None),
        ({"loaded": "unknown"}, None),
        ({"library": ""}, None),
        ({"loaded": "", "module": "", "library": ""}, "not_installed"),
        ({"loaded": "", "module": ""}, "no_module"),
        ({"loaded": ""}, "not_loaded"),
        ({"loaded": "", "secure": True}, "secure_boot"),
        ({"loaded": "", "secure": True, "signer": "Canonical"}, "not_loaded"),
        ({"loaded": "", "nouveau": True}, "nouveau"),
        ({"module": "560.1.1"}, "mismatch"),
        ({"library": "560.1.1"}, "library"),
    ],
)
def test_driver(state, changes, code):
    state(**changes)
    assert code_of(gpu.driver(Context({}))) == code


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((0, "GPU 0: x\nGPU 1: y\n"), None),
        ((0, "GPU 0: x\n  MIG 1g.10gb Device 0: z\nGPU 1: y\n"), None),
        ((0, "GPU 0: x\n"), "count"),
        ((None, ""), "hang"),
        (None, "missing"),
        ((18, "Failed to initialize NVML: Driver/library version mismatch\n"), "mismatch"),
        ((9, "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."), "driver"),
        ((1, "?"), ""),
    ],
)
def test_smi(state, answer, code):
    assert code_of(gpu.smi(Context({"nvidia-smi": answer}))) == code


@pytest.mark.parametrize(
    ("answer", "listed", "code"),
    [
        ((0, "0 2\n"), "", None),
        ((0, "0 1\n"), "GPU 0: x\nGPU 1: y\n", "count"),
        ((0, "0 1\n"), "GPU 0: x\n  MIG 1g.10gb Device 0: z\nGPU 1: y\n", None),
        ((0, "802 0\n"), "", "fabric"),
        ((0, "803 0\n"), "", "mismatch"),
        ((0, "100 0\n"), "", "count"),
        ((0, "999 0\n"), "", ""),
        ((None, ""), "", "hang"),
        ((1, "OSError: libcuda.so.1: cannot open shared object file"), "", "missing"),
        ((-11, ""), "", ""),
    ],
)
def test_cuda(state, answer, listed, code):
    assert code_of(gpu.cuda(Context({"python3": answer, "nvidia-smi": (0, listed)}))) == code


def test_nvcc_is_told(state):
    found = gpu.cuda(Context({"python3": (0, "0 2"), "nvcc": (0, "Cuda compilation tools, release 12.8, V12.8.61")}))["found"]
    assert found == "2 devices, nvcc 12.8"


@pytest.mark.parametrize(
    ("log", "code"),
    [
        ("", None),
        ("NVRM: Xid (PCI:0000:01:00): 31, pid=7\nNVRM: Xid (PCI:0000:01:00): 79, pid=7\n", "lost"),
        ("NVRM: Xid (PCI:0000:01:00): 63, pid=7\n", "memory"),
        ("NVRM: Xid (PCI:0000:01:00): 13, pid=7\nNVRM: Xid (PCI:0000:01:00): 43, pid=7\n", "program"),
        ("NVRM: Xid (PCI:0000:01:00): 13, pid=7\nNVRM: Xid (PCI:0000:01:00): 8, pid=7\n", ""),
        ("".join("NVRM: Xid (PCI:0000:01:00): %d, pid=7\n" % number for number in gpu.XID_PROGRAM), "program"),
    ],
)
def test_xid(state, log, code):
    assert code_of(gpu.xid(Context({"journalctl": (0, log)}))) == code


def test_host_without_gpu_is_left_alone(state):
    state(present=0)
    assert {probe(Context({}))["outcome"] for probe in gpu.PROBES.values()} == {"not_applicable"}
    assert gpu.pci(Context({}, gpus=1))["outcome"] == "bad"


def test_every_code_has_a_cause_of_its_own():
    codes = {
        "U02": "not_installed no_module not_loaded secure_boot nouveau mismatch library",
        "U03": "count hang missing mismatch driver",
        "U04": "fabric mismatch count hang missing",
        "U05": "package mismatch hang count",
        "U08": "lost memory program",
    }
    for check, names in codes.items():
        assert set(names.split()) <= set(catalog.BY_ID[check].causes), check
