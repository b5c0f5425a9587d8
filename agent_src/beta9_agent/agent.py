"""The loop: what the lifecycle says is due is done, and what came of it is published."""

from __future__ import annotations

import gc
import random
import signal
import time
from typing import Callable

from . import __version__, clocks, credentials, events, bodies, protocol, report, state
from .client import Client, Refused
from .config import Config
from .events import log
from .history import History
from .lifecycle import CREDENTIAL, Lifecycle
from .metrics import Machine
from .notify import Notifier
from .outputs import Publisher

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
SLICE_SECONDS = 10.0  # how soon a resumed host, a jumped clock, and a changed credential are noticed
JUMP_SECONDS = 2.0


def wait_for_signal(seconds: float) -> int | None:
    """Wait for one of SIGNALS, which must be blocked: they are read here and nowhere else. Return it, or None."""
    found = signal.sigtimedwait(SIGNALS, max(0.0, seconds))
    return found.si_signo if found else None


class Agent:
    """One machine's agent. load returns a Config, now and whenever it is to be read again. Raises InvalidField,
    OSError."""

    def __init__(
        self,
        load: Callable[[], Config],
        notifier: Notifier | None = None,
        wait: Callable[[float], int | None] = wait_for_signal,
    ) -> None:
        self._load, self._wait, self.notifier = load, wait, notifier or Notifier()
        self._clocks, self._publisher, self.history = clocks.Clocks(), Publisher(self.notifier), History()
        self._use(load())
        config = self.config
        self.machine.refresh()
        payload = bodies.register(config, self.machine)
        before = "" if config.once else state.remembered(config.registration_file)
        known = before == bodies.fingerprint(config, payload)
        if known:
            self.history.record_sent("register", payload)
        self._registered = bodies.Registered(self.machine)
        now = clocks.now()
        offset, rng = time.time() - now, random.Random()
        self.life = Lifecycle(config.machine_id, config.keepalive_interval, now, rng, known, wall_offset=offset)

    def _use(self, config: Config) -> None:
        # first: it may refuse the certificates
        client = Client(config.gateway_url, config.machine_token, config.ca_path, certificate=config.certificate())
        events.setup(config.log_format, config.debug)
        self.config, self.client, self.machine = config, client, Machine.of(config)
        self._credentials = credentials.marks(config.credential_files())

    def snapshot(self) -> report.Snapshot:
        """Return how things are at this moment."""
        return report.Snapshot.of(self.config, self.life, self.machine, self.history, clocks.now())

    def run(self) -> bool:
        """Do what is due until told to stop, or with once until the first answer. Return whether it was ready then."""
        log(events.INFO, "starting", version=__version__, **self.config.names())
        self._publish()
        gc.freeze()  # what is here by now stays: the collector need not look at it again and again
        while True:
            signo = self._wait(self._pause())
            if signo in (signal.SIGTERM, signal.SIGINT):
                break
            if signo == signal.SIGHUP:
                self.reload()
            self._observe_clocks()
            late = clocks.now() - self.life.due
            if late >= 0:
                self._publisher.journal.lateness(late, self.config.keepalive_interval)
                self.step()
                gc.collect()  # so little is left to look at that this costs nothing, and memory stays flat
                if self.config.once and (self.life.status == "ready" or self.life.problem):
                    break
            self._publisher.alive(self.snapshot())
        self.client.close()
        self.machine.close()
        self._publisher.stopping()
        log(events.INFO, "stopped")
        return self.life.status == "ready"

    def _pause(self) -> float:
        watchdog = self.notifier.watchdog_seconds
        longest = min(SLICE_SECONDS, watchdog / 3) if watchdog else SLICE_SECONDS
        if self.life.reaction == CREDENTIAL:
            longest = min(longest, 1.0)
        return min(self.life.due - clocks.now(), longest)

    def step(self) -> None:
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
            self._failed(protocol.Problem(code, str(error), f"Correct {error.field}.", False, None))
        shot = self._publish()
        if (shot.status, shot.problem and shot.problem.code) != before:
            self._publisher.journal.status(shot)

    def _register(self) -> None:
        self.machine.refresh()
        payload = bodies.register(self.config, self.machine)
        self.history.record_sent("register", payload)
        accepted = self.client.register(payload)
        self.life.registered(clocks.now(), accepted)
        self.history.counts["registrations"] += 1
        self._registered = bodies.Registered(self.machine)
        fingerprint = bodies.fingerprint(self.config, payload)
        trouble = state.replace(self.config.registration_file, fingerprint, 0o600)
        self._publisher.journal.written("registration", trouble)

    def _keepalive(self) -> None:
        payload = bodies.keepalive(self.config, self.machine)
        self.history.record_sent("keepalive", payload)
        accepted = self.client.keepalive(payload)
        self.life.kept(clocks.now(), accepted)
        self.history.counts["keepalives"] += 1
        if self._registered.differs(self.machine):
            before, now = self._registered.capacity["gpu_count"], self.machine.gpu.count
            log(events.WARNING, "capacity_changed", before=before, now=now)
            self.life.register_again(clocks.now())

    def _failed(self, problem: protocol.Problem) -> None:
        self.life.failed(clocks.now(), problem)
        self.history.record_problem(problem)

    def _publish(self) -> report.Snapshot:
        shot = self.snapshot()
        self._publisher.journal.readings(shot)
        self._publisher.publish(shot)
        return shot

    def reload(self) -> None:
        """Read settings and credentials again, and register at once. Where they are refused, the old ones hold."""
        refused, machine, client = None, self.machine, self.client
        try:
            self._use(self._load())
        except (protocol.InvalidField, OSError) as error:  # OSError: CA certificates that are none
            refused = str(error)
            remedy = "correct it and reload again; until then the old settings hold"
            log(events.ERROR, "reload_refused", cause=refused, remedy=remedy)
        else:
            machine.close()
            client.close()
            log(events.INFO, "reloaded", **self.config.names())
            self.life.reload(clocks.now(), self.config.machine_id, self.config.keepalive_interval)
        self.history.reloaded(refused)
        self._publisher.publish(self.snapshot())

    def _observe_clocks(self) -> None:
        """Notice what the clocks and the credentials did in the meantime."""
        passed = self._clocks.compare()
        if passed.suspended_seconds > 1.0:
            log(events.INFO, "resumed", suspended_seconds=round(passed.suspended_seconds))
        if abs(passed.set_seconds) > JUMP_SECONDS:
            log(events.WARNING, "clock_jumped", seconds=round(passed.set_seconds))
            self._publisher.publish(self.snapshot())  # its times are those of the wall clock
        if self.life.reaction == CREDENTIAL:
            found = credentials.marks(self.config.credential_files())
            if found != self._credentials:
                self._credentials = found
                log(events.INFO, "credential_changed")
                self.life.register_again(clocks.now())
