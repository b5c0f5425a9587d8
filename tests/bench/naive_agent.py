"""NAIVE AGENTS to compare with, not a part of the product. What people write first, and the least that can be written.

    naive_agent.py naive|bare|unpaused URL MACHINE_ID ROUNDS     token in BENCH_TOKEN

naive: a new HTTP client for each keepalive, psutil sampled with a sleep of 100 ms, nvidia-smi as a child process.
bare:  one client, psutil, nothing else: no GPU, no state, no schedule, no recovery. With a pause of 20 ms, or unpaused.
Prints {"cpu_ms_per_keepalive", "rss_mib"}, children included, start not included.
"""

import json
import os
import resource
import subprocess
import sys
import time

import httpx
import psutil


def spent():
    """Return the CPU seconds of this process and its children so far."""
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def metrics(cpu, free):
    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    return {
        "total_cpu_available": 1000 * psutil.cpu_count(),
        "total_memory_available": memory.total // 2**20,
        "cpu_utilization_pct": float(cpu),
        "memory_utilization_pct": float(memory.percent),
        "total_disk_space_bytes": disk.total,
        "total_disk_free_bytes": disk.free,
        "free_gpu_count": free,
    }


def post(client, url, machine_id, values):
    body = {"machine_id": machine_id, "pool_name": "gpu", "provider_name": "generic", "agent_version": "naive", "metrics": values}
    client.post(url + "/api/v1/machine/keepalive", json=body, headers={"Authorization": "Bearer " + os.environ["BENCH_TOKEN"]}).raise_for_status()


def naive(url, machine_id):
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    values = metrics(psutil.cpu_percent(interval=0.1), len(listed.splitlines()))
    with httpx.Client() as client:
        post(client, url, machine_id, values)


def main():
    kind, url, machine_id, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
    client = httpx.Client()

    def bare(url, machine_id):
        post(client, url, machine_id, metrics(psutil.cpu_percent(None), 0))
        if kind == "bare":
            time.sleep(0.02)

    step = naive if kind == "naive" else bare
    step(url, machine_id)
    before = spent()
    for _round in range(rounds):
        step(url, machine_id)
    after = spent()
    print(json.dumps({"cpu_ms_per_keepalive": 1000 * (after - before) / rounds, "rss_mib": psutil.Process().memory_info().rss / 2**20}))


if __name__ == "__main__":
    main()
