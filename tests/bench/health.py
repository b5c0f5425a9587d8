"""Areas "health" and "onboard": how long a health check takes, in ratios measured side by side in one run.

Real hosts, each over SSH, the whole ansible-playbook command. The hosts are containers that share this machine's cores, which no
fleet does: beside the time stand the controller's own CPU seconds, and the time of Ansible's ping of the same hosts.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import time
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.beta9.workers.plugins.module_utils import connections
from ansible_collections.beta9.workers.plugins.module_utils.host import linux
from ansible_collections.beta9.workers.plugins.module_utils.health import catalog, engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import agent, gpu

NAME = "b9b"
STATE = ROOT / "build" / ("testbed-" + NAME)
HERE = ROOT / "build" / "bench"


def testbed(*words):
    subprocess.run([sys.executable, str(ROOT / "tests/testbed/testbed.py"), *words], check=True, env=dict(os.environ, B9_TESTBED=NAME))


def play(playbook, limit, *options):
    """Run a playbook; return its seconds. Anything but success ends the bench."""
    environment = dict(os.environ, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_COLLECTIONS_PATH=str(ROOT / "collections"), ANSIBLE_NOCOLOR="1")
    command = ["ansible-playbook", "-i", str(STATE / "inventory.yml"), str(playbook), "-l", limit, *options]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    if done.returncode:
        sys.exit("bench: %s\n%s%s" % (" ".join(command), done.stdout[-3000:], done.stderr[-1000:]))
    return seconds


def controller_cpu():
    """Return the CPU seconds of the commands run so far: ansible-playbook, its workers and their ssh clients, not what runs on the hosts."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def hosts_cpu():
    """Return the CPU seconds that the containers of the test hosts have used, from their control groups."""
    found = 0
    command = ["podman", "ps", "--filter", "name=^%s-worker" % NAME, "--format", "{{.ID}}", "--no-trunc"]
    names = subprocess.run(command, check=True, capture_output=True, text=True)
    for identity in names.stdout.split():
        statistic = next(pathlib.Path("/sys/fs/cgroup").glob("**/libpod-%s*/cpu.stat" % identity))
        found += int(dict(line.split() for line in statistic.read_text().splitlines())["usage_usec"])
    return found / 1e6


def ping(limit, *others):
    """Return the seconds of Ansible's ping of the workers, and then of other hosts: as little as a module can do."""
    path = HERE / "ping.yml"
    tasks = [{"name": "Ping", "ansible.builtin.ping": {}}]
    tasks += [{"name": "Ping", "ansible.builtin.ping": {}, "delegate_to": name, "run_once": True} for name in others]
    path.write_text(json.dumps([{"name": "Ping", "hosts": "gpu-hosts", "gather_facts": False, "become": True, "tasks": tasks}], indent=1) + "\n")
    return play(path, limit)


def separate_tasks():
    """Write a playbook that runs the worker's probes as one Ansible task each, and return its path and their number."""
    names = [check.id for check in catalog.CHECKS if check.side == catalog.WORKER and not check.active and connections.gives("autossh", check.builds_on)]
    tasks = [{"name": name, "beta9.workers.worker_health": {"only": [name]}} for name in names]
    path = HERE / "separate_tasks.yml"
    path.write_text(json.dumps([{"name": "One task a probe", "hosts": "all", "gather_facts": False, "become": True, "tasks": tasks}], indent=1) + "\n")
    return path, len(names)


def gpu_checks(rounds, gpus=8):
    """Return the seconds of all checks U on a host with so many GPUs, whose NVML, CUDA and nvidia-smi are doubles, and those of U01 to U08."""
    library = HERE / "gpu"
    library.mkdir(parents=True, exist_ok=True)
    doubles = ROOT / "tests" / "doubles" / "gpu"
    for name in ("libnvidia-ml.so.1", "libcuda.so.1"):
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library / name), str(doubles / "nvidia_double.c")], check=True)
    shutil.copy(doubles / "nvidia-smi", library / "nvidia-smi")
    (library / "setting").write_text("gpus=%d\nbusy=0\nsmi=%d\n" % (gpus, gpus))
    places = {"LD_LIBRARY_PATH": str(library), "BETA9_GPU_DOUBLE": str(library / "setting"), "PATH": "%s:%s" % (library, os.environ["PATH"])}
    found = {}
    with mock.patch.dict(os.environ, places), mock.patch.object(agent, "PYTHON", sys.executable), mock.patch.object(linux, "nvidia_pci_count", lambda: gpus):
        for name, names in (("all", sorted(gpu.PROBES)), ("before", sorted(name for name in gpu.PROBES if name <= "U08"))):
            times = []
            for _round in range(3 * rounds):
                start = time.monotonic()
                engine.observe([(catalog.BY_ID[check], gpu.PROBES[check]) for check in names], engine.Context({"gpus": gpus}), 30)
                times.append(time.monotonic() - start)
            found[name] = round(statistics.median(times), 3)
    return {"gpus": gpus, "all_gpu_checks_seconds": found["all"], "gpu_checks_up_to_u08_seconds": found["before"]}


