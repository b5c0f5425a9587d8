"""make mutants [AREA=health]: change the code in small ways, and see whether unit and integration tests notice.

Every mutant is made from the syntax tree of one function of the area (a comparison turned round, an "and" for an "or", a number one
higher, another text, a negation left out, a value not returned, ...), in a copy of the tree. The choice is the same on every run: as many
of each function as fit. It is killed when a test fails: first those beside the area, then, where these pass, the slower ones.

Writes build/mutants.json: {AREA: {"tried", "killed", "survivors": [{"file", "line", "was", "is"}], "seconds"}}.

    run.py [--area NAME ...] [--number N] [--only FILE:LINE] [--jobs N] [--list]
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import copy
import hashlib
import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import sys
import time
from typing import Iterator, List, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
HEALTH = "plugins/module_utils/health/"
REPORTS = "plugins/plugin_utils/health_"


class Area(NamedTuple):
    """files: patterns of what is changed. tests: beside it, tried first. slower: tried on what these leave."""

    files: tuple
    tests: tuple
    slower: tuple = ()


AREAS = {
    "health": Area(
        (
            HEALTH + "[d-r]*.py",
            HEALTH + "control.py",
            HEALTH + "probes/*.py",
            REPORTS + "healing.py",
            REPORTS + "remedies.py",
            REPORTS + "reports.py",
        ),
        ("tests/unit/health",),
        ("tests/unit/host", "tests/integration"),
    ),
    "protocol": Area(("plugins/module_utils/protocol.py",), ("tests/unit/protocol",), ("tests/unit/agent", "tests/integration")),
    "agent": Area(
        ("agent_src/beta9_agent/[a-o]*.py", "agent_src/beta9_agent/r*.py"),
        ("tests/unit/agent",),
        ("tests/integration/test_agent_process.py",),
    ),
    "host": Area(("plugins/module_utils/*.py",), ("tests/unit/host", "tests/unit/nvidia"), ("tests/integration",)),
}
OPPOSITE = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
}  # fmt: skip
BORDER = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}


class Mutant(NamedTuple):
    """One change: the file, its line, the place of the node in ast.walk, which change of that node, and both as text."""

    file: str
    line: int
    place: int
    kind: str
    was: str
    now: str


def changes(node: ast.AST) -> Iterator[tuple]:
    """Yield (name of a change, changed copy) of a node."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for kind, table in (("turned", OPPOSITE), ("border", BORDER)):
            if type(node.ops[0]) in table:
                other = copy.deepcopy(node)
                other.ops = [table[type(node.ops[0])]()]
                yield kind, other
    elif isinstance(node, ast.BoolOp):
        other = copy.deepcopy(node)
        other.op = OPPOSITE[type(node.op)]()
        yield "turned", other
    elif isinstance(node, ast.BinOp) and type(node.op) in OPPOSITE and not isinstance(node.left, (ast.Constant, ast.JoinedStr, ast.List)):
        other = copy.deepcopy(node)
        other.op = OPPOSITE[type(node.op)]()
        yield "turned", other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "affirmed", copy.deepcopy(node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "flipped", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        yield "more", ast.Constant(node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
        yield "renamed", ast.Constant(node.value + "x")
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield "dropped", ast.Return(ast.Constant(None))
    elif isinstance(node, ast.IfExp):
        other = copy.deepcopy(node)
        other.body, other.orelse = node.orelse, node.body
        yield "turned", other
    elif isinstance(node, ast.If) and not node.orelse:
        other = copy.deepcopy(node)
        other.test = ast.Constant(False)
        yield "skipped", other


def of_file(path: pathlib.Path) -> List[List[Mutant]]:
    """Return the mutants of a file, a list for each function, in an order that looks random and is always the same."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = str(path.relative_to(ROOT))
    places = {id(node): place for place, node in enumerate(ast.walk(tree))}
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        skip = {id(part) for part in ast.walk(function.args)} | {id(inner) for deco in function.decorator_list for inner in ast.walk(deco)}
        if ast.get_docstring(function):
            skip |= {id(part) for part in ast.walk(function.body[0])}
        mine = []
        for node in ast.walk(function):
            if id(node) in skip or not hasattr(node, "lineno"):
                continue
            for kind, other in changes(node):
                was, now = (ast.unparse(part).split("\n", maxsplit=1)[0] for part in (node, ast.fix_missing_locations(other)))
                mine.append(Mutant(name, node.lineno, places[id(node)], kind, was, now))
        mine.sort(key=lambda mutant: hashlib.sha256(("%s %s %s" % (function.name, mutant.was, mutant.now)).encode()).digest())
        found.append(mine)
    return found


def chosen(area: Area, number: int) -> List[Mutant]:
    """Return the mutants to try: of every function one, then of every function a second one, until there are enough."""
    functions = [mine for pattern in area.files for path in sorted(ROOT.glob(pattern)) for mine in of_file(path)]
    functions.sort(key=lambda mine: hashlib.sha256(repr(mine[:1]).encode()).digest())
    found = []
    for turn in range(max((len(mine) for mine in functions), default=0)):
        found += [mine[turn] for mine in functions if len(mine) > turn]
    return list(dict.fromkeys(found))[:number]


def text_of(mutant: Mutant, source: str) -> str:
    """Return the whole changed file. source: the file as it was when the mutants were made."""
    tree = ast.parse(source)
    target = list(ast.walk(tree))[mutant.place]
    other = dict(changes(target))[mutant.kind]

    class Change(ast.NodeTransformer):
        """Puts the changed node in its place."""

        def visit(self, node):
            return ast.copy_location(other, node) if node is target else super().visit(node)

    return ast.unparse(ast.fix_missing_locations(Change().visit(tree)))


def tree_copy(folder: pathlib.Path) -> None:
    """Copy what git knows of the working tree."""
    shutil.rmtree(folder, ignore_errors=True)
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    for name in filter(None, names):
        source, target = ROOT / name, folder / name
        if not os.path.lexists(source):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def passes(folder: pathlib.Path, tests: tuple, seconds: float) -> bool:
    """Return whether the tests pass in a tree. Those that do not end fail."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = dict(os.environ, ANSIBLE_COLLECTIONS_PATH=str(folder / "collections"), PYTHONDONTWRITEBYTECODE="1")
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.wait()
        return False


def near(mutant: Mutant, area: Area) -> tuple:
    """Return the tests beside the area that import the changed file: they mostly tell, and at once."""
    imports = re.compile(r"^from .* import .*\b%s\b" % pathlib.Path(mutant.file).stem, re.MULTILINE)
    files = [path for folder in area.tests for path in sorted((ROOT / folder).glob("test_*.py"))]
    return tuple(str(path.relative_to(ROOT)) for path in files if imports.search(path.read_text(encoding="utf-8")))


def survives(mutant: Mutant, area: Area, folders: queue.Queue, quick: bool) -> bool:
    """Try one mutant in a tree that is free."""
    folder = folders.get()
    path = folder / mutant.file
    kept = path.read_text(encoding="utf-8")
    try:
        path.write_text(text_of(mutant, kept), encoding="utf-8")
        stages = [near(mutant, area), area.tests] + ([] if quick else [area.slower])
        alive = all(passes(folder, tests, 300 * (1 + turn)) for turn, tests in enumerate(stages) if tests)
    finally:
        path.write_text(kept, encoding="utf-8")
        folders.put(folder)
    print(
        "%-9s %s:%d %s -> %s" % ("SURVIVED" if alive else "killed", mutant.file, mutant.line, mutant.was[:60], mutant.now[:60]),
        flush=True,
    )
    return alive


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area", action="append", choices=sorted(AREAS), help="default: all of them")
    parser.add_argument("--number", type=int, default=100, help="mutants of an area (default: %(default)s)")
    parser.add_argument("--only", default="", help="mutants whose FILE:LINE contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--quick", action="store_true", help="only the tests beside the area")
    parser.add_argument("--list", action="store_true", help="only show the mutants")
    options = parser.parse_args()
    report = ROOT / "build" / "mutants.json"
    results = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    folders: queue.Queue = queue.Queue()
    if not options.list:
        for job in range(options.jobs):
            folder = ROOT / "build" / "mutants" / str(job)
            tree_copy(folder)
            folders.put(folder)
    for name in options.area or sorted(AREAS):
        area, start = AREAS[name], time.monotonic()
        mutants = [mutant for mutant in chosen(area, options.number) if options.only in "%s:%d" % (mutant.file, mutant.line)]
        if options.list:
            for mutant in mutants:
                print("%s:%d %s -> %s" % (mutant.file, mutant.line, mutant.was, mutant.now))
            continue
        if not passes(ROOT / "build" / "mutants" / "0", area.tests, 600):
            sys.exit("%s: expected the tests to pass before anything is changed: %s" % (name, " ".join(area.tests)))
        with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
            alive = list(pool.map(lambda mutant, area=area: survives(mutant, area, folders, options.quick), mutants))
        left = [mutant for mutant, lives in zip(mutants, alive) if lives]
        results[name] = {
            "tried": len(mutants),
            "killed": len(mutants) - len(left),
            "survivors": [{"file": mutant.file, "line": mutant.line, "was": mutant.was, "is": mutant.now} for mutant in left],
            "seconds": round(time.monotonic() - start),
        }
        print("%s: %d of %d killed" % (name, results[name]["killed"], results[name]["tried"]))
        report.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return 0 if all(results[name]["killed"] >= 0.9 * results[name]["tried"] for name in options.area or sorted(AREAS) if name in results) else 1


if __name__ == "__main__":
    sys.exit(main())
