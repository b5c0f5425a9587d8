"""TEST DOUBLES of rpm packages: signed repositories for a real dnf, with the names that the roles ask for. All that is installed is empty, but a link.

    build_repository.py FOLDER [--driver 580.1.1 ...]

FOLDER/base is what a distribution and EPEL have (without a key). FOLDER/driver has every driver in a module stream of its branch, FOLDER/flat
without streams, as on RHEL 10, and its index is signed as well. FOLDER/toolkit signs its index instead of its packages, FOLDER/forged has
packages signed by another key. FOLDER/key.asc is the key of all, FOLDER/other.asc the other one, and the fingerprint is in
FOLDER/fingerprint. Debian with rpm, createrepo-c and gnupg.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil
import subprocess
import tempfile

KERNELS = ("5.14.0-427.el9", "5.14.0-503.el9")
DRIVER = ("nvidia-driver-cuda", "nvidia-driver-cuda-libs", "nvidia-persistenced", "kmod-nvidia-open-dkms", "kmod-nvidia-latest-dkms")
TOOLKIT = ("nvidia-container-toolkit", "nvidia-container-toolkit-base", "libnvidia-container-tools", "libnvidia-container1")
PYTHON = "python3.12"  # a link to the system's Python under the name that nothing else has: python3.real
BASE = (PYTHON, "dkms", "kernel-headers", "python3-dnf-plugin-versionlock", "openssh-clients", "foreign-desktop")


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, **options).stdout


def rpms(folder, packages):
    """Build packages, given as (name, version, release, lines of a spec's preamble), all in one run of rpmbuild."""
    lines = ["Name: double", "Version: 1", "Release: 1", "Summary: TEST DOUBLE", "License: none", "BuildArch: noarch", "AutoReqProv: no", "%description", ""]
    links = {name: more for name, _version, _release, more in packages if name == PYTHON}
    lines += ["%install", "mkdir -p %{buildroot}/usr/bin", *(f"ln -s python3.real %{{buildroot}}/usr/bin/{name}" for name in links)]
    for number, (name, version, release, more) in enumerate(packages):
        lines += [f"%package -n {name}", f"Version: {version}", f"Release: {release}", "Summary: TEST DOUBLE", "AutoReqProv: no", *more]
        lines += [f"%description -n {name}", "Empty.", f"%files -n {name}", f"/usr/bin/{name}" if name in links else f"# {number}", ""]
    with tempfile.TemporaryDirectory() as root:
        spec = pathlib.Path(root) / "double.spec"
        spec.write_text("\n".join(lines))
        run("rpmbuild", "-bb", "--quiet", "--define", f"_topdir {root}", spec)
        for path in pathlib.Path(root).glob("RPMS/*/*.rpm"):
            shutil.copy(path, folder)


def driver(version):
    """Return the packages of one driver version."""
    same = f"Requires: nvidia-driver-cuda-libs = 3:{version}"
    needs = {"nvidia-driver-cuda": [same], "kmod-nvidia-open-dkms": [same, "Requires: dkms"], "kmod-nvidia-latest-dkms": [same, "Requires: dkms"]}
    return [(name, version, "1.el9", ["Epoch: 3", *needs.get(name, [])]) for name in DRIVER]


def streams(versions):
    """Return the metadata of a module with one stream a branch and flavour (580-open, 580-dkms)."""
    documents = []
    for branch in sorted({version.partition(".")[0] for version in versions}):
        for flavour, without in (("open", "kmod-nvidia-latest-dkms"), ("dkms", "kmod-nvidia-open-dkms")):
            names = [name for name in DRIVER if name != without]
            rows = [f"    - {name}-3:{version}-1.el9.noarch" for version in versions if version.startswith(branch + ".") for name in names]
            documents.append(
                "\n".join(
                    ["---", "document: modulemd", "version: 2", "data:", "  name: nvidia-driver", f'  stream: "{branch}-{flavour}"', "  version: 1"]
                    + ["  context: c0ffee", "  arch: noarch", "  summary: TEST DOUBLE", "  description: TEST DOUBLE", "  license: {module: [none]}"]
                    + ["  profiles: {default: {rpms: [nvidia-driver-cuda]}}", "  artifacts:", "    rpms:", *rows, "..."]
                )
            )
    return "\n".join(documents) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--driver", action="append", default=[])
    options = parser.parse_args()
    folder = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("base", "driver", "flat", "toolkit", "forged"):
        (folder / name).mkdir(parents=True)
    home = folder / "gnupg"
    home.mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    for who in ("key", "other"):
        run(*gpg, "--quick-gen-key", who + "@example.com", "rsa2048", "sign", "never")
        (folder / (who + ".asc")).write_bytes(run(*gpg, "--armor", "--export", who + "@example.com"))
    listed = run(*gpg, "--with-colons", "--list-keys", "key@example.com").decode()
    (folder / "fingerprint").write_text(next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr")))
    devel = [(name, *kernel.split("-"), ["Provides: installonlypkg(kernel)"]) for kernel in KERNELS for name in ("kernel-devel",)]
    rpms(folder / "base", [(name, "1.0", "1.el9", []) for name in BASE] + devel[:1] + [("kernel-64k-devel", *KERNELS[0].split("-"), [])])
    rpms(folder / "base", devel[1:])
    for version in options.driver:
        rpms(folder / "driver", driver(version))
    for name in ("flat", "forged"):
        shutil.copytree(folder / "driver", folder / name, dirs_exist_ok=True)
    for version in ("1.17.8", "1.18.0"):
        rpms(folder / "toolkit", [(name, version, "1", []) for name in TOOLKIT])
    for name, who in (("driver", "key"), ("flat", "key"), ("forged", "other")) if options.driver else ():
        macros = ("__gpg /usr/bin/gpg", f"_gpg_path {home}", f"_gpg_name {who}@example.com")
        defined = [word for macro in macros for word in ("--define", macro)]
        run("rpmsign", *defined, "--addsign", *sorted((folder / name).glob("*.rpm")))
    (folder / "modules.yaml").write_text(streams(options.driver))
    for name in ("base", "driver", "flat", "toolkit", "forged"):
        run("createrepo_c", "--quiet", folder / name)
    run("modifyrepo_c", "--mdtype=modules", folder / "modules.yaml", folder / "driver/repodata")
    for name in ("flat", "toolkit"):
        run(*gpg, "--local-user", "key@example.com", "--armor", "--detach-sign", folder / name / "repodata/repomd.xml")
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
