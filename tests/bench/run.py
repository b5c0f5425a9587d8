"""make bench: how long a health check takes, in ratios measured side by side in one run. Writes build/bench.json.

    run.py [--hosts 20] [--rounds 5] [--keep]

Real hosts (containers on this machine, which share its cores), each over SSH, the whole ansible-playbook command.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.beta9.workers.plugins.module_utils.health import catalog  # noqa: E402

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


def separate_tasks():
    """Write a playbook that runs the worker's probes as one Ansible task each, and return its path and their number."""
    names = [check.id for check in catalog.CHECKS if check.side == catalog.WORKER and not check.active and "autossh" in check.modes]
    tasks = [{"name": name, "beta9.workers.worker_health": {"only": [name]}} for name in names]
    path = HERE / "separate_tasks.yml"
    path.write_text(json.dumps([{"name": "One task a probe", "hosts": "all", "gather_facts": False, "become": True, "tasks": tasks}], indent=1) + "\n")
    return path, len(names)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="leave the hosts running")
    options = parser.parse_args()
    HERE.mkdir(parents=True, exist_ok=True)
    testbed("deps")
    testbed("up", "--workers", str(options.hosts))
    play("prepare_gateway.yml", "all")
    onboard = play("onboard_worker.yml", "all")
    again = play("onboard_worker.yml", "all")
    one, workers = NAME + "-worker1", "gpu-hosts"
    worker_side = ("-e", "health_check_gateway_host=")
    separate, number = separate_tasks()
    times = {"one_host": [], "one_host_all_sides": [], "one_host_separate_tasks": [], "all_hosts": []}
    play("health_check.yml", "all")  # both sides' connections are warm for all that follows
    for _round in range(options.rounds):
        times["one_host"].append(play("health_check.yml", one, *worker_side))
        times["one_host_separate_tasks"].append(play(separate, one))
        times["all_hosts"].append(play("health_check.yml", workers, *worker_side))
        times["one_host_all_sides"].append(play("health_check.yml", one))
    median = {name: round(statistics.median(values), 2) for name, values in times.items()}
    result = {
        "health": {
            "hosts": options.hosts,
            "probes": number,
            "rounds": options.rounds,
            "one_host_seconds": median["one_host"],
            "one_host_all_sides_seconds": median["one_host_all_sides"],
            "one_host_separate_tasks_seconds": median["one_host_separate_tasks"],
            "all_hosts_seconds": median["all_hosts"],
            "separate_tasks_to_one_call": round(median["one_host_separate_tasks"] / median["one_host"], 2),
            "all_hosts_to_one_host": round(median["all_hosts"] / median["one_host"], 2),
            "seconds": {name: [round(value, 2) for value in values] for name, values in times.items()},
        },
        "onboard": {"hosts": options.hosts, "first_seconds": round(onboard, 1), "again_seconds": round(again, 1)},
        "machine": {"cores": os.cpu_count(), "note": "the hosts are containers that share these cores"},
    }
    (ROOT / "build" / "bench.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if not options.keep:
        testbed("down")


if __name__ == "__main__":
    main()
