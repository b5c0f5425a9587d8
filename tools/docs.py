"""Build the site of the documentation: python tools/docs.py -> build/docs/html

The guides and check pages of docs/, the changelog, and the reference that antsibull-docs makes of every plugin and
role. Any warning fails the build, and so does a link, an image or an anchor that leads nowhere.
"""

from __future__ import annotations

import html.parser
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "docs"
SOURCE, HTML, STAGE = BUILD / "source", BUILD / "html", BUILD / "collections"


def typed_default_is_template(option):
    """Say whether a default is worked out at run time, which the schema of antsibull-docs knows for text only."""
    return (
        isinstance(option.get("default"), str)
        and "{{" in option["default"]
        and option.get("type", "str") not in ("str", "path", "raw")
    )


def documented(specs):
    """Return a role's argument specs as antsibull-docs takes them."""
    for entry in specs["argument_specs"].values():
        entry.setdefault("description", [entry["short_description"] + "."])
        for option in entry.get("options", {}).values():
            if typed_default_is_template(option):
                text = option["description"]
                option["description"] = (text if isinstance(text, list) else [text]) + [
                    f"By default C({option.pop('default').strip()})."
                ]
    return specs


def stage():
    """Lay out what antsibull-docs reads."""
    target = STAGE / "ansible_collections" / "beta9" / "workers"
    shutil.copytree(ROOT / "plugins", target / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "meta", target / "meta")
    for name in ("galaxy.yml", "README.md"):
        shutil.copy(ROOT / name, target / name)
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        copy = target / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True)
        (copy.parent.parent / "tasks").mkdir()
        (copy.parent.parent / "tasks" / "main.yml").write_text("---\n")
        copy.write_text(yaml.safe_dump(documented(yaml.safe_load(path.read_text(encoding="utf-8"))), sort_keys=False))


def trimmed(text):
    """Return a page of the reference without its table of contents, which the theme has beside it, and with a short
    title."""
    text = re.sub(r"^\.\. contents::\n(?:   .*\n)*", "", text, flags=re.MULTILINE)
    return re.sub(r"^beta9\.workers\.(\w+ \w+ -- )", r"\1", text, flags=re.MULTILINE).replace(
        "\nBeta9.Workers\n", "\nThe reference\n"
    )


def is_internal(documentation: dict) -> bool:
    """Say whether a plugin is for this collection alone: the first sentence of its description says so."""
    return documentation["description"][0].startswith("Internal to ")


def internal(kind: str, name: str) -> bool:
    """Say whether a plugin of a kind ("module", "filter", ...) is for this collection alone."""
    path = ROOT / "plugins" / ("modules" if kind == "module" else kind) / (name + ".py")
    found = (
        re.search(r'(?ms)^DOCUMENTATION = r?"""(.*?)^"""', path.read_text(encoding="utf-8")) if path.exists() else None
    )
    return bool(found) and is_internal(yaml.safe_load(found.group(1)))


def sorted_index(text: str, is_hidden: Callable[[str, str], bool] = internal) -> str:
    """Return the index of the reference with what is for users first, and all that is_hidden(kind, name) in a list of
    its own at the end."""
    hidden = []
    for line in re.findall(r"(?m)^\* :ansplugin:`.*\n", text):
        kind, name = re.search(r"<[\w.]+\.(\w+)#(\w+)>", line).group(2, 1)
        if is_hidden(kind, name):
            hidden.append(line)
            text = text.replace(line, "")

    def users_first(entries: re.Match) -> str:
        pages = re.findall(r"    (\w+)_([a-z]+)\n", entries.group())
        return "".join(
            f"    {name}_{kind}\n" for name, kind in sorted(pages, key=lambda page: is_hidden(page[1], page[0]))
        )

    text = re.sub(r"(?m)(?:^    \w+_[a-z]+\n)+", users_first, text)
    text = re.sub(r"(?m)(^~~+\n)\n\n(?=\.\. toctree|\Z)", r"\1\nOnly internal ones, see below.\n\n", text)
    return (
        f"{text.rstrip()}\n\nInternal\n--------\n\nWhat the roles and playbooks use. These may change with any "
        f"release.\n\n{''.join(hidden)}"
    )


def run(*command):
    """Run a program of this virtual environment, with the staged collection. End here if it fails."""
    environment = dict(
        os.environ,
        ANSIBLE_COLLECTIONS_PATH=str(STAGE),
        PATH=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}",
    )
    status = subprocess.run(command, check=False, env=environment, cwd=ROOT).returncode
    if status:
        sys.exit(f"{command[0]} failed with {status}")


def without_links_out(path):
    """Turn links to files that are not part of the site, of the checkout for example, into the words they stand on."""

    def shown(match):
        target = (path.parent / match.group(2)).resolve()
        return match.group(0) if target.is_relative_to(SOURCE) else match.group(1)

    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"\[([^\]]*)\]\((\.\./[^)#]*)(?:#[^)]*)?\)", shown, text), encoding="utf-8")


class Page(html.parser.HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src", "data") and value:
                self.links.append(value)
            if name in ("id", "name") and value:
                self.anchors.add(value)


def dead_links(folder):
    """Return "page: link" for every internal link of a site that leads nowhere."""
    pages = {path.resolve(): Page(path) for path in sorted(folder.rglob("*.html"))}
    dead = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or (path.name in ("genindex.html", "search.html") and not parts.path):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages.get(target)
            if not target.exists() or (parts.fragment and known and unquote(parts.fragment) not in known.anchors):
                dead.append(f"{path.relative_to(folder.resolve())}: {link}")
    return dead


def main():
    shutil.rmtree(BUILD, ignore_errors=True)
    STAGE.mkdir(parents=True)
    stage()
    shutil.copytree(ROOT / "docs", SOURCE)
    shutil.copy(ROOT / "CHANGELOG.rst", SOURCE / "changelog.rst")
    for path in SOURCE.rglob("*.md"):
        without_links_out(path)
    index = SOURCE / "index.md"
    text = index.read_text(encoding="utf-8")
    others = [
        guide
        for guide in ("guides/" + path.stem for path in sorted((SOURCE / "guides").glob("*.md")))
        if guide + "\n" not in text
    ]
    index.write_text(
        text.replace("guides/support-matrix\n```", "\n".join(others + ["guides/support-matrix\n```"])), encoding="utf-8"
    )
    with open(SOURCE / "checks" / "README.md", "a", encoding="utf-8") as checks:
        checks.write("\n```{toctree}\n:hidden:\n:glob:\n\n*\n```\n")
    reference = SOURCE / "reference"
    reference.mkdir(mode=0o755)
    run("antsibull-docs", "collection", "--use-current", "--squash-hierarchy", "--fail-on-error",
        "--no-add-antsibull-docs-version", "--dest-dir", str(reference), "beta9.workers")  # fmt: skip
    for path in reference.glob("*.rst"):
        path.write_text(trimmed(path.read_text(encoding="utf-8")), encoding="utf-8")
    index = reference / "index.rst"
    index.write_text(sorted_index(index.read_text(encoding="utf-8")), encoding="utf-8")
    run(
        "sphinx-build",
        "-q",
        "-W",
        "--keep-going",
        "-j",
        "2",
        "-b",
        "html",
        "-d",
        str(BUILD / "doctrees"),
        str(SOURCE),
        str(HTML),
    )
    dead = dead_links(HTML)
    for line in dead:
        print("dead link:", line)
    print(f"{len(list(HTML.rglob('*.html')))} pages in {HTML.relative_to(ROOT)}")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
