"""What this machine has and how busy it is. Nothing is invented: what can't be read is left out, or 0 where the gateway needs a number.

Units are the protocol's: millicores, MiB, bytes, percent.
"""

from __future__ import annotations

import logging
import os
import queue
import threading

import psutil

from . import protocol

LOG = logging.getLogger("beta9_agent")
NVML_SECONDS = 5.0


class Gpus:
    """The NVIDIA GPUs as NVML sees them, asked in a thread of its own: a call into a sick driver may never return."""

    def __init__(self, deadline_seconds=NVML_SECONDS):
        self.deadline_seconds = deadline_seconds
        self.trouble = None
        self._requests, self._answers = queue.Queue(1), queue.Queue()
        self._thread = None
        self._asked = False

    def read(self):
        """Return {"count", "free", "name"}; zeros when there is no usable driver. trouble says why, or is None."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name="nvml", daemon=True)
            self._thread.start()
        if not self._asked:
            self._requests.put(None)
            self._asked = True
        try:
            found, trouble = self._answers.get(timeout=self.deadline_seconds)
            self._asked = False
        except queue.Empty:
            found, trouble = None, "NVML did not answer within %g s: the driver hangs" % self.deadline_seconds
        if trouble != self.trouble:
            self.trouble = trouble
            if trouble:
                LOG.warning("gpu_unreadable %s", trouble)
        return found or {"count": 0, "free": 0, "name": ""}

    def _serve(self):
        while True:
            self._requests.get()
            self._answers.put(self._ask())

    def _ask(self):
        try:
            import pynvml
        except ImportError:
            return None, "the nvidia-ml-py package is missing"
        try:
            pynvml.nvmlInit()
            try:
                handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
                free = sum(1 for handle in handles if not pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
                name = pynvml.nvmlDeviceGetName(handles[0]) if handles else ""
            finally:
                pynvml.nvmlShutdown()
        except pynvml.NVMLError as error:
            # a host without NVIDIA hardware is not in trouble
            absent = isinstance(error, pynvml.NVMLError_LibraryNotFound) and not os.path.exists("/proc/driver/nvidia")
            return {"count": 0, "free": 0, "name": ""}, None if absent else "NVML: %s" % error
        return {"count": len(handles), "free": free, "name": name.decode() if isinstance(name, bytes) else name}, None


class Machine:
    """Capacity, asked at registration, and metrics, asked at every keepalive."""

    def __init__(self, gpus=None, disk_paths=("/var/lib/rancher", "/var/lib"), max_cpu=None, max_memory=None):
        cpu, memory = 1000 * (psutil.cpu_count() or 1), psutil.virtual_memory().total // 2**20
        self.cpu_millicores = min(cpu, protocol.cpu_millicores(max_cpu)) if max_cpu else cpu
        self.memory_mib = min(memory, protocol.memory_mib(max_memory)) if max_memory else memory
        self.gpus = gpus or Gpus()
        self.disk_path = next((path for path in disk_paths if os.path.isdir(path)), "/")
        self.gpu_count = 0
        self.free_gpu_count = 0
        psutil.cpu_percent(None)  # the first call only sets the mark that later ones measure from

    def capacity(self):
        """Return {"cpu", "memory", "gpu_count"} as the register wants them."""
        gpus = self.gpus.read()
        self.gpu_count, self.free_gpu_count = gpus["count"], gpus["free"]
        return {"cpu": "%dm" % self.cpu_millicores, "memory": "%dMi" % self.memory_mib, "gpu_count": gpus["count"]}

    def metrics(self):
        """Return the metrics of one keepalive."""
        gpus, memory, disk = self.gpus.read(), psutil.virtual_memory(), psutil.disk_usage(self.disk_path)
        self.gpu_count, self.free_gpu_count = gpus["count"], gpus["free"]
        return {
            "total_cpu_available": self.cpu_millicores,
            "total_memory_available": self.memory_mib,
            "total_disk_space_bytes": disk.total,
            "total_disk_free_bytes": disk.free,
            "free_gpu_count": gpus["free"],
            "cpu_utilization_pct": psutil.cpu_percent(None),
            "memory_utilization_pct": memory.percent,
        }
