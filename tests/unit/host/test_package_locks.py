"""Who holds a lock of apt is named, waited for, and waited for again where somebody was quicker. The locks and their holders are real."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.host import package_locks, package_sets

HOLD = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(float(sys.argv[2]))"


@pytest.fixture
def hold(tmp_path):
    """Return a function that lets another process hold a lock for some seconds; it returns the lock's path and the process."""
    processes = []

    def begin(seconds):
        path = str(tmp_path / "lock")
        process = subprocess.Popen([sys.executable, "-c", HOLD, path, str(seconds)], stdout=subprocess.PIPE)
        processes.append(process)
        process.stdout.readline()
        return path, process

    yield begin
    for process in processes:
        process.kill()
        process.wait()


def test_holder_is_named(hold, tmp_path):
    path, process = hold(60)
    found = package_locks.held((str(tmp_path / "absent"), path))
    assert (found.path, found.pid, found.command) == (path, process.pid, sys.executable)  # and not its arguments
    assert package_locks.describe(found).startswith("%s held by %s" % (path, sys.executable)) and "(pid %d)" % process.pid in package_locks.describe(found)
    process.kill()
    process.wait()
    assert package_locks.held((path,)) is None


def test_lock_is_waited_for(hold):
    path, _process = hold(1)
    assert package_locks.wait(30, lambda: package_locks.held((path,))) is None
    path, process = hold(60)
    start = time.monotonic()
    assert package_locks.wait(0.2, lambda: package_locks.held((path,))).pid == process.pid and time.monotonic() - start < 5


@pytest.fixture
def apt(monkeypatch):
    """Apt whose commands answer from a list, and remember what was run."""
    answers, ran = [], []

    def run(command, **_options):
        ran.append(command)
        return answers.pop(0)

    manager = package_sets.Apt(run, 2)
    manager.answers, manager.ran = answers, ran
    monkeypatch.setattr(package_locks, "CLOUD_INIT", "/nowhere")
    return manager


def test_time_that_is_over_names_the_holder_and_what_to_do(hold, apt, monkeypatch):
    path, process = hold(60)
    monkeypatch.setattr(package_locks, "wait", lambda seconds, probe=None: None if probe else package_locks.held((path,)))
    with pytest.raises(package_sets.StillBusy) as refusal:
        apt.refresh()
    text = str(refusal.value)
    assert "(pid %d)" % process.pid in text and path in text and "beta9_package_lock_seconds" in text and "internet" not in text and apt.ran == []


def test_who_was_quicker_is_waited_for(apt, monkeypatch):
    monkeypatch.setattr(package_locks, "wait", lambda seconds, probe=None: None)
    apt.answers[:] = [(100, "", "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 812 (apt-get)"), (0, "", "")]
    assert apt.refresh() == "" and len(apt.ran) == 2


@pytest.fixture
def cloud_init(monkeypatch, tmp_path):
    """cloud-init that works; the folder in which it says so."""
    (tmp_path / "status.json").write_text("{}")
    monkeypatch.setattr(package_locks, "CLOUD_INIT", str(tmp_path))
    monkeypatch.setattr(package_locks, "held", lambda: None)
    return tmp_path


def test_cloud_init_is_waited_for(apt, cloud_init, monkeypatch):
    """By its result, and not by what it says of itself: one error in a stage, and `cloud-init status --wait` waits no more."""
    assert package_locks.booting()
    monkeypatch.setattr(package_locks.time, "sleep", lambda seconds: (cloud_init / "result.json").write_text("{}"))
    apt.answers[:] = [(0, "", "")]
    assert apt.refresh() == "" and [command[0] for command in apt.ran] == ["apt-get"] and not package_locks.booting()
    (cloud_init / "result.json").unlink()
    (cloud_init / "disabled").write_text("")
    assert not package_locks.booting()


def test_cloud_init_that_does_not_end_is_named(apt, cloud_init):
    apt.lock_seconds = 0
    with pytest.raises(package_sets.StillBusy, match="cloud-init: expected its end within 0 s, found that it still runs. Check it: cloud-init status"):
        apt.refresh()
    assert apt.ran == []


def test_cloud_init_and_locks_share_the_time_there_is(apt, cloud_init, monkeypatch):
    now, waits = [1000.0], []
    monkeypatch.setattr(package_sets.time, "monotonic", lambda: now[0])

    def wait(seconds, probe=None):
        waits.append((seconds, probe))
        now[0] += 1.5

    monkeypatch.setattr(package_locks, "wait", wait)
    apt.settle()
    assert waits == [(2, package_locks.booting), (0.5, None)]


def test_dnf_waits_for_cloud_init_as_well(cloud_init):
    dnf = package_sets.Dnf(None, 0)
    for act in (dnf.refresh, lambda: dnf.reinstall(["openssh-clients"])):
        with pytest.raises(package_sets.StillBusy, match="cloud-init"):
            act()


def test_broken_package_of_somebody_else_is_named(apt, monkeypatch):
    monkeypatch.setattr(package_locks, "wait", lambda seconds, probe=None: None)
    apt.answers[:] = [
        (0, "audit", ""),
        (1, "", "error processing package"),
        (100, "", "error"),
        (0, "half-configured theirs\ninstalled ours\nconfig-files old\n", ""),
    ]
    with pytest.raises(package_sets.PackageError) as refusal:
        apt.repair(False)
    assert not isinstance(refusal.value, package_sets.StillBusy)
    assert "theirs not configured" in str(refusal.value) and "dpkg --configure theirs" in str(refusal.value) and "ours" not in str(refusal.value)
