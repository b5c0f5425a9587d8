"""Another version and another token, without losing the machine; what goes wrong goes back. Ends with a sample of the chaos."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest

from tests.chaos import bed as chaos_bed
from tests.chaos import catalog, run
from tests.e2e.conftest import NAME, ROOT, known_tokens
from tests.e2e.test_1_onboard import recap

INTERVAL, TTL = 5, 300


@pytest.fixture(scope="module")
def bed(testbed):
    """Both hosts ready, with a short interval, so that a gap is seen; the chaos' way to act on them."""
    found = chaos_bed.Bed(NAME, INTERVAL, TTL)
    status, output = found.play("onboard_worker.yml")
    assert status == 0, output
    yield found
    status, output = testbed.play("onboard_worker.yml")
    assert status == 0, output


def sources(tmp_path_factory, version):
    """Return a copy of the agent's source that calls itself another version."""
    target = tmp_path_factory.mktemp("agent") / "source"
    subprocess.run(["cp", "-rL", ROOT / "agent_src", target], check=True)
    init = target / "beta9_agent" / "__init__.py"
    init.write_text(re.sub('__version__ = ".*"', '__version__ = "%s"' % version, init.read_text()))
    return str(target)


@pytest.fixture(scope="module")
def new(tmp_path_factory):
    return sources(tmp_path_factory, "98.0.0")


def versions(bed, host):
    """Return the version that runs, and all that are installed."""
    return (
        bed.sh(host, "basename $(readlink /opt/beta9-agent/current)"),
        sorted(bed.sh(host, "ls /opt/beta9-agent/versions").split()),
    )


def out_of_the_pool(stretches):
    """Return the longest time in which the gateway had fewer than two machines ready."""
    return max([seconds for seconds, number in stretches if number < 2], default=0.0)


def test_upgrade_in_check_mode_tells_and_does_nothing(bed, new):
    before = [versions(bed, host) for host in bed.workers]
    status, output = bed.play("upgrade_agent.yml", agent_source=new, options=["--check"])
    assert status == 0 and all(row["changed"] == 2 for row in recap(output).values()), output
    assert [versions(bed, host) for host in bed.workers] == before


def test_upgrade_keeps_the_machine_in_the_pool(bed, new):
    identities, records, since = [bed.identity(host) for host in bed.workers], bed.records(), time.time()
    before = versions(bed, bed.worker)[0]
    with bed.pool() as stretches:
        status, output = bed.play("upgrade_agent.yml", agent_source=new)
    assert status == 0 and out_of_the_pool(stretches) == 0, (stretches, output)
    assert bed.wait_ready(bed.workers, time.time(), 90), output
    assert re.search(r"%s +%s +ready +%s +98\.0\.0-" % (bed.worker, identities[0], re.escape(before)), output), output
    for host in bed.workers:
        current, installed = versions(bed, host)
        assert current.startswith("98.0.0-") and installed == sorted([before, current])
    assert bed.records() == records
    assert not [line for line in bed.requests() if line["path"].endswith("/register") and line["time"] > since], "the gateway never had to be told again"
    status, output = bed.play("upgrade_agent.yml", agent_source=new)
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output


def test_version_that_does_not_work_goes_back_and_stops_the_run(bed, new):
    before, identity = versions(bed, bed.worker), bed.identity(bed.worker)
    beside = versions(bed, bed.other)[1]
    broken = str(catalog.broken_source(bed, "ends at once"))
    with bed.pool() as stretches:
        status, output = bed.play("upgrade_agent.yml", agent_source=broken)
    assert status != 0 and "broken on purpose" in output and "runs again, and is ready" in output, output
    assert versions(bed, bed.worker) == (before[0], before[1]) and bed.wait_ready(bed.workers, time.time(), 90)
    assert bed.records()[identity] == "ready" and out_of_the_pool(stretches) == 0
    current, installed = versions(bed, bed.other)
    assert current == before[0] and recap(output)[bed.other]["failed"] == 0 and len(installed) == len(beside) + 1, (
        "the other host only has the new version beside"
    )


