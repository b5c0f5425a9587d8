"""Area "agent": what the agent costs, beside a naive one in the same run, and how a fleet of them spreads its keepalives.

The agent runs as on a host: its own virtual environment with the locked packages, systemd's watchdog aside. Gateway, NVML and k3s are
doubles that answer over real sockets and through the real nvidia-ml-py. Its state and metrics files are in memory, as on a host, where
they are in /run: on a disk, replacing them cost a third of the whole. CPU is what the kernel's scheduler counted for all threads.
The agent that is compared reads CPU, memory, disk and GPUs, as the naive one does; one that also counts k3s's pods stands beside it.
"""

from __future__ import annotations

import json
import os
import pathlib
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "agent_src")]

import agent_fleet

from tests.doubles.gateway.harness import GatewayHarness
from tests.doubles.k3s.pods_double import PodsDouble, pod

GPUS, BUSY, PODS = 4, 1, 4
MEMORY = "/dev/shm"  # as /run is on a host
WARM, COUNTED = 100, 1000
FAST_INTERVAL = "0.05"  # the least that the agent takes


def environment(folder):
    """Make the agent's environment as the role does: the locked packages, and the agent's own files. Return its Python."""
    python = folder / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    lock = str(ROOT / "agent_src" / "requirements.txt")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--require-hashes", "--requirement", lock], check=True
    )
    packages = next((folder / "venv" / "lib").glob("python3*")) / "site-packages"
    shutil.copytree(ROOT / "agent_src" / "beta9_agent", packages / "beta9_agent", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([str(python), "-m", "compileall", "-q", str(packages)], check=True)
    return str(python)


def gpu_double(folder):
    """Build the NVML double and its nvidia-smi; return the variables that lead to them."""
    library = folder / "gpu"
    library.mkdir()
    source = ROOT / "tests" / "doubles" / "gpu"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-w", "-o", str(library / "libnvidia-ml.so.1"), str(source / "nvidia_double.c")], check=True)
    shutil.copy(source / "nvidia-smi", library / "nvidia-smi")
    (library / "setting").write_text("gpus=%d\nbusy=%d\nsmi=%d\n" % (GPUS, BUSY, GPUS))
    return {"LD_LIBRARY_PATH": str(library), "BETA9_GPU_DOUBLE": str(library / "setting"), "PATH": "%s:%s" % (library, os.environ["PATH"])}


class Agent:
    """One agent's process, and what /proc says of it."""

    def __init__(self, python, folder, env, port, *options):
        self.state_file = folder / "run" / ("state-%s.json" % secrets.token_hex(4))
        command = [python, "-I", "-m", "beta9_agent", "--gateway-host", "127.0.0.1", "--gateway-port", str(port), "--pool-name", "gpu"]
        command += ["--state-file", str(self.state_file), *options]
        self.started = time.monotonic()
        self.process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE)

    def cpu_seconds(self):
        return sum(int(path.read_text().split()[0]) for path in pathlib.Path("/proc/%d/task" % self.process.pid).glob("*/schedstat")) / 1e9

    def rss_kib(self):
        return next(int(line.split()[1]) for line in pathlib.Path("/proc/%d/status" % self.process.pid).read_text().splitlines() if line.startswith("VmRSS"))

    def keepalives(self):
        try:
            return json.loads(self.state_file.read_text())["keepalives"]
        except (OSError, ValueError):
            return 0

    def wait_for(self, number, seconds=600):
        deadline = time.monotonic() + seconds
        while self.keepalives() < number:
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit("bench: the agent sent %d of %d keepalives: %s" % (self.keepalives(), number, self.stop()))
            time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        return self.process.communicate(timeout=30)[1].decode()


def steady(agent):
    """Return the figures of COUNTED keepalives, after some to warm up."""
    agent.wait_for(WARM)
    number, before = agent.keepalives(), agent.cpu_seconds()
    agent.wait_for(WARM + COUNTED // 2)
    half = agent.rss_kib()
    agent.wait_for(WARM + COUNTED)
    cpu, counted = agent.cpu_seconds() - before, agent.keepalives() - number
    return {"cpu_ms": 1000 * cpu / counted, "rss_mib": agent.rss_kib() / 1024, "growth_kib": agent.rss_kib() - half, "counted": counted}


def start_to_register(python, folder, env, options, rounds):
    """Return the seconds from the start of the process to the first bytes of its register at the gateway's port."""
    found = []
    for _round in range(rounds):
        with socket.create_server(("127.0.0.1", 0)) as server:
            agent = Agent(python, folder, env, server.getsockname()[1], *options)
            server.settimeout(20)
            connection = server.accept()[0]
            first = connection.recv(65536)
            found.append(time.monotonic() - agent.started)
            if not first.startswith(b"POST /api/v1/machine/register "):
                sys.exit("bench: expected a register, found %r" % first[:60])
            connection.close()
            agent.stop()
    return found


def other(kind, env, url, machine_id, rounds):
    """Return the figures of one of the agents to compare with."""
    command = [sys.executable, str(pathlib.Path(__file__).with_name("naive_agent.py")), kind, url, machine_id, str(rounds)]
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


def steps(python, env, port, words, rounds):
    """Return the agent's CPU per keepalive in ms where one follows the other without a pause."""
    command = [python, "-I", str(pathlib.Path(__file__).with_name("agent_steps.py")), str(rounds)]
    command += ["--gateway-host", "127.0.0.1", "--gateway-port", str(port), "--pool-name", "gpu", "--machine-id", "%08x" % 6, *words]
    return json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)["cpu_ms_per_keepalive"]


