"""What this machine has and how busy it is. Nothing is invented: what can't be read is left out, and troubles says why.

Units are the protocol's: millicores, MiB, bytes, percent. free_gpu_count is always there: 0 where no GPU can be seen.
"""

from __future__ import annotations

import os
from typing import Any

import psutil

from . import protocol
from .cluster import Cluster
from .config import Config
from .gpus import Gpus, Reading

IMAGE_STORES = ("/var/lib/rancher/k3s/agent/containerd", "/var/lib/rancher/k3s", "/var/lib/rancher", "/var/lib")


class Machine:
    """Capacity, asked at registration, and metrics, asked at every keepalive."""

    def __init__(
        self,
        gpus: Gpus | None = None,
        cluster: Cluster | None = None,
        image_store: str | None = None,
        max_cpu: str | None = None,
        max_memory: str | None = None,
    ) -> None:
        cpu, memory = 1000 * (psutil.cpu_count() or 1), psutil.virtual_memory().total // 2**20
        self.cpu_millicores = min(cpu, protocol.cpu_millicores(max_cpu)) if max_cpu else cpu
        self.memory_mib = min(memory, protocol.memory_mib(max_memory)) if max_memory else memory
        self.gpus, self.cluster = gpus or Gpus(), cluster
        self.image_stores = (image_store,) if image_store else IMAGE_STORES
        self.gpu = Reading()
        self.troubles: dict[str, str] = {}  # what can't be read: why
        psutil.cpu_percent(None)  # the first call only sets the mark that later ones measure from

    @classmethod
    def of(cls, config: Config) -> Machine:
        """Return the machine that a Config describes."""
        cluster = Cluster(config.k3s_url, config.cluster_token, config.k3s_ca_path)
        return cls(Gpus(config.gpu_ids), cluster, config.image_store, config.max_cpu, config.max_memory)

    def capacity(self) -> dict[str, Any]:
        """Return {"cpu", "memory", "gpu_count"} as the register wants them, of the last reading of the GPUs."""
        return {"cpu": f"{self.cpu_millicores}m", "memory": f"{self.memory_mib}Mi", "gpu_count": self.gpu.count}

    def refresh(self) -> None:
        """Read the GPUs."""
        self.gpu = self.gpus.read()
        self._note("gpu", self.gpu.trouble)

    def metrics(self) -> dict[str, Any]:
        """Return the metrics of one keepalive."""
        self.refresh()
        found: dict[str, Any] = {
            "total_cpu_available": self.cpu_millicores,
            "total_memory_available": self.memory_mib,
            "free_gpu_count": self.gpu.free,
        }
        for name, read in (("cpu", _cpu), ("memory", _memory), ("disk", self._disk)):
            try:
                found.update(read())
                self._note(name, None)
            except (OSError, psutil.Error, ValueError) as error:
                self._note(name, f"{type(error).__name__}: {error}")
        if self.cluster:
            found.update(self.cluster.counts())
            self._note("k3s", self.cluster.trouble)
        return found

    def close(self) -> None:
        """Close what is open."""
        if self.cluster:
            self.cluster.close()

    def _disk(self) -> dict[str, int]:
        for path in self.image_stores[:-1]:
            try:
                return _usage(path)
            except FileNotFoundError:
                # a path that is there, but closed to us, may be another disk than its parent: that is an error
                continue
        return _usage(self.image_stores[-1])

    def _note(self, name: str, trouble: str | None) -> None:
        self.troubles.pop(name, None)
        if trouble:
            self.troubles[name] = trouble


def _cpu() -> dict[str, float]:
    return {"cpu_utilization_pct": psutil.cpu_percent(None)}


def _memory() -> dict[str, float]:
    return {"memory_utilization_pct": psutil.virtual_memory().percent}


def _usage(path: str) -> dict[str, int]:
    disk = os.statvfs(path)
    return {
        "total_disk_space_bytes": disk.f_blocks * disk.f_frsize,
        "total_disk_free_bytes": disk.f_bavail * disk.f_frsize,
    }
