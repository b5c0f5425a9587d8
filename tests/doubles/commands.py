"""Stand-ins for programs that a test may not run on the machine that it runs on: each notes its words and answers what it was told to."""

from __future__ import annotations

import json
import os
import pathlib
import sys

PROGRAM = """#!{python} -I
import json, sys
with open({log!r}, "a") as log:
    log.write(json.dumps([{name!r}, *sys.argv[1:]]) + "\\n")
for start, status, output in json.load(open({answers!r})):
    if " ".join(sys.argv[1:]).startswith(start):
        sys.stdout.write(output)
        sys.exit(status)
"""


class Commands:
    """A directory of stand-ins, to be the first of PATH."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.log = folder, folder / "calls.jsonl"
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, *answers: tuple[str, int, str]) -> None:
        """Make a program. answers: (start of its words, exit status, output), the first that fits; without one it ends with 0."""
        path, table = self.folder / name, self.folder / f"{name}.json"
        table.write_text(json.dumps(answers))
        path.write_text(PROGRAM.format(python=sys.executable, log=str(self.log), name=name, answers=str(table)))
        path.chmod(0o755)

    def environment(self) -> dict[str, str]:
        """Return the environment in which the stand-ins are found first."""
        return {"PATH": f"{self.folder}:{os.environ['PATH']}"}

    def calls(self, name: str = "") -> list[list[str]]:
        """Return the words of each call so far, of one program or of all."""
        found = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [words for words in found if not name or words[0] == name]