def run(options):
    """Return the area's results."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory(dir=MEMORY) as files:
        folder = pathlib.Path(name)
        (folder / "run").symlink_to(files)
        python = environment(folder)
        env = dict({key: value for key, value in os.environ.items() if not key.startswith(("BETA9_", "PYTHON"))}, **gpu_double(folder))
        gateway, token = GatewayHarness(folder).start(), "bench-k3s-token-0123456789"
        (folder / "k3s_token").write_text(token)
        try:
            with PodsDouble(folder, token, [pod(number) for number in range(PODS)]) as k3s:
                return measure(options, python, folder, env, gateway, k3s)
        finally:
            gateway.stop()


def measure(options, python, folder, env, gateway, k3s):
    env["BENCH_TOKEN"] = gateway.token()
    (folder / "token").write_text(env["BENCH_TOKEN"])

    words = ["--token-file", str(folder / "token")]
    counting = ["--k3s-token-file", str(folder / "k3s_token"), "--k3s-url", k3s.url, "--k3s-ca-path", k3s.ca_path]

    def agent(number, *more):
        started = Agent(python, folder, env, gateway.port, "--machine-id", "%08x" % number, *words, *more)
        started.wait_for(1)
        return started

    alone = agent(5, "--keepalive-interval", FAST_INTERVAL)  # with the cores and their caches to itself
    figures = {"alone": steady(alone)}
    alone.stop()
    # one after the other, in turns, so that both find the same machine
    unpaused = {"agent": [], "bare": []}
    state = ["--state-file", str(folder / "run" / "steps.json"), "--metrics-file", str(folder / "run" / "steps.prom")]
    for _round in range(options.rounds):
        unpaused["agent"].append(steps(python, env, gateway.port, words + state, 500))
        unpaused["bare"].append(other("unpaused", env, gateway.url, "%08x" % 6, 500)["cpu_ms_per_keepalive"])
    unpaused = {name: statistics.median(found) for name, found in unpaused.items()}
    # at the real pace, all the time that the rest takes: there each keepalive finds cold caches
    slow = agent(1, *counting)
    slow_from, slow_cpu, slow_start = slow.keepalives(), slow.cpu_seconds(), time.monotonic()
    agents = {"plain": agent(2, "--keepalive-interval", FAST_INTERVAL), "counting": agent(3, "--keepalive-interval", FAST_INTERVAL, *counting)}
    threads = [threading.Thread(target=lambda name=name: figures.update({name: steady(agents[name])})) for name in agents]
    for thread in threads:
        thread.start()
    # at the same time, so that the machine's load is the same for all
    naive = [other("naive", env, gateway.url, "%08x" % 2, 25) for _round in range(options.rounds)]
    bare = [other("bare", env, gateway.url, "%08x" % 2, 200) for _round in range(options.rounds)]
    for thread in threads:
        thread.join()
    journal = "".join(agents[name].stop() for name in agents)
    starts = start_to_register(python, folder, env, ["--machine-id", "%08x" % 4, *words, *counting], 3 * options.rounds)
    slow.wait_for(slow_from + 2)
    slow_ms = 1000 * (slow.cpu_seconds() - slow_cpu) / (slow.keepalives() - slow_from)
    slow_seconds = time.monotonic() - slow_start
    slow.stop()
    naive_ms, bare_ms = (statistics.median(entry["cpu_ms_per_keepalive"] for entry in entries) for entries in (naive, bare))
    plain = figures["plain"]
    return {
        "agent": {
            "gpus": GPUS,
            "k3s_pods": PODS,
            "keepalives": plain["counted"],
            "cpu_ms_per_keepalive": round(plain["cpu_ms"], 2),
            "cpu_ms_per_keepalive_alone": round(figures["alone"]["cpu_ms"], 2),
            "cpu_ms_per_keepalive_unpaused": round(unpaused["agent"], 2),
            "bare_loop_cpu_ms_per_keepalive_unpaused": round(unpaused["bare"], 2),
            "agent_to_bare_loop_unpaused": round(unpaused["agent"] / unpaused["bare"], 2),
            "naive_cpu_ms_per_keepalive": round(naive_ms, 2),
            "naive_to_agent": round(naive_ms / plain["cpu_ms"], 1),
            "bare_loop_cpu_ms_per_keepalive": round(bare_ms, 2),
            "agent_to_bare_loop": round(plain["cpu_ms"] / bare_ms, 2),
            "cpu_ms_per_keepalive_counting_pods": round(figures["counting"]["cpu_ms"], 2),
            "naive_to_agent_counting_pods": round(naive_ms / figures["counting"]["cpu_ms"], 1),
            "cpu_ms_per_keepalive_at_60_s": round(slow_ms, 2),
            "at_60_s_seconds": round(slow_seconds),
            "rss_mib_after_1000_keepalives": round(figures["counting"]["rss_mib"], 1),
            "rss_growth_kib_in_last_500": max(entry["growth_kib"] for entry in figures.values()),
            "bare_loop_rss_mib": round(bare[0]["rss_mib"], 1),
            "agent_rss_to_bare_loop": round(figures["counting"]["rss_mib"] / bare[0]["rss_mib"], 2),
            "start_to_register_seconds": round(statistics.median(starts), 3),
            "start_to_register_min_seconds": round(min(starts), 3),
            "journal_lines": len(journal.splitlines()),
            "load_average": round(os.getloadavg()[0], 1),
            "fleet": agent_fleet.measure(),
        }
    }
