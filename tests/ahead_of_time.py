"""Compile every Triton kernel as its launchers ask for it, for GPUs that are not here, and print what came of each.

    python -m tests.ahead_of_time [80 90 100] [op ...] [--cover 0 | 1 | 2] [--list]     one JSON object a line

`--cover` compiles fewer: 0 one build a kernel, 1 and 2 so many that every value, or pair of values, of what tells
builds apart (family, config, dtype, alignment, GPU, ...) is in one.

`--list` first prints which builds there are, and for whom. It runs in a process of its own, because the interpreter
that the other tests switch on has no compiler.
"""

import argparse
import json
import os
import re
import subprocess
import tempfile
from itertools import combinations
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)
# In the tree, since not every home folder can be written; what was compiled once serves every command that asks.
os.environ.setdefault("TRITON_CACHE_DIR", str(Path(__file__).parents[1] / "build" / "triton"))

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tests.builds import OPS, SM_COUNT, Build, record

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TURNED = ("weighted_outer", "conv_instance")  # whose float32 along rows is turned on its way to tensor cores


def compile_for(build: Build, capability: int) -> dict:
    """Registers, spilled bytes, shared memory, matrix instructions and the widest load of one build."""
    source = ASTSource(build.kernel, build.types, build.constants, build.attributes)
    options = {"num_warps": build.num_warps, "num_stages": build.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx = compiled.asm["ptx"]
    registers, spilled = _registers(compiled.asm["cubin"])
    return {
        **build.about,
        "wanted_load_bytes": _wanted_load_bytes(build),
        "tensor_rows": _tensor_rows(build),
        "num_warps": build.num_warps,
        "capability": capability,
        "registers": registers,
        "spilled_bytes": spilled,
        "shared_bytes": compiled.metadata.shared,
        "matrix": sorted(set(re.findall(r"\b(wgmma|tcgen05|mma)\.(?:mma_async|mma|sync)", ptx))),
        "load_bytes": max((*_loads(ptx), *_copies(ptx)), default=0),
        "copy_bytes": min(_copies(ptx), default=0),
    }


def _tensor_rows(build: Build) -> int:
    """Rows of the product that tensor cores take, the first block of a config; 0: exact float32 products, or none."""
    precision = build.constant.get("PRECISION")
    exact = precision == "ieee" and build.dtype == "fp32"
    return 0 if precision is None or exact else build.config[0]


def _wanted_load_bytes(build: Build) -> int | None:
    """The widest load there should be at least; None: none as wide as 16 bytes, for no rows are aligned to them."""
    units = [value for name, value in build.constant.items() if name.startswith("UNIT")]
    if max(units, default=1) == 1:
        return None
    turned = build.about["kernel"] in TURNED and build.dtype == "fp32" and _tensor_rows(build)
    small = min(units) == 1  # the tiles for rows that are not all aligned: a thread has 8 bytes of some
    return 4 if turned else 8 if small else 16


def _registers(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and the bytes that it spills: those of its stack, where an instruction touches one. (A
    kernel with tcgen05 instructions has 8 that nothing does.)"""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", _cuobjdump("-res-usage", file.name))
        registers, stack, local = map(int, found.groups())
        touched = stack + local and re.search(r"\b(LDL|STL)\b", _cuobjdump("-sass", file.name))
    return registers, stack + local if touched else 0


def _cuobjdump(*words: str) -> str:
    done = subprocess.run([TOOLS / "cuobjdump", *words], capture_output=True, text=True, check=True,
                          env=os.environ | {"PATH": f"{TOOLS}:{os.environ.get('PATH', '')}"})  # fmt: skip
    return done.stdout + done.stderr


def _loads(ptx: str) -> list[int]:
    """Bytes of each load to registers."""
    found = re.findall(r"ld\.global[\w:.]*?(?:\.v(\d))?\.b(\d+) ", ptx)
    return [int(vector or 1) * int(bits) // 8 for vector, bits in found]


def _copies(ptx: str) -> list[int]:
    """Bytes of each asynchronous load to shared memory: a tile that runs through the pipeline."""
    return [int(x, 0) for x in re.findall(r"cp\.async\.c[ag]\.shared\.global[^;]*?, (0x[0-9a-f]+|\d+)", ptx)]


def _covering(builds: list[tuple[Build, int]], together: int) -> list[tuple[Build, int]]:
    """Few of one op's builds in which each `together` facts that some build has are together: always the one that has
    most of what is missing."""
    facts = []
    for build, capability in builds:
        aligned = build.kernel.arg_names[0] in build.about["aligned"]
        told = {"capability": capability, **build.about, "aligned": aligned}
        # the kernel is in every combination: 0 keeps one build of each
        facts.append({(told["kernel"], *some) for some in combinations(map(str, told.items()), together)})
    missing, kept = set().union(*facts), []
    while missing:
        best = max(range(len(builds)), key=lambda i: len(facts[i] & missing))
        kept.append(builds[best])
        missing -= facts[best]
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description="registers, spills and the like of every Triton kernel; needs no GPU")
    parser.add_argument("what", nargs="*", metavar="80 | 90 | 100 | op", help="GPUs and ops; all, if none is named")
    parser.add_argument("--cover", type=int, choices=range(3), help="compile fewer: see above")
    parser.add_argument("--list", action="store_true", help="first tell which builds there are")
    options = parser.parse_args()
    asked = [int(x) for x in options.what if x.isdigit()] or [*SM_COUNT]
    for op in [x for x in options.what if not x.isdigit()] or OPS:
        builds = record(op, asked)
        if options.list:
            for build in builds:
                asked_by = {"op": op, "families": [*build.families], "callers": [*build.callers]}
                print(json.dumps({**asked_by, "capabilities": [*build.capabilities], "about": build.about}))
        # each build on another GPU than its neighbour, then on the others
        turns = [
            (build, asked[(i + turn) % len(asked)]) for turn in range(len(asked)) for i, build in enumerate(builds)
        ]
        turns = [(build, capability) for build, capability in turns if capability in build.capabilities]
        for build, capability in turns if options.cover is None else _covering(turns, options.cover):
            print(json.dumps(compile_for(build, capability)), flush=True)


if __name__ == "__main__":
    main()
