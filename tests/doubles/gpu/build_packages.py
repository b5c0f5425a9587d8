"""TEST DOUBLES of NVIDIA's packages: a signed apt repository in which every version ends with ~double.

    build_packages.py FOLDER --kernel UNAME-R [--driver 580.1.1 --driver 580.2.2] [--toolkit 1.20.0]

FOLDER/driver and FOLDER/toolkit are repositories, FOLDER/key.asc is their key, FOLDER/other.asc another one, and the fingerprint is in
FOLDER/fingerprint. The names are the real ones, because the role asks for those. The kernel module is a real ELF object with a version in
its .modinfo, so that the real modinfo and depmod read it; no kernel could load it. It does not "build" on a host that has
/etc/beta9-dkms-double-fails. The libraries are nvidia_double.c. Debian with gcc and gpg.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
LIB = "usr/lib/x86_64-linux-gnu"
PERSISTENCED = """[Unit]
Description=TEST DOUBLE of nvidia-persistenced
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sed -i s/^persistence=.*/persistence=Enabled/ /etc/beta9-gpu-double
[Install]
WantedBy=multi-user.target
"""
FABRIC = """[Unit]
Description=TEST DOUBLE of nvidia-fabricmanager
[Service]
ExecStartPre=/bin/sed -i s/^cuda=802/cuda=0/ /etc/beta9-gpu-double
ExecStart=/usr/bin/sleep infinity
[Install]
WantedBy=multi-user.target
"""
REFRESH = """[Unit]
Description=TEST DOUBLE of nvidia-cdi-refresh
[Service]
Type=oneshot
ExecStart=/usr/bin/nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml
[Install]
WantedBy=multi-user.target
"""
WATCH = """[Unit]
Description=TEST DOUBLE of nvidia-cdi-refresh
[Path]
PathChanged=/usr/bin/nvidia-ctk
[Install]
WantedBy=multi-user.target
"""
CTK = """#!/bin/sh
# A TEST DOUBLE of nvidia-ctk: cdi generate [--output=FILE] names as many GPUs as /etc/beta9-gpu-double has
gpus=$(sed -n 's/^gpus=//p' /etc/beta9-gpu-double)
spec() {
  printf -- '---\\ncdiVersion: 0.5.0\\ncontainerEdits:\\n  env:\\n  - NVIDIA_VISIBLE_DEVICES=void\\n'
  [ "$gpus" = 0 ] && { printf 'devices: []\\nkind: nvidia.com/gpu\\n'; return; }
  printf 'devices:\\n'
  n=0
  while [ "$n" -lt "$gpus" ]; do
    printf -- '- containerEdits:\\n    deviceNodes:\\n    - path: /dev/nvidia%s\\n  name: "%s"\\n' $n $n
    n=$((n + 1))
  done
  printf -- '- containerEdits: {}\\n  name: all\\nkind: nvidia.com/gpu\\n'
}
case "$3" in
  --output=*) mkdir -p "$(dirname "${3#--output=}")"; spec > "${3#--output=}" ;;
  *) spec ;;
esac
"""


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, **options).stdout


def library(version, folder):
    """Return the library of a driver version."""
    target = folder / ("lib-%s.so" % version)
    run("gcc", "-shared", "-fPIC", '-DDRIVER_VERSION="%s"' % version, "-o", target, HERE / "nvidia_double.c")
    return target.read_bytes()


def kernel_module(version, folder):
    """Return an ELF object that modinfo reads."""
    source = folder / "nvidia.c"
    lines = ["version=" + version, "license=Dual MIT/GPL", "description=TEST DOUBLE of the NVIDIA kernel module", "name=nvidia", "depends="]
    source.write_text(
        "\n".join('static const char d%d[] __attribute__((used, section(".modinfo"), aligned(1))) = "%s";' % entry for entry in enumerate(lines)) + "\n"
    )
    run("gcc", "-c", "-o", folder / "nvidia.o", source)
    return (folder / "nvidia.o").read_bytes()


def package(folder, name, version, files, depends="", postinst="", architecture="amd64"):
    """Build one package. files: {path: text or bytes}; scripts and programs are executable."""
    with tempfile.TemporaryDirectory() as root:
        root = pathlib.Path(root)
        for path, content in files.items():
            target = root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, tuple):
                target.symlink_to(content[0])
                continue
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
            target.chmod(0o755 if "bin/" in path else 0o644)
        (root / "DEBIAN").mkdir(mode=0o755)
        control = "Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: beta9.workers tests <nobody@example.com>\n" % (name, version, architecture)
        control += ("Depends: %s\n" % depends if depends else "") + "Description: TEST DOUBLE of %s\n" % name
        (root / "DEBIAN/control").write_text(control)
        if postinst:
            (root / "DEBIAN/postinst").write_text("#!/bin/sh\nset -e\n" + postinst + "\n")
            (root / "DEBIAN/postinst").chmod(0o755)
        root.chmod(0o755)
        run("dpkg-deb", "--root-owner-group", "-Zgzip", "--build", root, folder / ("%s_%s_%s.deb" % (name, version, architecture)))


def driver(folder, version, kernel):
    """Build the packages of one driver version."""
    full, work = version + "-1~double", pathlib.Path(tempfile.mkdtemp())
    so = library(version, work)
    files = {"%s/%s.so.%s" % (LIB, name, version): so for name in ("libnvidia-ml", "libcuda")}
    files.update({"%s/%s.so.1" % (LIB, name): ("%s.so.%s" % (name, version),) for name in ("libnvidia-ml", "libcuda")})
    package(folder, "libcuda1", full, files, postinst="ldconfig")
    package(folder, "nvidia-driver-cuda", full, {"usr/bin/nvidia-smi": (HERE / "nvidia-smi").read_text()}, depends="libcuda1 (= %s)" % full)
    package(folder, "nvidia-persistenced", full, {"usr/lib/systemd/system/nvidia-persistenced.service": PERSISTENCED})
    package(
        folder,
        "nvidia-fabricmanager-" + version.split(".", maxsplit=1)[0],
        full,
        {
            "usr/lib/systemd/system/nvidia-fabricmanager.service": FABRIC,
            "usr/bin/nv-fabricmanager": '#!/bin/sh\n# TEST DOUBLE\necho "Fabric Manager version is : %s"\n' % version,
        },
    )
    module = {"usr/lib/modules/%s/updates/dkms/nvidia.ko" % kernel: kernel_module(version, work)}
    build = """if [ -e /etc/beta9-dkms-double-fails ]; then
  echo "Error! Bad return status for module build on kernel: %s (x86_64)"; exit 10
