"""`beta9-agent reload`: what ExecReload= runs, as root. Hand over the credentials, send SIGHUP, wait until it was taken
in.

    beta9-agent reload --pid $MAINPID --credential machine_token:/etc/beta9/credentials/machine_token ...

Ends with 0 when the agent has the new settings and credentials (not: when the gateway accepted them), with 1 and the
agent's reason when it refuses them and goes on with the old ones.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from typing import Sequence

from . import config, credentials, events
from . import state as state_file

MAX_BYTES = 1024 * 1024  # as much as systemd takes: CA certificates may be all of a system's
GRACE_SECONDS = 15  # beyond which root's helper is ended, whatever it waits for


def state(directory: str) -> tuple[int | None, int, str | None]:
    """Return (pid, number of reloads, why the last one was refused) as the agent says of itself; (None, 0, None) when
    it says nothing."""
    try:
        found = state_file.read(os.path.join(directory, config.STATE_NAME))
    except (OSError, ValueError):
        found = {}
    reloads, refused = found.get("reloads"), found.get("reload_error")
    return (
        found.get("pid"),
        reloads if isinstance(reloads, int) else 0,
        events.clean(str(refused))[:500] if refused else None,
    )


def hand_over(directory: str, name: str, source: str) -> None:
    """Put a copy of source into the service's directory, for the service's user only. A source that is not there is
    told as such.

    The directory belongs to the service's user: nothing in it is followed or opened, the copy is made beside it and
    renamed.
    """
    try:
        with open(source, "rb") as stream:
            content = stream.read(MAX_BYTES)
    except FileNotFoundError:
        content = credentials.ABSENT
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        owner = os.fstat(folder)
        new = f".{name}.{os.getpid()}"
        copy = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400, dir_fd=folder)
        try:
            os.write(copy, content)
            os.fchown(copy, owner.st_uid, owner.st_gid)
        finally:
            os.close(copy)
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


def taken_in(directory: str, pid: int, before: int, wait_seconds: float) -> str | None:
    """Return None when the agent has taken the reload in, or why not."""
    deadline = time.monotonic() + wait_seconds
    while time.monotonic() < deadline:
        main, reloads, refused = state(directory)
        if main == pid and reloads > before:
            return refused
        time.sleep(0.02)
    return f"it did not take it in within {wait_seconds:.0f} s"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Return the exit status."""
    options = argparse.ArgumentParser(
        prog="beta9-agent reload", description="Give the running agent new credentials and settings (as root)."
    )
    options.add_argument("--pid", type=int, required=True, help="the agent's main process")
    options.add_argument(
        "--credential", action="append", default=[], metavar="NAME:FILE", help="may be given more than once"
    )
    options.add_argument("--runtime-directory", default=config.RUNTIME_DIRECTORY, metavar="DIR")
    options.add_argument("--wait-seconds", type=int, default=30)
    given = options.parse_args(argv)
    signal.alarm(given.wait_seconds + GRACE_SECONDS)  # systemd's own limit is that of the start, which has none
    before = state(given.runtime_directory)[1]
    try:
        for entry in given.credential:
            name, _colon, source = entry.partition(":")
            hand_over(os.path.join(given.runtime_directory, credentials.HANDED_OVER), name, source)
        os.kill(given.pid, signal.SIGHUP)
    except OSError as error:
        print(f"beta9-agent reload: {error}", file=sys.stderr)
        return 1
    refused = taken_in(given.runtime_directory, given.pid, before, given.wait_seconds)
    if refused:
        print(f"beta9-agent reload: the agent goes on with its old settings: {refused}", file=sys.stderr)
        return 1
    return 0
