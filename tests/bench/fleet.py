"""The area `fleet` of make bench: what one more host costs. Time, the controller's CPU and its memory against the number of hosts.

    fleet.py [--hosts 1,10,25,50] [--rounds 3] [--keep]

Real hosts, each with systemd and sshd; the fleet grows from step to step. Per step: the first onboarding of the hosts that are new,
then of all hosts an onboarding that changes nothing, and a health check. The hosts are containers on the controller's own cores, which
no fleet does: the controller's CPU, which they don't share in, stands beside the time, and no more than 25 are at work at once. (Of 50,
which share two cores with the gateway as well, some find that the gateway does not answer in the seconds that a check gives it.)
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import threading
import time

import psutil

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = os.environ.get("B9_TESTBED", "b9fleet")
STATE = ROOT / "build" / ("testbed-" + NAME)
LIMIT = 0.6  # of the first host's cost, for one more host
MIB = 1024 * 1024


def testbed(*words):
    subprocess.run([sys.executable, str(ROOT / "tests/testbed/testbed.py"), *words], check=True, env=dict(os.environ, B9_TESTBED=NAME))


class Memory(threading.Thread):
    """Watches what a command and all its children hold in memory, shared pages counted once. Result: .peak_mib"""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.peak_mib = psutil.Process(process.pid), 0

    def run(self):
        try:
            while self.process.status() != psutil.STATUS_ZOMBIE:
                self.peak_mib = max(self.peak_mib, sum(map(pss, [self.process, *self.process.children(recursive=True)])) // MIB)
                time.sleep(0.3)
        except psutil.NoSuchProcess:  # it ended
            return


def pss(process):
    """Return the bytes that a process holds, shared pages in part; 0 if it ended meanwhile."""
    try:
        return process.memory_full_info().pss
    except psutil.Error:
        return 0


def play(playbook, limit, *options):
    """Run a playbook; return {"seconds", "cpu_seconds", "memory_mib", "changed"}. Anything but success ends the bench."""
    environment = dict(os.environ, ANSIBLE_CONFIG=str(ROOT / "ansible.cfg"), ANSIBLE_COLLECTIONS_PATH=str(ROOT / "collections"), ANSIBLE_NOCOLOR="1")
    command = ["ansible-playbook", "-i", str(STATE / "inventory.yml"), playbook, "-l", limit, "--forks", "25", *options]
    before, start = os.times(), time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    memory = Memory(process)
    memory.start()
    output, _nothing = process.communicate()
    seconds, after = time.monotonic() - start, os.times()
    memory.join()
    if process.returncode:
        sys.exit("bench: %s\n%s" % (" ".join(command), output[-4000:]))
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    changed = sum(map(int, re.findall(r"changed=(\d+)", output)))
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "memory_mib": memory.peak_mib, "changed": changed}


def middle(runs):
    """Return the medians of several runs of the same thing."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def names(numbers):
    return ",".join("%s-worker%d" % (NAME, number) for number in numbers)


def step(count, known, rounds):
    """Measure with this many hosts, of which some were there before."""
    testbed("up", "--workers", str(count))
    new = range(known + 1, count + 1)
    first = play("onboard_worker.yml", names(new), "-e", "beta9_onboard_health=false")
    every = names(range(1, count + 1))
    play("health_check.yml", every)  # connections are warm for all that follows
    again = middle([play("onboard_worker.yml", every, "-e", "beta9_onboard_health=false") for _round in range(rounds)])
    if again["changed"]:
        sys.exit("bench: the onboarding of hosts that are onboarded changed %d things" % again["changed"])
    health = middle([play("health_check.yml", every) for _round in range(rounds)])
    return {"hosts": count, "first_onboarding_of": len(new), "first_onboarding": first, "again": again, "health": health}


def marginal(steps, what, unit):
    """Return what one more host costs, as a part of the first host's cost: the slope between the smallest and the largest fleet."""
    small, large = steps[0], steps[-1]
    per_host = (large[what][unit] - small[what][unit]) / (large["hosts"] - small["hosts"])
    return round(per_host / small[what][unit] * small["hosts"], 3)


def measure(hosts, rounds=3, keep=False):
    """Return the area's result. `hosts` are the sizes of the fleet, growing, the first being 1."""
    steps = []
    testbed("up", "--workers", str(hosts[0]))
    play("prepare_gateway.yml", "all")
    for count in hosts:
        steps.append(step(count, steps[-1]["hosts"] if steps else 0, rounds))
        print("fleet: %s" % json.dumps(steps[-1]), flush=True)
    if not keep:
        testbed("down")
    parts = {"%s_%s" % (what, unit): marginal(steps, what, unit) for what in ("again", "health") for unit in ("seconds", "cpu_seconds", "memory_mib")}
    for unit in ("seconds", "cpu_seconds"):  # of the dearest step: what each host costs beside the first of those that come in together
        alone = steps[0]["first_onboarding"][unit]
        dearest = max((one["first_onboarding"][unit] - alone) / (one["first_onboarding_of"] - 1) for one in steps[1:])
        parts["first_onboarding_" + unit] = round(dearest / alone, 3)
    met = max(part for name, part in parts.items() if not name.endswith("_cpu_seconds")) < LIMIT  # time and memory
    return {"steps": steps, "one_more_host_to_first": parts, "limit": LIMIT, "met": met}


def run(options):
    """The hook of run.py."""
    return {"fleet": measure([1, 10, 25, 50], min(options.rounds, 3), options.keep)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", default="1,10,25,50")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="leave the hosts running")
    options = parser.parse_args()
    result = measure([int(count) for count in options.hosts.split(",")], options.rounds, options.keep)
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "bench-fleet.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    sys.exit(0 if result["met"] else 1)


if __name__ == "__main__":
    main()
