"""Test the collection with every ansible-core from 2.17 to the newest that an installed Python runs ->
build/matrix.json, docs/matrix.json

Each version gets a virtual environment under build/matrix, on the newest Python here that its metadata names. In it:
ansible-doc of everything, the syntax of every playbook, the unit tests, and the modules, plugins and agent against the
gateway double and a real Redis. `python tools/matrix.py 2.19 2.21` tests these only, and keeps what is known of the
others.
"""

from __future__ import annotations

import concurrent.futures
import datetime
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from xml.etree import ElementTree

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "matrix"
RECORD = ROOT / "docs" / "matrix.json"
OLDEST = (2, 17)
NOT_NEEDED = ("ansible-core", "ansible-lint", "antsibull", "molecule", "yamllint", "myst", "furo", "sphinx", "galaxy")
CLASSIFIERS = (
    "import importlib.metadata as m; print(m.version('ansible-core')); "
    "print('\\n'.join(m.metadata('ansible-core').get_all('Classifier')))"
)


def pythons():
    """Return {"3.13": interpreter}, newest first, of what is on the PATH and of what pyenv has."""
    found = {}
    names = [shutil.which(f"python3.{minor}") for minor in range(10, 20)]
    for path in [name for name in names if name] + sorted(
        map(str, pathlib.Path.home().glob(".pyenv/versions/3.*/bin/python3"))
    ):
        done = subprocess.run(
            [path, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            found.setdefault(done.stdout.strip(), path)
    return dict(
        sorted(
            ((version, path) for version, path in found.items() if key(version) >= (3, 10)),
            key=lambda item: key(item[0]),
            reverse=True,
        )
    )


def key(version):
    return tuple(int(part) for part in version.split("."))


def minors(python):
    """Return every minor version that the package index offers to this Python, oldest first."""
    done = subprocess.run(
        [python, "-m", "pip", "index", "versions", "ansible-core"], capture_output=True, text=True, check=True
    )
    offered = {match.group(0) for match in re.finditer(r"\b2\.[0-9]+(?=\.[0-9])", done.stdout)}
    return sorted((minor for minor in offered if key(minor) >= OLDEST), key=key)


def requirements():
    """Return what the tests need beside ansible-core."""
    lines = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(("#",) + NOT_NEEDED)]


def environment(minor, interpreters):
    """Return (folder, ansible-core's version, Python's) of a virtual environment with this version, or None where no
    Python here is meant for it."""
    for python, path in interpreters.items():
        folder = BUILD / (f"{minor}-py{python}")
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if not (folder / ".complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([path, "-m", "venv", str(folder)], check=True)
            if subprocess.run(pip + [f"ansible-core=={minor}.*"], capture_output=True, check=False).returncode:
                shutil.rmtree(folder)
                continue
        done = subprocess.run(
            [str(folder / "bin" / "python"), "-c", CLASSIFIERS], capture_output=True, text=True, check=True
        )
        version, *classifiers = done.stdout.splitlines()
        if f"Programming Language :: Python :: {python}" not in classifiers:
            shutil.rmtree(folder)
            continue
        complete = folder / ".complete"
        if not complete.exists() or complete.read_text(encoding="utf-8") != "\n".join(requirements()):
            subprocess.run(pip + ["--prefer-binary", "ansible-core==" + version] + requirements(), check=True)
            complete.write_text("\n".join(requirements()), encoding="utf-8")
        return folder, version, python
    return None


def variables(folder):
    """Return the environment in which the programs of a virtual environment run."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "BETA9_"))}
    return dict(
        kept,
        PATH=f"{folder / 'bin'}:{os.environ['PATH']}",
        ANSIBLE_COLLECTIONS_PATH=str(ROOT / "collections"),
        ANSIBLE_NOCOLOR="1",
    )


def each(folder, commands):
    """Run commands, two at a time; return how it went. A warning is a failure, unless it is of Ansible about a part of
    its own."""

    def run(command):
        done = subprocess.run(command, cwd=ROOT, env=variables(folder), capture_output=True, text=True, check=False)
        good = done.returncode == 0 and not re.search(
            r"^\[(WARNING|DEPRECATION)(?!.*/_protomatter')", done.stderr, re.MULTILINE
        )
        return "" if good else f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        said = [text for text in pool.map(run, commands) if text]
    return {"passed": len(commands) - len(said), "failed": len(said), "skipped": 0, "output": "\n".join(said)}


def syntax(folder):
    """The syntax of every playbook."""
    books = sorted(ROOT.glob("*.yml")) + sorted((ROOT / "playbooks").glob("*.yml"))
    books = [
        book
        for book in books
        if re.search(
            r"^ *(- )?(hosts|(ansible\.builtin\.)?import_playbook):", book.read_text(encoding="utf-8"), re.MULTILINE
        )
    ]
    return each(
        folder,
        [["ansible-playbook", "-i", "localhost,", "--syntax-check", str(book.relative_to(ROOT))] for book in books],
    )


def documentation(folder):
    """What ansible-doc says of every plugin and role."""
    commands = []
    for kind, where in (("module", "modules"), ("inventory", "inventory"), ("filter", "filter")):
        commands.append(
            ["ansible-doc", "-t", kind]
            + ["beta9.workers." + path.stem for path in sorted((ROOT / "plugins" / where).glob("*.py"))]
        )
    commands.append(
        ["ansible-doc", "-t", "role"] + ["beta9.workers." + path.name for path in sorted((ROOT / "roles").iterdir())]
    )
    return each(folder, commands)


def tests(folder, *names):
    """Run pytest; return its counts."""
    report = folder / "junit.xml"
    command = [
        str(folder / "bin" / "python"),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--junit-xml",
        str(report),
        *names,
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=variables(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    suite = ElementTree.parse(report).getroot().find("testsuite")
    number = {name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")}
    bad = number["failures"] + number["errors"]
    good = number["tests"] - bad - number["skipped"]
    return {
        "passed": good,
        "failed": bad,
        "skipped": number["skipped"],
        "output": done.stdout[-6000:] if done.returncode else "",
    }


STAGES = {
    "documentation": documentation,
    "syntax": syntax,
    "unit": lambda folder: tests(folder, "tests/unit"),
    "integration": lambda folder: tests(folder, "tests/contract", "tests/integration"),
}


def measure(minor, interpreters):
    """Return the record of one version."""
    made = environment(minor, interpreters)
    if not made:
        return {"ansible_core": minor, "python": None, "date": today(), "stages": {}}
    folder, version, python = made
    record = {"ansible_core": version, "python": python, "date": today(), "stages": {}}
    for name, stage in STAGES.items():
        start = time.monotonic()
        result = stage(folder)
        output = result.pop("output")
        record["stages"][name] = dict(result, seconds=round(time.monotonic() - start, 1))
        print(f"{version!s:<8} python {python!s:<5} {name!s:<14} {record['stages'][name]}", flush=True)
        if output:
            print(output, flush=True)
    return record


def today():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")


def main():
    interpreters = pythons()
    wanted = sys.argv[1:] or minors(next(iter(interpreters.values())))
    BUILD.mkdir(parents=True, exist_ok=True)
    known = (
        {".".join(entry["ansible_core"].split(".")[:2]): entry for entry in json.loads(RECORD.read_text())}
        if RECORD.exists() and sys.argv[1:]
        else {}
    )
    for minor in wanted:
        known[minor] = measure(minor, interpreters)
        text = json.dumps([known[name] for name in sorted(known, key=key)], indent=1) + "\n"
        (ROOT / "build" / "matrix.json").write_text(text, encoding="utf-8")
    RECORD.write_text(text, encoding="utf-8")
    return 1 if any(stage["failed"] for entry in known.values() for stage in entry["stages"].values()) else 0


if __name__ == "__main__":
    sys.exit(main())
