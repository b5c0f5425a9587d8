"""Acceptance of GPUs: the kernel's PTX, executed instruction by instruction; the program against a libcuda double;
the judgement."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import types

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.agent import records
from ansible_collections.beta9.workers.plugins.module_utils.nvidia import gpu_accept, gpu_program, gpu_record
from ansible_collections.beta9.workers.plugins.modules import gpu_acceptance

ROOT = pathlib.Path(__file__).resolve().parents[3]


class Thread:
    """One thread of a kernel in PTX: the instructions that ours uses. memory: {octet address: float}."""

    def __init__(self, code, parameters, special, memory):
        self.parameters, self.memory = parameters, memory
        self.registers = {"%" + name: value for name, value in special.items()}
        lines = [line.split("//")[0].strip() for line in code[code.index("{") + 1 : code.rindex("}")].splitlines()]
        self.lines = [line for line in lines if line and not line.startswith(".")]
        self.labels = {line[:-1]: at for at, line in enumerate(self.lines) if line.endswith(":")}

    def value(self, word):
        if word.startswith("0f"):
            return struct.unpack(">f", bytes.fromhex(word[2:]))[0]
        return self.registers[word] if word.startswith("%") else int(word)

    def run(self):
        at = 0
        while True:
            line = self.lines[at].rstrip(";")
            at += 1
            if line.endswith(":"):
                continue
            guard = re.match(r"@(%\w+) (.*)", line)
            if guard:
                if not self.registers[guard[1]]:
                    continue
                line = guard[2]
            operation, _space, rest = line.partition(" ")
            words = [word.strip("[] ") for word in rest.split(",")]
            if operation == "ret":
                return
            if operation == "bra":
                at = self.labels[words[0]]
                continue
            self.step(operation.split("."), words)

    def step(self, operation, words):
        target = words[0]
        if operation[:2] == ["ld", "param"]:
            self.registers[target] = self.parameters[words[1]]
            return
        if operation[:2] == ["st", "global"]:
            self.memory[self.value(target)] = self.value(words[1])
            return
        given = [self.value(word) for word in words[1:]]
        self.registers[target] = {
            "ld": lambda: self.memory[given[0]],
            "cvta": lambda: given[0],
            "mov": lambda: given[0],
            "mad": lambda: given[0] * given[1] + given[2],
            "fma": lambda: given[0] * given[1] + given[2],
            "mul": lambda: given[0] * given[1],
            "add": lambda: given[0] + given[1],
            "shl": lambda: given[0] << given[1],
            "setp": lambda: given[0] >= given[1] if operation[1] == "ge" else given[0] < given[1],
        }[operation[0]]()


def test_the_kernel_multiplies_matrices():
    """Every thread of a grid that is larger than the matrices, which no thread may write beyond."""
    size, tile = 10, 4
    code, (a, b, c) = gpu_program.PTX.decode(), gpu_program.matrices(size)
    bases, memory = {"param_a": 0x10000, "param_b": 0x20000, "param_c": 0x30000}, {}
    for base, content in ((0x10000, a), (0x20000, b)):
        memory.update((base + 4 * at, value) for at, value in enumerate(struct.unpack("%df" % size**2, content)))
    for row in range(12):
        for column in range(12):
            special = {
                "ctaid.x": column // tile,
                "ntid.x": tile,
                "tid.x": column % tile,
                "ctaid.y": row // tile,
                "ntid.y": tile,
                "tid.y": row % tile,
            }
            Thread(code, dict(bases, param_n=size), special, memory).run()
    written = {address: value for address, value in memory.items() if address >= 0x30000}
    assert [written.pop(0x30000 + 4 * at) for at in range(size**2)] == list(struct.unpack("%df" % size**2, c))
    assert not written


def test_the_expected_product_is_the_product():
    size = 24
    a, b, c = (struct.unpack("%df" % size**2, content) for content in gpu_program.matrices(size))
    for i in range(size):
        for j in range(size):
            assert sum(a[i * size + k] * b[k * size + j] for k in range(size)) == c[i * size + j]
    largest = struct.unpack("%df" % gpu_program.SIZE**2, gpu_program.matrices()[2])
    assert max(largest) < 2**24, "no longer exact in 32-bit floats"


@pytest.mark.skipif(not shutil.which("ptxas"), reason="NVIDIA's assembler is not installed")
@pytest.mark.parametrize("arch", ["sm_75", "sm_80", "sm_90"])
def test_nvidias_assembler_takes_the_kernel(tmp_path, arch):
    (tmp_path / "k.ptx").write_bytes(gpu_program.PTX)
    subprocess.run(["ptxas", "-arch=" + arch, str(tmp_path / "k.ptx"), "-o", str(tmp_path / "k")], check=True)


@pytest.fixture(scope="module")
def cuda_double(tmp_path_factory):
    """Return a function that sets what the libcuda double does, and returns a runner for gpu_accept."""
    folder = tmp_path_factory.mktemp("cuda")
    source = ROOT / "tests/doubles/gpu"
    subprocess.run(
        ["cc", "-O2", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(source / "nvidia_double.c")],
        check=True,
    )
    shutil.copy(source / "nvidia-smi", folder)
    environment = dict(
        os.environ,
        LD_LIBRARY_PATH=str(folder),
        BETA9_GPU_DOUBLE=str(folder / "settings"),
        PATH="%s:%s" % (folder, os.environ["PATH"]),
    )

    def put(settings):
        (folder / "settings").write_text("cuda_memory_mib=16\n" + settings)

        def run(command, seconds, stdin=None):
            try:
                done = subprocess.run(
                    command, input=stdin, env=environment, capture_output=True, text=True, timeout=seconds, check=False
                )
            except subprocess.TimeoutExpired:
                return None, ""
            return done.returncode, done.stdout or done.stderr

        return run

    return put


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """What takes seconds on a GPU takes a moment here."""
    monkeypatch.setattr(gpu_accept, "ALONE_SECONDS", {"quick": 0.01})
    monkeypatch.setattr(gpu_accept, "TOGETHER_SECONDS", {"quick": 0.01})


ILL = {
    "cuda_alloc": (2, "alone: cuMemAlloc_v2: CUDA_ERROR_OUT_OF_MEMORY"),
    "cuda_memory_wrong": (1, "alone: memory does not keep what is written"),
    "cuda_copy_wrong": (1, "alone: a copy differs"),
    "cuda_product_wrong": (1, "alone: a matrix product is wrong"),
    "cuda_l4": (1, "device to device: expected at least 180.0 GB/s"),
}


def test_gpus_that_are_ill_fail_alone_and_others_pass(cuda_double):
    """The first GPU is well, and the last computes for somebody."""
    lines = ["%s.%d=%d" % (name, at + 1, value) for at, (name, (value, _reason)) in enumerate(ILL.items())] + [
        "cuda_slow.5=50"
    ]
    runner = cuda_double("gpus=6\nsmi=6\nbusy=1\n%s\n" % "\n".join(lines))
    record = gpu_accept.accept("quick", "", {}, "550.1.1", runner)
    assert [gpu["outcome"] for gpu in record["gpus"]] == ["in_use"] + ["failed"] * 5, record
    for gpu, (_value, reason) in zip(record["gpus"][1:], ILL.values()):
        assert gpu["reasons"][0].startswith(reason), gpu
    assert gpu_record.offered(record["gpus"]) == [record["gpus"][0]["uuid"]]


def test_gpus_that_are_well_pass(cuda_double):
    runner = cuda_double("gpus=2\nsmi=2\nbusy=0\n")
    record = gpu_accept.accept("quick", "", {}, "550.1.1", runner)
    assert [gpu["outcome"] for gpu in record["gpus"]] == ["passed", "passed"], record
    assert gpu_record.offered(record["gpus"]) == [] and record["gpus"][1]["measured"]["products"] >= 1
    assert [gpu["device"] for gpu in gpu_accept.listed(runner, "1")] == [1]


@pytest.fixture
def speed_is_no_matter(monkeypatch):
    """How fast the double computes depends on what else this host does."""
    monkeypatch.setattr(gpu_accept, "PEER_SHARE", 0.0)
    monkeypatch.setattr(gpu_accept, "BETWEEN_SHARE", 0.0)


@pytest.mark.parametrize("direct", [0, 1])
def test_copies_between_gpus(cuda_double, speed_is_no_matter, direct):
    record = gpu_accept.accept("quick", "", {}, "550.1.1", cuda_double("gpus=3\nsmi=3\nbusy=0\ncuda_peer=%d\n" % direct))
    assert [gpu["reasons"] for gpu in record["gpus"]] == [[], [], []], record
    assert [gpu["measured"]["direct_copies"] for gpu in record["gpus"]] == [4 * direct] * 3
    assert min(gpu["measured"]["between_gpus"] for gpu in record["gpus"]) > 0


def test_the_gpu_whose_copies_to_others_are_wrong_fails_alone(cuda_double, speed_is_no_matter):
    runner = cuda_double("gpus=4\nsmi=4\nbusy=0\ncuda_peer_wrong.2=1\n")
    record = gpu_accept.accept("quick", "", {}, "550.1.1", runner)
    assert [gpu["reasons"] for gpu in record["gpus"]] == [
        [],
        [],
        ["between GPUs: 0 to 2, 1 to 2, 2 to 0, 2 to 1, 2 to 3, 3 to 2: the copy differs"],
        [],
    ]


def test_the_gpu_whose_copies_to_others_are_slow_fails_alone():
    """One of four, each copy of which takes twice as long and more."""
    gpus = [dict(GPU, device=number, uuid="GPU-%d" % number) for number in range(4)]
    copies = [
        {"source": one, "target": other, "direct": True, "gb_s": 100.0 if 2 in (one, other) else 250.0, "wrong": 0}
        for one in range(4)
        for other in range(4)
        if one != other
    ]
    found = {
        gpu["uuid"]: {"alone": GOOD, "between": [copy for copy in copies if gpu["device"] in (copy["source"], copy["target"])]}
        for gpu in gpus
    }
    reasons = [result["reasons"] for result in gpu_accept.judge(gpus, found, {})]
    assert reasons == [[], [], ["between gpus: found 100.0, where others of this model have 250.0"], []]


@pytest.mark.parametrize(
    ("wrong", "blamed"),
    [
        ("", []),
        ("01", [0, 1]),  # it can't be told which
        ("01 10 02 20 03 30", [0]),
        ("20 21 23", [2]),  # what comes from one is wrong
        ("01 10 02 20 12 21 03 30 13 31", [0, 1]),
        ("01 23", [0, 1, 2, 3]),
    ],
)
def test_as_few_gpus_as_explain_all_are_blamed(wrong, blamed):
    copies = [{"source": 0, "target": 3, "direct": True, "gb_s": 1.0, "wrong": 0}]
    copies += [{"source": int(pair[0]), "target": int(pair[1]), "error": "x"} for pair in wrong.split()]
    assert sorted(gpu_accept.blame(copies)) == blamed


def test_copies_between_gpus_that_hang_fail(cuda_double, speed_is_no_matter):
    runner = cuda_double("gpus=2\nsmi=2\nbusy=0\ncuda_peer_slow=1000000\n")

    def run(command, seconds, stdin=None):
        return runner(command, 1.0 if "between" in command else seconds, stdin)

    record = gpu_accept.accept("quick", "", {}, "550.1.1", run)
    reason = "between GPUs: 0 to 1, 1 to 0: did not end within 25 s: the driver hangs"
    assert [gpu["reasons"] for gpu in record["gpus"]] == [[reason]] * 2


def test_a_gpu_that_hangs_fails(cuda_double, monkeypatch):
    monkeypatch.setattr(gpu_accept, "CHILD_SECONDS", {"quick": 1.0})
    record = gpu_accept.accept("quick", "", {}, "550.1.1", cuda_double("gpus=1\nsmi=1\nbusy=0\ncuda_hang.0=1\n"))
    assert record["gpus"][0]["reasons"] == ["alone: did not end within 1 s: the driver hangs"]


def test_cuda_that_does_not_start_is_told(cuda_double):
    with pytest.raises(gpu_accept.CannotTry, match="CUDA_ERROR_SYSTEM_NOT_READY"):
        gpu_accept.listed(cuda_double("gpus=2\ncuda=802\n"))


def test_module_tries_once_and_says_when_outcomes_change(cuda_double, monkeypatch, tmp_path):
    class Ended(Exception):
        pass

    def run(settings, check=False, **params):
        def end(**result):
            raise Ended(result)

        given = dict({"mode": "quick", "gpu_ids": "", "expectations": {}, "keep_failed": False, "again": False}, **params)
        module = types.SimpleNamespace(params=given, check_mode=check, exit_json=end, fail_json=end)
        monkeypatch.setattr(gpu_acceptance, "AnsibleModule", lambda **_spec: module)
        monkeypatch.setattr(gpu_accept, "run", cuda_double("gpus=1\nsmi=1\nbusy=0\n" + settings))
        with pytest.raises(Ended) as ended:
            gpu_acceptance.main()
        result = ended.value.args[0]
        return result.get("changed"), result.get("remembered"), result.get("problems", result.get("msg"))

    monkeypatch.setattr(gpu_record, "RECORD", str(tmp_path / "gpu_acceptance.json"))
    assert run("", check=True) == (True, False, []) and not (tmp_path / "gpu_acceptance.json").exists()
    assert run("") == (True, False, []) and run("") == (False, True, []) and run("", again=True) == (False, False, [])
    changed, remembered, problems = run("cuda_product_wrong=1\n", again=True)
    assert changed and not remembered and problems[0].endswith("alone: a matrix product is wrong")
    assert run("", keep_failed=True) == (False, True, problems)
    assert run("") == (True, False, []), "it may have been repaired"
    assert "expected to try them with CUDA" in run("cuda=802\n")[2]


GPU = {"device": 0, "name": "NVIDIA H200", "uuid": "GPU-a"}
GOOD = {"device_to_device": 4000.0, "host_to_device": 50.0, "device_to_host": 50.0, "gflops": 4050.0}
GOOD["link"] = {"speed": 32.0, "width": 16.0, "max_speed": 32.0, "max_width": 16.0}


@pytest.mark.parametrize(
    ("changes", "overrides", "reasons"),
    [
        ({}, {}, []),
        ({"device_to_device": 2500.0}, {}, ["device to device: expected at least 3280.8 GB/s, found 2500.0"]),
        ({"device_to_device": 2500.0}, {"NVIDIA H200": {"device_to_device": 2400}}, []),
        ({"gflops": 3000.0}, {}, ["gflops: expected at least 3236.8 GFLOP/s, found 3000.0"]),
        ({"gflops": 3000.0}, {"NVIDIA H200": {"gflops": 2900}}, []),
        ({"host_to_device": 20.0}, {}, ["host to device: expected at least 37.8 GB/s, found 20.0"]),
        ({"link": dict(GOOD["link"], width=4.0)}, {}, ["PCIe under load: expected 32 GT/s x16, found 32 GT/s x4"]),
        ({"link": {}, "host_to_device": 1.0}, {}, []),
        ({"products_wrong": 1}, {}, ["alone: a matrix product is wrong"]),
    ],
)
def test_judgement(changes, overrides, reasons):
    result = gpu_accept.judge([GPU], {"GPU-a": {"alone": dict(GOOD, **changes)}}, overrides)[0]
    assert result["reasons"] == reasons and result["outcome"] == ("failed" if reasons else "passed")


def test_a_model_without_a_figure_is_only_measured_and_compared_with_its_like():
    gpus = [dict(GPU, name="NVIDIA NEW", uuid="GPU-%d" % number) for number in range(4)]
    found = {
        gpu["uuid"]: {"alone": dict(GOOD, link={}, device_to_device=900.0 if gpu["uuid"] == "GPU-2" else 2000.0)}
        for gpu in gpus
    }
    results = gpu_accept.judge(gpus, found, {})
    assert [result["outcome"] for result in results] == ["passed", "passed", "failed", "passed"]
    assert results[0]["expected"] == {} and "where others of this model have 2000.0" in results[2]["reasons"][0]
    assert all(result["outcome"] == "passed" for result in gpu_accept.judge(gpus[1:3], found, {})), (
        "two can't be told apart"
    )


def test_what_fails_together_fails():
    found = {"GPU-a": {"alone": GOOD, "together": {"error": "cuLaunchKernel: CUDA_ERROR_ILLEGAL_ADDRESS"}}}
    assert gpu_accept.judge([GPU], found, {})[0]["reasons"] == [
        "all at once: cuLaunchKernel: CUDA_ERROR_ILLEGAL_ADDRESS"
    ]


def test_pcie_link_is_the_least_of_gpu_and_port(tmp_path):
    port = tmp_path / "0000:00:01.0"
    folder = port / "0000:01:00.0"
    folder.mkdir(parents=True)
    (tmp_path / "bus").mkdir()
    (tmp_path / "bus" / "0000:01:00.0").symlink_to(folder)
    for place, speed, width in ((folder, "32.0 GT/s PCIe", "16"), (port, "16.0 GT/s PCIe", "8")):
        (place / "max_link_speed").write_text(speed)
        (place / "max_link_width").write_text(width)
    (folder / "current_link_speed").write_text("16.0 GT/s PCIe\n")
    (folder / "current_link_width").write_text("4\n")
    assert gpu_program.link("0000:01:00.0", str(tmp_path / "bus")) == {
        "speed": 16.0,
        "width": 4.0,
        "max_speed": 16.0,
        "max_width": 8.0,
    }
    assert gpu_program.link("0000:02:00.0", str(tmp_path / "bus")) == {}


def test_a_result_holds_for_the_same_gpus_and_driver(tmp_path):
    path = str(tmp_path / "below" / "record.json")
    gpus = [dict(GPU, outcome="passed")]

    def holds(mode="quick", driver="550", more=(), failed=True):
        return bool(gpu_record.remembered(path, mode, driver, gpus + list(more), failed))

    assert not holds()
    gpu_record.write({"mode": "full", "driver": "550", "gpus": gpus}, path)
    assert holds() and holds("full") and holds(failed=False)
    assert not holds(driver="560") and not holds(more=[dict(GPU, uuid="GPU-b")])
    gpu_record.write({"mode": "quick", "driver": "550", "gpus": [dict(GPU, outcome="failed")]}, path)
    assert holds() and not holds(failed=False) and not holds("full")
    gpu_record.write({"mode": "quick", "driver": "550", "gpus": [dict(GPU, outcome="in_use")]}, path)
    assert not holds()
    pathlib.Path(path).write_text("[1")
    assert not holds()


def test_dcgm_tells_what_failed():
    tests = [
        {
            "name": "Memory",
            "results": [{"gpu_ids": "0", "status": "Pass"}, {"gpu_ids": "1", "status": "Fail", "warnings": "x"}],
        },
        {"name": "Denylist", "results": [{"status": "Skip"}]},
    ]
    text = "noise\n" + json.dumps(
        {"DCGM GPU Diagnostic": {"test_categories": [{"category": "Hardware", "tests": tests}]}}
    )
    assert gpu_accept.dcgm_failures(text) == ["dcgmi diag: Memory failed on GPU 1"]
    with pytest.raises(ValueError, match="substring"):
        gpu_accept.dcgm_failures("dcgmi: no")


@pytest.mark.parametrize(
    ("ids", "offered"), [("", 4), ("none", 0), ("0,2", 2), ("0, 2", 2), ("GPU-a", 1), ("0,1,2,3,4", 4)]
)
def test_what_is_left_out_is_expected_nowhere(monkeypatch, ids, offered):
    monkeypatch.setattr(records, "agent_settings", lambda: {"BETA9_GPU_IDS": ids} if ids else {})
    assert records.offered_gpus(4) == offered
