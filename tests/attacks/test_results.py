"""One worker answers with what is no result: the others are reported, nothing raw reaches a report or the terminal, nobody waits for ever."""

from __future__ import annotations

import json
import re
import time
from xml.etree import ElementTree

import pytest

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")
GOOD = {"changed": False, "settings": {}, "identity": {"machine_id": "1165a9b6", "pool": "gpu", "provider": "generic"}}
ESCAPES = "\x1b[2J\x1b]0;owned\x07\x00 <script>alert(1)</script> {{ lookup('pipe', 'id') }}"
LIES = {
    "a number of observations": {"replace": dict(GOOD, observations=5)},
    "numbers as observations": {"replace": dict(GOOD, observations=[1, 2])},
    "a failure with observations": {"replace": dict(GOOD, failed=True, observations=[{"id": "V03", "outcome": "ok", "data": {"addresses": 5}}, {"id": "M02"}])},
    "no settings": {"replace": {"changed": False, "observations": [], "identity": GOOD["identity"]}},
    "an identity that is a list": {"replace": dict(GOOD, observations=[], identity=[])},
    "data of other types": {
        "replace": dict(GOOD, observations=[{"id": "U03", "outcome": "ok", "data": {"gpu_count": "many"}}, {"id": "T06", "outcome": "ok", "data": 5}])
    },
    "30 MB of text": {"replace": dict(GOOD, observations=[{"id": "T03", "outcome": "bad", "code": "refused", "found": "x" * 30_000_000}])},
    "controls": {"replace": dict(GOOD, observations=[{"id": "T03", "outcome": "bad", "code": "refused", "found": ESCAPES, "evidence": ESCAPES}])},
    "a machine id for Redis": {"replace": dict(GOOD, observations=[], identity={"machine_id": "*\r\nFLUSHALL", "pool": "gpu", "provider": "generic"})},
    "JSON without end": {"raw": "[" * 300_000},
    "no JSON": {"raw": "\x1b[2Jnothing"},
    "the gateway's own checks": {
        "replace": dict(GOOD, observations=[{"id": "M02", "outcome": "ok"}, {"id": "C02", "outcome": "ok"}, {"id": "G01", "outcome": "ok"}])
    },
}
SHORT = ("controls",)


def attack(bed, turn, tmp_path, lie, **options):
    first, second = bed.workers
    turn(first, "worker_health", **lie)
    status, output = bed.play("health_check.yml", "-e", "health_check_directory=%s" % tmp_path, **options)
    assert status != 0 and not RAW.search(output.replace("\r", "")), output[-3000:]
    assert re.search(first + r" +un\w+", output) and re.search(second + r" +healthy", output), output[-3000:]
    assert "Traceback" not in output and len(output) < 100_000
    document = json.loads((tmp_path / "health.json").read_text())
    assert {entry["host"]: entry["outcome"] for entry in document["hosts"]}[second] == "healthy"
    for name in ("health.txt", "health.html", "health.junit.xml"):
        text = (tmp_path / name).read_text()
        assert not RAW.search(text) and len(text) < 1_000_000, name
        assert name == "health.txt" or "<script>alert" not in text, name
    ElementTree.fromstring((tmp_path / "health.junit.xml").read_text())
    assert bed.machines(), "the gateway's Redis was emptied"


@pytest.mark.parametrize("what", [pytest.param(name, marks=[] if name in SHORT else pytest.mark.long) for name in LIES])
def test_malformed_results_harm_one_host_only(ready, turn, tmp_path, what):
    attack(ready, turn, tmp_path, LIES[what])


@pytest.mark.long
def test_malformed_results_on_the_oldest_and_newest_ansible_core(ready, turn, tmp_path, other_core, empty_config):
    for what in ("numbers as observations", "controls", "JSON without end"):
        attack(ready, turn, tmp_path, LIES[what], programs=other_core, **empty_config)


@pytest.mark.long
def test_a_module_that_sleeps_holds_nobody(ready, turn, tmp_path):
    first, second = ready.workers
    turn(first, "worker_health", sleep=900)
    start = time.monotonic()
    _status, output = ready.play("health_check.yml", "-e", "health_check_deadline_seconds=5")
    assert time.monotonic() - start < 240 and re.search(second + r" +healthy", output), output
    assert "nothing came back" in output
