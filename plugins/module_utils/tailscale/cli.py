# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tailscale program on a host: how to ask it, how to log in without showing the key, and how to change the
connection one came by."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from typing import Any, List, TYPE_CHECKING

from ansible_collections.beta9.workers.plugins.module_utils.host import secretfiles
from ansible_collections.beta9.workers.plugins.module_utils.tailscale import tailnet

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

# Where the packages and the static release put it; sudo's PATH often lacks /usr/local/bin
PLACES = ("/usr/local/bin/tailscale", "/usr/bin/tailscale", "/bin/tailscale")
JOINED = "/etc/beta9/tailscale/joined"  # the login is ours: we may end it
SCOPE = "beta9-tailnet-change.scope"
CHANGE = "/run/beta9-tailnet"  # what a detached change and the next call tell each other
SETTLE_SECONDS = 15
ACCIDENT = "mentioning all non-default flags"
TAGS_REFUSED = "requested tags"
Commands = List[List[str]]


class Failed(Exception):
    """A command of tailscale failed. The text has no secrets."""


class Program:
    """The tailscale command. Reading never changes anything."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path = next((path for path in PLACES if os.access(path, os.X_OK)), None) or shutil.which("tailscale")

    def run(self, *words: str, **more: Any) -> tuple[int, str]:
        """Return (status, output) of a tailscale command."""
        status, out, err = self.module.run_command([self.path] + list(words), **more)
        return status, (out + err).strip()

    def version(self) -> str:
        """Return the installed version, or an empty string."""
        if not self.path:
            return ""
        status, output = self.run("version")
        return output.split("\n")[0].strip() if status == 0 else ""

    def read(self, settle_seconds: float = 0.0) -> tuple[dict[str, Any] | None, Any]:
        """Return (status, prefs), both None when tailscaled does not answer. Waits until it is past its own start."""
        deadline = time.monotonic() + settle_seconds
        while True:
            status = self._json("status", "--json") if self.path else None
            settled = status and status.get("BackendState") not in ("NoState", "Starting")
            if settled or time.monotonic() >= deadline:
                prefs = self._json("debug", "prefs") if status else None
                return (status, prefs) if prefs is not None else (None, None)
            time.sleep(0.3)

    def _json(self, *words: str) -> dict[str, Any] | None:
        try:
            _status, out, _err = self.module.run_command([self.path] + list(words))
            found = json.loads(out)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def must(self, *words: str, **more: Any) -> None:
        """Run a tailscale command that has to succeed."""
        status, output = self.run(*words, **more)
        if status:
            raise Failed(f"tailscale {words[0]}: {output or f'exit status {status}'}")

    def resume(self, timeout_seconds: int) -> None:
        """Bring a node up again that was taken down. Without any flag: with one, tailscale takes it for a change of
        settings."""
        status, out, err = self.module.run_command(["timeout", str(timeout_seconds), self.path, "up"])
        if status:
            raise Failed(f"tailscale up: {(out + err).strip() or f'not up within {int(timeout_seconds)} s'}")

    def login(self, verb: str, key: str, flags: list[str], timeout_seconds: int) -> None:
        """Log in with a key. It passes through memory that has no name in any file system and is gone with this
        process."""
        handle = secret_handle(key)
        try:
            words = [verb, f"--auth-key=file:/proc/self/fd/{handle}", f"--timeout={int(timeout_seconds)}s"] + flags
            status, output = self.run(*words, pass_fds=[handle])
            if status and TAGS_REFUSED in output:  # a headscale's key brings its tags itself, and none may be asked for
                words = [word for word in words if not word.startswith("--advertise-tags=")]
                status, output = self.run(*words, pass_fds=[handle])
            if status and ACCIDENT in output:  # settings that somebody else made: tailscale names them, and they stay
                status, output = self.run(*told_flags(output), pass_fds=[handle])
            # it may be the answer to another key, that a failed run left tailscaled trying
            if status and "backend error" in output:
                time.sleep(2)
                status, output = self.run(*words, pass_fds=[handle])
        finally:
            os.close(handle)
        if status:
            # a login that timed out says why only there
            health = (self._json("status", "--json") or {}).get("Health") or []
            told = [output or f"exit status {status}"] + [line for line in health if "login error" in line]
            raise Failed("; ".join(told).replace(key.strip(), "********"))

    def profile(self) -> str:
        """Return the id of the present login."""
        _status, output = self.run("switch", "--list")
        return next((line.split()[0] for line in output.splitlines() if line.rstrip().endswith("*")), "")


def secret_handle(text: str) -> int:
    """Return a file descriptor of memory that holds a text."""
    handle = os.memfd_create("beta9", 0)
    os.write(handle, text.encode())
    return handle


def told_flags(output: str) -> list[str]:
    """Return the arguments of the command that tailscale tells to use instead."""
    line = next((line for line in output.splitlines() if line.strip().startswith("tailscale up ")), "tailscale up")
    return shlex.split(line.strip())[1:]


def ssh_connection() -> str:
    """Return SSH_CONNECTION of the login that this process comes from. sudo takes it away, so the parents are asked as
    well."""
    pid = os.getpid()
    while pid > 1:
        try:
            with open(f"/proc/{pid}/environ", "rb") as stream:
                for entry in stream.read().split(b"\0"):
                    if entry.startswith(b"SSH_CONNECTION="):
                        return entry.partition(b"=")[2].decode()
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stream:
                pid = int(stream.read().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            break
    return ""


def over_tailnet() -> bool:
    """Return whether Ansible itself came in over the tailnet."""
    return tailnet.came_by_tailnet(ssh_connection())


SCRIPT = """
say() { echo "$1" > %(folder)s/stage; }
sleep 1
if ! { %(do)s; } > %(folder)s/log 2>&1; then { %(undo)s; } >> %(folder)s/log 2>&1; say failed; exit 1; fi
say waiting
for _ in $(seq %(seconds)d); do
  if [ -e %(folder)s/confirmed ]; then { %(after)s; } >> %(folder)s/log 2>&1; say confirmed; exit 0; fi
  sleep 1
