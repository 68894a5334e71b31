"""What a stage is given, and the process that runs one: `python -m bench.gpu.stage NAME ...`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

ROWS = "rows.jsonl"
FAULTS = ("overrun", "crash")  # what a rehearsal can have a stage do after its first row


@dataclass(frozen=True)
class Stage:
    """A stage of a run, as each of its processes sees it."""

    name: str
    out: Path
    device: str  # "cuda", or "cpu" in a rehearsal
    tiny: bool
    began: float  # the time.time() at which the run began
    ends: float  # and at which this stage will be killed
    fault: str | None = None

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.time()

    def row(self, kind: str, **facts: object) -> None:
        """Put a row on the disk before anything else happens."""
        write(self.out, {"stage": self.name, "kind": kind, "at": round(time.time() - self.began, 2), **facts})
        if self.fault == "crash":
            raise RuntimeError("bench.gpu: this stage was told to crash after its first row")
        if self.fault == "overrun":
            threading.Event().wait()

    def failure(self, kind: str, **facts: object) -> None:
        """A row with the traceback of the exception that is being handled."""
        self.row(kind, error=error_line(), traceback=traceback.format_exc(), **facts)

    def rows(self, *stages: str) -> list[dict]:
        """What those stages have found."""
        return [row for row in read(self.out) if row["stage"] in stages]


def write(out: Path, row: dict) -> None:
    """Append one line in a single write, so that lines of several processes do not mix, and wait for the disk."""
    file = os.open(out / ROWS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps(row, default=str) + "\n").encode())
        os.fsync(file)
    finally:
        os.close(file)


def read(out: Path) -> list[dict]:
    """All rows; a last line that was cut off is none."""
    try:
        lines = (out / ROWS).read_text().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines]


def error_line() -> str:
    """The exception that is being handled, in one line."""
    error = sys.exc_info()[1]
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def find(name: str):
    """The module of that stage."""
    return importlib.import_module(f"bench.gpu.stages.{name}")


def settle(stage: Stage) -> None:
    """What every process of a stage begins with. On a CPU Triton's kernels run in the tests' interpreter."""
    if stage.device == "cpu":
        import tests.interpreter  # noqa: F401  (before any kernel is imported)


def die_with_the_run() -> None:
    """The run holds the other end of standard input: when it ends, in whatever way, so does this process group."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    parser = argparse.ArgumentParser(description="one stage of bench.gpu, which starts it")
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--began", type=float, required=True)
    parser.add_argument("--ends", type=float, required=True)
    parser.add_argument("--fault", choices=FAULTS)
    stage = Stage(**vars(parser.parse_args()))
    die_with_the_run()
    try:
        settle(stage)
        find(stage.name).run(stage)
    except BaseException:
        row = {"stage": stage.name, "kind": "failure", "error": error_line(), "traceback": traceback.format_exc()}
        write(stage.out, row)
        traceback.print_exc()
        sys.exit(1)


if __name__ == "__main__":
    main()
