"""The codes by which failures of a GPU are told apart, from what commands and files say."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys
import types

import pynvml
import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.module_utils.nvidia import gpu_health, gpu_host
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, engine, xids
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
        monkeypatch.setattr(linux, "nvidia_pci_count", lambda: present)
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
        ("NVRM: Xid (PCI:0000:01:00): 13, pid=7\nNVRM: Xid (PCI:0000:01:00): 999, pid=7\n", ""),
        ("NVRM: Xid (PCI:0000:01:00): 150, pid=7\n", "nvlink"),
        ("NVRM: Xid (PCI:0000:01:00): 31, pid=7\nNVRM: Xid (PCI:0000:01:00): 119, pid=7\n", "reset"),
        ("NVRM: Xid (PCI:0000:01:00): 92, pid=7\n", None),
        ("NVRM: Xid (PCI:0000:01:00): 92, pid=7\nNVRM: Xid (PCI:0000:01:00): 999, pid=7\n", ""),
    ],
)
def test_xid(state, log, code):
    assert code_of(gpu.xid(Context({"journalctl": (0, log)}))) == code


ROOT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def nvml_double(tmp_path_factory):
    """Return a function that has the real nvidia-ml-py read the NVML double with these settings, as the agent's Python does on a host."""
    folder = tmp_path_factory.mktemp("nvml")
    library = str(folder / "libnvidia-ml.so.1")
    subprocess.run(["cc", "-Wall", "-shared", "-fPIC", "-o", library, str(ROOT / "tests/doubles/gpu/nvidia_double.c")], check=True)
    environment = dict(os.environ, LD_LIBRARY_PATH=str(folder), BETA9_GPU_DOUBLE=str(folder / "settings"))

    def run(settings):
        (folder / "settings").write_text("gpus=2\n" + settings)
        program = gpu_health.__loader__.get_source(gpu_health.__name__)
        done = subprocess.run([sys.executable, "-I", "-"], input=program, env=environment, capture_output=True, text=True, check=False)
        return engine.Ran(done.returncode, done.stdout, errors=done.stderr)

    return run


def seen_by(nvml_double, settings, monkeypatch):
    """Return {check: observation} of all checks that ask NVML."""
    monkeypatch.setattr(os.path, "exists", lambda path: True)
    ran = nvml_double(settings)
    context = Context({})
    context.shared("nvml", lambda: ran)
    checks = [check for check in gpu.PROBES if check == "U05" or "U09" <= check <= "U23"]
    return dict(zip(checks, engine.observe([(catalog.BY_ID[check], gpu.PROBES[check]) for check in checks], context, 10)))


WORK = "utilization.1=80\npstate.1=2\n"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("", {}),
        ("error.1=15\n", {"U09": "lost"}),
        ("error.1=16\n", {"U09": "reset"}),
        ("error.1=999\n", {"U09": ""}),
        ("recovery.0=2\n", {"U09": "recovery"}),
        ("ecc.1=0\n", {"U10": "disabled"}),
        ("ecc.1=0\necc_pending.1=1\n", {"U10": "pending"}),
        ("uncorrected.1=3\n", {"U11": ""}),
        ("remap_failed.1=1\nremap_pending.0=1\n", {"U12": "failed"}),
        ("remap_pending.1=1\n", {"U12": "pending"}),
        ("pages_pending.1=1\n", {"U12": "pages"}),
        ("sram_exceeded.1=1\nuncorrected.1=9\n", {"U11": "sram"}),
        ("channel_repair.1=1\n", {"U12": "repair"}),
        ("tpc_repair.1=1\n", {"U12": "repair"}),
        ("reasons.1=72\n", {"U13": "thermal"}),
        ("reasons.1=136\n", {"U13": "power_brake"}),
        ("reasons.1=8\n", {"U13": "slowdown"}),
        ("reasons.1=1\n", {}),
        ("reasons.1=4\n", {}),
        ("power_limit.1=300000\n", {"U14": ""}),
        ("clock.1=900\n", {"U15": ""}),
        ("pcie_width.1=4\n" + WORK, {"U16": ""}),
        ("pcie_generation.1=1\npstate.1=8\n", {}),
        ("pcie_generation.1=1\nreasons.1=1\n" + WORK, {}),  # busy until a moment ago
        ("pcie_generation.1=1\npcie_width.0=4\n" + WORK, {"U16": ""}),
        ("links_down.1=1\n", {"U17": "down"}),
        ("links_down=12\n", {}),
        ("link_recoveries.1=2\n", {"U17": "errors"}),
        ("persistence=Disabled\n", {"U18": ""}),
        ("mig.1=1\n", {"U19": "empty"}),
        ("mig.1=1\ninstances.1=2\n", {}),
        ("mig_pending.1=1\n", {"U19": "pending"}),
        ("firmware_differs.1=1\n", {"U20": ""}),
        ("fabric=3\n", {}),
        ("fabric.1=1\n", {"U21": "not_started"}),
        ("fabric.1=2\n", {"U21": "in_progress"}),
        ("fabric.1=3\nfabric_status.1=999\n", {"U21": "failed"}),
        ("fabric=3\nfabric_health.1=1\n", {"U21": "degraded"}),
        ("p2p=4\n", {"U22": "disabled"}),
        ("p2p=3\n", {"U22": ""}),
        ("p2p=3\nlinks=0\n", {}),
    ],
)
def test_what_nvml_tells(state, nvml_double, monkeypatch, settings, expected):
    seen = seen_by(nvml_double, settings, monkeypatch)
    assert {check: entry["code"] for check, entry in seen.items() if code_of(entry) is not None} == expected, seen
    assert all(code in catalog.BY_ID[check].causes for check, code in expected.items())