done
{ %(undo)s; } >> %(folder)s/log 2>&1
say reverted
"""


def detach(
    module: AnsibleModule, steps: Commands, undo: Commands, after: Commands, seconds: int, key: str | None = None
) -> None:
    """Make a change out of the reach of this connection. It undoes itself unless another call confirms it in time.

    steps, undo, after: lists of commands. A word {key} stands for the file that holds the key.
    """
    stop(module)
    secretfiles.ensure_directory(CHANGE)
    secretfiles.remove([os.path.join(CHANGE, name) for name in ("stage", "confirmed", "log")])
    handle = secret_handle(key) if key else None
    place = f"/proc/self/fd/{handle}"

    def line(commands: Commands) -> str:
        return (
            " && ".join(" ".join(shlex.quote(word.replace("{key}", place)) for word in words) for words in commands)
            or "true"
        )

    script = SCRIPT % {
        "folder": CHANGE,
        "do": line(steps),
        "undo": line(undo).replace(" && ", "; "),
        "after": line(after),
        "seconds": seconds,
    }
    secretfiles.write(os.path.join(CHANGE, "stage"), "started\n")
    # A scope of its own, so that the end of the login does not end it, and so that the key's handle can be inherited
    command = ["systemd-run", "--scope", "--collect", "--quiet", "--unit=" + SCOPE, "sh", "-c", script]
    pid = os.fork()
    if pid == 0:
        os.setsid()
        silence = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(silence, number)
        if handle is not None:
            os.set_inheritable(handle, True)
        try:
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    if handle is not None:
        os.close(handle)


def stage() -> str:
    """Return how far a detached change is: started, waiting, confirmed, reverted, failed, or an empty string for
    none."""
    try:
        with open(os.path.join(CHANGE, "stage"), encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def forget_dead(module: AnsibleModule) -> None:
    """Forget a detached change that can no longer be confirmed: it was killed, or somebody came in by another way
    since."""
    status, _out, _err = module.run_command(["systemctl", "is-active", "--quiet", SCOPE])
    if stage() and status != 0 and (stage() in ("started", "waiting") or not over_tailnet()):
        shutil.rmtree(CHANGE, ignore_errors=True)


def confirm(patience_seconds: float) -> tuple[str, str]:
    """Confirm a detached change, since a connection could be made after it. Return its last stage and its log, and
    forget it."""
    deadline = time.monotonic() + patience_seconds
    while stage() == "started" and time.monotonic() < deadline:
        time.sleep(0.3)
    if stage() == "waiting":
        secretfiles.write(os.path.join(CHANGE, "confirmed"), "")
        while stage() == "waiting" and time.monotonic() < deadline + 10:
            time.sleep(0.3)
    last = stage()
    try:
        with open(os.path.join(CHANGE, "log"), encoding="utf-8", errors="replace") as stream:
            log = stream.read().strip()
    except OSError:
        log = ""
    if last not in ("started", "waiting"):
        shutil.rmtree(CHANGE, ignore_errors=True)
    return last, log


def stop(module: AnsibleModule) -> None:
    """End a detached change that was forgotten."""
    module.run_command(["systemctl", "stop", SCOPE])