def run(options):
    """Return the results of both areas."""
    HERE.mkdir(parents=True, exist_ok=True)
    eight = gpu_checks(options.rounds)
    testbed("deps")
    testbed("up", "--workers", str(options.hosts))
    play("prepare_gateway.yml", "all")
    onboard = play("onboard_worker.yml", "all")
    again = play("onboard_worker.yml", "all")
    one, workers = NAME + "-worker1", "gpu-hosts"
    worker_side = ("-e", "health_check_gateway_host=")
    separate, number = separate_tasks()
    names = ("one_host", "one_host_all_sides", "one_host_ping", "one_host_separate_tasks")
    names += (
        "one_host_ping_both_sides",
        "all_hosts",
        "all_hosts_all_sides",
        "all_hosts_controller_cpu",
        "all_hosts_own_cpu",
        "all_hosts_ping",
        "all_hosts_ping_both_sides",
    )
    times = {name: [] for name in names}
    play("health_check.yml", "all")  # both sides' connections are warm for all that follows
    for _round in range(options.rounds):
        times["one_host"].append(play("health_check.yml", one, *worker_side))
        times["one_host_separate_tasks"].append(play(separate, one))
        before, own = controller_cpu(), hosts_cpu()
        times["all_hosts"].append(play("health_check.yml", workers, *worker_side))
        times["all_hosts_controller_cpu"].append(controller_cpu() - before)
        times["all_hosts_own_cpu"].append(hosts_cpu() - own)
        times["all_hosts_ping"].append(ping(workers))
        times["all_hosts_ping_both_sides"].append(ping(workers, NAME + "-gateway"))
        times["all_hosts_all_sides"].append(play("health_check.yml", workers))
        times["one_host_all_sides"].append(play("health_check.yml", one))
        times["one_host_ping"].append(ping(one))
        times["one_host_ping_both_sides"].append(ping(one, NAME + "-gateway"))
    median = {name: round(statistics.median(values), 2) for name, values in times.items()}
    if not options.keep:
        testbed("down")
    return {
        "health": {
            "hosts": options.hosts,
            "probes": number,
            "rounds": options.rounds,
            "one_host_seconds": median["one_host"],
            "one_host_all_sides_seconds": median["one_host_all_sides"],
            "one_host_ping_seconds": median["one_host_ping"],
            "one_host_ping_both_sides_seconds": median["one_host_ping_both_sides"],
            "one_host_separate_tasks_seconds": median["one_host_separate_tasks"],
            "all_hosts_seconds": median["all_hosts"],
            "all_hosts_all_sides_seconds": median["all_hosts_all_sides"],
            "all_hosts_controller_cpu_seconds": median["all_hosts_controller_cpu"],
            "all_hosts_own_cpu_seconds": median["all_hosts_own_cpu"],
            "all_hosts_ping_seconds": median["all_hosts_ping"],
            "all_hosts_ping_both_sides_seconds": median["all_hosts_ping_both_sides"],
            "separate_tasks_to_one_call": round(median["one_host_separate_tasks"] / median["one_host"], 2),
            "all_hosts_to_one_host": round(median["all_hosts"] / median["one_host"], 2),
            "one_host_to_ping": round(median["one_host"] / median["one_host_ping"], 2),
            "one_host_all_sides_to_ping": round(median["one_host_all_sides"] / median["one_host_ping"], 2),
            "one_host_all_sides_to_ping_both_sides": round(median["one_host_all_sides"] / median["one_host_ping_both_sides"], 2),
            "all_hosts_to_ping": round(median["all_hosts"] / median["all_hosts_ping"], 2),
            "all_hosts_all_sides_to_ping_both_sides": round(median["all_hosts_all_sides"] / median["all_hosts_ping_both_sides"], 2),
            "all_hosts_all_sides_to_ping": round(median["all_hosts_all_sides"] / median["all_hosts_ping"], 2),
            "gpu": eight,
            "seconds": {name: [round(value, 2) for value in values] for name, values in times.items()},
        },
        "onboard": {"hosts": options.hosts, "first_seconds": round(onboard, 1), "again_seconds": round(again, 1)},
    }