RECORDED = pathlib.Path(__file__).with_name("gpus")
VOLATILE = {"uuid", "name", "temperature", "power", "power_limits", "clocks", "pcie", "utilization", "reasons", "processes", "firmware", "driver"}


@pytest.fixture(params=sorted(path.stem for path in RECORDED.glob("*.json")))
def recorded(request):
    """Return (what nvidia-ml-py told of a real GPU, call by call; nvidia-smi -q of the same moment), and the reading of it."""
    found = json.loads((RECORDED / (request.param + ".json")).read_text())
    return found, (RECORDED / (request.param + ".txt")).read_text(), gpu_health.read(replayed(found["calls"]))


def replayed(calls):
    """Return a module that answers as nvidia-ml-py did; what was not asked then is not to be asked."""
    answers = {(name, json.dumps(given)): (kind, value) for name, given, kind, value in calls}
    module = types.ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})
    for name in {name for name, *_rest in calls}:

        def call(*arguments, name=name):
            structures = [argument._obj for argument in arguments if hasattr(argument, "_obj")]
            given = [argument for argument in arguments if isinstance(argument, (int, list))]
            kind, value = answers[name, json.dumps(given)]
            if kind == "error":
                error = module.NVMLError(value[1])
                error.value = value[0]
                raise error
            for structure in structures:
                for field, told in value.items():
                    setattr(structure, field, told)
            return objects(value)

        setattr(module, name, call)
    for name in ("c_nvmlGpuFabricInfo_v2_t", "c_nvmlEccSramErrorStatus_v1_t"):
        setattr(module, name, getattr(pynvml, name))
    return module


def objects(value):
    """Return mappings as objects with attributes, as nvidia-ml-py has them."""
    if isinstance(value, list):
        return [objects(entry) for entry in value]
    return types.SimpleNamespace(**{name: objects(entry) for name, entry in value.items()}) if isinstance(value, dict) else value


def test_a_real_gpu_that_is_well_gives_no_finding(recorded):
    found, _smi, reading = recorded
    assert reading == found["reading"]
    assert gpu_health.findings(reading) == []
    told = {check for check in {rule.check for rule in gpu_health.RULES} if gpu_health.reporting(reading, check)}
    assert told == {"U09", "U10", "U11", "U12", "U13", "U14", "U15", "U16", "U18", "U19", "U20"}, "no NVLink and no fabric in this virtual machine"
    assert gpu_health.in_use(reading["gpus"][0]) == (not reading["gpus"][0]["reasons"]), "idle, as the driver says itself"


def smi_value(text, *path):
    """Return a value of nvidia-smi -q below headings."""
    lines, at = text.splitlines(), 0
    for depth, heading in enumerate(path):
        at = next(number for number in range(at + bool(depth), len(lines)) if lines[number].strip().split(" : ")[0].strip() == heading)
    return lines[at].partition(" : ")[2].strip()


