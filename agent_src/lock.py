"""Write requirements.txt from requirements.in: every wheel for both CPU architectures, with version and sha256."""

import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile

# What httpx asks for, and loads for asynchronous programs only. Packages are installed without looking at what they ask
# for.
LEFT_OUT = {"anyio", "typing-extensions", "exceptiongroup", "sniffio"}
HERE = pathlib.Path(__file__).parent
PLATFORMS = {
    "x86_64": ["manylinux2014_x86_64", "manylinux_2_28_x86_64"],
    "aarch64": ["manylinux2014_aarch64", "manylinux_2_28_aarch64"],
}


def main():
    hashes = {}
    for tags in PLATFORMS.values():
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--only-binary=:all:",
                "--python-version=3.10",
                "--implementation=cp",
                "--abi=abi3",
                "--abi=none",
                "--dest",
                folder,
                "--requirement",
                str(HERE / "requirements.in"),
            ]
            subprocess.run(command + ["--platform=" + tag for tag in tags], check=True)
            for wheel in sorted(pathlib.Path(folder).glob("*.whl")):
                name, version = wheel.name.split("-")[:2]
                hashes.setdefault((name.replace("_", "-"), version), set()).add(
                    hashlib.sha256(wheel.read_bytes()).hexdigest()
                )
    lines = ["# Made from requirements.in by lock.py (make agent-lock). Do not edit.\n"]
    kept = {key: digests for key, digests in hashes.items() if key[0] not in LEFT_OUT}
    for (name, version), digests in sorted(kept.items(), key=lambda entry: re.sub(r"[-_.]+", "-", entry[0][0]).lower()):
        lines.append(" \\\n    --hash=sha256:".join([f"{name}=={version}", *sorted(digests)]) + "\n")
    (HERE / "requirements.txt").write_text("".join(lines))


if __name__ == "__main__":
    main()
