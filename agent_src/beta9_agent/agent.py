"""The loop: what the lifecycle says is due is done, and what came of it is told to systemd, the journal and the state file."""

from __future__ import annotations

import collections
import gc
import random
import signal
import time

from . import __version__, credentials, events, protocol, report, state
from .client import Client, Refused
from .events import log
from .lifecycle import CREDENTIAL, Lifecycle
from .metrics import Machine
from .notify import Notifier

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
SLICE_SECONDS = 10.0  # how soon a resumed host, a jumped clock, and a changed credential are noticed
JUMP_SECONDS = 2.0


def clock():
    """Return seconds that only go forward, also while the host is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait_for_signal(seconds):
    """Wait for one of SIGNALS, which must be blocked: they are read here and nowhere else. Return it, or None after the time."""
    found = signal.sigtimedwait(SIGNALS, max(0.0, seconds))
    return found.si_signo if found else None


class Agent:
    """One machine's agent. load returns a Config, now and whenever it is to be read again."""

    def __init__(self, load, notifier=None, wait=wait_for_signal):
        self._load, self._wait, self.notifier = load, wait, notifier or Notifier()
        self._changes = events.Changes()
        self._announced = False
        self._gpu_findings = set()  # what was said of GPUs: (index, check, code)
        self.reloads, self.reload_error = 0, None
        self.sent = {}  # what the gateway was last told: {"register": body without token, "keepalive": body}
        self.counts = collections.Counter()  # keepalives, registrations, and problems by code
        self.problems = {}  # code: what was said of it lately, oldest first
        self._use(load())
        self.machine.refresh()
        now = clock()
        payload = self.register_payload()
        known = not self.config.once and state.remembered(self.config.registration_file) == self._fingerprint(payload)
        if known:
            self._record_sent("register", payload)
        self._registered_capacity, self._differs = self.machine.capacity(), 0
        self.life = Lifecycle(self.config.machine_id, self.config.keepalive_interval, now, random.Random(), registered=known, wall_offset=time.time() - now)
        self._wall, self._suspended = time.time() - now, now - time.monotonic()

    def _use(self, config):
        certificate = (config.client_cert, config.client_key) if config.client_cert else None
        # first: it may refuse the certificates
        client = Client(config.gateway_url, config.machine_token, config.ca_path, certificate=certificate)
        events.setup(config.log_format, config.debug)
        self.config, self.client, self.machine = config, client, Machine.of(config)
        self._credentials = credentials.marks(config.credential_files())

    # -- what is sent --

    def register_payload(self):
        """Return the register body. Contains a token."""
        config = self.config
        return protocol.register_payload(
            token=config.cluster_token() or config.machine_token(),
            machine_id=config.machine_id,
            hostname=config.hostname,
            pool_name=config.pool_name,
            provider_name=config.provider_name,
            private_ip=config.private_ip,
            **self.machine.capacity(),
        )

    def keepalive_payload(self):
        """Return the keepalive body. Contains no secret."""
        config = self.config
        return protocol.keepalive_payload(config.machine_id, config.pool_name, config.provider_name, __version__, self.machine.metrics())

    def _fingerprint(self, payload):
        return state.fingerprint([payload, self.config.gateway_url], self.config.machine_token())

    def _record_sent(self, what, payload):
        self.sent[what] = dict(payload, token="(not shown)") if "token" in payload else payload

    # -- the loop --

    def run(self):
        """Do what is due until told to stop, or with once until the first answer. Return whether the machine was ready at the end."""
        config = self.config
        log(events.INFO, "starting", version=__version__, machine_id=config.machine_id, pool=config.pool_name, gateway=config.gateway_url)
        self._log_troubles()
        self.publish()
        gc.freeze()  # what is here by now stays: the collector need not look at it again and again
        while True:
            signo = self._wait(self._pause())
            if signo in (signal.SIGTERM, signal.SIGINT):
                break
            if signo == signal.SIGHUP:
                self.reload()
            self._observe_clocks()
            late = clock() - self.life.due
            if late >= 0:
                self._log_lateness(late)
                self.step()
                gc.collect()  # so little is left to look at that this costs nothing, and memory stays flat
                if self.config.once and (self.life.status == "ready" or self.life.problem):
                    break
            self.notifier.send("WATCHDOG=1", "STATUS=" + report.status_text(self, clock()))
        self.client.close()
        self.machine.close()
        self.notifier.send("STOPPING=1")
        log(events.INFO, "stopped")
        return self.life.status == "ready"

    def _pause(self):
        watchdog = self.notifier.watchdog_seconds
        longest = min(SLICE_SECONDS, watchdog / 3) if watchdog else SLICE_SECONDS
        if self.life.reaction == CREDENTIAL:
            longest = min(longest, 1.0)
        return min(self.life.due - clock(), longest)

    def step(self):
        """Send one request and take in its answer."""
        before = self.life.status, self.life.problem and self.life.problem.code
        try:
            if self.life.action == "register":
                self._register()
            else:
                self._keepalive()
        except Refused as refused:
            self._failed(refused.problem)
        except protocol.InvalidField as error:  # a credential that can't be read now, or a fact out of range
            code = "credential_unreadable" if error.field in ("token", "k3s_token") else "invalid_field"
            self._failed(protocol.Problem(code, str(error), "Correct %s." % error.field, False, None))
        self._log_troubles()
        self._log_gpus()
        self.publish()
        if (self.life.status, self.life.problem and self.life.problem.code) != before:
            self._log_change()

    def _register(self):
        self.machine.refresh()
        payload = self.register_payload()
        self._record_sent("register", payload)
        accepted = self.client.register(payload)
        self.life.registered(clock(), accepted)
        self.counts["registrations"] += 1
        self._registered_capacity, self._differs = self.machine.capacity(), 0
        self._log_file("registration", state.replace(self.config.registration_file, self._fingerprint(payload), 0o600))

    def _keepalive(self):
        payload = self.keepalive_payload()
        self._record_sent("keepalive", payload)
        accepted = self.client.keepalive(payload)
        self.life.kept(clock(), accepted)
        self.counts["keepalives"] += 1
        # a GPU that was lost, or came back: believed when seen twice, for registering takes the machine out of the pool for a moment
        changed = self.machine.gpu.stale_seconds is None and self.machine.capacity() != self._registered_capacity
        self._differs = self._differs + 1 if changed else 0
        if self._differs > 1:
            log(events.WARNING, "capacity_changed", before=self._registered_capacity["gpu_count"], now=self.machine.gpu.count)
            self.life.register_again(clock())

    def _failed(self, problem):
        self.life.failed(clock(), problem)
        self.counts[problem.code] += 1
        entry = self.problems.pop(problem.code, {"first_epoch": round(time.time(), 3)})
        self.problems[problem.code] = dict(entry, last_epoch=round(time.time(), 3), cause=problem.cause, remedy=problem.remedy)
        while len(self.problems) > 5:
            del self.problems[next(iter(self.problems))]

    # -- what happens around it --

    def reload(self):
        """Read settings and credentials again and register with them at once. Those that are refused leave the old ones in force."""
        try:
            config = self._load()
            machine, client = self.machine, self.client
            self._use(config)
        except (protocol.InvalidField, OSError) as error:  # OSError: CA certificates that are none
            self.reload_error = str(error)
            log(events.ERROR, "reload_refused", cause=self.reload_error, remedy="correct it and reload again; until then the old settings hold")
        else:
            machine.close()
            client.close()
            self.reload_error = None
            log(events.INFO, "reloaded", machine_id=config.machine_id, pool=config.pool_name, gateway=config.gateway_url)
            self.life.reload(clock(), config.machine_id, config.keepalive_interval)
        self.reloads += 1
        self.publish()

    def _observe_clocks(self):
        """Notice what the clocks and the credentials did in the meantime."""
        now = clock()
        wall, suspended = time.time() - now, now - time.monotonic()
        if suspended - self._suspended > 1.0:
            log(events.INFO, "resumed", suspended_seconds=round(suspended - self._suspended))
        jumped = wall - self._wall
        if abs(jumped) > JUMP_SECONDS:
            log(events.WARNING, "clock_jumped", seconds=round(jumped))
            self.publish()  # its times are those of the wall clock
        self._wall, self._suspended = wall, suspended
        if self.life.reaction == CREDENTIAL:
            found = credentials.marks(self.config.credential_files())
            if found != self._credentials:
                self._credentials = found
                log(events.INFO, "credential_changed")
                self.life.register_again(now)

    def _log_lateness(self, late):
        behind = late > max(1.0, self.config.keepalive_interval / 4)
        if self._changes.changed("behind", behind) and behind:
            log(events.WARNING, "behind_schedule", seconds=round(late))

    def _log_troubles(self):
        for name in ("gpu", "cpu", "memory", "disk", "k3s"):
            trouble = self.machine.troubles.get(name)
            if self._changes.changed(name, trouble):
                if trouble:
                    log(events.WARNING, "unreadable", what=name, cause=trouble)
                elif self.life.last_accepted is not None:
                    log(events.INFO, "readable", what=name)

    def _log_gpus(self):
        """Log once what became of a GPU, and once that it is over. Figures in the text may change without a word."""
        found = {(finding.gpu, finding.check, finding.code): finding for finding in self.machine.gpu.health.findings}
        for (gpu, check, code), finding in found.items():
            if (gpu, check, code) not in self._gpu_findings:
                log(events.WARNING, "gpu_problem", gpu=gpu, check=check, code=code or None, severity=finding.severity, found=finding.text)
        for gpu, check, code in sorted(self._gpu_findings - set(found)):
            log(events.INFO, "gpu_problem_over", gpu=gpu, check=check, code=code or None)
        self._gpu_findings = set(found)

    def _log_file(self, name, trouble):
        if self._changes.changed(name, trouble) and trouble:
            log(events.WARNING, "not_written", what=name, cause=trouble)

    def _log_change(self):
        problem = self.life.problem
        if problem and self.life.status != "registered":  # what a registration resolves is over when the keepalive that follows is accepted
            level = events.WARNING if problem.retryable or self.life.status == "registering" else events.ERROR
            log(level, self.life.status, code=problem.code, cause=problem.cause, remedy=problem.remedy)
        elif self.life.status == "ready":
            log(events.INFO, "ready", machine_id=self.config.machine_id, pool=self.config.pool_name, gpus=self.machine.gpu.count)
        else:
            log(events.INFO, self.life.status, machine_id=self.config.machine_id)

    def publish(self):
        """Tell systemd and the files how things are."""
        now = clock()
        self._log_file("state", state.replace(self.config.state_file, report.state_text(self, now), 0o644))
        self._log_file("metrics", state.replace(self.config.metrics_file, report.prometheus(self, now) if self.config.metrics_file else "", 0o644))
        lines = ["STATUS=" + report.status_text(self, now)]
        if self.life.status == "ready" and not self._announced:
            self._announced = True
            lines.append("READY=1")
        self.notifier.send(*lines)