def test_nvml_and_nvidia_smi_tell_the_same(recorded):
    """nvidia-smi ran within a second of the reading: temperature and power may differ a little."""
    _found, smi, reading = recorded
    gpu_read = reading["gpus"][0]
    on, yes = {"Enabled": 1, "Disabled": 0}, {"Yes": 1, "No": 0}

    def number(*path):
        return float(smi_value(smi, *path).split()[0].rstrip("x"))

    current = number("Temperature", "GPU Current Temp")
    assert {
        "driver": smi_value(smi, "Driver Version"),
        "name": smi_value(smi, "Product Name"),
        "uuid": smi_value(smi, "GPU UUID"),
        "persistence": on[smi_value(smi, "Persistence Mode")],
        "mig": [on[smi_value(smi, "MIG Mode", name)] for name in ("Current", "Pending")],
        "recovery": {"None": 0}[smi_value(smi, "GPU Recovery Action")],
        "firmware": smi_value(smi, "GSP Firmware Version"),
        "pcie": [number("GPU Link Info", "PCIe Generation", name) for name in ("Current", "Max")]
        + [number("GPU Link Info", "Link Width", name) for name in ("Current", "Max")],
        "pstate": int(smi_value(smi, "Performance State")[1:]),
        "ecc": [on[smi_value(smi, "ECC Mode", name)] for name in ("Current", "Pending")],
        "uncorrected": number("ECC Errors", "Volatile", "DRAM Uncorrectable") + number("ECC Errors", "Volatile", "SRAM Uncorrectable SEC-DED"),
        "sram_worn_out": bool(yes[smi_value(smi, "ECC Errors", "SRAM Threshold Exceeded")]),
        "repairs": [yes[smi_value(smi, "ECC Errors", name)] for name in ("Channel Repair Pending", "TPC Repair Pending")],
        "pages_pending": {"N/A": None}[smi_value(smi, "Retired Pages", "Pending Page Blacklist")],
        "rows": [
            number("Remapped Rows", "Correctable Error"),
            number("Remapped Rows", "Uncorrectable Error"),
            yes[smi_value(smi, "Remapped Rows", "Pending")],
            yes[smi_value(smi, "Remapped Rows", "Remapping Failure Occurred")],
        ],
        "reasons": int(smi_value(smi, "Clocks Event Reasons", "Idle") == "Active"),
        "power_limits": [1000 * number("GPU Power Readings", name) for name in ("Current Power Limit", "Default Power Limit")],
        "clocks": [number("Applications Clocks", "Graphics"), number("Default Applications Clocks", "Graphics")],
        "fabric": {"N/A": None}[smi_value(smi, "Fabric", "State")],
        "processes": [int(pid) for pid in re.findall(r"Process ID +: (\d+)", smi)],
    }.items() <= gpu_read.items()
    assert abs(current - gpu_read["temperature"]) <= 3
    # how far it is from there to the slowdown: nvidia-smi tells distances of these GPUs, rounded each
    slowdown = current + number("Temperature", "GPU T.Limit Temp") - number("Temperature", "GPU Slowdown T.Limit Temp")
    assert abs(slowdown - gpu_read["slowdown_temperature"]) <= 1
    assert abs(number("GPU Power Readings", "Instantaneous Power Draw") - gpu_read["power"] / 1000) < 0.6 * gpu_read["power"] / 1000


def test_the_double_answers_as_a_real_gpu(recorded, nvml_double):
    """What a GPU that is well tells, and which calls it refuses. Figures of its model aside."""
    real = recorded[2]["gpus"][0]
    settings = "gpus=1\nlinks=0\nutilization=%d\nbusy=%d\nbusy_pid=1\n" % (real["utilization"], len(real["processes"]))
    double = json.loads(nvml_double(settings).output)["gpus"][0]
    assert {name: value for name, value in double.items() if name not in VOLATILE} == {name: value for name, value in real.items() if name not in VOLATILE}
    assert {name: type(value) for name, value in double.items()} == {name: type(value) for name, value in real.items()}
    assert double["reasons"] == real["reasons"] and len(double["processes"]) == len(real["processes"])


