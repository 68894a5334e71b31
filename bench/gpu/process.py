"""A stage as a process group that ends at its limit, or with the run, whatever it has started."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import fields
from typing import BinaryIO

from bench import record
from bench.gpu.stage import Stage, write


def run(stage: Stage, output: BinaryIO) -> str:
    """How the stage ended, which becomes a row too; what it printed is in `output`."""
    command = [sys.executable, "-m", "bench.gpu.stage", stage.name]
    for option in (f.name for f in fields(stage) if f.name not in ("name", "tiny")):
        if (value := getattr(stage, option)) is not None:
            command += [f"--{option}", str(value)]
    command += ["--tiny"] * stage.tiny
    environment = {**os.environ, "COLUMNS": "170", "PYTHONUNBUFFERED": "1"}
    if stage.device == "cpu":  # its processes share few cores: threads of each would wait for one another
        environment["OMP_NUM_THREADS"] = "1"
    start = time.time()
    status = "interrupted"
    # standard input stays open as long as the run lives: stage.die_with_the_run
    process = subprocess.Popen(
        command, cwd=record.ROOT, env=environment,
        stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        status = ended(process.wait(max(stage.left, 0)))
    except subprocess.TimeoutExpired:
        status = f"stopped at its limit of {stage.ends - start:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it has left running too
        process.wait()
        now = time.time()
        row = {"stage": stage.name, "kind": "end", "at": round(now - stage.began, 2), "status": status}
        write(stage.out, {**row, "seconds": round(now - start, 2)})
    return status


def ended(code: int) -> str:
    """What an exit status says, in words."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return "finished" if code == 0 else f"failed with exit status {code}"
