"""The security page: each statement names the test that proves it, or says that none does."""

from __future__ import annotations

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/guides/security.md"
PROVEN = re.compile(r"\((?:tests?: `tests/[^()]*|[^()]*not tested)\)")


def blocks(text):
    """Return the statements: list entries, rows of tables that say how, and paragraphs."""
    found, table = [], ""
    for block in re.split(r"\n\s*\n|\n(?=- )|\n(?=\|)", text):
        block = block.strip()
        if block.startswith("|"):
            table = block if not table else table
            # the table of secrets has its statement before it
            if block not in (table,) and not block.startswith("|-") and not table.startswith("| secret "):
                found.append(block)
            continue
        table = ""
        if block and not block.startswith(("#", "!")):
            found.append(block)
    return found


def test_each_statement_has_its_proof_or_says_that_it_has_none():
    missing = [block for block in blocks(PAGE.read_text()) if not PROVEN.search(block)]
    assert not missing


def test_the_proofs_are_there():
    """Each is named by file and function, or by the check that it makes fail on a host."""
    named = [name.partition("::")[::2] for name in re.findall(r"`(tests/[^`]+)`", PAGE.read_text())]
    assert len(named) > 50
    for path, name in named:
        place = rf'^def {re.escape(name)}\(|^ +"{re.escape(name)}",$'
        assert re.search(place, (ROOT / path).read_text(), re.MULTILINE), (path, name)


def test_the_first_screen_says_what_a_worker_is_trusted_with():
    first = PAGE.read_text()[:600]
    assert "root on a worker must be trusted like an admin of the gateway" in first