@pytest.mark.long
def test_power_that_fails_in_the_middle_is_made_up_for(bed, new):
    """The module is killed while it waits for a version that hangs: nobody is left to go back. The next run does."""
    broken = str(catalog.broken_source(bed, "never sends a keepalive"))
    process = subprocess.Popen(
        bed.command("upgrade_agent.yml", bed.worker, agent_source=broken), cwd=ROOT, env=bed.environment(), stdout=subprocess.DEVNULL, start_new_session=True
    )
    bed.sh(bed.worker, "for n in $(seq 1800); do [ -e /opt/beta9-agent/.switching ] && exit 0; sleep 0.1; done; exit 1")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    bed.sh(bed.worker, "pkill -9 -f '[A]nsiballZ_agent_switch|[p]ython3.*agent_switch' ; pkill -9 -x python3; true", check=False)
    assert versions(bed, bed.worker)[0].startswith("99.") and bed.sh(bed.worker, "ls /opt/beta9-agent/.switching")
    status, output = bed.play("upgrade_agent.yml", bed.worker, agent_source=new)
    assert status == 0 and versions(bed, bed.worker)[0].startswith("98.0.0-") and bed.wait_ready([bed.worker], time.time(), 90), output
    # nothing half done is left, and nothing in the directory that bundles are copied to
    assert bed.sh(bed.worker, "cd /opt/beta9-agent; ls -A; ls -A incoming").split() == ["current", "incoming", "versions"]


def held(bed, host):
    return sorted(bed.sh(host, "ls /etc/beta9/credentials").split())


def test_rotation_never_leaves_the_pool(bed, new):
    old, files = [bed.identity(host) for host in bed.workers], held(bed, bed.worker)
    with bed.pool() as stretches:
        status, output = bed.play("rotate_token.yml")
    assert status == 0 and out_of_the_pool(stretches) == 0, (stretches, output)
    assert bed.wait_ready(bed.workers, time.time(), 90)
    fresh = [bed.identity(host) for host in bed.workers]
    assert not set(old) & set(fresh) and bed.records() == {identity: "ready" for identity in fresh}
    for before, after in zip(old, fresh):
        assert known_tokens(bed, before) == "0" and known_tokens(bed, after) == "1"
    assert held(bed, bed.worker) == files
    status, output = bed.play("onboard_worker.yml", agent_source=new)
    assert status == 0 and all(row["changed"] == 0 for row in recap(output).values()), output


@pytest.mark.long
def test_rotation_to_a_token_that_does_not_work_is_undone(bed):
    records = bed.records()
    bed.fault({"route": "machines", "mode": "dud_token"})
    try:
        status, output = bed.play("rotate_token.yml")
    finally:
        bed.fault()
    assert status != 0 and "token" in output and bed.wait_ready(bed.workers, time.time(), 90), output
    assert bed.records() == records and "machine_token.before" not in held(bed, bed.worker)
    assert bed.play("rotate_token.yml", bed.worker, options=["--check"])[0] == 0 and bed.records() == records


@pytest.mark.long
def test_killed_rotation_is_finished_by_the_next(bed):
    old = bed.identity(bed.worker)
    process = subprocess.Popen(
        bed.command("rotate_token.yml", bed.worker),
        cwd=ROOT,
        env=dict(bed.environment(), PYTHONUNBUFFERED="1"),
        text=True,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    for line in process.stdout:
        if "Configure the agent" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)
    fact = json.loads(bed.sh(bed.worker, "cat /etc/ansible/facts.d/beta9.fact"))
    assert fact["replaces"]["machine_id"] == old and "machine_token.before" in held(bed, bed.worker)
    status, output = bed.play("rotate_token.yml", bed.worker)
    assert status == 0 and bed.wait_ready([bed.worker], time.time(), 90), output
    assert bed.identity(bed.worker) == fact["machine_id"] and known_tokens(bed, old) == "0" and len(bed.records()) == 2
    assert "machine_token.before" not in held(bed, bed.worker)


SAMPLE = [chaos for chaos in catalog.ALL if chaos.sample]


@pytest.mark.parametrize("chaos", SAMPLE, ids=[chaos.name.replace(" ", "-") for chaos in SAMPLE])
def test_sample_of_the_chaos(bed, chaos):
    row = run.one(bed, chaos)
    assert row["recovered"], row


def test_no_token_in_any_log(bed):
    bed.learn_secrets()
    assert len(bed.secrets) > 4 and bed.secrets_found() == []
