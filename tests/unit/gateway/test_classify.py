"""The one classifier: every row of the contract's table, in the source's spelling and in the guide's."""

from __future__ import annotations

import json

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.gateway import protocol
from hypothesis import given
from hypothesis import strategies as st

ROWS = [
    (401, {"message": "Unauthorized"}, "", "token_unknown", False),
    (401, {"code": 16, "message": "invalid or missing token", "details": []}, "", "token_unknown", False),
    (403, {"message": "Invalid token"}, "", "token_wrong_type", False),
    (400, {"message": "Invalid payload"}, "", "payload_invalid", False),
    (500, {"message": "Invalid payload"}, "", "payload_invalid", False),
    (400, {"message": "machine_id and pool_name are required"}, "", "field_missing", False),
    (500, {"message": "Invalid machine cpu value"}, "", "cpu_invalid", False),
    (500, {"message": "Invalid machine memory value"}, "", "memory_invalid", False),
    (500, {"message": "Invalid gpu count"}, "", "gpu_count_invalid", False),
    (500, {"message": "Invalid pool name"}, "", "pool_unknown", False),
    (500, {"message": "Failed to update keepalive: rpc error: machine not found"}, "", "machine_not_found", False),
    (500, {"error_code": "machine_not_found", "message": "Machine state expired or never registered"}, "", "machine_not_found", False),
    (500, {"message": "Internal Server Error"}, "", "internal_error", True),
    (404, {"message": "Not Found"}, "/api/v1/machine/keepalive", "route_missing", False),
    (404, "404 page not found", "", "route_missing", False),
    (502, "<html>", "", "gateway_unavailable", True),
    (503, "", "", "gateway_unavailable", True),
    (504, b"", "", "gateway_unavailable", True),
    (500, {"status": "not ok", "error": "redis: connection refused"}, "/api/v1/health", "gateway_unhealthy", True),
    (200, {"ok": False, "errMsg": "Invalid pool name"}, "", "pool_unknown", False),
    (200, {"ok": False, "errMsg": "This pool does not currently support machine creation"}, "", "pool_no_create", False),
    (200, {"ok": False, "errMsg": "This action is not permitted"}, "", "not_permitted", False),
    (200, {"ok": False, "errMsg": "Unauthorized Access"}, "", "not_permitted", False),
    (200, {"ok": False, "errMsg": "something new"}, "", "unexpected", False),
    (302, "", "", "not_gateway", False),
    (200, {"ok": False, "errMsg": "Invalid pool"}, "", "pool_unknown", False),
    (200, {"ok": False, "errMsg": "Local pools don't currently track machines"}, "", "pool_local", False),
    (500, {"code": 2, "message": "worker pool state not found: gpu", "details": []}, "", "pool_state_missing", True),
    (404, {"code": 5, "message": "Not Found", "details": []}, "", "route_missing", False),
    (501, {"code": 12, "message": "Method Not Allowed", "details": []}, "", "route_missing", False),
    (500, {"message": "Failed to update keepalive: failed to get machine state k: machine not found"}, "", "machine_not_found", False),
    (418, {"message": "teapot"}, "", "unexpected", False),
    (None, "refused", "", "connection_refused", True),
    (None, "reset", "", "connection_reset", True),
    (None, "empty", "", "empty_reply", True),
    (None, "timeout", "", "timeout", True),
    (None, "dns", "", "name_unresolved", True),
    (None, "tls", "", "tls_failed", False),
    (None, "not_json", "", "not_gateway", False),
    (None, "something else", "", "unexpected", True),
]


def encoded(body):
    """Return a body as it arrives."""
    return body if isinstance(body, (str, bytes)) else json.dumps(body).encode()


@pytest.mark.parametrize(("status", "body", "path", "code", "retryable"), ROWS)
def test_row(status, body, path, code, retryable):
    # only a parsed body can say ok:false; a transport problem has a name for a body
    for form in [body] if status in (200, None) else [body, encoded(body)]:
        problem = protocol.classify(status, form, path)
        assert (problem.code, problem.retryable, problem.status) == (code, retryable, status)
        assert problem.cause and problem.remedy


@pytest.mark.parametrize("body", [{"status": "ok"}, {"ok": True, "machines": []}, [], {"config": None}])
def test_success_is_no_problem(body):
    assert protocol.classify(200, body) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(st.integers(100, 599), JSON | st.binary())
def test_nothing_makes_it_raise(status, body):
    problem = protocol.classify(status, body)
    assert problem is None or problem.code


@given(JSON)
def test_no_answer_makes_a_parser_raise(body):
    protocol.parse_machine_state(body)
    protocol.parse_machine_list(body)
    protocol.parse_machines(body)
    protocol.parse_pools(body)


NAMES = st.sampled_from(["machines", "pools", "state", "metrics", "machineMetrics", "machine_state", "gpuCount", "cpu", "lastKeepalive"])


@given(st.dictionaries(NAMES, st.recursive(JSON, lambda inner: st.lists(st.dictionaries(NAMES, inner)), max_leaves=5)))
def test_no_almost_right_answer_makes_a_parser_raise(body):
    test_no_answer_makes_a_parser_raise.hypothesis.inner_test(body)
    test_no_answer_makes_a_parser_raise.hypothesis.inner_test([body])
