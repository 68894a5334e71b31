"""Compile every Triton kernel, in every config, for GPUs that are not here, and print what the compiler made of each.

    python -m tests.ahead_of_time [80 90 100] [op ...]     one JSON object a line

It runs in a process of its own, because the interpreter that the other tests switch on has no compiler. A new kernel
adds a file to tests/builds.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.pop("TRITON_INTERPRET", None)

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tests.builds import KERNELS
from tests.builds.build import Build

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
CAPABILITIES = (80, 90, 100)


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
        "wanted_load_bytes": build.load_bytes if build.aligned else None,
        "tensor_rows": build.tensor_rows,
        "num_warps": build.num_warps,
        "capability": capability,
        "registers": registers,
        "spilled_bytes": stack + local,
        "shared_bytes": compiled.metadata.shared,
        "matrix": sorted(set(re.findall(r"\b(wgmma|tcgen05|mma)\.(?:mma_async|mma|sync)", ptx))),
        "load_bytes": max((*_loads(ptx), *_copies(ptx)), default=0),
        "copy_bytes": min(_copies(ptx), default=0),
    }


def _loads(ptx: str) -> list[int]:
    """Bytes of each load to registers."""
    found = re.findall(r"ld\.global[\w:.]*?(?:\.v(\d))?\.b(\d+) ", ptx)
    return [int(vector or 1) * int(bits) // 8 for vector, bits in found]


def _copies(ptx: str) -> list[int]:
    """Bytes of each asynchronous load to shared memory: a tile that runs through the pipeline."""
    return [int(x, 0) for x in re.findall(r"cp\.async\.c[ag]\.shared\.global[^;]*?, (0x[0-9a-f]+|\d+)", ptx)]


if __name__ == "__main__":
    asked = [int(x) for x in sys.argv[1:] if x.isdigit()] or CAPABILITIES
    for op in [x for x in sys.argv[1:] if not x.isdigit()] or KERNELS:
        for build in KERNELS[op]():
            for capability in asked:
                if capability >= build.least:
                    print(json.dumps(compile_for(build, capability)), flush=True)
