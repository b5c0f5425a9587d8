"""What of an answer is believed: borders, marks of tokens, and what is dropped."""

from __future__ import annotations

import pytest

from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol

NAME_OF_253 = ".".join(["a" * 62] * 4)[:253]


@pytest.mark.parametrize(
    ("check", "value"), [(protocol.gpu_count, 64), (protocol.hostname, NAME_OF_253), (protocol.pool_name, "x" * 63)]
)
def test_largest_that_fits(check, value):
    assert check(value) == str(value)


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (protocol.gpu_count, False),
        (protocol.hostname, NAME_OF_253 + "a.b"),
        (protocol.token, "abc\x7f"),
        (protocol.token, "a\tb"),
    ],
)
def test_smallest_that_does_not(check, value):
    with pytest.raises(protocol.InvalidField):
        check(value)


def test_is_ip():
    assert (
        protocol.is_ip("10.0.0.7") and protocol.is_ip("::1") and not protocol.is_ip("gpu-01") and not protocol.is_ip("")
    )


def test_numbers_of_metrics_become_what_the_gateway_reads():
    metrics = protocol.keepalive_payload("1165a9b6", "gpu", metrics={"cpu_utilization_pct": 3, "worker_count": 2})[
        "metrics"
    ]
    assert repr(metrics["cpu_utilization_pct"]) == "3.0" and repr(metrics["worker_count"]) == "2"


