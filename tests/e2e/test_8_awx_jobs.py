"""Every job template through ansible-runner, launched as AWX launches it, on real hosts: success and failure, events, artefacts."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

from tests.awx.launch import Launcher
from tests.e2e.conftest import ROOT, STATE


@pytest.fixture(scope="module")
def jobs(testbed, awx, project, tmp_path_factory):
    """A launcher whose credentials and hosts are those of the testbed; the definitions are what awx/configure.yml sent."""
    inventory = json.loads(testbed.inventory.read_text())["all"]
    children = inventory["children"]
    hosts = {name: dict(variables) for group in children.values() for name, variables in group["hosts"].items()}
    for name in testbed.workers:
        hosts[name].update(children["gpu-hosts"]["vars"], ansible_become=True)
    launcher = Launcher(awx.double, project, tmp_path_factory.mktemp("jobs"), hosts, {name: list(group["hosts"]) for name, group in children.items()})
    variables = {"beta9_redis_url": inventory["vars"]["beta9_redis_url"], "ansible_python_interpreter": "/usr/bin/python3"}
    awx.double.named("inventories", "beta9 workers")["variables"] = json.dumps(dict(variables, beta9_gateway_host=testbed.gateway))
    for name, inputs in {
        "beta9 gateway": {"gateway_url": inventory["vars"]["beta9_gateway_url"], "token": (STATE / "admin_token").read_text().strip()},
        "beta9 hosts": {"username": "root", "ssh_key_data": (STATE / "id_ed25519").read_text()},
        "beta9 host keys": {"known_hosts": (STATE / "known_hosts").read_text()},
    }.items():
        awx.double.named("credentials", name)["inputs"] = inputs
    launcher.done = []
    return launcher


@pytest.fixture
def launch(jobs):
    """Launch and remember the job, so that the last test can look for secrets in all."""

    def launched(name, **arguments):
        job = jobs.launch(name, **arguments)
        jobs.done.append(job)
        return job

    return launched


def test_prepare_gateway(launch, testbed):
    job = launch("Prepare gateway")
    assert job.status == "successful" and job.hosts("ok") == [testbed.gateway], job.output
    job = launch("Prepare gateway", host_variables={testbed.gateway: {"ansible_port": 1}})
    assert job.status == "failed" and job.hosts("dark") == [testbed.gateway], job.output


def test_onboard_leaves_one_that_fails_and_goes_on_with_it(launch, testbed):
    """One bare host, whose pool is wrong at first; the other one has its machine, is the canary, and is left as it is."""
    good, bare = testbed.workers
    testbed.clean()
    status, output = testbed.play("onboard_worker.yml", "-l", good)
    assert status == 0, output
    job = launch("Onboard workers", host_variables={bare: {"beta9_pool": "nope"}})
    assert job.status == "failed" and job.hosts("failures") == [bare] and job.hosts("changed") == [], job.output
    assert job.artefacts["beta9_onboard"] == {good: "ready", bare: "failed"} and job.artefacts["beta9_health"]["outcome"] == {good: "healthy"}
    assert "nope" in job.output, "in the summary, once"
    done = job.tasks()
    # survey default: one host first, to its end
    assert done.index((good, "Fail hosts that are not healthy")) < done.index((bare, "Verify variables and host"))
    job = launch("Onboard workers", limit=bare)
    assert job.status == "successful" and job.hosts("changed") == [bare] and good not in job.stats["processed"], job.output
    assert job.artefacts["beta9_onboard"] == {bare: "ready"} and job.artefacts["beta9_health"] == {
        "outcome": {bare: "healthy"},
        "roots": {bare: []},
        "summary": {},
    }
    assert set(testbed.machines().values()) == {"ready"} and len(testbed.machines()) == 2


@pytest.mark.long
def test_onboard_stops_after_an_ill_canary(launch, testbed):
    ill, untouched = testbed.workers
    job = launch("Onboard workers", host_variables={ill: {"beta9_pool": "nope"}})
    assert job.status == "failed" and job.hosts("failures") == [ill], job.output
    assert untouched not in job.stats["processed"] and job.artefacts["beta9_onboard"] == {ill: "failed"}


@pytest.mark.long
def test_a_slice_lacks_the_gateway_host(launch, testbed, jobs):
    """AWX gives a slice a part of the hosts. What is there again is not changed, though the tunnel's other end is no host of the slice."""
    inventory = jobs.double.named("inventories", "beta9 workers")
    before = inventory["variables"]
    inventory["variables"] = json.dumps(dict(json.loads(before), beta9_gateway_host=jobs.hosts[testbed.gateway]["ansible_host"]))
    try:
        job = launch("Onboard workers", hosts=[testbed.workers[1]])
    finally:
        inventory["variables"] = before
    assert job.status == "successful" and job.hosts("changed") == [] and list(job.stats["processed"]) == [testbed.workers[1]], job.output


