"""Run tests under coverage, and write which of them reach which line, in this process and in those that they start.

python -m tests.mutants.lines REPORT TEST ...
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
import tempfile

import coverage
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# a process that a test starts has the test's name for its context
SETTINGS = """[run]
parallel = true
data_file = %(folder)s/data
context = ${B9_TEST-}
include = %(root)s/plugins/*,%(root)s/agent_src/*
disable_warnings = no-data-collected,module-not-measured
"""


class Contexts:
    """Name what is measured after the test that runs, and keep how long each takes and whether it passes."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured = measured
        self.seconds: dict[str, float] = {}
        self.left_out: set[str] = set()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item):
        os.environ["B9_TEST"] = item.nodeid
        self.measured.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self.measured.switch_context("")
            os.environ.pop("B9_TEST", None)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if not report.passed:
            self.left_out.add(report.nodeid)


def main(report: str, *tests: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        settings = pathlib.Path(folder) / "coveragerc"
        settings.write_text(SETTINGS % {"folder": folder, "root": ROOT}, encoding="utf-8")
        os.environ["COVERAGE_PROCESS_START"] = str(
            settings
        )  # read by coverage's .pth file in every Python that a test starts
        measured = coverage.Coverage(config_file=str(settings))
        measured.start()
        contexts = Contexts(measured)
        pytest.main(["-q", "-p", "no:cacheprovider", *tests], plugins=[contexts])
        measured.stop()
        measured.save()
        del os.environ["COVERAGE_PROCESS_START"]
        measured.combine()
        data = measured.get_data()
        lines = {}
        for path in data.measured_files():
            by_line = data.contexts_by_lineno(path)
            found = {
                line: sorted({name.split("|")[0] or name.rpartition("|")[2] for name in names})
                for line, names in by_line.items()
            }
            lines[str(pathlib.Path(path).relative_to(ROOT))] = found
    # a test that fails, or is skipped, before anything is changed tells nothing
    seconds = {name: round(took, 3) for name, took in contexts.seconds.items() if name not in contexts.left_out}
    pathlib.Path(report).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(report).write_text(json.dumps({"seconds": seconds, "lines": lines}), encoding="utf-8")
    if contexts.left_out:
        print("left out, as they do not pass: " + ", ".join(sorted(contexts.left_out)))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
