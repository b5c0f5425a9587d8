"""Make the release -> dist/: the collection's artefact, the agent's bundles, SHA256SUMS. The same commit gives the same
bytes.

python tools/dist.py                      build
python tools/dist.py --repository URL     with the address that Galaxy wants to know
python tools/dist.py --release            refuse what is not a release: changes without a version, a version without
notes, a dirty tree

ansible-galaxy writes files in the order of the file system, with the time and modes they happen to have. So only
tracked files are staged, and its archive is rewritten: sorted, owned by nobody, as old as the commit (or
SOURCE_DATE_EPOCH).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
STAGE = ROOT / "build" / "dist"
DIST = ROOT / "dist"
ARCHITECTURES = ["x86_64", "aarch64"]


def output(*command):
    """Return what a command prints."""
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def not_released(version):
    """Return what is between this tree and a release."""
    found = []
    notes = yaml.safe_load((ROOT / "changelogs" / "changelog.yaml").read_text(encoding="utf-8"))["releases"]
    fragments = sorted(path.name for path in (ROOT / "changelogs" / "fragments").glob("*.y*ml"))
    if version not in notes:
        found.append(
            f"changelogs/changelog.yaml: expected notes of version {version}, found {', '.join(notes)}. "
            f"antsibull-changelog release"
        )
    if fragments:
        found.append(
            f"changelogs/fragments: expected none, found {', '.join(fragments)}. Set a new version in galaxy.yml; "
            f"antsibull-changelog release"
        )
    if output("git", "status", "--porcelain", "--untracked-files=no"):
        found.append("the tree: expected what is committed, found changes. git status")
    return found


def stage(repository):
    """Lay out the tracked files, and nothing else, with plain modes."""
    shutil.rmtree(STAGE, ignore_errors=True)
    source = STAGE / "source"
    for name in output("git", "ls-files", "-z").split("\0"):
        path = ROOT / name
        if not name or name.startswith("collections/ansible_collections") or not path.exists():
            continue
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)  # a link becomes the file it leads to: protocol.py of the agent
        target.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
    if repository:
        with open(source / "galaxy.yml", "a", encoding="utf-8") as stream:
            stream.write(f"repository: {json.dumps(repository)}\n")
    return source


def canonical(raw, target, epoch):
    """Write an archive of ansible-galaxy again: the same content in one order, with one date and one owner."""
    with tarfile.open(raw) as archive:
        members = {
            member.name.rstrip("/"): (member, archive.extractfile(member).read() if member.isfile() else None)
            for member in archive.getmembers()
        }
    listing = json.loads(members["FILES.json"][1])
    listing["files"].sort(key=lambda entry: entry["name"])
    files = json.dumps(listing, indent=1, sort_keys=True).encode() + b"\n"
    manifest = json.loads(members["MANIFEST.json"][1])
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(files).hexdigest()
    replaced = {"FILES.json": files, "MANIFEST.json": json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"}
    names = ["MANIFEST.json", "FILES.json"] + sorted(name for name in members if name not in replaced)
    with open(target, "wb") as stream, gzip.GzipFile("", "wb", 9, stream, mtime=0) as packed:
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name in names:
                member, content = members[name]
                content = replaced.get(name, content)
                entry = tarfile.TarInfo(name)
                entry.type, entry.mtime = member.type, epoch
                entry.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
                entry.size = len(content or b"")
                archive.addfile(entry, io.BytesIO(content) if content is not None else None)


def artefact(repository, folder):
    """Build the collection into a folder; return where its files are staged, and the archive."""
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or output("git", "log", "-1", "--format=%ct"))
    source, raw = stage(repository), STAGE / "raw"
    galaxy = pathlib.Path(sys.executable).with_name("ansible-galaxy")
    subprocess.run(
        [str(galaxy), "collection", "build", "--force", "--output-path", str(raw), str(source)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    built = next(raw.glob("*.tar.gz"))
    canonical(built, folder / built.name, epoch)
    return source, folder / built.name


def bundles(source):
    """Build the agent for every architecture with the module that does it on a controller; return the files."""
    cache = STAGE / "agent"
    arguments = {
        "ANSIBLE_MODULE_ARGS": {
            "source": str(source / "agent_src"),
            "architectures": ARCHITECTURES,
            "cache": str(cache),
        }
    }
    module = ROOT / "collections/ansible_collections/beta9/workers/plugins/modules/agent_bundle.py"
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "collections"))
    done = subprocess.run(
        [sys.executable, str(module)],
        input=json.dumps(arguments),
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if result.get("failed"):
        sys.exit(result["msg"])
    return sorted(cache.glob("*.tar"))


def main():
    parser = argparse.ArgumentParser(description="Make the release -> dist/")
    parser.add_argument("--repository", help="address of the public repository, which Galaxy wants to know")
    parser.add_argument("--release", action="store_true", help="refuse what is not a release")
    arguments = parser.parse_args()
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    problems = not_released(version)
    for problem in problems:
        print("not a release:", problem)
    if problems and arguments.release:
        return 1
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    source, _path = artefact(arguments.repository, DIST)
    for path in bundles(source):
        shutil.copyfile(path, DIST / path.name)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(DIST.iterdir())]
    (DIST / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    print("".join(lines), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
