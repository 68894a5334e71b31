"""What the compilers make of the GPU kernels: registers, spills, shared memory, matrix instructions. Needs no GPU.

Triton's kernels are compiled here for every target, as their launchers ask for them; the CUDA kernels are read out of
the extension."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import record, tables
from bench.cases import CASES

FIGURES = {"capability": ">sm", "registers": ">registers", "spilled_bytes": ">spilled B", "shared_bytes": ">shared B",
           "matrix": "matrix unit"}  # fmt: skip
# what tests/ check of a build
TESTED = ("wanted_load_bytes", "tensor_rows", "num_warps", "load_bytes", "copy_bytes", "aligned")
MATRIX = r"\b(U?TC\w*MMA|HGMMA|IGMMA|HMMA|IMMA|DMMA)\b"


def main(chosen: list[str], targets: list[int], path: str | None, console: Console) -> int:
    """Report on the kernels of these ops; what is allowed is tested in tests/."""
    found = {"cuda": list(cuda(chosen, console)), "triton": list(triton(chosen, targets, console))}
    for kind, rows in found.items():
        for op in dict.fromkeys(row["op"] for row in rows):
            console.print(table(f"{op}, {kind}", [row for row in rows if row["op"] == op]))
    record.write_json(path, {"bench": "ahead_of_time", **record.header("cpu"), **found})
    return 0


def triton(chosen: list[str], targets: list[int], console: Console) -> Iterator[dict]:
    """A row for each build and target, as tests/ahead_of_time.py compiles them in another process."""
    if importlib.util.find_spec("triton") is None:
        console.print("Triton's kernels cannot be compiled here: Triton is not installed")
        return
    for op in (op for op in chosen if (record.ROOT / "kernels" / f"{op}.py").exists()):
        command = [sys.executable, "-m", "tests.ahead_of_time", *map(str, targets), op]
        with (
            subprocess.Popen(command, cwd=record.ROOT, stdout=subprocess.PIPE, text=True) as process,
            record.progress(f"compiling {op}: ") as say,
        ):
            for count, line in enumerate(process.stdout, 1):
                say(str(count))
                yield {"op": op, **json.loads(line)}
        if process.returncode:
            raise ChildProcessError(f"{record.command(command)} ended with exit status {process.returncode}")


def cuda(chosen: list[str], console: Console) -> Iterator[dict]:
    """A row for each kernel and target in the extension's machine code; a source file is named after its op, if any."""
    from fastrw.ops import extension

    tools = toolkit()
    if extension.reason is not None or "cuobjdump" not in tools:
        why = extension.reason or "cuobjdump is neither in a CUDA toolkit nor in Triton"
        console.print(f"the CUDA kernels cannot be read here: {why}", highlight=False)
        return
    from fastrw import _C

    said = run(tools["cuobjdump"], "-res-usage", _C.__file__)
    if "Fatbin elf code:" not in said:
        console.print("the compiled extension holds no CUDA kernels: it was built without a toolkit")
    for part in said.split("Fatbin elf code:")[1:]:
        target, source = (re.search(f"{word} = (.*)", part)[1] for word in ("arch", "identifier"))
        if (op := Path(source).stem) not in chosen and op in CASES:
            continue
        for name, usage in re.findall(r"Function (\S+):\n\s+(.*)", part):
            count = {key: int(figure) for key, figure in re.findall(r"(\w+)(?:\[\d\])?:(\d+)", usage)}
            yield {
                "op": op,
                "kernel": readable(name),
                "capability": int(target.removeprefix("sm_").rstrip("af")),
                "registers": count["REG"],
                "spilled_bytes": count["STACK"] + count["LOCAL"],
                "shared_bytes": count["SHARED"],
                "matrix": sorted(matrix_instructions(_C.__file__).get((target, name), ())),
            }


@cache
def matrix_instructions(library: str) -> dict[tuple[str, str], set[str]]:
    """The matrix instructions in the machine code of each (target, function); empty without nvdisasm."""
    found: dict[tuple[str, str], set[str]] = {}
    target = name = ""
    for line in machine_code(library).splitlines() if "nvdisasm" in toolkit() else ():
        if where := re.match(r"\s*arch = (\S+)", line):
            target = where[1]
        elif where := re.match(r"\s*Function : (\S+)", line):
            name = where[1]
        elif what := re.search(MATRIX, line):
            found.setdefault((target, name), set()).add(what[1])
    return found


@cache
def machine_code(library: str) -> str:
    """Of every kernel for every target, which takes ten seconds to read."""
    tools = toolkit()
    beside = os.pathsep.join([str(Path(tools["nvdisasm"]).parent), os.environ.get("PATH", "")])
    return run(tools["cuobjdump"], "-sass", library, PATH=beside)


def toolkit() -> dict[str, str]:
    """cuobjdump and nvdisasm, of a CUDA toolkit or of Triton, where they are."""
    triton = importlib.util.find_spec("triton")
    bundled = str(Path(triton.origin).parent / "backends/nvidia/bin") if triton else ""
    found = {name: record.tool(name) or shutil.which(name, path=bundled) for name in ("cuobjdump", "nvdisasm")}
    return {name: path for name, path in found.items() if path}


def readable(name: str) -> str:
    """The kernel and its template arguments, by c++filt where it is."""
    try:
        plain = run("c++filt", name).strip()
    except OSError:
        return name
    return re.sub(r"\w+::", "", plain.removeprefix("void ").partition("(")[0])


def run(*command: str, **environment: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}).stdout


def arguments(row: dict) -> str:
    """The dtypes of what a kernel of Triton's is given, in its order; * where an address is a multiple of 16 bytes."""
    aligned = row.get("aligned", ())
    found = {key: f"{kind or '-'}{'*' * (key in aligned)}" for key, kind in row.items() if key.endswith("_ptr")}
    return " ".join(found.values())


def table(title: str, rows: list[dict]) -> Table:
    """A line for each build: which it is, by what differs among them, and what the compiler made of it."""

    def cell(row: dict, key: str) -> Text:
        fact = row.get(key, "")
        said = " ".join(map(str, fact)) if isinstance(fact, list) else str(fact)
        return Text(said, "bold red" if key == "spilled_bytes" and fact else "")

    rows = [{"arguments": arguments(row)} | row for row in rows]
    hidden = {"op", *FIGURES, *TESTED, *(key for row in rows for key in row if key.endswith("_ptr"))}
    keys = dict.fromkeys(key for row in rows for key in row if key not in hidden)
    about = [key for key in keys if key == "kernel" or len({cell(row, key).plain for row in rows}) > 1]
    headings = dict(zip(about, about, strict=True)) | FIGURES
    lines = [{heading: cell(row, key) for key, heading in headings.items()} for row in rows]
    return tables.table(f"\n{title}", lines, fold="matrix unit")
