"""Metrics with a stand-in for the NVML library's module: the hardware is what can't be had here. k3s is a double over real TLS."""

from __future__ import annotations

import os
import sys
import threading
import time
import types

import psutil
import pytest
from beta9_agent import protocol
from beta9_agent.cluster import Cluster
from beta9_agent.gpus import Gpus
from beta9_agent.metrics import Machine

from tests.doubles.k3s.pods_double import PodsDouble, pod

CODES = {"not_supported": 3, "not_found": 6, "driver": 9, "library": 12, "lost": 15}


def nvml(gpus, init=None, hang=None):
    """Return a pynvml module. gpus: a list of processes each; or an error's name; or {"mig": [processes or None per slot]}."""
    module = types.ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {"value": 999})
    module.NVMLError_LibraryNotFound = type("NVMLError_LibraryNotFound", (module.NVMLError,), {"value": 12})
    module.sessions = 0

    def fail(name):
        error = module.NVMLError_LibraryNotFound() if name == "library" else module.NVMLError(name)
        error.value = CODES[name]
        raise error

    def start():
        if hang:
            hang.wait(30)
        if init:
            fail(init)
        module.sessions += 1

    def handle(index):
        return fail(gpus[index]) if isinstance(gpus[index], str) else (index, None)

    def mig_mode(handle):
        found = gpus[handle[0]]
        return found.get("mode", [1, 1]) if isinstance(found, dict) else fail("not_supported")

    def instance(handle, slot):
        return fail("not_found") if gpus[handle[0]]["mig"][slot] is None else (handle[0], slot)

    def processes(handle):
        found = gpus[handle[0]]
        found = found if isinstance(found, list) else found["mig"][handle[1]] if handle[1] is not None else found.get("processes", [])
        return [types.SimpleNamespace(pid=814) for _name in found]

    def count():
        return fail(module.broken) if module.broken else len(gpus)

    module.broken = None
    module.nvmlInit, module.nvmlShutdown = start, lambda: None
    module.nvmlDeviceGetCount = count
    module.nvmlDeviceGetHandleByIndex = handle
    module.nvmlDeviceGetComputeRunningProcesses = processes
    module.nvmlDeviceGetName = lambda handle: b"NVIDIA A10G"
    module.nvmlDeviceGetUUID = lambda handle: "GPU-%d" % handle[0] if handle[1] is None else "MIG-%d-%d" % handle
    module.nvmlDeviceGetMigMode = mig_mode
    module.nvmlDeviceGetMaxMigDeviceCount = lambda handle: len(gpus[handle[0]]["mig"])
    module.nvmlDeviceGetMigDeviceHandleByIndex = instance
    return module


@pytest.fixture
def gpus_of(monkeypatch):
    def make(*arguments, wanted=None, deadline_seconds=3.0, **options):
        module = nvml(*arguments, **options)
        monkeypatch.setitem(sys.modules, "pynvml", module)
        found = Gpus(wanted, deadline_seconds)
        found.module = module
        return found

    return make


def test_a_gpu_that_is_not_fit_is_not_free(gpus_of, monkeypatch):
    gpus = gpus_of([[], [], ["process"], {"mig": [[], []]}])
    pending = {"GPU-0": 1, "GPU-2": 1, "GPU-3": 1}
    gpus.module.nvmlDeviceGetRemappedRows = lambda handle: (0, 0, pending.get("GPU-%d" % handle[0], 0), 0)
    gpus.module.nvmlDeviceGetPersistenceMode = lambda handle: 0  # a warning keeps nobody away
    reading = gpus.read()
    assert (reading.count, reading.free) == (5, 1)
    assert {(finding.gpu, finding.check, finding.code) for finding in reading.health.findings if finding.severity == "grave"} == {
        (number, "U12", "pending") for number in (0, 2, 3)
    }
    pending.clear()
    assert gpus.read().free == 1, "asked again only after some minutes"
    monkeypatch.setattr("beta9_agent.gpus.HEALTH_SECONDS", 0.0)
    gpus._health_due = 0.0
    assert gpus.read().free == 4


def test_free_gpus_are_those_without_compute_processes(gpus_of):
    reading = gpus_of([[], ["process"], []]).read()
    assert (reading.count, reading.free, reading.trouble, reading.units[0].name) == (3, 2, None, "NVIDIA A10G")


def test_instances_of_a_partitioned_gpu_count_one_each(gpus_of):
    reading = gpus_of([[], {"mig": [["process"], None, [], []]}]).read()
    assert [unit.index for unit in reading.units] == ["0", "1:0", "1:2", "1:3"] and reading.free == 3


def test_partitioned_gpu_without_instances_offers_nothing(gpus_of):
    assert gpus_of([{"mig": [None, None]}]).read().count == 0


