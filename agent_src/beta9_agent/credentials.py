"""Where tokens come from, and how a running agent gets a new one.

systemd copies LoadCredential= files when a service starts, and never again before the next start (RefreshOnReload= of
later releases is not in those of Debian 12 and 13). So a reload has two steps, see reload.py: root hands the files that
are on disk now over into the directory "credentials" of the service's runtime directory, readable by the service only,
and then sends SIGHUP. What was handed over goes before what systemd copied, and goes away with the runtime directory
when the service stops.
"""

from __future__ import annotations

import os
from typing import Iterable

from . import events, protocol

HANDED_OVER = "credentials"
ABSENT = b"-"  # what an optional credential holds when its file is not there: in a unit, SetCredential=NAME:-
MAX_BYTES = 65536


def path_of(name: str) -> str | None:
    """Return the file of a credential that systemd or a reload gave this service, or None."""
    runtime = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    given = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not given:
        return None  # not run by systemd
    for directory in (os.path.join(runtime, HANDED_OVER) if runtime else "", given):
        path = os.path.join(directory, name) if directory else ""
        if path and os.path.exists(path):
            return path if os.path.getsize(path) > len(ABSENT) else None
    return None


def read(path: str, field: str) -> str:
    """Return the token in a file, or raise InvalidField, which never shows it."""
    try:
        with open(path, "rb", buffering=0) as stream:
            token = protocol.token(stream.read(MAX_BYTES).decode())
    except (OSError, UnicodeDecodeError) as error:
        found = f"{path}: {getattr(error, 'strerror', 'not text')}"
        raise protocol.InvalidField(field, "a readable file", found) from None
    events.SECRETS.add(token)
    return token


def read_optional(path: str, field: str) -> str | None:
    """Return the token in a file, or None when there is no file or nothing in it."""
    try:
        if not os.path.getsize(path):
            return None
    except OSError:
        return None
    return read(path, field)


def marks(paths: Iterable[str]) -> list[tuple[object, ...]]:
    """Return what changes when one of the files does."""
    found: list[tuple[object, ...]] = []
    for path in paths:
        try:
            status = os.stat(path)
            found.append((path, status.st_ino, status.st_size, status.st_mtime_ns))
        except OSError:
            found.append((path,))
    return found
