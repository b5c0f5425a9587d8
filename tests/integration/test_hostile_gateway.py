"""The agent against a gateway with bad intentions: bounded memory and time, and the token goes nowhere else."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import time

import pytest

from tests.chaos.catalog import WRONG_TYPES, answer
from tests.conftest import ROOT

# one attempt may take 10 s; the rest is starting Python on a busy machine
SECONDS, RSS_MIB = 20, 40
MIB = 2**20


def peak_rss(pid):
    """Return the most memory that a process had so far, in MiB. (What wait4 tells includes this process, from before the exec.)"""
    try:
        with open("/proc/%d/status" % pid, encoding="ascii") as stream:
            return next((int(line.split()[1]) / 1024 for line in stream if line.startswith("VmHWM:")), None)
    except (OSError, UnicodeDecodeError):
        return None


@pytest.fixture
def run_agent(gateway, tmp_path):
    """Return a function that lets an agent try once; it returns (exit status, output, seconds, peak RSS in MiB)."""
    token = gateway.token("machine")
    (tmp_path / "token").write_text(token)
    command = [sys.executable, "-m", "beta9_agent", "--once", "--machine-id", "1165a9b6", "--pool-name", "gpu", "--token-file", str(tmp_path / "token")]
    command += ["--gateway-host", "127.0.0.1", "--gateway-port", str(gateway.port), "--private-ip", "10.0.0.7", "--debug"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BETA9_")}
    environment["PYTHONPATH"] = str(ROOT / "agent_src")

    def run():
        start, peak = time.monotonic(), 0
        with open(tmp_path / "output", "w+", encoding="utf-8") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
            while process.poll() is None and time.monotonic() - start < 3 * SECONDS:
                peak = peak_rss(process.pid) or peak
                time.sleep(0.01)
            process.kill()
            process.wait()
            output.seek(0)
            text = output.read()
        assert token not in text, "the token was shown"
        return process.returncode, text, time.monotonic() - start, peak

    return run


def test_honest_gateway(run_agent):
    """What the others are measured against."""
    status, output, seconds, rss = run_agent()
    assert status == 0 and seconds < SECONDS and rss < RSS_MIB, (output, seconds, rss)


HOSTILE = {
    "100-MB": {"route": "*", "mode": "huge", "bytes": 100 * MIB},
    "headers-without-end-slowly": {"route": "*", "mode": "drip", "seconds": 120},
    "headers-without-end-fast": {"route": "*", "mode": "flood", "bytes": 100 * MIB},
    "body-a-byte-at-a-time": {"route": "*", "mode": "trickle", "seconds": 120},
}


@pytest.mark.parametrize("fault", HOSTILE.values(), ids=HOSTILE.keys())
def test_is_done_with_it_soon_and_in_little_memory(gateway, run_agent, fault):
    gateway.fault(fault)
    status, output, seconds, rss = run_agent()
    assert status == 1 and "Traceback" not in output, output
    assert seconds < SECONDS and rss < RSS_MIB, (seconds, rss)


@pytest.mark.parametrize("name", ["headers-without-end-slowly", "body-a-byte-at-a-time"])
def test_modules_end_as_well(gateway, run_module, name):
    gateway.fault(HOSTILE[name])
    start = time.monotonic()
    result = run_module("pool_info", gateway_url=gateway.url, token=gateway.admin_token, timeout=2, retries=0)
    assert result["failed"] and "no answer in time" in result["msg"], result
    assert time.monotonic() - start < SECONDS


@pytest.mark.parametrize("body", WRONG_TYPES)
def test_wrong_types_are_no_reason_to_die(gateway, run_agent, body):
    gateway.fault(answer(200, body))
    status, output, _seconds, _rss = run_agent()
    assert status in (0, 1) and "Traceback" not in output, output


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirect_is_not_followed(gateway, run_agent, status):
    caught = []

    class Trap(http.server.BaseHTTPRequestHandler):
        """Writes down who comes."""

        def do_POST(self):
            caught.append(dict(self.headers))
            self.send_error(404)

        do_GET = do_POST

        def log_message(self, *_arguments):  # pylint: disable=arguments-differ
            """Say nothing."""

    trap = http.server.HTTPServer(("127.0.0.1", 0), Trap)
    threading.Thread(target=trap.serve_forever, daemon=True).start()
    gateway.fault({"route": "*", "mode": "redirect", "status": status, "location": "http://127.0.0.1:%d/elsewhere" % trap.server_port})
    outcome, output, _seconds, _rss = run_agent()
    trap.shutdown()
    assert outcome == 1 and not caught and "Traceback" not in output, (output, caught)
