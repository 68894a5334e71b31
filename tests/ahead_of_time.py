"""Compile every Triton kernel, in every config, for GPUs that are not here, and print what the compiler made of each.

    python -m tests.ahead_of_time [80 90 100]     one JSON object a line

It runs in a process of its own, because the interpreter that the other tests switch on has no compiler. A new kernel
adds a function to KERNELS that yields its builds.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.pop("TRITON_INTERPRET", None)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fastrw.kernels import gram_dot

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
NARROW = [("bf16", "ieee"), ("fp16", "ieee"), ("fp32", "ieee"), ("fp32", "tf32")]


class Build(NamedTuple):
    """A kernel with everything fixed that the compiler needs to know."""

    kernel: triton.JITFunction
    types: dict[str, str]  # of the arguments that are no constants
    constants: dict[str, object]
    aligned: bool  # addresses are multiples of 16 bytes
    num_warps: int
    num_stages: int
    about: dict[str, object]  # what the report says of it


def gram_dot_builds() -> Iterator[Build]:
    kernel = gram_dot._gram_dot_kernel
    sizes = ("r", "k", "p", "q", "stride_a", "stride_g", "stride_a_val", "stride_g_val", "split")
    runs = {  # family -> dtype, precision, units of p and q
        "half": [("bf16", "ieee", 8, 8), ("fp16", "ieee", 8, 8)],
        "tf32": [("fp32", "tf32", 4, 4)],
        "ieee": [("fp32", "ieee", 4, 4)],
        "narrow": [(*kind, *units) for kind in NARROW for units in ((1, 1), (16 // BYTES[kind[0]], 1))],
    }
    for family, configs in gram_dot.CONFIGS.items():
        for config in configs:
            for dtype, precision, *units in runs[family]:
                data = dict.fromkeys(("a_ptr", "g_ptr", "a_val_ptr", "g_val_ptr"), f"*{dtype}")
                types = {**data, "partial_ptr": "*fp32", **dict.fromkeys(sizes, "i32"), "bias": "fp32"}
                blocks = dict(zip(("BLOCK_R", "BLOCK_K", "BLOCK_C"), config, strict=False))
                constants = {**blocks, "UNIT_P": units[0], "UNIT_Q": units[1], "PRECISION": precision}
                about = {"kernel": "gram_dot", "family": family, "dtype": dtype, "precision": precision}
                about |= {"units": units, "config": list(config)}
                yield Build(kernel, types, constants, units != [1, 1], config.num_warps, config.num_stages, about)


KERNELS = {"gram_dot": gram_dot_builds}


def compile_for(build: Build, capability: int) -> dict:
    """Registers, spilled bytes, shared memory, matrix instructions and the widest load of one build."""
    names = build.kernel.arg_names
    source = ASTSource(
        fn=build.kernel,
        signature={name: build.types.get(name, "constexpr") for name in names},
        constexprs={(names.index(name),): value for name, value in build.constants.items()},
        attrs={
            (names.index(name),): [["tt.divisibility", 16]]
            for name, kind in build.types.items()
            if kind.startswith("*") and build.aligned
        },
    )
    options = {"num_warps": build.num_warps, "num_stages": build.num_stages}
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    ptx = compiled.asm["ptx"]
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", usage.stdout + usage.stderr)
    registers, stack, local = map(int, found.groups())
    return {
        **build.about,
        "capability": capability,
        "registers": registers,
        "spilled_bytes": stack + local,
        "shared_bytes": compiled.metadata.shared,
        "matrix": sorted(set(re.findall(r"\b(wgmma|tcgen05|mma)\.(?:mma_async|mma|sync)", ptx))),
        "load_bytes": max(_load_bytes(ptx), default=0),
    }


def _load_bytes(ptx: str) -> Iterator[int]:
    for vector, bits in re.findall(r"ld\.global[\w:.]*?(?:\.v(\d))?\.b(\d+) ", ptx):
        yield int(vector or 1) * int(bits) // 8
    for size in re.findall(r"cp\.async\.c[ag]\.shared\.global[^;]*?, (0x[0-9a-f]+|\d+)", ptx):
        yield int(size, 0)


if __name__ == "__main__":
    for capability in [int(x) for x in sys.argv[1:]] or [80, 90, 100]:
        for builds in KERNELS.values():
            for build in builds():
                print(json.dumps(compile_for(build, capability)), flush=True)
