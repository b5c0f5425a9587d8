"""The loop: what the lifecycle says is due is done, and what came of it is told to systemd, the journal and the state file."""

from __future__ import annotations

import json
import logging
import os
import random
import threading
import time

from . import __version__, protocol, state
from .client import Client, Refused
from .lifecycle import Lifecycle
from .metrics import Machine
from .notify import Notifier

LOG = logging.getLogger("beta9_agent")


class Agent:
    """One machine's agent. run() returns when stop() was called, or after one success or failure with once."""

    def __init__(self, config, machine=None, client=None, notifier=None):
        self.config = config
        self.machine = machine or Machine(max_cpu=config.max_cpu, max_memory=config.max_memory)
        self.client = client or Client(config.gateway_url, config.machine_token, config.ca_path)
        self.notifier = notifier or Notifier()
        self._wake, self._stopping, self._reloading, self._announced = threading.Event(), False, False, False
        payload = self.register_payload()
        known = state.remembered(config.registration_file) == self._fingerprint(payload)
        now = time.monotonic()
        self.life = Lifecycle(
            config.machine_id, config.keepalive_interval, now, random.Random(), registered=known and not config.once, wall_offset=time.time() - now
        )

    # -- what is sent --

    def register_payload(self):
        """Return the register body. Contains a token."""
        config, capacity = self.config, self.machine.capacity()
        return protocol.register_payload(
            token=config.cluster_token() or config.machine_token(),
            machine_id=config.machine_id,
            hostname=config.hostname,
            pool_name=config.pool_name,
            provider_name=config.provider_name,
            private_ip=config.private_ip,
            **capacity,
        )

    def keepalive_payload(self):
        """Return the keepalive body. Contains no secret."""
        config = self.config
        return protocol.keepalive_payload(config.machine_id, config.pool_name, config.provider_name, __version__, self.machine.metrics())

    def _fingerprint(self, payload):
        return state.fingerprint([payload, self.config.gateway_url], self.config.machine_token())

    # -- signals: may be called from a handler --

    def stop(self):
        """End the loop soon."""
        self._stopping = True
        self._wake.set()

    def reload(self):
        """Register again soon, with the credentials that are on disk then."""
        self._reloading = True
        self._wake.set()

    # -- the loop --

    def run(self):
        """Do what is due until stopped. Return whether the machine was ready at the end."""
        LOG.info("starting version=%s machine_id=%s pool=%s gateway=%s", __version__, self.config.machine_id, self.config.pool_name, self.config.gateway_url)
        self.tell()
        while not self._stopping:
            if self._reloading:
                self._reloading = False
                LOG.info("reloading")
                self.life.reload(time.monotonic())
            late = time.monotonic() - self.life.due
            if late >= 0:
                if late > self.config.keepalive_interval:
                    LOG.warning("behind_schedule seconds=%.0f", late)
                self.step()
                if self.config.once and (self.life.status == "ready" or self.life.problem):
                    break
            self.notifier.send("WATCHDOG=1")
            self._wake.clear()
            if not (self._stopping or self._reloading):
                self._wake.wait(self._pause())
        self.client.close()
        LOG.info("stopped")
        return self.life.status == "ready"

    def _pause(self):
        pause = max(0.0, self.life.due - time.monotonic())
        watchdog = self.notifier.watchdog_seconds
        return min(pause, watchdog / 3) if watchdog else pause

    def step(self):
        """Send one request and take in its answer."""
        before = self.life.status, self.life.problem
        now = time.monotonic
        try:
            if self.life.action == "register":
                payload = self.register_payload()
                accepted = self.client.register(payload)
                self.life.registered(now(), accepted)
                state.replace(self.config.registration_file, self._fingerprint(payload), 0o600)
            else:
                accepted = self.client.keepalive(self.keepalive_payload())
                self.life.kept(now(), accepted)
        except Refused as refused:
            self.life.failed(now(), refused.problem)
        except protocol.InvalidField as error:  # a credential that can't be read now, or a fact out of range
            self.life.failed(now(), protocol.Problem("invalid_field", str(error), "Correct %s." % error.field, False, None))
        self.tell()
        if (self.life.status, self.life.problem) != before:
            self._log_change()

    def _log_change(self):
        problem = self.life.problem
        if problem:
            level = logging.WARNING if problem.retryable or self.life.status == "registering" else logging.ERROR
            LOG.log(level, "%s code=%s cause=%r remedy=%r", self.life.status, problem.code, problem.cause, problem.remedy)
        else:
            LOG.info("%s machine_id=%s pool=%s gpus=%d", self.life.status, self.config.machine_id, self.config.pool_name, self.machine.gpu_count)

    def tell(self):
        """Tell systemd and the state file how things are."""
        life = self.life
        problem = life.problem._asdict() if life.problem else None
        wall = time.time() - time.monotonic()
        document = {
            "agent_version": __version__,
            "pid": os.getpid(),
            "machine_id": self.config.machine_id,
            "pool": self.config.pool_name,
            "provider": self.config.provider_name,
            "gateway_url": self.config.gateway_url,
            "hostname": self.config.hostname,
            "status": life.status,
            "problem": problem,
            "failures": life.failures,
            "registration_epochs": [round(moment + wall, 3) for moment in life.registrations],
            "gpu_count": self.machine.gpu_count,
            "free_gpu_count": self.machine.free_gpu_count,
            "gpu_problem": self.machine.gpus.trouble,
            "keepalive_interval_seconds": self.config.keepalive_interval,
            "ttl_seconds": life.ttl,
            "next_action": life.action,
            "next_epoch": round(life.due + wall, 3),
            "last_keepalive_epoch": round(life.last_accepted + wall, 3) if life.last_accepted else None,
            "updated_epoch": round(time.time(), 3),
            "has_k3s_token": bool(self.config.k3s_token or self.config.k3s_token_file),
        }
        state.replace(self.config.state_file, json.dumps(document, indent=1) + "\n", 0o644)
        lines = ["STATUS=" + self.status_text()]
        if life.status == "ready" and not self._announced:
            self._announced = True
            lines.append("READY=1")
        self.notifier.send(*lines)

    def status_text(self):
        """Return one line for people."""
        if self.life.problem:
            return "%s: %s" % (self.life.status, self.life.problem.cause)
        return "%s, %d of %d GPUs free" % (self.life.status, self.machine.free_gpu_count, self.machine.gpu_count)
