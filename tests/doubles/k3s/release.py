"""A TEST DOUBLE of the k3s project's download site: release files by version, with their lists of checksums.

    release.py build FOLDER VERSION[=FAULT] ...   make FOLDER/VERSION/{k3s,sha256sum-amd64.txt,k3s-airgap-images-amd64.tar.zst}
    release.py serve FOLDER PORT                  serve it; FOLDER/fault.json {"truncate": PATH} cuts that file's transfer in half

The program in a release is an executable archive of k3s_double.py and the YAML library of the Python that builds it.
"""

import hashlib
import http.server
import io
import json
import os
import pathlib
import sys
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
# The version at once, as the real program does: health checks do not wait for it
LAUNCHER = """import sys
if sys.argv[1:] == ["--version"]:
    print(sys.argv[0].rpartition("/")[2], "version", "%s", "(TEST DOUBLE)")
    sys.exit()
import k3s_double
"""


def program(version, fault):
    """Return the bytes of a release's program."""
    import yaml

    text = (HERE / "k3s_double.py").read_text()
    text = text.replace('VERSION = "v0.0.0"', "VERSION = %r" % version).replace('FAULT = ""', "FAULT = %r" % fault)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        entries = [("__main__.py", LAUNCHER % version), ("k3s_double.py", text)]
        entries += [("yaml/" + path.name, path.read_text()) for path in sorted(pathlib.Path(yaml.__file__).parent.glob("*.py"))]
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name, (2026, 1, 1, 0, 0, 0)), content)
    return b"#!/usr/bin/env python3\n" + data.getvalue()


def build(folder, version, fault=""):
    """Write the files of one release."""
    target = pathlib.Path(folder) / version
    target.mkdir(parents=True, exist_ok=True)
    files = {"k3s": program(version, fault), "k3s-airgap-images-amd64.tar.zst": b"images of the TEST DOUBLE " + version.encode() * 4096}
    lines = []
    for name, data in files.items():
        (target / name).write_bytes(data)
        lines.append("%s  %s" % (hashlib.sha256(data).hexdigest(), name))
    (target / "sha256sum-amd64.txt").write_text("\n".join(lines) + "\n")


class Site(http.server.SimpleHTTPRequestHandler):
    """Files, one of which may end too early."""

    def do_GET(self):
        try:
            with open("fault.json", encoding="utf-8") as stream:
                cut = json.load(stream).get("truncate")
        except FileNotFoundError:
            cut = None
        path = self.translate_path(self.path)
        if cut and os.path.relpath(path) == cut:
            with open(path, "rb") as stream:
                data = stream.read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        super().do_GET()

    def log_message(self, *_args):
        pass


def main():
    verb, folder, *rest = sys.argv[1:]
    if verb == "build":
        for entry in rest:
            build(folder, *entry.split("="))
        return
    os.chdir(folder)
    http.server.ThreadingHTTPServer(("0.0.0.0", int(rest[0])), Site).serve_forever()


if __name__ == "__main__":
    main()
