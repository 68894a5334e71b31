"""compute-sanitizer on samples of the ops: memcheck on CUDA and Triton, then racecheck on CUDA."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Timer

import torch

from bench import record
from bench.gpu import stand_ins
from bench.gpu.stage import Stage
from bench.gpu.summary import table
from fastrw.ops import backends

LIMIT = 40
PROCESSES = 14
TOGETHER = 3  # ops of one process, which takes longer to start than to check one
PLAN = (("memcheck", "cuda"), ("memcheck", "triton"), ("racecheck", "cuda"))  # Triton's compiler places its barriers
OURS = {"cuda": "fastrw", "cpp": "fastrw", "triton": "_kernel"}  # in the names of the kernels; others are not checked
PLANTED = {"cuda": "rectify_normalize", "triton": "combine"}  # ops that are made to read what is not theirs
LINES = 12  # of what a tool found
# what a driver that refuses the tool refuses already
PROBE = """
import ctypes
cuda, context, memory = ctypes.CDLL("libcuda.so.1"), ctypes.c_void_p(), ctypes.c_uint64()
found = [cuda.cuInit(0), cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0), cuda.cuCtxSetCurrent(context)]
print(*found, cuda.cuMemAlloc_v2(ctypes.byref(memory), ctypes.c_size_t(64)))
"""


Item = tuple[str, str, str, str]  # tool, backend, ops, and "planted" or nothing


def run(stage: Stage) -> None:
    command = stand_ins.tool("compute-sanitizer", stage.device)
    why = "it is not installed" if command is None else refusal(command, stage)
    if why:
        stage.row("missing", why=why)
        return
    with ThreadPoolExecutor(PROCESSES) as threads:
        futures = {item: threads.submit(sanitized, stage, *item) for item in items(stage)}
        for item, future in futures.items():
            try:
                future.result()
            except Exception:  # whatever it is, the others go on
                stage.failure("failure", item=item)


def items(stage: Stage) -> list[Item]:
    """A few ops a process: all start at once where there are as many cores. First what the tool must not miss."""
    if stage.tiny:
        return [("memcheck", "cpp", "rectify_normalize combine", "")]
    found = [
        ("memcheck", backend, op, "planted") for backend, op in PLANTED.items() if serves(op, backend, stage.device)
    ]
    for tool, backend in PLAN:
        served = [op for op in backends.names() if serves(op, backend, stage.device)]
        found += [(tool, backend, " ".join(served[i : i + TOGETHER]), "") for i in range(0, len(served), TOGETHER)]
    return found


def serves(op: str, backend: str, device: str) -> bool:
    """On a float32 sample; whether it proves itself is for the tool to see."""
    entry = backends.get(op)
    return entry.backends[backend].can(*entry.draw(torch.device(device), torch.float32)) is None


def refusal(command: Sequence[str], stage: Stage) -> str | None:
    """Why the tool can watch nothing here; asked of a process that only takes some memory, in a second or two."""
    probe = PROBE if stage.device == "cuda" else "print(0)"
    words = [*command, "--tool", "memcheck", sys.executable, "-c", probe]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=15, cwd=record.ROOT).stdout
    except subprocess.TimeoutExpired:
        return "it hangs on a process that only takes some memory"
    return next((line.strip("= ") for line in said.splitlines() if "not supported" in line.lower()), None)


def sanitized(stage: Stage, tool: str, backend: str, ops: str, planted: str) -> None:
    """A row an op as it is done, and one of what the tool says in the end."""
    words = [*stand_ins.tool("compute-sanitizer", stage.device), "--tool", tool, "--error-exitcode", "99"]
    # torch asks the driver for what may be missing; and a child process only compiles
    words += ["--report-api-errors", "no", "--target-processes", "application-only"]
    words += ["--kernel-name", f"kns={OURS[backend]}", sys.executable, "-m", "bench.gpu.samples"]
    words += ["--device", stage.device, "--backend", backend, "--op", *ops.split(), *["--few"] * stage.tiny]
    words += ["--planted"] * bool(planted)
    # every tensor its own allocation: inside a cached block a stray access stays unseen
    bare = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"} if tool == "memcheck" else {}
    bare["OMP_NUM_THREADS"] = "1"  # all of them judge on the CPU
    start, lines = time.time(), []
    about = {"tool": tool, "backend": backend, "planted": bool(planted)}

    def end(status: int | str) -> None:
        stage.row("tool", **about, ops=ops, errors=errors(lines), exit=status, found=reports(lines)[:LINES],
                  last=lines[-3:], seconds=round(time.time() - start, 1))  # fmt: skip

    late = Timer(max(stage.left - 1, 0), end, ["none: its time was over"])
    late.daemon = True
    late.start()
    with subprocess.Popen(
        words, cwd=record.ROOT, env={**os.environ, **bare}, text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        for line in process.stdout:
            lines.append(line.rstrip())
            print(f"{tool} {backend}: {lines[-1]}")
            if done := re.match(r"done (\w+) \w+: (\d+) calls, (\d+) wrong", line):
                op, calls, wrong = done[1], int(done[2]), int(done[3])
                stage.row("op", **about, op=op, calls=calls, wrong=wrong, reported=len(reports(lines)) > 0)
    late.cancel()
    end(process.returncode)


def errors(lines: Iterable[str]) -> int | None:
    """What the tool counted; None where it did not come to that."""
    for line in lines:
        if found := re.search(r"(?:ERROR|RACECHECK) SUMMARY: (\d+) (?:error|hazard)", line):
            return int(found[1])
    return None


def reports(lines: Iterable[str]) -> list[str]:
    """What the tool found wrong: its lines but for the first and the last."""
    ours = (line.strip("=").strip() for line in lines if line.startswith("========="))
    return [line for line in ours if line and "COMPUTE-SANITIZER" not in line and "SUMMARY" not in line]


def summary(rows: list[dict]) -> list[str]:
    """A line for each tool and backend; what was found."""
    lines = [f"compute-sanitizer was not used: {row['why']}" for row in rows if row["kind"] == "missing"]
    told, ends = [], [row for row in rows if row["kind"] == "tool"]
    for row in (row for row in ends if row["planted"]):
        seen = "seen" if row["errors"] else "NOT SEEN: below, no error means nothing"
        lines.append(f"- a stray read planted in {row['backend']} {row['ops']}: {seen}")
    lines.append("")
    ended = [row for row in ends if not row["planted"]]
    done = [row for row in rows if row["kind"] == "op"]
    for tool, backend in dict.fromkeys((row["tool"], row["backend"]) for row in done + ended):
        ops, tools = ([row for row in of if (row["tool"], row["backend"]) == (tool, backend)] for of in (done, ended))
        found = sum(row["errors"] or 0 for row in tools)
        calls, wrong = (sum(row[key] for row in ops) for key in ("calls", "wrong"))
        told.append((tool, backend, len(ops), calls, wrong, found, max((row["seconds"] for row in tools), default="")))
    lines += table(("tool", "backend", "ops", "calls", "wrong", "errors", "s"), told)
    for row in [row for row in ended if row["errors"] or row["errors"] is None or row["exit"]][:4]:
        said = "; ".join((row["found"] or row["last"])[:2])
        lines.append(f"- {row['tool']} {row['backend']} {row['ops']}: exit status {row['exit']}: {said[:150]}")
    return lines