fi
depmod %s || true""" % (kernel, kernel)
    for kind in ("nvidia-kernel-open-dkms", "nvidia-kernel-dkms"):
        package(folder, kind, full, module, depends="libcuda1 (= %s)" % full, postinst=build)
    shutil.rmtree(work)


def toolkit(folder, version):
    """Build the packages of one version of the container toolkit."""
    full = version + "-1~double"
    base = {"usr/bin/nvidia-ctk": CTK, "usr/bin/nvidia-container-runtime": "#!/bin/sh\n# TEST DOUBLE\n"}
    script = ""
    if int(version.split(".")[1]) >= 18:
        base.update({"usr/lib/systemd/system/nvidia-cdi-refresh.service": REFRESH, "usr/lib/systemd/system/nvidia-cdi-refresh.path": WATCH})
        script = "systemctl daemon-reload || true; systemctl enable --now nvidia-cdi-refresh.path || true"
    package(folder, "nvidia-container-toolkit-base", full, base, postinst=script)
    for name in ("libnvidia-container1", "libnvidia-container-tools"):
        package(folder, name, full, {"usr/share/doc/%s/double" % name: "TEST DOUBLE\n"})
    package(folder, "nvidia-container-toolkit", full, {}, depends="nvidia-container-toolkit-base (= %s), libnvidia-container-tools (= %s)" % (full, full))


def index(folder, gpg):
    """Write Packages, Release and InRelease."""
    entries = []
    for path in sorted(folder.glob("*.deb")):
        data = path.read_bytes()
        fields = run("dpkg-deb", "--field", path).decode().rstrip()
        entries.append("%s\nFilename: ./%s\nSize: %d\nSHA256: %s\n" % (fields, path.name, len(data), hashlib.sha256(data).hexdigest()))
    text = "\n".join(entries).encode()
    (folder / "Packages").write_bytes(text)
    (folder / "Packages.gz").write_bytes(gzip.compress(text, mtime=0))
    date = run("date", "-Ru").decode().strip().replace("+0000", "UTC")
    lines = ["Origin: TEST DOUBLE", "Label: TEST DOUBLE", "Date: " + date, "SHA256:"]
    lines += [
        " %s %d %s" % (hashlib.sha256((folder / name).read_bytes()).hexdigest(), (folder / name).stat().st_size, name) for name in ("Packages", "Packages.gz")
    ]
    (folder / "Release").write_text("\n".join(lines) + "\n")
    (folder / "InRelease").unlink(missing_ok=True)
    run(*gpg, "--local-user", "repository@example.com", "--clearsign", "--output", folder / "InRelease", folder / "Release")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--kernel", required=True)
    parser.add_argument("--driver", action="append", default=[])
    parser.add_argument("--toolkit", action="append", default=[])
    options = parser.parse_args()
    folder = options.folder
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("driver", "toolkit", "gnupg"):
        (folder / name).mkdir(parents=True)
    os.chmod(folder / "gnupg", 0o700)
    gpg = ["gpg", "--homedir", folder / "gnupg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    for who in ("repository", "other"):
        run(*gpg, "--quick-gen-key", who + "@example.com", "rsa2048", "sign", "never")
        (folder / (("key" if who == "repository" else who) + ".asc")).write_bytes(run(*gpg, "--armor", "--export", who + "@example.com"))
    listed = run(*gpg, "--with-colons", "--list-keys", "repository@example.com").decode()
    (folder / "fingerprint").write_text(next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr")))
    for version in options.driver:
        driver(folder / "driver", version, options.kernel)
    package(folder / "driver", "linux-headers-" + options.kernel, "1~double", {})
    for version in options.toolkit:
        toolkit(folder / "toolkit", version)
    for name in ("driver", "toolkit"):
        index(folder / name, gpg)
    shutil.rmtree(folder / "gnupg")


if __name__ == "__main__":
    main()
