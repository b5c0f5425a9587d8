"""Metrics with a stand-in for the NVML library's module: the hardware is what can't be had here."""

from __future__ import annotations

import sys
import threading
import types

import pytest
from beta9_agent import protocol
from beta9_agent.metrics import Gpus, Machine


def nvml(processes, error=None, hang=None):
    """Return a pynvml module of GPUs with these process lists."""
    module = types.ModuleType("pynvml")
    module.NVMLError = type("NVMLError", (Exception,), {})
    module.NVMLError_LibraryNotFound = type("NVMLError_LibraryNotFound", (module.NVMLError,), {})

    def init():
        if hang:
            hang.wait(30)
        if error:
            raise getattr(module, error)("driver not loaded")

    module.nvmlInit, module.nvmlShutdown = init, lambda: None
    module.nvmlDeviceGetCount = lambda: len(processes)
    module.nvmlDeviceGetHandleByIndex = lambda index: index
    module.nvmlDeviceGetComputeRunningProcesses = lambda index: processes[index]
    module.nvmlDeviceGetName = lambda index: b"NVIDIA A10G"
    return module


def test_free_gpus_are_those_without_compute_processes(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml([[], ["process"], []]))
    gpus = Gpus()
    assert gpus.read() == {"count": 3, "free": 2, "name": "NVIDIA A10G"} and gpus.trouble is None


def test_host_without_nvidia_is_not_in_trouble(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml([], error="NVMLError_LibraryNotFound"))
    gpus = Gpus()
    assert gpus.read()["count"] == 0 and gpus.trouble is None


def test_driver_that_is_not_loaded_is_told_and_nothing_is_invented(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml([[]], error="NVMLError"))
    gpus = Gpus()
    assert gpus.read()["count"] == 0 and "driver not loaded" in gpus.trouble


def test_missing_package_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gpus = Gpus()
    assert gpus.read()["count"] == 0 and "nvidia-ml-py" in gpus.trouble


def test_hanging_driver_does_not_hold_the_agent(monkeypatch):
    hang = threading.Event()
    monkeypatch.setitem(sys.modules, "pynvml", nvml([[]], hang=hang))
    gpus = Gpus(deadline_seconds=0.05)
    assert gpus.read()["count"] == 0 and "hangs" in gpus.trouble
    assert gpus.read()["count"] == 0  # and no second request is queued behind the first
    hang.set()
    gpus.deadline_seconds = 5
    assert gpus.read()["count"] == 1 and gpus.trouble is None


def test_metrics_are_what_the_protocol_wants(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", nvml([[]]))
    machine = Machine()
    payload = protocol.keepalive_payload("1165a9b6", "gpu", metrics=machine.metrics())
    assert payload["metrics"]["free_gpu_count"] == 1 and payload["metrics"]["total_memory_available"] > 100


@pytest.mark.parametrize(("limit", "expected"), [({"max_cpu": "500m"}, "500m"), ({"max_cpu": "999999999m"}, None)])
def test_limits_never_add_capacity(monkeypatch, limit, expected):
    monkeypatch.setitem(sys.modules, "pynvml", nvml([]))
    assert Machine(**limit).capacity()["cpu"] == (expected or Machine().capacity()["cpu"])