def test_host_with_another_key_is_refused(launch, jobs, testbed):
    """AWX turns host key checking off in every job's environment. The credential turns it on again, on the way through a jump host too."""
    good, jumped = testbed.workers
    credential = jobs.double.named("credentials", "beta9 host keys")
    kept = credential["inputs"]
    gateway = jobs.hosts[testbed.gateway]["ansible_host"]
    through = {jumped: {"ansible_ssh_common_args": "-o ProxyJump=root@%s" % gateway}}
    job = launch("Health check", limit=jumped, host_variables=through)
    assert job.status == "successful" and job.hosts("dark") == [], job.output
    lines = kept["known_hosts"].splitlines()
    of_gateway = [line.split(" ", 1)[1] for line in lines if gateway in line.split()[0].split(",")]
    others = [line for line in lines if jobs.hosts[good]["ansible_host"] not in line.split()[0].split(",")]
    # the worker's address with the gateway's keys
    forged = ["%s %s" % (jobs.hosts[good]["ansible_host"], key) for key in of_gateway]
    credential["inputs"] = dict(kept, known_hosts="\n".join(others + forged))
    try:
        job = launch("Health check", limit=good)
        assert job.status == "failed" and job.hosts("dark") == [good], job.output
        # and the jump host's key is pinned as well
        credential["inputs"] = dict(kept, known_hosts="\n".join(line for line in lines if gateway not in line.split()[0].split(",")))
        job = launch("Health check", limit=jumped, host_variables=through)
        assert job.status == "failed" and job.hosts("dark") == [jumped], job.output
    finally:
        credential["inputs"] = kept


def test_inventory_source(jobs, testbed):
    """The gateway's machines, with no collection but the project's own, and the token in a file."""
    inventory, text = jobs.inventory_update("beta9 machines")
    assert inventory is not None, text
    assert sorted(inventory["beta9_status_ready"]["hosts"]) == sorted(testbed.machines()) and len(inventory["beta9_pool_gpu"]["hosts"]) == 2
    credential = jobs.double.named("credentials", "beta9 gateway")
    assert credential["inputs"]["token"] not in text
    kept = credential["inputs"]
    credential["inputs"] = dict(kept, token="not-the-token-of-this-gateway")
    try:
        inventory, text = jobs.inventory_update("beta9 machines")
    finally:
        credential["inputs"] = kept
    assert inventory is None and "token" in text and "not-the-token-of-this-gateway" not in text, text


@pytest.mark.long
def test_example_of_ansible_runner_as_a_library(testbed, tmp_path):
    """examples/onboard_with_runner.py on a host that is ready and on one that does not answer."""
    sys.path.insert(0, str(testbed.root / "examples"))
    example = importlib.import_module("onboard_with_runner")
    inventory = json.loads(testbed.inventory.read_text())
    inventory["all"]["children"]["gpu-hosts"]["hosts"]["absent"] = dict(ansible_host="127.0.0.1", ansible_port=1, ansible_user="root")
    path, steps, ready = tmp_path / "inventory.yml", [], testbed.workers[0]
    path.write_text(json.dumps(inventory))
    result = example.onboard(path, limit=ready + ",absent", progress=steps.append)
    assert result.hosts == {ready: "ready", "absent": "unreachable"} and result.health == {ready: "healthy"} and result.rc != 0
    assert list(result.failures) == ["absent"] and "refused" in result.failures["absent"]
    assert [step.host for step in steps if step.status == "unreachable"] == ["absent"]
    names = [step.step for step in steps if step.host == ready and step.status == "ok"]
    assert names.index("Verify variables and host") < names.index("Read the machines from the gateway, once for all hosts") and len(names) > 15
    assert not [step for step in steps if step.status in ("changed", "failed")]


def test_workflow_heals_who_is_ill_and_nobody_else(jobs, testbed):
    ill, well = testbed.workers[1], testbed.workers[0]
    testbed.sh(ill, "systemctl stop beta9-tunnel")
    nodes, status = jobs.workflow("Keep workers healthy")
    jobs.done += nodes.values()
    assert status == "successful" and list(nodes) == ["check", "heal", "verify"], nodes[list(nodes)[-1]].output
    assert [job.status for job in nodes.values()] == ["failed", "successful", "successful"]
    assert nodes["check"].artefacts["beta9_health"]["roots"] == {ill: ["T01"], well: []}
    assert nodes["heal"].hosts("changed") == [ill] and well not in nodes["heal"].stats["processed"]
    assert nodes["heal"].artefacts["beta9_heal"] == {ill: ["tunnel_start"]}
    assert set(nodes["verify"].artefacts["beta9_health"]["outcome"].values()) == {"healthy"}


@pytest.mark.long
def test_workflow_that_can_not_heal_fails_and_so_tells(jobs, testbed):
    for node in jobs.double.all("workflow_job_template_nodes"):
        node["extra_data"] = dict(node.get("extra_data") or {}, health_check_wait_seconds=0) if node["identifier"] != "heal" else {}
    testbed.sh(testbed.gateway, "systemctl stop redis-server")
    try:
        nodes, status = jobs.workflow("Keep workers healthy")
    finally:
        testbed.sh(testbed.gateway, "systemctl start redis-server")
    jobs.done += nodes.values()
    assert status == "failed" and [job.status for job in nodes.values()] == ["failed", "failed", "failed"]
    assert "G09" in nodes["verify"].artefacts["beta9_health"]["summary"][testbed.workers[0]], "what the notification says"
    assert nodes["heal"].hosts("changed") == [] and set(nodes["verify"].artefacts["beta9_health"]["roots"][testbed.workers[0]]) == {"G09"}


