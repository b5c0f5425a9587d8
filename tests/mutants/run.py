"""make mutants [AREA=health NUMBER=30]: make small changes to the code, and see whether unit and integration tests notice.

Mutants made by hand stand in catalog.py: one small mistake each that a person could make and that would hurt. NUMBER more of each area are
made from the syntax tree of its functions (a comparison turned round, an "and" for an "or", a number one higher, a negation left out, a value
not returned, ...); the choice is the same on every run: as many of each function as fit. One is killed when a test fails.

The tests run once under coverage first, which tells which of them reach which line (build/mutants/lines.json, kept while the code is the
same). A mutant is tried, in a copy of the tree, against those that reach it, the quickest first.

Writes build/mutants.json: {AREA: {"tried", "killed", "survivors": [{"file", "line", "was", "is", "tests"}], "seconds"}}, the area "all"
being the sum. Ends with 1 when less than nine of ten are killed, or when fewer than 150 of catalog.py fit the code as it is now.

    run.py [--area NAME ...] [--number N] [--only TEXT] [--jobs N] [--keep] [--list]
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
from collections.abc import Iterator
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.mutants import catalog, serve

BUILD = ROOT / "build" / "mutants"
TESTS = ("tests/unit", "tests/contract", "tests/integration")
AREAS = {
    "protocol": ("plugins/module_utils/gateway/protocol.py", "plugins/module_utils/grammar.py"),
    "gateway": (
        "plugins/module_utils/exchange.py",
        "plugins/module_utils/gateway/api.py",
        "plugins/module_utils/gateway/machine_runner.py",
        "plugins/module_utils/tunnel/peers.py",
        "plugins/module_utils/tunnel/messages.py",
    ),
    "agent": ("agent_src/beta9_agent/[a-o]*.py", "agent_src/beta9_agent/[q-z]*.py"),
    "modules": ("plugins/modules/*.py", "plugins/action/*.py"),
    "health": (
        "plugins/module_utils/health/*.py",
        "plugins/module_utils/health/checks/*.py",
        "plugins/module_utils/health/probes/*.py",
        "plugins/plugin_utils/health_*.py",
    ),
    "host": ("plugins/module_utils/*.py", "plugins/module_utils/[!h]*/*.py", "plugins/module_utils/host/*.py"),
    "controller": ("plugins/plugin_utils/*.py", "plugins/filter/*.py", "plugins/inventory/*.py", "plugins/lookup/*.py"),
}
ENOUGH = 150  # made by hand
OPPOSITE = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
}  # fmt: skip
BORDER = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}


class Mutant(NamedTuple):
    """One change: the file, the lines of the statement that it is in, both texts, and the whole changed file."""

    file: str
    line: int
    last: int
    was: str
    now: str
    source: str


def replaced(node: ast.AST, **fields: Any) -> ast.AST:
    """Return a copy of a node with other fields."""
    other = copy.deepcopy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def compared(node: ast.Compare) -> Iterator[ast.AST]:
    """Yield what a comparison may become."""
    if len(node.ops) == 1:
        for table in (OPPOSITE, BORDER):
            if type(node.ops[0]) in table:
                yield replaced(node, ops=[table[type(node.ops[0])]()])


def constant(node: ast.Constant) -> Iterator[ast.AST]:
    """Yield what a constant may become."""
    if isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node.value, (int, float)):
        yield ast.Constant(node.value + 1)
    elif isinstance(node.value, str) and node.value.isidentifier():
        yield ast.Constant(node.value + "x")


def changes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the changed copies of a node."""
    if isinstance(node, ast.Compare):
        yield from compared(node)
    elif isinstance(node, ast.Constant):
        yield from constant(node)
    elif isinstance(node, ast.BoolOp):
        yield replaced(node, op=OPPOSITE[type(node.op)]())
    elif isinstance(node, ast.BinOp):
        if type(node.op) in OPPOSITE and not isinstance(node.left, (ast.Constant, ast.JoinedStr, ast.List)):
            yield replaced(node, op=OPPOSITE[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, ast.IfExp):
        yield replaced(node, body=node.orelse, orelse=node.body)
    elif isinstance(node, ast.If) and not node.orelse:
        yield replaced(node, test=ast.Constant(False))


def own_nodes(function: ast.AST) -> Iterator[tuple[ast.AST, ast.stmt]]:
    """Yield (node, its innermost statement) of what a function does: not its signature, decorators, docstring and inner functions."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    todo = [(statement, statement) for statement in body]
    while todo:
        node, statement = todo.pop()
        yield node, statement
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                todo.append((child, child if isinstance(child, ast.stmt) else statement))


def end_of(statement: ast.stmt) -> int:
    """Return the last line of a statement, of a compound one that of its head."""
    body = getattr(statement, "body", None)
    return (
        body[0].lineno - 1
        if isinstance(body, list) and body and body[0].lineno > statement.lineno
        else statement.end_lineno or statement.lineno
    )


def of_function(name: str, tree: ast.Module, function: ast.AST) -> list[tuple[str, Mutant]]:
    """Return (key that orders them, mutant without its source) of a function; the source is made when it is tried."""
    found = []
    for node, statement in own_nodes(function):
        for number, other in enumerate(changes(node)):
            was, now = (
                ast.unparse(part).split("\n", maxsplit=1)[0] for part in (node, ast.fix_missing_locations(other))
            )
            key = hashlib.sha256(f"{function.name} {was} {now}".encode()).hexdigest()
            found.append((key, (Mutant(name, statement.lineno, end_of(statement), was, now, ""), tree, node, number)))
    return sorted(found, key=lambda entry: entry[0])


def with_source(made: tuple) -> Mutant:
    """Return a generated mutant with the whole changed file."""
    mutant, tree, node, number = made
    wanted, other = node, list(changes(node))[number]

    class Change(ast.NodeTransformer):
        """Puts the changed node in its place."""

        def visit(self, node: ast.AST) -> ast.AST:
            return ast.copy_location(other, node) if node is wanted else super().visit(node)

    changed = ast.unparse(ast.fix_missing_locations(Change().visit(copy_keeping(tree, wanted))))
    return mutant._replace(source=changed)


def copy_keeping(tree: ast.AST, kept: ast.AST) -> ast.AST:
    """Return a copy of a tree in which one node is the very same."""
    return copy.deepcopy(tree, {id(kept): kept})


def files_of(area: str) -> list[pathlib.Path]:
    """Return the files of an area: those that an area before it has are not its own."""
    taken: set[pathlib.Path] = set()
    for name, patterns in AREAS.items():
        found = {path for pattern in patterns for path in ROOT.glob(pattern) if not path.is_symlink()} - taken
        if name == area:
            return sorted(found)
        taken |= found
    raise KeyError(area)


def generated(area: str, number: int) -> list[Mutant]:
    """Return the mutants made from the syntax tree: of every function one, then of every function a second one, until there are enough."""
    functions = []
    for path in files_of(area):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for function in ast.walk(tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                functions.append(of_function(str(path.relative_to(ROOT)), tree, function))
    functions.sort(key=lambda mine: mine[0][0] if mine else "")
    turns = range(max((len(mine) for mine in functions), default=0))
    made = [mine[turn][1] for turn in turns for mine in functions if len(mine) > turn]
    return [with_source(entry) for entry in made[:number]]


def by_hand(area: str) -> tuple[list[Mutant], list[catalog.Mistake]]:
    """Return (mutants of catalog.py, those whose text isn't there exactly once)."""
    own, found, stale = {str(path.relative_to(ROOT)) for path in files_of(area)}, [], []
    for mistake in catalog.MISTAKES:
        if mistake.file not in own:
            continue
        source = (ROOT / mistake.file).read_text(encoding="utf-8")
        if source.count(mistake.was) != 1:
            stale.append(mistake)
            continue
        line = source[: source.index(mistake.was)].count("\n") + 1
        last = line + mistake.was.rstrip("\n").count("\n")
        found.append(
            Mutant(mistake.file, line, last, mistake.was, mistake.now, source.replace(mistake.was, mistake.now))
        )
    return found, stale


def tree_files() -> list[str]:
    """Return what git knows of the working tree, and what it would add."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    return sorted(name for name in names if name and os.path.lexists(ROOT / name))


def tree_copy(folder: pathlib.Path) -> None:
    """Copy the working tree; what is compiled already there is compiled once."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in tree_files():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


class Reach(NamedTuple):
    """Which tests reach what. seconds: {test: how long it takes}. lines: {file: {line: [test]}}, "" for what runs at import."""

    seconds: dict[str, float]
    lines: dict[str, dict[str, list[str]]]

    def of(self, mutant: Mutant) -> list[str]:
        """Return the tests that reach a mutant, the quickest first; of what runs at import only, all that use or name the file."""
        lines = self.lines.get(mutant.file, {})
        found = {test for line in range(mutant.line, mutant.last + 1) for test in lines.get(str(line), ())}
        if found == {""} or not inside_function(mutant):
            word = re.compile(rf"\b{pathlib.Path(mutant.file).stem}\b")
            files = {test.partition("::")[0] for test in self.seconds}
            naming = {name for name in files if word.search((ROOT / name).read_text(encoding="utf-8"))}
            found = {test for tests in lines.values() for test in tests} | {test for test in self.seconds if test.partition("::")[0] in naming}
        return sorted(
            found & set(self.seconds), key=lambda test: (not test.startswith("tests/unit"), self.seconds[test], test)
        )


def inside_function(mutant: Mutant) -> bool:
    """Return whether the mutant is in the body of a function, and so runs with a test rather than with an import."""
    for node in ast.walk(ast.parse((ROOT / mutant.file).read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.body[0].lineno <= mutant.line <= (
            node.end_lineno or 0
        ):
            return True
    return False


def marks() -> dict[str, str]:
    """Return {file: mark of its content} of what decides which tests reach what."""
    folders = ("plugins/", "agent_src/", "tests/doubles/", "tests/conftest.py") + TESTS
    names = [
        name for name in tree_files() if name.startswith(folders) and name.endswith(".py") and (ROOT / name).is_file()
    ]
    return {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in names}


def reach(keep: bool) -> Reach:
    """Return which tests reach which lines. Only files of tests that changed since the last time run again, if nothing else changed.

    keep: take what there is, whatever else changed.
    """
    report, now = BUILD / "lines.json", marks()
    kept = (
        json.loads(report.read_text(encoding="utf-8")) if report.exists() else {"marks": {}, "seconds": {}, "lines": {}}
    )
    changed = {name for name in set(now) | set(kept["marks"]) if now.get(name) != kept["marks"].get(name)}
    own = {name for name in changed if name.startswith(TESTS) and pathlib.Path(name).name.startswith("test_")}
    if not kept["lines"] or (changed - own and not keep):
        kept, todo = {"seconds": {}, "lines": {}}, list(TESTS)
    else:
        todo = sorted(name for name in own if name in now)
    if todo:
        print("which tests reach which lines: running under coverage " + " ".join(todo), flush=True)
        part = BUILD / "part.json"
        subprocess.run([sys.executable, "-m", "tests.mutants.lines", str(part), *todo], cwd=ROOT, check=True)
        found = json.loads(part.read_text(encoding="utf-8"))
        kept["seconds"] = {
            test: took for test, took in kept["seconds"].items() if test.partition("::")[0] not in own
        } | found["seconds"]
        for name, lines in found["lines"].items():
            before = kept["lines"].setdefault(name, {})
            for line, tests in lines.items():
                before[line] = sorted(set(before.get(line, ())) | set(tests))
        report.write_text(json.dumps(dict(kept, marks=now)), encoding="utf-8")
    return Reach(kept["seconds"], kept["lines"])


def survives(mutant: Mutant, tests: list[str], seconds: float, servers: queue.Queue) -> bool:
    """Try one mutant in a tree that is free. seconds: what its tests take without it."""
    if not tests:
        print(
            f"SURVIVED  {mutant.file}:{mutant.line} (no test reaches it) {mutant.was[:60]!r} -> {mutant.now[:60]!r}",
            flush=True,
        )
        return True
    server = servers.get()
    path = server.folder / mutant.file
    kept = path.read_text(encoding="utf-8")
    try:
        path.write_text(mutant.source, encoding="utf-8")
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()
        killer = server.first_failure(tests, 20 + 5 * seconds)
    finally:
        path.write_text(kept, encoding="utf-8")
        servers.put(server)
    told = f"killed    {killer.rpartition('::')[2][:40]:40}" if killer else f"SURVIVED  ({len(tests)} tests)"
    print(f"{told} {mutant.file}:{mutant.line} {mutant.was[:70]!r} -> {mutant.now[:70]!r}", flush=True)
    return not killer


def tried(mutants: list[Mutant], reached: Reach, servers: queue.Queue, jobs: int) -> dict[str, Any]:
    """Return the result of an area."""
    start = time.monotonic()
    tests = [reached.of(mutant) for mutant in mutants]
    seconds = [sum(reached.seconds[test] for test in names) for names in tests]
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        alive = list(pool.map(survives, mutants, tests, seconds, [servers] * len(mutants)))
    left = [(mutant, names) for mutant, names, lives in zip(mutants, tests, alive) if lives]
    survivors = [
        {"file": one.file, "line": one.line, "was": one.was, "is": one.now, "tests": len(names)} for one, names in left
    ]
    return {
        "tried": len(mutants),
        "killed": len(mutants) - len(left),
        "survivors": survivors,
        "seconds": round(time.monotonic() - start),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--area", action="append", choices=list(AREAS), help="default: all of them")
    parser.add_argument(
        "--number",
        type=int,
        default=0,
        help="generated mutants of an area, beside those made by hand (default: %(default)s)",
    )
    parser.add_argument("--only", default="", help="mutants whose FILE:LINE contains this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--keep", action="store_true", help="take the lines that tests reached before, though the tree is another"
    )
    parser.add_argument("--list", action="store_true", help="only show the mutants")
    options = parser.parse_args()
    report = ROOT / "build" / "mutants.json"
    names = options.area or list(AREAS)
    results = json.loads(report.read_text(encoding="utf-8")) if report.exists() and options.area else {}
    todo, stale = {}, []
    for name in names:
        made, old = by_hand(name)
        stale += old
        todo[name] = [one for one in made + generated(name, options.number) if options.only in f"{one.file}:{one.line}"]
    for mistake in stale:
        print(f"STALE     {mistake.file}: expected this text once: {mistake.was!r}")
    if options.list:
        for one in (one for mutants in todo.values() for one in mutants):
            print(f"{one.file}:{one.line} {one.was!r} -> {one.now!r}")
        return 0
    reached = reach(options.keep)
    servers: queue.Queue = queue.Queue()
    for job in range(options.jobs):
        tree_copy(BUILD / str(job))
        servers.put(serve.Server(BUILD / str(job)))
    for name in names:
        results[name] = tried(todo[name], reached, servers, options.jobs)
        print(f"{name}: {results[name]['killed']} of {results[name]['tried']} killed", flush=True)
    results.pop("all", None)
    results["all"] = {key: sum(area[key] for area in results.values()) for key in ("tried", "killed", "seconds")}
    results["all"]["stale"] = [f"{mistake.file}: {mistake.was}" for mistake in stale]
    report.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"all: {results['all']['killed']} of {results['all']['tried']} killed")
    few = not options.area and len(catalog.MISTAKES) - len(stale) < ENOUGH
    return 1 if few or results["all"]["killed"] < 0.9 * results["all"]["tried"] else 0


if __name__ == "__main__":
    sys.exit(main())
