"""CONTRIBUTING.md names files and commands: they exist."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_every_path_exists():
    named = {path.rstrip("/") for path in re.findall(r"`((?:plugins|roles|tests|playbooks|docs|awx|agent_src|molecule|changelogs)/[^` ]*)`", TEXT)}
    assert len(named) > 15
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_command_of_make_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {word for words in re.findall(r"`?make ((?:[a-z-]+ ?)+)`", TEXT) for word in words.split()}
    assert {"lint", "unit", "test", "generate"} <= named <= targets


def test_each_way_to_extend_has_five_steps():
    chapters = re.findall(r"^## Add [^\n]+\n\n(.*?)(?=\n## |\Z)", TEXT, re.M | re.S)
    assert len(chapters) == 4
    for chapter in chapters:
        assert re.findall(r"^(\d)\. ", chapter, re.M) == list("12345")