def test_refused_launches(jobs):
    for answers in ({"health_check_wait_seconds": 901}, {"health_check_report": "all"}, {"beta9_admin_token": "x" * 20}):
        with pytest.raises(ValueError, match="AWX refuses"):
            jobs.launch("Health check", answers=answers)


def test_offboard(launch, testbed):
    job = launch("Offboard")
    assert job.status == "failed" and not job.stats.get("processed") and "no hosts to target" in job.output, job.output
    assert len(testbed.machines()) == 2
    leaving = testbed.workers[1]
    for limit, confirmation in (("", "2"), ("", ""), (leaving, ""), (leaving, "2"), (leaving, testbed.workers[0])):
        job = launch("Offboard", limit=limit, answers={"beta9_offboard_confirm": confirmation})
        assert job.status == "failed" and "Nothing was changed" in job.output and job.hosts("changed") == [], job.output
    assert len(testbed.machines()) == 2
    job = launch("Offboard", limit=leaving, answers={"beta9_offboard_confirm": leaving})
    assert job.status == "successful" and job.artefacts == {"beta9_offboard": {leaving: "removed"}}, job.output
    assert len(testbed.machines()) == 1 and testbed.machine_id(leaving) == ""


@pytest.mark.long
@pytest.mark.parametrize("name, artefact", [("Upgrade agent", "beta9_upgrade"), ("Rotate token", "beta9_rotate")])
def test_upgrade_and_rotate(launch, testbed, name, artefact):
    """On the host that is left; the other one was offboarded, and is told so."""
    left, gone = testbed.workers
    before = testbed.machine_id(left)
    job = launch(name, limit=left)
    assert job.status == "successful" and job.hosts("ok") == [left], job.output
    assert job.artefacts[artefact] == {left: "ready"} and list(testbed.machines().values()) == ["ready"]
    assert (testbed.machine_id(left) != before) == (name == "Rotate token")
    job = launch(name, limit=gone)
    assert job.status == "failed" and job.hosts("failures") == [gone] and "onboard" in job.output, job.output


@pytest.mark.long
def test_accept_gpus(launch, testbed, tmp_path):
    """A host without a driver fails; with GPUs, which are doubles, each passes; of one that computes wrongly only the others are offered."""
    left = testbed.workers[0]
    job = launch("Accept GPUs", limit=left)
    assert job.status == "failed" and job.artefacts["beta9_acceptance"] == {left: "failed"} and "CUDA" in job.output, job.output
    library = tmp_path / "double.so"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(ROOT / "tests/doubles/gpu/nvidia_double.c")], check=True)
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        subprocess.run(["podman", "cp", str(library), f"{left}:/usr/local/lib/{name}"], check=True, capture_output=True)
    try:
        testbed.sh(left, "ldconfig; printf 'gpus=2\nbusy=0\nsmi=2\n' > /etc/beta9-gpu-double")
        job = launch("Accept GPUs", limit=left)
        assert job.status == "successful" and job.artefacts["beta9_acceptance"] == {left: "passed"}, job.output
        testbed.sh(left, "echo cuda_product_wrong.1=1 >> /etc/beta9-gpu-double")
        job = launch("Accept GPUs", limit=left, answers={"beta9_gpu_exclude_failed": "true"})
        assert job.status == "successful" and "a matrix product is wrong" in job.output, job.output
        assert testbed.sh(left, "grep -c ^BETA9_GPU_IDS=GPU-00000000-0000-0000-0000-000000000000 /etc/beta9/agent.env") == "1"
        testbed.sh(left, "sed -i /cuda_product_wrong/d /etc/beta9-gpu-double")
        job = launch("Accept GPUs", limit=left, answers={"beta9_gpu_exclude_failed": "true"})
        assert job.status == "successful" and job.artefacts["beta9_acceptance"] == {left: "passed"}, job.output
        assert testbed.sh(left, "grep ^BETA9_GPU_IDS= /etc/beta9/agent.env || true") == ""
    finally:
        files = "/usr/local/lib/libcuda.so.1 /usr/local/lib/libnvidia-ml.so.1 /etc/beta9-gpu-double /var/lib/beta9/gpu_acceptance.json"
        testbed.sh(left, f"rm -f {files}; ldconfig", check=False)


def test_no_secret_in_what_awx_keeps(jobs, testbed):
    secrets = [(STATE / "admin_token").read_text().strip(), (STATE / "id_ed25519").read_text().splitlines()[2]]
    secrets.append(testbed.sh(testbed.workers[0], "cat /etc/beta9/credentials/machine_token"))
    assert len(jobs.done) > 10
    for job in jobs.done:
        text = job.text() + (job.directory / "env/extravars").read_text() + (job.directory / "env/envvars").read_text()
        assert not [secret for secret in secrets if secret in text], job.output[-500:]