def test_a_consumer_gpu_lacks_the_counters_and_is_well(state, nvml_double, monkeypatch):
    seen = seen_by(nvml_double, "consumer=1\npersistence=0\n", monkeypatch)
    missing = {"U10", "U11", "U12", "U15", "U16", "U17", "U19", "U20", "U21", "U22"}
    assert {check for check, entry in seen.items() if entry["outcome"] == "not_applicable"} == missing
    assert {check for check, entry in seen.items() if code_of(entry) is not None} == {"U18"}


def test_codes_and_bits_are_nvidias():
    names = {
        "GPU_IS_LOST": "NVML_ERROR_GPU_IS_LOST",
        "RESET_REQUIRED": "NVML_ERROR_RESET_REQUIRED",
        "VOLATILE": "NVML_VOLATILE_ECC",
        "UNCORRECTED": "NVML_MEMORY_ERROR_TYPE_UNCORRECTED",
        "SLOWDOWN_THRESHOLD": "NVML_TEMPERATURE_THRESHOLD_SLOWDOWN",
        "TEMPERATURE_GPU": "NVML_TEMPERATURE_GPU",
        "CLOCK_SM": "NVML_CLOCK_SM",
        "P2P_OK": "NVML_P2P_STATUS_OK",
        "P2P_REGKEY": "NVML_P2P_STATUS_DISABLED_BY_REGKEY",
        "LINK_RECOVERY": "NVML_NVLINK_ERROR_DL_RECOVERY",
        "GPU_IDLE": "nvmlClocksEventReasonGpuIdle",
        "HW_SLOWDOWN": "nvmlClocksEventReasonHwSlowdown",
        "SW_THERMAL": "nvmlClocksEventReasonSwThermalSlowdown",
        "HW_THERMAL": "nvmlClocksEventReasonHwThermalSlowdown",
        "HW_POWER_BRAKE": "nvmlClocksEventReasonHwPowerBrakeSlowdown",
        "FABRIC_NOT_STARTED": "NVML_GPU_FABRIC_STATE_NOT_STARTED",
        "FABRIC_IN_PROGRESS": "NVML_GPU_FABRIC_STATE_IN_PROGRESS",
        "FABRIC_COMPLETED": "NVML_GPU_FABRIC_STATE_COMPLETED",
        "FABRIC_DEGRADED": "NVML_GPU_FABRIC_HEALTH_MASK_DEGRADED_BW_TRUE",
        "RECOVERY_FIELD": "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
    }
    assert {name: getattr(gpu_health, name) for name in names} == {name: getattr(pynvml, theirs) for name, theirs in names.items()}


def test_nvml_that_does_not_answer_is_told_once(state, nvml_double, monkeypatch):
    seen = seen_by(nvml_double, "nvml=18\n", monkeypatch)
    assert seen.pop("U05")["code"] == "mismatch"
    assert {entry["outcome"] for entry in seen.values()} == {"unknown"}


def test_host_without_gpu_is_left_alone(state, monkeypatch):
    state(present=0)
    monkeypatch.setattr(gpu_host, "given_away", dict)
    assert {probe(Context({}))["outcome"] for probe in gpu.PROBES.values()} == {"not_applicable"}
    assert gpu.pci(Context({}, gpus=1))["outcome"] == "bad"


def test_every_code_has_a_cause_of_its_own():
    codes = {
        "U02": "not_installed no_module not_loaded secure_boot nouveau mismatch library",
        "U03": "count hang missing mismatch driver",
        "U04": "fabric mismatch count hang missing",
        "U05": "package mismatch hang count",
        "U08": " ".join(code for code, _group in xids.XIDS if code != "ignore"),
    }
    for rule in gpu_health.RULES:
        codes[rule.check] = "%s %s" % (codes.get(rule.check, ""), rule.code)
    for check, names in codes.items():
        assert set(names.split()) <= set(catalog.BY_ID[check].causes), check


def test_a_gpu_that_was_given_away(state, monkeypatch):
    state(present=1)
    monkeypatch.setattr(gpu_host, "given_away", lambda: {"0000:02:00.0": "vfio-pci"})
    assert [gpu.bound(Context({}, gpus=number))["outcome"] for number in (None, 1, 2)] == ["ok", "ok", "bad"]
