"""What a host sends comes in by one door: no module of the collection runs on a host without it, and it lets through what is documented."""

from __future__ import annotations

import importlib
import json
import re
import signal
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.beta9.workers.plugins.plugin_utils import claims, plain, remote, returns, trust
from tests.conftest import ROOT

MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
# Actions that run on the controller only, or through plugin_utils/health_observe.py, which has the same door
OTHERS = {"check_verdict", "health_report", "host_step", "worker_health"}
# Modules of ansible.builtin that do nothing on a host
HARMLESS = "assert debug fail include_role include_tasks include_vars import_playbook import_role import_tasks meta pause set_fact set_stats".split()
HARMLESS += ["validate_argument_spec", "reboot", "wait_for_connection"]  # these two return nothing that a host says


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_an_action(name):
    action = importlib.import_module("ansible_collections.beta9.workers.plugins.action." + name).ActionModule
    assert name in OTHERS or issubclass(action, remote.OnHost)


def test_no_action_takes_a_result_past_the_door():
    for path in sorted((ROOT / "plugins/action").glob("*.py")):
        assert "_execute_module(" not in path.read_text(), path


def test_roles_and_playbooks_run_nothing_else_on_hosts():
    for path in [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")]:
        used = set(re.findall(r"^\s+(?:- )?([a-z_]+\.[a-z_]+\.[a-z_]+):", path.read_text(), re.MULTILINE))
        foreign = {name for name in used if not name.startswith("beta9.workers.")} - {"ansible.builtin." + name for name in HARMLESS}
        assert not foreign, "%s: run %s by beta9.workers.host_step" % (path.relative_to(ROOT), ", ".join(sorted(foreign)))


def test_only_what_is_documented_comes_back():
    sent = {"changed": True, "paths": ["/a"], "ansible_facts": {"beta9_gateway_url": "http://x"}, "add_host": {"host_name": "x"}, "add_group": "g"}
    sent.update(ansible_stats={"data": {"a": 1}}, _ansible_notify=["x"], unreachable=True, results=[1], **{name: 1 for name in ("a", "b")})
    assert remote.documented("host_files", sent) == {"changed": True, "paths": ["/a"]}


@pytest.mark.parametrize("sent", [{"paths": 5}, {"paths": "x"}, {"changed": "no"}, {"msg": ["x"]}, {"failed": {}}])
def test_other_types_are_a_failure_of_the_host(sent):
    found = remote.documented("host_files", sent)
    assert found["failed"] and found["code"] == "result_malformed" and "expected" in found["msg"]


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_whatever_is_sent_becomes_plain_data(value):
    found = plain.data({"x": value})
    text = json.dumps(found, allow_nan=False, ensure_ascii=False)
    text.encode("utf-8")
    assert not plain.UNPRINTABLE.search(text)
    for module in returns.RETURNS:
        assert isinstance(remote.documented(module, {name: value for name in ("facts", "machine", "files", "needed", "changed", "dropped")}), dict)


def test_size_and_depth_are_bounded():
    deep = []
    for _number in range(500):
        deep = [deep]
    found = plain.data({"long": "x" * 30_000_000, "deep": deep, "many": ["y" * 60000] * 1000})
    assert len(json.dumps(found)) < 2 * plain.MAX_TOTAL and "characters more" in found["long"]
    assert plain.data("a\x1b[2J\x00b\ud800\r\n\u202ec") == "a\ufffd[2J\ufffdb\ufffd\n\ufffdc"


@pytest.mark.parametrize("name", ["../../etc/shadow", "/etc/shadow", "", ".hidden", "a/b", "a b", 5, None])
def test_a_host_names_no_file_of_the_controller(name):
    for module, found in (("k3s_install", {"needed": [{"name": name, "dest": "/x"}]}), ("k3s_preflight", {"files": {"sums": name}})):
        assert remote.documented(module, found)["code"] == "result_malformed"


def test_an_identity_is_well_formed_or_none():
    good = {"machine_id": "1165a9b6", "pool": "gpu", "provider": "generic"}
    assert claims.identity(dict(good, replaces=good, more=1)) == dict(good, replaces=good)
    for wrong in ({"machine_id": "{{ x }}"}, {"machine_id": "../../x"}, {"pool": "a\nb"}, {"pool": None}, {"provider": 5}):
        assert claims.identity(dict(good, **wrong)) == {}
    assert claims.identity([1]) == {} and claims.identity(dict(good, replaces=[1])) == good


def test_every_variable_of_the_collection_is_known_as_ours():
    names = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            names |= set(entry.get("options") or {})
    for path in [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")]:
        names |= set(re.findall(r"^\s+register: (\w+)", path.read_text(), re.MULTILINE))
    for path in [*ROOT.glob("roles/*/defaults/main.yml"), *ROOT.glob("roles/*/vars/main.yml")]:
        names |= set(yaml.safe_load(path.read_text()) or {})
    assert names and not [name for name in names if not trust.OURS.match(name)]


GOOD = {"id": "T03", "outcome": "bad", "code": "refused", "found": "x", "evidence": "", "seconds": 0.1, "data": {}}


@pytest.mark.parametrize(
    "found",
    [5, "x", {}, [1, 2], [[]], [dict(GOOD, outcome="fine")], [dict(GOOD, outcome=5)], [dict(GOOD, found=[])], [dict(GOOD, data=5)], [dict(GOOD, seconds="x")]],
)
def test_malformed_observations_are_no_observations(found):
    sent = {"observations": found, "settings": {}, "identity": {}}
    for result in (remote.documented("worker_health", sent), remote.documented("worker_health", dict(sent, failed=True, msg="x"))):
        assert result["code"] == "result_malformed" and "observations" not in result


def test_observations_are_cut_and_of_the_worker_only():
    more = [
        dict(GOOD, found="y" * 10**6, code="A B", data={"gpu_count": "many", "owner": "a", "x": 1}),
        dict(GOOD, id="M02"),
        dict(GOOD, id="Z99"),
        dict(GOOD, id=[]),
    ]
    sent = {"observations": more, "settings": {}, "identity": {"machine_id": 5, "pool": "gpu"}, "machines": {"other": [GOOD]}}
    result = remote.documented("worker_health", sent)
    (seen,) = result["observations"]
    assert len(seen["found"]) < 3000 and seen["code"] == "" and seen["data"] == {"owner": "a"} and result["identity"] == {"pool": "gpu"}
    assert "machines" not in result  # a worker says nothing of another
    failed = remote.documented("worker_health", dict(sent, failed=True))
    assert {name: failed[name] for name in result} == result


def test_address_of_a_nodeport_comes_from_the_gateways_side_only():
    sent = {"observations": [{"id": "nodeport", "outcome": "ok", "data": {"nodeport": 1}}], "settings": {}, "identity": {}}
    assert remote.documented("worker_health", sent)["observations"] == []
    assert len(claims.gateway_side(dict(sent, machines={}))["observations"]) == 1


def test_a_result_is_not_a_module_result_without_a_mapping():
    for sent in (None, 5, [], "x"):
        assert remote.documented("worker_health", sent) == {}


def test_a_host_that_never_answers_is_left():
    """Also where a connection plugin takes any exception for its own, and where the task has a time limit around it."""
    start = time.monotonic()
    with pytest.raises(remote.TooLate):
        with remote.within(60), remote.within(0.2):
            try:
                time.sleep(30)
            except Exception:  # pylint: disable=broad-exception-caught
                pytest.fail("an error of the connection's own")
    assert time.monotonic() - start < 5 and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_every_module_that_installs_may_take_its_time():
    assert set(remote.LIMITS) <= set(MODULES)