@pytest.mark.parametrize("text", [b'{"a": "\\ud800"}', "[" * 100000, b"\xff", b"{"])
def test_what_is_no_text_of_json_is_an_error(text):
    with pytest.raises(ValueError):
        protocol.decode(text)
    assert protocol.decode('{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


def test_what_was_dropped_is_told_once_and_shortly():
    assert protocol.dropped_words([]) == ""
    assert protocol.dropped_words(["x", "x", "y"]) == "left out 2 values that no beta9 gateway makes, the first: x"
    dropped: list = []
    machine = {"id": "1165a9b6", "poolName": "gpu", "status": "\x1b[2Jready" + "x" * 500, "created": "5", "cpu": 10**30}
    (found,) = protocol.parse_machines(
        {"machines": [machine, {"id": "1165a9b7", "poolName": "a:b"}, {"id": "zz"}]}, dropped
    )
    assert (found["status"], found["created"], found["cpu_millicores"]) == ("unknown", 5, 0)
    assert len(dropped) == 3 and max(map(len, dropped)) <= 200 and "\x1b" not in "".join(dropped)


@pytest.mark.parametrize(
    ("value", "number"),
    [(2**63 - 1025, 9223372036854774784), (2**63, None), ("x", None), (None, None), ("1e400", None), (-(2**63), None)],
)
def test_numbers_are_those_of_64_bits(value, number):
    assert protocol.parse_machine_state({"machine_state": {"last_keepalive": value}}).last_keepalive == number


@pytest.mark.parametrize(("value", "number"), [(2.5, 2.5), ("2.5", 2.5), (1e30, None), (True, None), ("x", None)])
def test_fractions_too(value, number):
    (machine,) = protocol.parse_machines(
        {"machines": [{"id": "1165a9b6", "poolName": "gpu", "machineMetrics": {"cpuUtilizationPct": value}}]}
    )
    assert machine["metrics"] == {"cpu_utilization_pct": number}


def test_fields_of_the_list_that_fit_no_grammar_are_left_out():
    (machine,) = protocol.parse_machine_list(
        [{"state": {"machine_id": "1165a9b6", "created": "5", "pool_name": "gpu", "hostname": "a b"}}]
    )
    assert machine["created"] == 5 and machine["hostname"] == "" and machine["provider"] == "generic"


def test_workers():
    workers = [
        {"id": "w-1", "machineId": "1165a9b6", "status": "available", "activeContainers": [{}, {}]},
        {"id": "a b"},
        {"id": "w-2", "machineId": "ZZ"},
    ]
    assert protocol.parse_workers({"workers": workers}) == [
        {"id": "w-1", "machine_id": "1165a9b6", "status": "available", "containers": 2},
        {"id": "w-2", "machine_id": "", "status": "unknown", "containers": 0},
    ]


@pytest.mark.parametrize(
    ("name", "value", "schedules"),
    [
        ("minFreeGpu", "1", True),
        ("minFreeCpu", "1000m", True),
        ("minFreeMemory", "2Gi", True),
        ("minFreeCpu", "0", False),
    ],
)
def test_pool_that_keeps_something_free_schedules(name, value, schedules):
    assert protocol.parse_pools({"pools": [{"name": "gpu", name: value}]})[0]["schedules"] is schedules


KEY = "canary-token-0123456789"


def test_mark_tells_a_token_without_telling_it():
    mark = protocol.token_mark(KEY)
    assert KEY not in mark and mark != protocol.token_mark(KEY)  # salted: two hosts with one token do not show it
    assert protocol.marked(KEY, mark) and not protocol.marked(KEY + "x", mark)
    for key, other in ((None, mark), ("a b", mark), (KEY, None), (KEY, ""), (KEY, "salt:x")):
        assert not protocol.marked(key, other)


@pytest.mark.parametrize(
    ("change", "usable"),
    [
        ({}, True),
        ({"active": False}, False),
        ({"reusable": False}, False),
        ({"tokenType": "worker"}, False),
        ({"key": "a b"}, False),
        ({"key": 5}, False),
    ],
)
def test_machines_token_that_may_be_used(change, usable):
    entry = dict({"key": KEY, "active": True, "reusable": True, "tokenType": "machine"}, **change)
    assert protocol.reusable_machine_key({"tokens": [5, entry]}) == (KEY if usable else None)


@pytest.mark.parametrize(
    ("state", "owner"),
    [
        ({"registration_token": KEY, "token": "x"}, True),
        ({"registration_token": "x", "token": KEY}, False),
        ({"token": KEY}, True),
        ({"token": "other"}, False),
        ({}, None),
    ],
)
def test_owner_is_who_has_the_token_that_the_gateway_kept(state, owner):
    body = [{"state": {"machine_id": "1165a9b7", "token": KEY}}, {"state": dict(state, machine_id="1165a9b6")}]
    marks = [protocol.token_mark("another"), protocol.token_mark(KEY)]
    assert protocol.owned(body, "1165a9b6", marks) is owner
    assert protocol.owned(body, "1165a9b8", marks) is None and protocol.owned(body, "1165a9b7", []) is False


@pytest.mark.parametrize(("identity", "found"), [("5ac-1", "5ac-1"), ("../x", None), ("", None), ("x" * 65, None)])
def test_id_of_a_token_is_one_that_can_stand_in_a_path(identity, found):
    tokens = [{"key": "a b", "tokenId": "no"}, {"key": "other", "tokenId": "no"}, {"key": KEY, "tokenId": identity}]
    assert protocol.find_token({"tokens": tokens}, protocol.token_mark(KEY)) == found


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error_code": "a", "message": "b\\u202e\\nc"}', "a: b c"),
        ({"errMsg": "x" * 400}, "x" * 300),
        ("no json\x00 here\n", "no json here"),
        (b"\xff" * 400, "\ufffd" * 300),
        ({"message": 5}, ""),
    ],
)
def test_message_is_one_printable_line(body, message):
    assert protocol.message_of(body) == message


def test_health_route_alone_says_unhealthy_and_a_missing_keepalive_route_says_so():
    assert protocol.classify(500, {"status": "not ok"}, "/api/v1/machine/list").code == "internal_error"
    assert (
        "keepalive" in protocol.classify(404, {}, "/api/v1/machine/keepalive").cause
        and "keepalive" not in protocol.classify(404, {}, "/api/v1/machine/register").cause
    )
