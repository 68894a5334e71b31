"""pytest in a stage: a row a test, on the disk as soon as the test has ended. The plugin is `-p bench.gpu.report`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench import record
from bench.gpu.stage import Stage
from fastrw.ops import extension

VARIABLE = "FASTRW_BENCH_STAGE"
LATE = 9  # exit status: no time was left


def pytest(stage: Stage, files: Sequence[str], processes: int, *words: str) -> None:
    """Run the tests of these files in so many processes, for as long as the stage has time; a row says how it ended."""
    if extension.reason is not None:  # a warning, which the tests would take for an error
        words = (*words, "-W", "ignore::UserWarning")
    told = json.dumps({**asdict(stage), "out": str(stage.out)})
    command = [sys.executable, "-m", "pytest", *files, *words, "-n", str(processes), "--dist", "worksteal", "-q",
               "-p", "bench.gpu.report", "-p", "no:cacheprovider"]  # fmt: skip
    code = subprocess.run(command, cwd=record.ROOT, env={**os.environ, VARIABLE: told}).returncode
    stage.row("pytest", command=record.command(command), status=code)


def pytest_configure(config) -> None:
    if VARIABLE in os.environ:
        told = json.loads(os.environ[VARIABLE])
        stage = Stage(**{**told, "out": Path(told["out"])})
        worker = hasattr(config, "workerinput")
        config.pluginmanager.register(Worker() if worker else Reporter(stage))
        # this part of a stage may have less time than the stage; the workers go last, for a lost one is a failed test
        late = threading.Timer(max(stage.left, 0) + 0.5 * worker, os._exit, [LATE])
        late.daemon = True
        late.start()


class Reporter:
    """Hears of every test, whatever process it ran in."""

    def __init__(self, stage: Stage):
        self._stage = stage

    def pytest_runtest_logreport(self, report) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        facts = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 3)}
        if report.skipped:
            facts["why"] = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if report.failed:
            said = report.longreprtext
            facts |= {"why": last_error(said), "traceback": said[-4000:]}
        self._stage.row("test", **facts)


class Worker:
    """After a CUDA error every further test of the process would fail: it ends, and pytest-xdist starts another."""

    _lost = False

    def pytest_runtest_logreport(self, report) -> None:
        self._lost = self._lost or (report.failed and "CUDA error" in report.longreprtext)

    def pytest_runtest_logfinish(self) -> None:
        if self._lost:
            time.sleep(0.5)  # the report is on its way
            os._exit(1)


def last_error(said: str) -> str:
    """The last line that says what was wrong."""
    lines = [line[1:].strip() for line in said.splitlines() if line.startswith("E ")]
    return (lines or said.splitlines() or [""])[-1][:300]


def summary(rows: list[dict]) -> list[str]:
    """How many of each outcome, file by file, and what failed."""
    from bench.gpu.summary import table

    tests = [row for row in rows if row["kind"] == "test"]
    lines = []
    for file in dict.fromkeys(row["test"].partition("::")[0] for row in tests):
        own = [row for row in tests if row["test"].startswith(f"{file}::")]
        counts = (sum(row["outcome"] == outcome for row in own) for outcome in ("passed", "failed", "skipped"))
        lines.append((file, *counts, f"{sum(row['seconds'] for row in own):.0f}"))
    told = table(("file", "passed", "failed", "skipped", "s in tests"), lines)
    failed = [row for row in tests if row["outcome"] == "failed"]
    told += [f"- FAILED {row['test'].partition('::')[2]}: {row['why'][:140]}" for row in failed[:12]]
    if len(failed) > 12:
        told.append(f"- and {len(failed) - 12} more")
    reasons = [row["why"] for row in tests if row["outcome"] == "skipped"]
    return told + [f"- skipped {reasons.count(why)}: {why[:140]}" for why in list(dict.fromkeys(reasons))[:3]]
