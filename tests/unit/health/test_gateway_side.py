"""What is read from kubectl's answers. The rest is tested with a real API: tests/kubernetes."""

from __future__ import annotations

import pytest
from ansible_collections.beta9.workers.plugins.module_utils.health import engine
from ansible_collections.beta9.workers.plugins.module_utils.health.probes import gateway_side

REFUSED = 'ERR failed to create job error="dial tcp 127.77.1.1:6443: connect: connection refused" pool_name=gpu'


@pytest.mark.parametrize(
    "line, code",
    [
        (REFUSED, "k3s"),
        ("\x1b[90m2:15PM\x1b[0m \x1b[31mERR\x1b[0m no such image \x1b[36mpool_name=\x1b[0mgpu", ""),
        ("ERR failed to add worker pool_name=cpu", None),
        ("\x1b[31mERR\x1b[0m failed to add worker \x1b[36mpool_name=\x1b[0mcpu", None),
        ('{"level":"error","pool_name":"gpu","message":"failed to add worker"}', ""),
        ('{"level":"info","pool_name":"gpu","message":"transferring"}', None),
        ("2:15PM INF transferring 3 interrupted jobs to another worker", None),
        ("2:15PM INF retried after an ERR of a job pool_name=gpu", None),
        ("panic: runtime error: invalid memory address or nil pointer dereference", ""),
        ("ERR request failed method=POST path=/api/v1/machine/keepalive status=400", None),
        ("ERR request failed method=POST path=/api/v1/machine/keepalive status=500", ""),
        ('ERR failed to add worker error="provider not implemented" pool_name=gpu', None),
    ],
)
def test_lines_of_the_log_that_tell_of_an_error(monkeypatch, line, code):
    monkeypatch.setattr(gateway_side, "gateway_pods", lambda _context: ("app=gateway", [{"metadata": {"name": "gateway-0"}}]))
    monkeypatch.setattr(gateway_side, "kubectl", lambda *_words: engine.Ran(0, "INF started\n%s\n" % line))
    seen = gateway_side.log(engine.Context({"machine": {"pool": "gpu"}}))
    assert (seen.get("code") if seen["outcome"] == "bad" else None) == code, seen
    assert "\x1b" not in seen["found"]


def test_log_that_can_not_be_had_is_unknown(monkeypatch):
    monkeypatch.setattr(gateway_side, "gateway_pods", lambda _context: ("app=gateway", [{"metadata": {"name": "gateway-0"}}]))
    errors = 'Error from server (BadRequest): container "main" in pod "gateway-0" is waiting to start: ContainerCreating\n'
    monkeypatch.setattr(gateway_side, "kubectl", lambda *_words: engine.Ran(1, "ERR half a log\n", errors=errors))
    with pytest.raises(engine.Unknown, match="waiting to start"):
        gateway_side.log(engine.Context({"machine": {"pool": "gpu"}}))
