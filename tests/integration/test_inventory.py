"""The inventory plugin, run by ansible-inventory against the gateway double: groups, matching, cache, speed, errors, and no token."""

from __future__ import annotations

import json
import os
import resource
import subprocess

import pytest
import yaml

from tests.conftest import ROOT
from tests.doubles.gateway.harness import free_port

GPUS = {"gpu": "A10G", "cpu": ""}


def put(gateway, machine_id, pool="gpu", status="ready", **fields):
    """Write a machine into Redis as the gateway does, secrets included."""
    state = {"machine_id": machine_id, "pool_name": pool, "provider_name": "generic", "status": status, "hostname": "127.77.0.1"}
    state.update(token="canary-cluster-token", registration_token="canary-registration-token", cpu="8000", memory="16384", gpu=GPUS[pool], gpu_count="1")
    state.update(private_ip="10.0.0.7", last_keepalive="1790000000", created="1789990000", last_worker_seen="0", agent_version="0.1.0")
    key = "provider:machine:generic:%s:%s" % (pool, machine_id)
    with gateway.db.pipeline() as batch:
        batch.hset(key, mapping=dict(state, **fields))
        batch.expire(key, 300)
        batch.hset(key + ":metrics", mapping={"free_gpu_count": "1", "container_count": "0"})
        batch.sadd("provider:machine:generic:%s:machine_index" % pool, key)
        batch.execute()


def plain(entry):
    """Return what ansible-inventory wrote, without the mark of text that is no template."""
    return entry.get("__ansible_unsafe", entry)


@pytest.fixture
def inventory(gateway, tmp_path):
    """Return a function that writes sources and runs ansible-inventory; it returns the parsed list and all that was printed."""

    def run(*sources, action="--list", env=None, fail=False, **options):
        options = dict({"plugin": "beta9.workers.machines", "gateway_url": gateway.url, "timeout": 2, "retries": 0}, **options)
        (tmp_path / "50-beta9.yml").write_text(yaml.safe_dump(options))
        for number, text in enumerate(sources):
            (tmp_path / ("%d0-static.yml" % number)).write_text(yaml.safe_dump(text))
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("BETA9_", "ANSIBLE_"))}
        environment.update(ANSIBLE_COLLECTIONS_PATH=str(ROOT / "collections"), ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED="true", BETA9_TOKEN=gateway.admin_token)
        command = ["ansible-inventory", "-vvv", action]
        for path in sorted(tmp_path.glob("*.yml")):
            command += ["-i", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=dict(environment, **env or {}), cwd=tmp_path, check=False, timeout=60)
        said = done.stdout + done.stderr
        assert "canary" not in said, "a token was printed"
        assert bool(done.returncode) == fail, said
        return said if fail or action != "--list" else json.loads(done.stdout[done.stdout.index("{") :], object_hook=plain)

    return run


def groups(listed):
    """Return {group: hosts} without what Ansible adds."""
    return {name: entry["hosts"] for name, entry in listed.items() if name not in ("_meta", "all", "ungrouped") and entry.get("hosts")}


def test_machines_become_hosts_in_groups(gateway, inventory):
    put(gateway, "1165a9b6")
    put(gateway, "9c40e2d7", status="registered", gpu="RTX-4090")
    put(gateway, "00aa11bb", pool="cpu")
    listed = inventory()
    assert groups(listed) == {
        "beta9_gpu_A10G": ["1165a9b6"],
        "beta9_gpu_RTX_4090": ["9c40e2d7"],
        "beta9_pool_cpu": ["00aa11bb"],
        "beta9_pool_gpu": ["1165a9b6", "9c40e2d7"],
        "beta9_status_ready": ["00aa11bb", "1165a9b6"],
        "beta9_status_registered": ["9c40e2d7"],
    }
    assert sorted(listed["beta9_machines"]["children"]) == ["beta9_pool_cpu", "beta9_pool_gpu"]
    machine = listed["_meta"]["hostvars"]["1165a9b6"]["beta9_machine"]
    assert machine["metrics"]["free_gpu_count"] == 1 and machine["metrics"]["container_count"] == 0 and machine["memory_mib"] == 16384
    assert groups(inventory(pools=["cpu"])).keys() == {"beta9_pool_cpu", "beta9_status_ready"}


