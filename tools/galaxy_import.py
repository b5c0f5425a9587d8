"""What Galaxy checks when a collection is published: galaxy-importer, in a virtual environment of its own, on the
artefact.

Any error and any warning fails. Galaxy wants the address of a public repository; while galaxy.yml has none, a
placeholder stands in for it here, and only here.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import yaml
from dist import ROOT, artefact

VERSION = "0.4.44"
FOLDER = ROOT / "build" / "importer"
PLACEHOLDER = "https://example.com/beta9.workers"
SETTINGS = (
    "[galaxy-importer]\nRUN_ANSIBLE_TEST = False\nRUN_ANSIBLE_LINT = True\nRUN_ANSIBLE_DOC = "
    "True\nCHECK_REQUIRED_TAGS = True\nCHECK_CHANGELOG = True\n"
)


def main():
    python = FOLDER / "venv" / "bin" / "python"
    if not (FOLDER / VERSION).exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER / "venv")], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "galaxy-importer==" + VERSION], check=True)
        (FOLDER / VERSION).touch()
    (FOLDER / "galaxy-importer.cfg").write_text(SETTINGS, encoding="utf-8")
    named = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8")).get("repository")
    _source, path = artefact(None if named else PLACEHOLDER, FOLDER)
    environment = dict(
        os.environ,
        PATH=f"{python.parent}:{os.environ['PATH']}",
        GALAXY_IMPORTER_CONFIG=str(FOLDER / "galaxy-importer.cfg"),
    )
    environment.pop("ANSIBLE_COLLECTIONS_PATH", None)
    command = [str(python), "-m", "galaxy_importer.main", str(path)]
    done = subprocess.run(
        command, cwd=FOLDER, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout)
    found = re.findall(r"^(?:ERROR|WARNING).*", done.stdout, re.MULTILINE)
    bad = [line for line in found if not re.match(r"WARNING: awx/.*'awx\.awx\.\w+'", line)]
    if len(bad) < len(found):
        print(
            "as expected: awx/ needs the collection awx.awx, which this one does not depend on and the importer "
            "does not have"
        )
    if not named:
        print("galaxy.yml names no repository: Galaxy takes the artefact only with one (make dist REPOSITORY=URL)")
    print(f"galaxy-importer {VERSION}: {f'{len(bad)} findings' if bad else 'no finding'}")
    return 1 if bad or done.returncode or not pathlib.Path(FOLDER / "importer_result.json").exists() else 0


if __name__ == "__main__":
    sys.exit(main())
