"""Why the gateway does not answer, as the tunnel's unit and its ssh tell: its state, then the start that ended last, then the present one."""

from __future__ import annotations

import json

import pytest
from ansible_collections.beta9.workers.plugins.modules import gateway_reachable

UNIT = "beta9-tunnel.service"
LOST = "ssh: connect to host gateway port 22: Connection refused"
DENIED = "channel 2: open failed: connect failed: Connection refused"


def host(state: dict, before: tuple[str, ...] = (), now: tuple[str, ...] = ()):
    """Return what runs commands on a host whose unit is in this state, and what its ssh said in its last start and in the present one."""
    show = {"Id": UNIT, "LoadState": "loaded", "ActiveState": "active", "MainPID": "90", "NRestarts": "0", "InvocationID": "now", **state}
    ended = [{"_SYSTEMD_UNIT": UNIT, "_SYSTEMD_INVOCATION_ID": "before", "MESSAGE": line} for line in before]
    starts = [*ended, *([{"UNIT": UNIT, "INVOCATION_ID": "now", "MESSAGE": "Started"}] if state.get("MainPID") != "0" else [])]

    def run(*words: str) -> tuple[int, str]:
        if words[0] == "systemctl":
            return 0, "\n".join(f"{name}={value}" for name, value in show.items())
        if "json" in words:
            return 0, "\n".join(json.dumps(entry) for entry in reversed(starts))
        return 0, "\n".join(f"1764100000.5 host ssh[90]: {line}" for line in reversed(now))

    return run


BETWEEN = {"ActiveState": "activating", "SubState": "auto-restart", "MainPID": "0", "NRestarts": "4", "ExecMainStatus": "255"}
TRYING = {"NRestarts": "4", "ExecMainStatus": "0"}


@pytest.mark.parametrize(
    ("state", "before", "now", "up", "code", "found"),
    [
        # plain ssh under systemd: each try is a start of its own
        (BETWEEN, (LOST,), (), False, "refused", LOST),
        (TRYING, (LOST,), (), False, "refused", LOST),
        (TRYING, (LOST,), ("Permission denied (publickey).",), False, "key_refused", "ssh[90]: Permission denied (publickey)."),
        (BETWEEN, (), (), False, "failing", "started again 4 times, it ended with 255"),
        # the state comes before any text
        (dict(BETWEEN, ExecMainStatus="203"), (LOST,), (), False, "program", f"{UNIT} ended with 203"),
        # what was over when the tunnel came up, or when someone started the unit by hand, is no cause now
        (TRYING, (LOST,), (), True, "", ""),
        (TRYING, (LOST,), (DENIED,), True, "target_refused", f"ssh[90]: {DENIED}"),
        ({}, (LOST,), (), False, "", ""),
        # autossh stays, and its ssh speaks in its start
        ({}, (), (LOST,), False, "refused", f"ssh[90]: {LOST}"),
    ],
)  # fmt: skip
def test_why_the_tunnel_lets_nothing_through(state, before, now, up, code, found):
    assert gateway_reachable.of_unit(host(state, before, now), UNIT, up) == (code, found)


def test_journal_that_cannot_be_read_leaves_the_state():
    def run(*words: str) -> tuple[int, str]:
        return host(BETWEEN)(*words) if words[0] == "systemctl" else (1, "not permitted")

    assert gateway_reachable.of_unit(run, UNIT, False) == ("failing", "started again 4 times, it ended with 255")
