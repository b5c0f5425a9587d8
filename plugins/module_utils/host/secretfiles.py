# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of root, secret or not: written whole or not at all, with the mode and owner that they need whatever the umask
is.

What exists with other modes or owners is repaired, and so are the parent directories of it: where somebody else may
write, a file of root is not root's. Return values say whether something changed.
"""

from __future__ import annotations

import os
import stat

# Directories of this collection. Of all others only the one that holds the file is looked at, and no right to read is
# added.
OWN = ("/etc/beta9", "/etc/ssh/beta9-tunnel", "/opt/beta9-agent", "/var/lib/beta9", "/var/lib/beta9-k3s")
READABLE = 0o055
WRITABLE = 0o022


def make_directory(path: str, mode: int = 0o755) -> None:
    """Make a directory that is missing with exactly this mode, and its parents with 0755."""
    if os.path.isdir(path):
        return
    make_directory(os.path.dirname(path) or "/")
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return  # another process made it
    os.chmod(path, mode)


def ensure_directory(path: str, check_mode: bool = False, mode: int = 0o700) -> bool:
    """Make path a directory with this mode, owned by the caller."""
    if not os.path.isdir(path):
        if not check_mode:
            _ensure_parents(path, False, check_mode)
            make_directory(path, mode)
        return True
    changed = _ensure_parents(path, False, check_mode)
    return ensure_mode(path, mode, check_mode) or changed


def ensure_mode(path: str, mode: int, check_mode: bool = False) -> bool:
    """Give path exactly this mode and the caller as owner. A link is left alone."""
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode) or (
        stat.S_IMODE(found.st_mode) == mode and (found.st_uid, found.st_gid) == (os.geteuid(), os.getegid())
    ):
        return False
    if not check_mode:
        os.chown(path, os.geteuid(), os.getegid())
        os.chmod(path, mode)
    return True


def ensure_kept(entries: dict[str, int], check_mode: bool = False) -> list[str]:
    """Give each of {path: mode} that exists its mode and the caller as owner, and repair its directory. Return the
    paths that changed."""
    changed = []
    for path, mode in entries.items():
        if os.path.lexists(path):
            repaired = _ensure_parents(path, False, check_mode)
            if ensure_mode(path, mode, check_mode) or repaired:
                changed.append(path)
    return changed


def _ensure_parents(path: str, public: bool, check_mode: bool) -> bool:
    """Make the parent directories of path, or repair them. public: others have to reach path."""
    changed, parent = False, os.path.dirname(path) or "."
    for folder in [folder for folder in _ancestors(path) if folder == parent or folder.startswith(OWN)]:
        if not os.path.isdir(folder):
            changed = True
            if not check_mode:
                make_directory(folder)
            continue
        found = os.stat(folder)
        mode, own = stat.S_IMODE(found.st_mode), folder.startswith(OWN)
        wrong = mode & WRITABLE if own else mode & 0o002 and not mode & stat.S_ISVTX
        if found.st_uid != os.geteuid() or wrong or (own and public and mode & READABLE != READABLE):
            changed = True
            if not check_mode:
                os.chown(folder, os.geteuid(), os.getegid())
                os.chmod(folder, mode & ~WRITABLE | 0o700 | (READABLE if own and public else 0))
    return changed


def _ancestors(path: str) -> list[str]:
    """Return the parent directories of path, the topmost first."""
    found: list[str] = []
    while os.path.dirname(path) not in ("", path):
        path = os.path.dirname(path)
        found.insert(0, path)
    return found


def write(path: str, content: str | bytes, mode: int = 0o600, check_mode: bool = False) -> bool:
    """Replace path by a text, or by bytes, in one step, and make its directory. A file that holds it already only gets
    its mode and owner."""
    changed = _ensure_parents(path, bool(mode & 0o044), check_mode)
    data = content.encode("utf-8") if isinstance(content, str) else content
    if not os.path.islink(path):
        try:
            with open(path, "rb") as stream:
                if stream.read() == data:
                    return ensure_mode(path, mode, check_mode) or changed
        except FileNotFoundError:
            pass
    if not check_mode:
        replace(path, data, mode)
    return True


def replace(path: str, data: bytes, mode: int) -> None:
    """Replace path by bytes in one step, on disk when this returns. What a killed run left is taken over by the next
    one."""
    temporary = path + ".beta9-new"
    remove([temporary])
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(handle, "wb") as stream:
            os.fchmod(handle, mode)
            stream.write(data)
            stream.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        remove([temporary])
        raise


def remove(paths: list[str]) -> bool:
    """Remove those of the files that exist. Return whether any did."""
    removed = False
    for path in paths:
        try:
            os.unlink(path)
            removed = True
        except FileNotFoundError:
            pass
    return removed


def remove_empty(directory: str, levels: int) -> None:
    """Remove a directory and those above it, so many levels, as long as they are empty."""
    for _level in range(levels):
        try:
            os.rmdir(directory)
        except OSError:  # not empty, or not there
            return
        directory = os.path.dirname(directory)