def test_lost_gpu_is_not_counted_and_told(gpus_of):
    reading = gpus_of([[], "lost", []]).read()
    assert (reading.count, reading.free) == (2, 2) and reading.trouble == "GPU 1: lost"


@pytest.mark.parametrize(
    ("wanted", "indexes", "trouble"),
    [(("0", "2"), ["0", "2"], None), (("GPU-2",), ["2"], None), (("1", "7"), ["1"], "GPU 7 is not there"), ((), [], None)],
)
def test_only_the_wanted_gpus_are_offered(gpus_of, wanted, indexes, trouble):
    reading = gpus_of([[], [], []], wanted=wanted).read()
    assert [unit.index for unit in reading.units] == indexes and reading.trouble == trouble


def test_host_without_nvidia_is_not_in_trouble(gpus_of):
    reading = gpus_of([], init="library").read()
    assert reading.count == 0 and reading.trouble is None


def test_driver_that_is_not_loaded_is_told_and_nothing_is_invented(gpus_of):
    reading = gpus_of([[]], init="driver").read()
    assert reading.count == 0 and reading.trouble == "NVML: driver"


def test_session_is_kept_and_renewed_after_an_error(gpus_of):
    gpus = gpus_of([[]])
    for _keepalive in range(3):
        assert gpus.read().count == 1
    assert gpus.module.sessions == 1
    gpus.module.broken = "lost"
    assert gpus.read().count == 0
    gpus.module.broken = None
    assert gpus.read().count == 1 and gpus.module.sessions == 2


def test_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py" in Gpus().read().trouble


def test_hanging_driver_does_not_hold_the_agent(gpus_of):
    hang = threading.Event()
    gpus = gpus_of([[]], hang=hang, deadline_seconds=0.05)
    first = gpus.read()
    assert first.count == 0 and "hangs" in first.trouble
    assert gpus.read().count == 0  # and no second request is queued behind the first
    hang.set()
    gpus.deadline_seconds = 5
    deadline = threading.Event()
    for _try in range(100):
        reading = gpus.read()
        if reading.trouble is None:
            break
        deadline.wait(0.02)
    assert reading.count == 1


def test_driver_that_hangs_later_leaves_the_last_good_reading_marked_stale(gpus_of):
    gpus = gpus_of([[], ["process"]])
    assert gpus.read().stale_seconds is None
    hang = threading.Event()
    gpus.module.nvmlDeviceGetCount = lambda: hang.wait(30) and 0
    gpus.deadline_seconds = 0.05
    reading = gpus.read()
    assert (reading.count, reading.free) == (2, 1) and reading.stale_seconds >= 0.05 and "hangs" in reading.trouble
    hang.set()


def test_metrics_are_what_the_protocol_wants(gpus_of):
    machine = Machine(gpus_of([[]]))
    payload = protocol.keepalive_payload("1165a9b6", "gpu", metrics=machine.metrics())
    assert payload["metrics"]["free_gpu_count"] == 1 and payload["metrics"]["total_memory_available"] > 100
    assert payload["metrics"]["total_disk_space_bytes"] >= payload["metrics"]["total_disk_free_bytes"] > 0
    assert not {"worker_count", "container_count", "cache_usage_pct"} & set(payload["metrics"]) and machine.troubles == {}


def test_what_cannot_be_read_is_left_out_and_told(gpus_of, tmp_path):
    machine = Machine(gpus_of([]), image_store=str(tmp_path / "file" / "store"))
    (tmp_path / "file").write_text("")
    found = machine.metrics()
    assert "total_disk_space_bytes" not in found and "NotADirectoryError" in machine.troubles["disk"]
    (tmp_path / "file").unlink()
    (tmp_path / "file" / "store").mkdir(parents=True)
    assert "total_disk_space_bytes" in machine.metrics() and machine.troubles == {}


@pytest.mark.parametrize(("limit", "expected"), [({"max_cpu": "500m"}, "500m"), ({"max_cpu": "999999999m"}, None)])
def test_limits_never_add_capacity(gpus_of, limit, expected):
    gpus = gpus_of([])
    assert Machine(gpus, **limit).capacity()["cpu"] == (expected or Machine(gpus).capacity()["cpu"])


@pytest.fixture(scope="module")
def k3s(tmp_path_factory):
    with PodsDouble(tmp_path_factory.mktemp("k3s"), "canary-k3s-0123456789", [pod(1), pod(2, containers=3)]) as double:
        yield double


def test_workers_and_containers_of_k3s(k3s):
    cluster = Cluster(k3s.url, lambda: k3s.token, k3s.ca_path)
    assert cluster.counts() == {"worker_count": 2, "container_count": 4} and cluster.trouble is None
    k3s.status = 403
    assert cluster.counts() == {} and "403" in cluster.trouble
    k3s.status = 200
    assert cluster.counts()["worker_count"] == 2 and cluster.trouble is None


