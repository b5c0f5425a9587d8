"""What builds documentation and release: a dead link is seen, markup becomes Markdown, an archive has one form."""

from __future__ import annotations

import io
import sys
import tarfile

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))

import dist
import docs
import role_pages


def test_dead_links_are_found(tmp_path):
    text = '<h1 id="top">A</h1><a href="b.html#there">1</a><a href="#top">2</a><a href="https://example.com/x">3</a><img src="p.svg">'
    (tmp_path / "a.html").write_text(text)
    (tmp_path / "b.html").write_text('<p id="there"></p><a href="a.html">4</a>')
    (tmp_path / "p.svg").write_text("")
    assert docs.dead_links(tmp_path) == []
    (tmp_path / "b.html").write_text('<a href="c.html">4</a>')
    (tmp_path / "p.svg").unlink()
    assert docs.dead_links(tmp_path) == ["a.html: b.html#there", "a.html: p.svg", "b.html: c.html"]


def test_default_that_is_a_template_is_told_in_words():
    options = {"port": {"type": "int", "default": "{{ x }}", "description": "The port."}}
    options["name"] = {"type": "str", "default": "{{ y }}", "description": "A name."}
    specs = docs.documented({"argument_specs": {"main": {"short_description": "Do", "options": options}}})["argument_specs"]["main"]
    assert specs["options"]["port"] == {"type": "int", "description": ["The port.", "By default C({{ x }})."]}
    assert specs["options"]["name"]["default"] == "{{ y }}" and specs["description"] == ["Do."]


def test_markup_becomes_markdown():
    text = "See M(beta9.workers.machine#module), P(beta9.workers.agent#role), V(a), C(f(x)) and\n U(https://example.com)."
    assert role_pages.plain(text) == "See `beta9.workers.machine`, `beta9.workers.agent`, `a`, `f(x)` and <https://example.com>."


def test_archive_has_one_form(tmp_path):
    """Two archives of the same content, in another order, with other times, owners and modes."""
    files = {"MANIFEST.json": b'{"file_manifest_file": {"chksum_sha256": ""}}', "FILES.json": b"", "b/x": b"x", "a": b"a"}
    made = []
    for number, names in enumerate((["FILES.json", "MANIFEST.json", "b", "b/x", "a"], ["a", "b", "b/x", "MANIFEST.json", "FILES.json"])):
        listing = b'{"files": [%s]}' % b", ".join(b'{"name": "%s"}' % name.encode() for name in names if ".json" not in name)
        with tarfile.open(tmp_path / ("raw%d" % number), "w:gz") as archive:
            for name in names:
                entry = tarfile.TarInfo(name)
                entry.type = tarfile.DIRTYPE if name == "b" else tarfile.REGTYPE
                content = listing if name == "FILES.json" else files.get(name, b"")
                entry.size, entry.mtime, entry.uid, entry.mode = len(content), 1000 + number, number, 0o644 if number else 0o640
                archive.addfile(entry, io.BytesIO(content))
        dist.canonical(tmp_path / ("raw%d" % number), tmp_path / ("made%d" % number), 1700000000)
        made.append((tmp_path / ("made%d" % number)).read_bytes())
    assert made[0] == made[1]
    with tarfile.open(tmp_path / "made0") as archive:
        assert archive.getnames() == ["MANIFEST.json", "FILES.json", "a", "b", "b/x"]
        assert {member.mtime for member in archive.getmembers()} == {1700000000}
