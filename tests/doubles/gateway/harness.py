"""Run the gateway double with a real Redis of its own, for one test session, on free loopback ports."""

from __future__ import annotations

import hashlib
import json
import pathlib
import secrets
import shutil
import socket
import subprocess
import sys
import time

import redis

POOLS = [
    {"name": "gpu", "provider": "generic", "gpu": "A10G", "machine_creation": True},
    {"name": "cpu", "provider": "generic", "gpu": "", "machine_creation": True},
    {"name": "home", "mode": "local"},
    {"name": "cloud", "provider": "ec2", "gpu": "T4", "machine_creation": False},
]


def free_port():
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port, process, seconds=10):
    """Wait until something listens on the port, or fail with the process's output."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            raise RuntimeError("process ended with %s: %s" % (process.returncode, process.stdout.read()))
        time.sleep(0.02)
    raise RuntimeError("nothing listens on port %d after %d s" % (port, seconds))


class GatewayHarness:
    """A gateway double and its Redis. Attributes: url, admin_token, db (the Redis), state_ttl."""

    def __init__(self, directory, **config):
        self.directory = pathlib.Path(directory)
        self.port, self.redis_port = free_port(), free_port()
        self.admin_token = "canary-admin-" + secrets.token_hex(12)
        self.url = "%s://127.0.0.1:%d" % ("https" if config.get("tls") else "http", self.port)
        self.log_path = self.directory / "requests.log"
        self.admin_token_file = self.directory / "admin_token"
        self.admin_token_file.write_text(self.admin_token)
        self.config = dict(
            {
                "listen": "127.0.0.1:%d" % self.port,
                "redis": "redis://127.0.0.1:%d/0" % self.redis_port,
                "log": str(self.log_path),
                "admin_token_file": str(self.admin_token_file),
                "pools": POOLS,
                "hostname_mode": "direct",
            },
            **config,
        )
        self.redis_process = self.process = None
        self.db = redis.Redis(port=self.redis_port, decode_responses=True)

    def start(self):
        """Start Redis and the double; return self."""
        self.start_redis()
        self.start_gateway()
        return self

    def start_redis(self):
        command = [shutil.which("redis-server") or "/usr/bin/redis-server", "--port", str(self.redis_port), "--save", "", "--dir", str(self.directory)]
        self.redis_process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for_port(self.redis_port, self.redis_process)

    def start_gateway(self):
        config = self.directory / "double.json"
        config.write_text(json.dumps(self.config))
        command = [sys.executable, str(pathlib.Path(__file__).with_name("gateway_double.py")), "--config", str(config)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_for_port(self.port, self.process)

    def restart_gateway(self, **config):
        """Start the double again with other settings; Redis stays."""
        self.config.update(config)
        self.process.kill()
        self.process.wait()
        self.start_gateway()

    def stop(self):
        """Stop both."""
        for process in (self.process, self.redis_process):
            if process:
                process.kill()
                process.wait()

    def reset(self):
        """Forget all machines, tokens, faults and requests."""
        self.db.flushall()
        self.log_path.write_text("")

    def fault(self, *faults):
        """Switch these faults on, and all others off."""
        self.db.set("double:fault", json.dumps(list(faults)))

    def token(self, kind="machine", **fields):
        """Make a token of any kind and return it."""
        text = "canary-%s-%s" % (kind, secrets.token_hex(12))
        self.db.hset(self.token_row(text), mapping=dict(fields, kind=kind, key=text, active="1"))
        return text

    def has_token(self, text):
        """Return whether the gateway still has a token, whatever its cache believes."""
        return bool(self.db.exists(self.token_row(text)))

    @staticmethod
    def token_row(text):
        """Return the name of a token's row."""
        return "double:token:" + hashlib.sha256(text.encode()).hexdigest()

    def age_tokens(self):
        """Let ten minutes pass: what is cached of tokens is gone."""
        self.db.delete(*self.db.keys("workspace:authorization:token:*"), "-")

    def requests(self, *methods):
        """Return the requests so far, of these methods or of all."""
        lines = [json.loads(line) for line in self.log_path.read_text().splitlines()] if self.log_path.exists() else []
        return [line for line in lines if not methods or line["method"] in methods]

    def state(self, machine_id, pool="gpu", provider="generic"):
        """Return a machine's state straight from Redis, {} when there is none."""
        return self.db.hgetall("provider:machine:%s:%s:%s" % (provider, pool, machine_id))