@pytest.mark.parametrize(("token", "with_ca", "trouble"), [(None, True, None), ("wrong-token-0123456789", True, "401"), ("any", False, "no CA")])
def test_without_access_to_k3s_nothing_is_counted(k3s, token, with_ca, trouble):
    cluster = Cluster(k3s.url, lambda: token, k3s.ca_path if with_ca else None)
    assert cluster.counts() == {} and (cluster.trouble is None if trouble is None else trouble in cluster.trouble)


def test_k3s_that_is_someone_else_gets_no_token(k3s, tmp_path):
    with PodsDouble(tmp_path, k3s.token, []) as impostor:
        cluster = Cluster(impostor.url, lambda: k3s.token, k3s.ca_path)
        assert cluster.counts() == {} and "tls" in cluster.trouble


@pytest.mark.parametrize(("mode", "indexes"), [([0, 1], ["0"]), ([1, 0], ["0:0"]), ([0, 0], ["0"])])
def test_gpu_is_partitioned_as_it_is_now_and_not_as_it_will_be(gpus_of, mode, indexes):
    """The second of the two is what a reset of the GPU would bring."""
    reading = gpus_of([{"mode": mode, "mig": [[]], "processes": []}]).read()
    assert [unit.index for unit in reading.units] == indexes


def test_no_gpus_are_not_asked_for(gpus_of):
    gpus = gpus_of([[]], wanted=())
    assert gpus.read().count == 0 and gpus._thread is None and gpus.module.sessions == 0


def test_answer_that_came_late_is_taken_away_before_the_next_question(gpus_of):
    hang = threading.Event()
    gpus = gpus_of([[]], hang=hang, deadline_seconds=0.05)
    gpus.read()
    hang.set()
    for _turn in range(3):  # each question has its own answer
        gpus.deadline_seconds = 5
        until(lambda: not gpus._answers.empty() or not gpus._asked)
        assert gpus.read().count == 1 and not gpus._asked and gpus._answers.empty()


def until(true, seconds=5.0):
    """Wait until true() is."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not true():
        assert time.monotonic() < deadline, "did not come to be within %g s" % seconds
        pause.wait(0.005)


def test_session_is_renewed_after_a_lost_gpu(gpus_of):
    gpus = gpus_of([[], "lost"])
    assert gpus.read().count == 1 and gpus.read().count == 1 and gpus.module.sessions == 2


def test_gpu_that_is_lost_while_it_is_asked_is_not_excused(gpus_of):
    gpus = gpus_of([[]])

    def lost(_handle):
        error = gpus.module.NVMLError("lost")
        error.value = 15
        raise error

    gpus.module.nvmlDeviceGetUUID = lost
    assert gpus.read().count == 0 and gpus.read().trouble == "GPU 0: lost"


def test_capacity_is_this_host_s(gpus_of):
    machine = Machine(gpus_of([]))
    assert machine.capacity() == {"cpu": "%dm" % (1000 * os.cpu_count()), "memory": "%dMi" % (psutil.virtual_memory().total // 1048576), "gpu_count": 0}
    assert Machine(gpus_of([]), max_memory="1Gi").capacity()["memory"] == "1024Mi"
    assert Machine(gpus_of([]), max_memory="999999Gi").capacity()["memory"] == machine.capacity()["memory"]


def test_free_gpus_are_told_of_all(gpus_of):
    assert Machine(gpus_of([[], ["process"], []])).metrics()["free_gpu_count"] == 2


def test_disk_is_what_an_ordinary_user_may_still_fill(monkeypatch, gpus_of):
    fields = {"f_blocks": 100, "f_bfree": 50, "f_bavail": 40, "f_frsize": 512, "f_bsize": 4096}
    monkeypatch.setattr(os, "statvfs", lambda _path: types.SimpleNamespace(**fields))
    found = Machine(gpus_of([])).metrics()
    assert (found["total_disk_space_bytes"], found["total_disk_free_bytes"]) == (51200, 20480)


def test_disk_that_may_not_be_looked_at_is_no_other_disk(monkeypatch, gpus_of):
    asked = []

    def closed(path):
        asked.append(path)
        raise FileNotFoundError(path) if len(asked) == 1 else PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "statvfs", closed)
    machine = Machine(gpus_of([]))
    assert "total_disk_free_bytes" not in machine.metrics() and len(asked) == 2 and "PermissionError" in machine.troubles["disk"]


def test_only_containers_that_run_are_counted(tmp_path):
    waiting = pod(1, containers=2)
    waiting["status"]["containerStatuses"][0]["state"] = {"waiting": {}}
    with PodsDouble(tmp_path, "canary-k3s-0123456789", [waiting]) as double:
        assert Cluster(double.url, lambda: double.token, double.ca_path).counts() == {"worker_count": 1, "container_count": 1}
