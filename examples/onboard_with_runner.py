#!/usr/bin/env python3
# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Onboard workers from Python with ansible-runner, and follow what happens host by host.

    BETA9_TOKEN_FILE=token examples/onboard_with_runner.py --inventory inventory.yml [--limit gpu-07] [--serial 1,100%]

Prints a line for each step that a host has done, then the outcome. As a library:

    from onboard_with_runner import onboard
    result = onboard("inventory.yml", limit="gpu-07", progress=lambda event: print(event.host, event.step,
    event.status))
    result.hosts     {"gpu-07": "ready"}      or failed, unreachable; a host that is not in it was not begun with
    result.failures  {"gpu-08": "Report all problems: ..."}
    result.health    {"gpu-07": "healthy"}

The admin token is read by the modules from BETA9_TOKEN_FILE or BETA9_TOKEN. It is no argument here, so it can't be
logged.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import pathlib
import sys
import tempfile

import ansible_runner

ROOT = pathlib.Path(__file__).resolve().parents[1]
# this Python's ansible-playbook first, also where its virtual environment is not activated
PATH = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
STATUS = {
    "runner_on_ok": "ok",
    "runner_on_failed": "failed",
    "runner_on_unreachable": "unreachable",
    "runner_on_start": "started",
}


@dataclasses.dataclass(frozen=True)
class Progress:
    """One step of one host. status: started, ok, changed, failed or unreachable. A step may fail and be tried in
    another way."""

    host: str
    step: str
    status: str
    message: str = ""


@dataclasses.dataclass
class Result:
    """What came out. rc is ansible-playbook's: 0 only if every host is ready and healthy."""

    rc: int = 1
    hosts: dict = dataclasses.field(default_factory=dict)
    failures: dict = dataclasses.field(default_factory=dict)
    health: dict = dataclasses.field(default_factory=dict)


def progress_of(event):
    """Return the Progress that an event of ansible-runner stands for, or None."""
    status, data = STATUS.get(event["event"]), event.get("event_data", {})
    if not status or not data.get("host"):
        return None
    result = data.get("res") or {}
    if status == "ok" and result.get("changed"):
        status = "changed"
    message = str(result.get("msg", "")) if status in ("failed", "unreachable") else ""
    return Progress(data["host"], data.get("task", ""), status, message)


def summary(stats, rc, failures):
    """Return the Result, from the event that ends a run: what Ansible counted, and what the playbook left with
    set_stats."""
    left = stats.get("artifact_data", {})
    hosts = dict(left.get("beta9_onboard", {}))
    hosts.update(dict.fromkeys(stats.get("dark", {}), "unreachable"))
    health = left.get("beta9_health", {}).get("outcome", {})
    return Result(
        rc,
        hosts,
        {
            host: text
            for host, text in failures.items()
            if host in stats.get("failures", {}) or host in stats.get("dark", {})
        },
        health,
    )


def onboard(inventory, limit=None, serial="100%", progress=None, variables=None):
    """Run onboard_worker.yml; call progress(Progress) as steps happen; return a Result."""
    failures, stats = {}, {}

    def handle(event):
        if event["event"] == "playbook_on_stats":
            stats.update(event["event_data"])
        found = progress_of(event)
        if found and found.status in ("failed", "unreachable"):
            failures[found.host] = found.message
        if found and progress:
            progress(found)
        return False  # nothing of the events is kept in files

    with tempfile.TemporaryDirectory() as private:
        runner = ansible_runner.run(
            private_data_dir=private,
            project_dir=str(ROOT),
            playbook="onboard_worker.yml",
            inventory=str(pathlib.Path(inventory).resolve()),
            limit=limit,
            extravars=dict(variables or {}, beta9_serial=serial.split(",")),
            envvars={"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_RETRY_FILES_ENABLED": "false", "PATH": PATH},
            event_handler=handle,
            quiet=True,
        )
        if not stats:
            raise RuntimeError(f"expected a run, found that none began: {runner.stdout.read()[-1000:]}")
        return summary(stats, runner.rc, failures)


def show(progress):
    """Print what a host has done; steps that changed nothing are not worth a line."""
    if progress.status in ("changed", "failed", "unreachable"):
        print(f"{progress.status:11} {progress.host}: {progress.step} {progress.message}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", required=True)
    parser.add_argument("--limit")
    parser.add_argument("--serial", default="100%", help="batches: 1,100%% tries one host first")
    options = parser.parse_args()
    result = onboard(options.inventory, options.limit, options.serial, show)
    for host, outcome in sorted(result.hosts.items()):
        print(f"{outcome:12} {host} {result.health.get(host, '')}")
    sys.exit(result.rc)


if __name__ == "__main__":
    main()
