"""Fetch the collection awx.awx without a Galaxy server: PyPI's `ansible` package brings it. Only its 98 files are unpacked."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

ANSIBLE = "12.3.0"  # the last that goes with ansible-core 2.19
AWX = "24.6.1"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "beta9-workers"


def awx_collection():
    """Return a collections path with awx.awx; it is fetched once on a machine."""
    place = CACHE / ("awx.awx-" + AWX)
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, "ansible==" + ANSIBLE]
            subprocess.run(command, check=True)
            (wheel,) = pathlib.Path(work).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if name.startswith("ansible_collections/awx/awx/")]
                archive.extractall(pathlib.Path(work) / "found", names)
            try:
                (pathlib.Path(work) / "found").rename(place)
            except OSError:  # another run was faster
                shutil.rmtree(pathlib.Path(work) / "found")
    return place
