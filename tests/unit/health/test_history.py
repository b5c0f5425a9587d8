# Copyright: beta9.workers contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is new, still there and gone between runs: also of hosts that a run leaves out, could not reach, or looks at twice."""

from __future__ import annotations

import json

import pytest
from ansible_collections.beta9.workers.plugins.plugin_utils import health_causes, health_history

from tests.unit.health.test_reports import result


def run(text, day, **hosts):
    """Return the comparison of a run. hosts: {name: outcomes of its checks, or the message of one that is out of reach}."""
    results = []
    for name, seen in hosts.items():
        host = name.replace("_", "-")
        down = {"host": host, "outcome": "unreachable", "message": seen, "verdicts": []}
        results.append(down if isinstance(seen, str) else result(host, **seen))
    return health_history.compare(text, results, health_causes.causes(results), f"2026-01-{day:02}T00:00:00Z")


def told(changes):
    return {entry.identity: (entry.since[8:10], entry.hosts) for entry in changes.values()}


def test_new_still_there_and_gone():
    first = run("", 1, gpu_01={"T01": "bad"}, gpu_02={"T01": "bad"})
    assert not first.last and first.note("T01", 2) == ""
    second = run(first.text, 2, gpu_01={"T01": "bad"}, gpu_02={})
    assert second.last == "2026-01-01T00:00:00Z" and second.note("T01", 1) == "since 2026-01-01T00:00:00Z"
    assert (told(second.new), told(second.still), told(second.gone)) == (
        {},
        {"T01": ("01", ["gpu-01"])},
        {"T01": ("01", ["gpu-02"])},
    )
    third = run(second.text, 3, gpu_01={"T01": "bad"}, gpu_02={"T01": "bad"})
    assert third.note("T01", 2) == "since 2026-01-01T00:00:00Z, new on 1 of 2" and not third.gone
    assert [entry["healthy"] for entry in third.runs] == [0, 1, 0]


def test_a_look_that_is_repeated_is_compared_with_the_run_before():
    first = run("", 1, gpu_01={"T01": "bad"})
    again = run(run(first.text, 2, gpu_01={"T01": "bad"}).text, 2, gpu_01={})
    assert told(again.gone) == {"T01": ("01", ["gpu-01"])} and len(again.runs) == 2


def test_what_a_run_could_not_look_at_is_not_gone():
    first = run("", 1, gpu_01={"T01": "bad"}, gpu_02={"T01": "bad"}, gpu_03={"T01": "bad"})
    second = run(first.text, 2, gpu_01="No route to host", gpu_02={"T01": "unknown"})
    assert not second.gone and told(second.new) == {"unreachable": ("02", ["gpu-01"])}
    third = run(second.text, 3, gpu_01={}, gpu_02={"T01": "bad"}, gpu_03={})
    assert told(third.still) == {"T01": ("01", ["gpu-02"])}
    assert told(third.gone) == {"T01": ("01", ["gpu-01", "gpu-03"]), "unreachable": ("02", ["gpu-01"])}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        '{"version": 1}',
        '{"version": 1, "runs": [{}], "hosts": {}, "before": {}}',
        '{"version": 99}',
        '{"runs": 5}',
    ],
)
def test_a_file_of_another_kind_is_none(text):
    assert run(text, 2, gpu_01={"T01": "bad"}).last == ""


def test_it_does_not_grow_without_end():
    text = run("", 1, gpu_02={"T01": "bad"}).text
    for minute in range(2 * health_history.RUNS):
        text = health_history.compare(text, [result("gpu-01")], [], f"2026-02-01T00:{minute:02}:00Z").text
    document = json.loads(text)
    assert len(document["runs"]) == health_history.RUNS and list(document["hosts"]) == ["gpu-01"]
