"""Everything that needs a GPU, in about ten minutes, into one JSON and one text file.

GPU tests, compute-sanitizer on a few tests of each op, then all benchmarks, each in its own process with its own time
limit. A part that fails is recorded and the next one runs; the result is rewritten after every part, so that nothing
finished is lost. Exit status: 0 when every part that could run passed."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from bench import record
from bench.cases import CASES
from bench.driver import make_parser

PYTEST = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
BENCH = [sys.executable, "-m", "bench"]
SANITIZERS = {"memcheck": 70, "racecheck": 35, "initcheck": 35, "synccheck": 30}  # tool -> seconds


@dataclass(frozen=True)
class Part:
    """A command, its time limit in seconds, and where it writes its JSON (if it does)."""

    name: str
    command: list[str]
    limit: int
    json: str | None = None  # the option that names its JSON file
    environment: dict[str, str] = field(default_factory=dict)


def parts(sanitizer: str | None) -> list[Part]:
    """What is run, in order; the limits add up to less than ten minutes."""
    brief = ["--device", "cuda", "--seconds", "0.1"]
    return [
        Part("info", [sys.executable, "-m", "fastrw", "info"], 20),
        Part("tests", [*PYTEST, "tests"], 150),
        *(sanitized(sanitizer, tool, limit) for tool, limit in SANITIZERS.items() if sanitizer),
        # torch.compile takes seconds for each case: it is compared in bfloat16 alone, in one case of each op
        Part("ops bfloat16", [*BENCH, *brief, "--dtype", "bfloat16"], 110, "--json"),
        Part("ops float32", [*BENCH, *brief, "--compile", "none"], 70, "--json"),
        Part("end_to_end", [*BENCH, "end_to_end", "--device", "cuda", "--patience", "0.5"], 70, "--json"),
    ]


def sanitized(sanitizer: str, tool: str, limit: int) -> Part:
    """A few tests of each op's CUDA and Triton kernels under one tool: memcheck meets every layout, the others one."""
    few = "layouts and bfloat16" if tool == "memcheck" else "self_test and bfloat16"
    # CUDA kernels are in the namespace fastrw, Triton's are named by op; initcheck has to see torch's writes as well
    names = [] if tool == "initcheck" else ["fastrw", *CASES]
    ours = [word for name in names for word in ("--kernel-name", f"kns={name}")]
    # every tensor its own allocation: inside a cached block a stray access stays unseen
    bare = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    command = [sanitizer, "--tool", tool, "--error-exitcode", "99", *ours, *PYTEST, "tests/test_op_gpu.py", "-k", few]
    return Part(f"sanitizer {tool}", command, limit, environment=bare)


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("bench.gpu", __doc__)
    parser.add_argument("--out", type=Path, default=record.ROOT / "bench" / "results", help="folder of the two files")
    parser.add_argument(
        "--only", nargs="+", metavar="PART", default=[""], help="only parts that begin with one of these"
    )
    options = parser.parse_args(argv)
    console = Console(stderr=True, soft_wrap=True)
    if not torch.cuda.is_available():
        why = "this torch was built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
        console.print(f"bench.gpu: needs a GPU: {why} (torch {torch.__version__})")
        return 1
    tools = {"nvcc": "the CUDA backend cannot be built here", "compute-sanitizer": "no sanitizer was run"}
    missing = [f"{name}: {loss}" for name, loss in tools.items() if record.tool(name) is None]
    result = {"bench": "gpu", **record.header("cuda"), "missing": missing, "parts": []}
    name = re.sub(r"[^a-z0-9]+", "-", f"{result['machine']['gpu']} {result['date'].partition('+')[0]}".lower())
    for part in parts(record.tool("compute-sanitizer")):
        if not part.name.startswith(tuple(options.only)):
            continue
        console.print(f"bench.gpu: {part.name} (limit {part.limit} s)")
        found = run(part)
        console.print(f"bench.gpu: {part.name}: {found['status']} after {found['seconds']:.0f} s")
        result["parts"].append(found)
        record.write_json(options.out / f"{name}.json", result)
        record.write_whole(options.out / f"{name}.txt", text(result).encode())
    console.print(f"bench.gpu: written {options.out / name}.json and .txt")
    return int(any(part["status"] != "passed" for part in result["parts"]))


def run(part: Part) -> dict:
    """Run one part to its end or its limit; what it printed, what it wrote, and how it ended."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "result.json")
        command = [*part.command, *([part.json, str(written)] if part.json else [])]
        environment = {**os.environ, "COLUMNS": "170", **part.environment}
        start = time.monotonic()
        with open(Path(folder, "output"), "w+b") as output:
            where = {"cwd": record.ROOT, "env": environment, "stdout": output, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command, **where, start_new_session=True)
            try:
                code = process.wait(part.limit)
                status = "passed" if code == 0 else f"failed with exit status {code}"
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                status = f"stopped at its limit of {part.limit} s"
            output.seek(0)
            said = output.read().decode(errors="replace")
        return {
            "name": part.name,
            "status": status,
            "seconds": time.monotonic() - start,
            "command": record.command(part.command),
            "output": said,
            "result": json.loads(written.read_text()) if written.exists() else None,
        }


def text(result: dict) -> str:
    """The same result to read."""
    head = {key: result[key] for key in ("date", "command", "commit", "versions", "machine", "load", "missing")}
    lines = [f"{key}: {value}" for key, value in head.items()]
    for part in result["parts"]:
        lines += ["", f"== {part['name']}: {part['status']}, {part['seconds']:.0f} s"]
        lines += [part["command"], part["output"]]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