def test_composes_with_a_static_inventory(gateway, inventory, tmp_path):
    for identity in ("1165a9b6", "9c40e2d7", "00aa11bb", "deadbeef"):
        put(gateway, identity)
    static = {"all": {"hosts": {"gpu-01": {"ansible_host": "203.0.113.11"}, "gpu-02": {"beta9_machine_id": "9c40e2d7"}, "gpu-03": {}, "gpu-04": {}}}}
    static["all"]["hosts"]["gpu-05"] = {"beta9_machine_id": "0badf00d"}
    cache = tmp_path / "facts"
    cache.mkdir()
    (cache / "gpu-03").write_text(json.dumps({"ansible_local": {"beta9": {"machine_id": "00aa11bb", "pool": "gpu"}}}))  # a host's own word: not asked
    env = {"ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(cache)}
    listed = inventory(static, env=env, hosts={"1165a9b6": "gpu-01"})
    found = groups(listed)
    assert sorted(found["beta9_pool_gpu"]) == ["00aa11bb", "deadbeef", "gpu-01", "gpu-02"]
    assert found["beta9_status_absent"] == ["gpu-05"]
    assert listed["_meta"]["hostvars"]["gpu-01"]["ansible_host"] == "203.0.113.11"
    assert [listed["_meta"]["hostvars"][name]["beta9_machine"]["id"] for name in ("gpu-01", "gpu-02")] == ["1165a9b6", "9c40e2d7"]
    assert "deadbeef" not in json.dumps(inventory(static, env=env, unmatched="skip"))


def test_a_known_host_is_no_machine_by_its_name_alone(gateway, inventory):
    put(gateway, "deadbeef")
    static = {"all": {"hosts": {"deadbeef": {"ansible_host": "203.0.113.11"}}}}
    assert "beta9_pool_gpu" not in groups(inventory(static))
    assert "no mapping says that it is this machine" in " ".join(inventory(static, action="--graph").split())
    assert groups(inventory(static, hosts={"deadbeef": "deadbeef"}))["beta9_pool_gpu"] == ["deadbeef"]


def test_two_hosts_with_one_identity_are_told(gateway, inventory):
    put(gateway, "1165a9b6")
    static = {"all": {"hosts": {name: {"beta9_machine_id": "1165a9b6"} for name in ("gpu-01", "gpu-02")}}}
    said = inventory(static, action="--graph")
    assert "expected one host, found gpu-01, gpu-02" in " ".join(said.split())


def test_constructed(gateway, inventory):
    put(gateway, "1165a9b6")
    put(gateway, "9c40e2d7", agent_version="")
    listed = inventory(
        compose={"free": "beta9_machine.metrics.free_gpu_count + 1"},
        groups={"idle": "beta9_machine.metrics.container_count == 0 and free | int == 2"},
        keyed_groups=[{"prefix": "agent", "key": "beta9_machine.agent_version"}],
    )
    assert groups(listed)["idle"] == ["1165a9b6", "9c40e2d7"] and groups(listed)["agent_0_1_0"] == ["1165a9b6"]
    assert "Could not set" in inventory(compose={"free": "nonsense.here"}, strict=True, fail=True)


def test_what_the_gateway_says_is_never_a_template(gateway, inventory):
    put(gateway, "1165a9b6", agent_version="{{ 20 + 1 }}")
    found = inventory(compose={"seen": "beta9_machine.agent_version"})["_meta"]["hostvars"]["1165a9b6"]
    assert found["beta9_machine"]["agent_version"] == found["seen"] == ""  # what is no version is left out


def test_cache(gateway, inventory, tmp_path):
    cache = {"cache": True, "cache_plugin": "ansible.builtin.jsonfile", "cache_connection": str(tmp_path / "cache"), "cache_timeout": 60}
    put(gateway, "1165a9b6")
    first = inventory(**cache)
    asked = len(gateway.requests())
    put(gateway, "9c40e2d7")
    assert inventory(**cache) == first and len(gateway.requests()) == asked, "the second run is answered by the cache"
    assert "9c40e2d7" in inventory(action="--graph", pools=["gpu"], **cache), "other options are another question"
    stored = "".join(path.read_text() for path in (tmp_path / "cache").iterdir())
    assert "1165a9b6" in stored and "canary" not in stored and "token" not in stored
    gateway.fault({"route": "machines", "mode": "answer", "status": 503})
    assert inventory(**cache) == first
    for path in (tmp_path / "cache").iterdir():
        os.utime(path, (1, 1))
    assert "503" in inventory(fail=True, **cache)


@pytest.mark.parametrize(
    ("options", "env", "words"),
    [
        ({"gateway_url": "http://127.0.0.1:%d" % free_port()}, {}, "nothing listens at this address and port"),
        ({"gateway_url": "gateway:31994"}, {}, "gateway_url: expected a URL like"),
        ({}, {"BETA9_TOKEN": ""}, "token: expected a token"),
        ({}, {"BETA9_TOKEN": "not-a-known-canary-token"}, "does not know this token"),
        ({"token_file": "/nonexistent"}, {"BETA9_TOKEN": ""}, "token_file: expected a file with the token, found /nonexistent"),
        ({"pools": ["gqu"]}, {}, "configuration has no pool of this name"),
        ({"pool": "gpu"}, {}, "expected options of beta9.workers.machines, found pool"),
        ({"unmatched": "drop"}, {}, "unmatched"),
    ],
)
def test_errors_say_what_to_do(inventory, options, env, words):
    assert words in " ".join(inventory(env=env, fail=True, **options).split())


def test_another_token_is_an_error_and_not_an_empty_inventory(gateway, inventory):
    assert "not a cluster admin's" in " ".join(inventory(env={"BETA9_TOKEN": gateway.token("workspace")}, fail=True).split())


def test_thousand_machines_in_two_seconds(gateway, inventory):
    """Processor time of the whole command, Ansible's own start included: the clock on the wall measures the neighbours as well."""
    for number in range(1000):
        put(gateway, "%08x" % number, pool=("gpu", "cpu")[number % 2])
    times = []
    for _run in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        listed = inventory()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert len(listed["_meta"]["hostvars"]) == 1000 and len(groups(listed)["beta9_pool_cpu"]) == 500
    assert min(times) < 2, times
