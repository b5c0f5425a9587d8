"""Every public variable is judged: its name, its type, its value. The argument specs are the only list of them."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from ansible_collections.beta9.workers.plugins.plugin_utils import settings

from tests.conftest import ROOT

DOCUMENTED = settings.documented()
WRONG_TYPE = {"bool": "ja", "int": "viel", "float": "viel", "dict": "viel", "list": {"a": 1}, "str": ["x"], "path": ["x"], "raw": "viel"}
# A value of the right type that nothing can take
NONSENSE = "no such value\nat all"


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_wrong_type_is_named(name):
    kind = DOCUMENTED[name].get("type", "str")
    if name in ("beta9_workers", "beta9_gateway_hosts"):
        pytest.skip("any pattern: lookup targets judges it")
    found = settings.problem_of(name, WRONG_TYPE[kind])
    assert found and found["what"].startswith(name) and found["expected"] and found["remedy"] == "Correct %s." % name


@pytest.mark.parametrize("name", sorted(name for name, option in DOCUMENTED.items() if option.get("type", "str") in ("str", "path", "int", "raw")))
def test_wrong_value_is_named(name):
    if name in settings.FREE:
        return
    for value in (NONSENSE, -1, 10**12) if DOCUMENTED[name]["type"] == "int" else (NONSENSE,):
        assert settings.problem_of(name, value), "%s takes %r: it needs a grammar in settings.CHECKS" % (name, value)


def test_each_documented_default_fits():
    for name, option in DOCUMENTED.items():
        if "default" in option and "{{" not in str(option["default"]):
            assert settings.problem_of(name, option["default"]) is None, name


def test_each_variable_that_is_used_is_documented():
    used = set()
    for folder in ("roles", "playbooks", "awx/definitions", "awx/tasks"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".yml", ".j2") and "argument_specs" not in path.name:
                used |= set(re.findall(r"(?<![\w.'/])beta9_[a-z0-9_]+\b(?!\w*[/'.-])", path.read_text()))
    assert {"beta9_pool", "beta9_serial", "beta9_drain"} <= used and used - set(DOCUMENTED) - {"beta9_agent", "beta9_gateway"} == set()


def test_the_guides_tables_name_documented_variables_only():
    for name in ("README.md", "docs/guides/playbooks.md"):
        cells = re.findall(r"^\| (`[^|]*) \|", (ROOT / name).read_text(), re.MULTILINE)
        named = {word for cell in cells for word in re.findall(r"`((?:beta9|heal)_[a-z0-9_]+)`", cell)}
        assert named and named <= set(DOCUMENTED)


@pytest.mark.parametrize(
    ("name", "near"),
    [("beta9_pol", "beta9_pool"), ("beta9_conection", "beta9_connection"), ("beta9_gpu_id", "beta9_gpu_ids"), ("beta9_token_file", "beta9_admin_token_file")],
)
def test_misspelt_name_is_named_with_what_was_meant(name, near):
    found = settings.unknown([name, "beta9_pool", "my_own"])
    assert [entry["what"] for entry in found] == [name] and near in found[0]["remedy"]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("beta9_log_format", "yaml", "text or json"),
        ("beta9_gpu_ids", "0-2", "0,2"),
        ("beta9_gpu_acceptance", "yes", "one of none, quick, full"),
        ("beta9_gpu_expectations", {"NVIDIA L4": {"host_to_devcie": 9}}, "a number of GB/s"),
        ("beta9_gpu_expectations", {"NVIDIA L4": {"host_to_device": "fast"}}, "a number of GB/s"),
        ("beta9_gpu_expectations", {"NVIDIA L4": 12}, "a number of GB/s"),
        ("beta9_gpu_exclude_failed", "ja", "true or false"),
        ("beta9_k3s", "ja", "true or false"),
        ("beta9_nvidia", "nein", "true or false"),
        ("beta9_drain", "maybe", "true or false"),
        ("beta9_metrics_file", "agent.prom", "absolute path"),
        ("beta9_image_store", "store dir", "absolute path"),
        ("beta9_ca_path", ["/x"], "a text"),
        ("beta9_serial", "foo", "number of hosts"),
        ("beta9_serial", [1, "x"], "number of hosts"),
        ("beta9_max_fail_percentage", "120", "0 to 100"),
        ("beta9_connection", "pigeon", "autossh, tailscale, direct"),
        ("beta9_gateway_url", "gateway:31994", "http://gateway.example.com:31994"),
        ("beta9_gateway_url", "http://gateway:31994/api", "http://gateway.example.com:31994"),
        ("beta9_max_cpu", "8", "8000m"),
        ("beta9_max_memory", "16GB", "16Gi"),
        ("beta9_hostname", "a b", "host name"),
        ("beta9_hostname", "", "a text"),
        ("beta9_machine_id", "XYZ", "hexadecimal"),
        ("agent_keepalive_interval", 300, "5 to 240"),
        ("k3s_version", 1.36, "in quotes"),
        ("nvidia_branch", "58", "three digits"),
        ("nvidia_reboot", "maybe", "never, if_needed, always"),
        ("health_check_accept", [{"id": "T01"}], "id, reason"),
        ("autossh_forwards", [{"local_port": 0, "target": "x:1"}], "1 to 65535"),
        ("tailscale_tags", ["gpu"], "tag:gpu"),
        ("tailscale_tags", 5, "tag:gpu"),
    ],
)
def test_value_says_what_was_expected(name, value, words):
    assert words in settings.problem_of(name, value)["expected"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta9_serial", 3),
        ("beta9_serial", [1, "25%"]),
        ("beta9_serial", "1,10%,100%"),
        ("beta9_max_fail_percentage", 0),
        ("beta9_k3s", "yes"),
        ("beta9_gpu_ids", 0),
        ("nvidia_branch", 580),
    ]
    + [("nvidia_fabric_manager", True), ("beta9_gateway_url", "https://[fd00::1]:31994/"), ("beta9_redis_url", "redis://:secret@127.0.0.1:6379/0")],
)
def test_value_that_fits(name, value):
    assert settings.problem_of(name, value) is None


def test_no_secret_is_shown():
    told = [settings.problem_of("beta9_admin_token", ["canary"]), settings.problem_of("beta9_redis_url", "redis://:canary@")]
    told += [settings.problem_of("tailscale_auth_key", {"a": "canary"}), settings.problem_of("k3s_artifact_url", "https://u:canary@example.com/")]
    assert all(told) and "canary" not in json.dumps(told)


def test_what_a_later_step_leaves_is_not_judged():
    def template(value):
        if "{{" in str(value):
            raise ValueError("undefined")
        return value

    assert settings.problems({"beta9_hostname": "{{ autossh_peer.listen_address }}", "beta9_pool": "gpu"}, template) == []


def test_required():
    found = settings.required({"pool": "gqu", "pools": ["cpu", "gpu"], "gateway_url": "", "token": False, "connection": "autossh", "gateway_host": ""})
    assert [entry["what"] for entry in found] == ["beta9_gateway_url", "admin token", "group beta9_gateway", "beta9_pool"]
    assert "Did you mean gpu?" in found[-1]["remedy"]
    assert all(way in found[1]["remedy"] for way in ("BETA9_TOKEN", "beta9_admin_token_file", "beta9_admin_token from a vault"))
    assert (
        settings.required({}) == settings.required({"pool": "any", "connection": "direct", "gateway_host": "", "token": True, "gateway_url": "http://x"}) == []
    )


def test_playbooks_ask_for_hosts_by_lookup():
    """Else Ansible would skip a play that matches nothing, and report success."""
    for path in (ROOT / "playbooks").glob("*.yml"):
        for play in yaml.safe_load(path.read_text()):
            assert "lookup('beta9.workers.targets'" in play["hosts"], path.name
