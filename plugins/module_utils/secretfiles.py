# Copyright: (c) 2026, the beta9.workers authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that only root may read: written whole or not at all. Return values say whether something changed."""

from __future__ import annotations

import os
import tempfile


def ensure_directory(path, check_mode=False):
    """Make path a directory of mode 0700 owned by the caller, with its parents as 0755."""
    if not os.path.isdir(path):
        if not check_mode:
            os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
            os.makedirs(path, mode=0o700, exist_ok=True)
        return True
    return ensure_mode(path, 0o700, check_mode)


def ensure_mode(path, mode, check_mode=False):
    """Give path exactly this mode and the caller as owner."""
    stat = os.stat(path)
    if stat.st_mode & 0o7777 == mode and stat.st_uid == os.geteuid():
        return False
    if not check_mode:
        os.chown(path, os.geteuid(), os.getegid())
        os.chmod(path, mode)
    return True


def write(path, text, mode=0o600, check_mode=False):
    """Replace path by text in one step. A file that holds text already only gets its mode mended."""
    try:
        with open(path, encoding="utf-8") as stream:
            if stream.read() == text:
                return ensure_mode(path, mode, check_mode)
    except (FileNotFoundError, UnicodeDecodeError):
        pass  # not there, or not ours: write it
    if not check_mode:
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".beta9-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                os.fchmod(handle, mode)
                stream.write(text)
                stream.flush()
                os.fsync(handle)
            os.replace(temporary, path)
        except BaseException:
            remove([temporary])
            raise
    return True


def remove(paths):
    """Remove those of the files that exist. Return whether any did."""
    removed = False
    for path in paths:
        try:
            os.unlink(path)
            removed = True
        except FileNotFoundError:
            pass
    return removed
