"""Builds the real Kubernetes API server, controller manager and kubectl from their Go module: one program, cached between runs.

    build.py [VERSION ...]   build what is not there; needs Go and its module proxy, and some minutes for each version

Kubernetes is an ordinary Go module, but for its staging directories, which are modules of their own: go.mod is Kubernetes' own with
these replaced by what was released as k8s.io/X v0.MINOR.PATCH.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
MAIN = HERE / "api" / "main.go"
NEWEST, OLD = "1.37.2", "1.31.0"
VERSIONS = (NEWEST, OLD)
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kubectl")


CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "beta9-workers" / "kubernetes"


def folder(version: str) -> pathlib.Path:
    """Return the directory in the cache that a version's programs are in, or shall be."""
    return CACHE / f"{version}-{hashlib.sha256(MAIN.read_bytes()).hexdigest()[:8]}"


def built(version: str) -> bool:
    """Return whether a version is in the cache, and an etcd for it is there."""
    return bool(etcd()) and all((folder(version) / name).exists() for name in PROGRAMS)


def etcd() -> str | None:
    """Return the path of an etcd, or None."""
    own = CACHE / "etcd-server" / "usr" / "bin" / "etcd"
    return shutil.which("etcd") or (str(own) if own.exists() else None)


def fetch_etcd() -> None:
    """Unpack Debian's etcd into the cache: the package, installed, would run one on this machine."""
    work = CACHE / "etcd-server.partial"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    work.chmod(0o777)  # apt fetches as a user of its own
    subprocess.run(["apt-get", "download", "-qq", "etcd-server"], cwd=work, check=True)
    subprocess.run(["dpkg-deb", "-x", str(next(work.glob("*.deb"))), str(work)], check=True)
    work.rename(CACHE / "etcd-server")


def go() -> str | None:
    """Return the path of the Go compiler, or None."""
    usual = "/usr/local/go/bin/go"
    return shutil.which("go") or (usual if os.access(usual, os.X_OK) else None)


def go_mod(text: str, version: str) -> str:
    """Return Kubernetes' go.mod as that of a program of its own."""
    staging = version.split(".", 1)[1]
    text = re.sub(r"^module .*", "module beta9.workers/tests/kubernetes", text, flags=re.M)
    text = re.sub(r"=> \./staging/src/(k8s\.io/\S+)", rf"=> \1 v0.{staging}", text)
    return f"{text}\nrequire k8s.io/kubernetes v{version}\n"


def build(version: str) -> None:
    """Build a version into the cache. It appears there when it is complete."""
    target = folder(version)
    work = target.with_name(target.name + ".partial")
    work.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, GOFLAGS=f"{os.environ.get('GOFLAGS', '')} -mod=mod".strip(), GOTOOLCHAIN="local", CGO_ENABLED="0")
    told = subprocess.run([go(), "mod", "download", "-json", f"k8s.io/kubernetes@v{version}"], env=environment, cwd=work, capture_output=True, check=True)
    (work / "go.mod").write_text(go_mod(pathlib.Path(json.loads(told.stdout)["GoMod"]).read_text(), version))
    shutil.copy(MAIN, work)
    names = {"gitVersion": f"v{version}", "gitMajor": version.split(".")[0], "gitMinor": version.split(".")[1]}
    flags = " ".join(["-s", "-w", *(f"-X k8s.io/component-base/version.{name}={value}" for name, value in names.items())])
    subprocess.run([go(), "build", "-trimpath", "-ldflags", flags, "-o", "kubernetes", "."], env=environment, cwd=work, check=True)
    for name in PROGRAMS:
        (work / name).unlink(missing_ok=True)
        (work / name).symlink_to("kubernetes")
    shutil.rmtree(target, ignore_errors=True)
    work.rename(target)


def missing() -> str:
    """Return in one line why nothing can be built here, an empty string if it can."""
    lacking = [name for name, there in (("Go", go()), ("etcd, and no Debian to get it from", etcd() or shutil.which("dpkg-deb"))) if not there]
    return f"there is no {' and no '.join(lacking)}" if lacking else ""


def main() -> None:
    if missing():
        print(f"kubernetes: left out, {missing()}")
        return
    if not etcd():
        fetch_etcd()
    for version in sys.argv[1:] or VERSIONS:
        if not built(version):
            print(f"kubernetes: building {version}; it takes minutes, once", flush=True)
            build(version)


if __name__ == "__main__":
    main()
