"""The machine, and its roofs: a copy, products in each precision, an empty launch."""

import subprocess
import time
from collections.abc import Callable
from importlib import metadata

import torch

from bench import record, roof, timing
from bench.gpu import stand_ins
from bench.gpu.stage import Stage
from bench.gpu.summary import number, table

LIMIT = 20
PACKAGES = ("torch", "triton", "numpy", "transformers", "timm", "pytest", "pytest-xdist")
PRECISIONS = {"bfloat16": (torch.bfloat16, False), "tf32": (torch.float32, True), "ieee": (torch.float32, False)}


def run(stage: Stage) -> None:
    stage.row("machine", **record.header(stage.device), extension=extension(), tools=tools(),
              packages={name: version(name) for name in PACKAGES}, **device(stage))  # fmt: skip
    size, nbytes = (256, 2**20) if stage.tiny else (8192, 4 * 2**30)
    stage.row("roof", what="copy", unit="B/s", value=copy(stage, nbytes))
    for name in PRECISIONS:
        stage.row("roof", what=name, unit="FLOP/s", value=product(stage, name, size))
    launches(stage)


def copy(stage: Stage, nbytes: int) -> float:
    """B/s, read and written; buffers of several times the last cache."""
    x = torch.randn(nbytes // 4, device=stage.device)
    y = torch.empty_like(x)
    return 2 * nbytes / best(lambda: y.copy_(x), stage)


def product(stage: Stage, precision: str, size: int) -> float:
    """FLOP/s of torch.mm on two random square matrices."""
    dtype, tf32 = PRECISIONS[precision]
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32" if tf32 else "ieee"
    try:
        return roof.product(stage.device, dtype, size, rounds(stage))
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def launches(stage: Stage) -> None:
    """Seconds of the smallest kernel: its launch as the host sees it, and its share of a replayed graph."""
    x, count = torch.zeros(1, device=stage.device), 10 if stage.tiny else 500

    def many() -> None:
        for _ in range(count):
            x.add_(1)

    best(many, stage)
    start = time.perf_counter()
    many()
    stage.row("roof", what="launch, on the host", unit="s", value=(time.perf_counter() - start) / count)
    graph = stand_ins.graph(stage.device)
    graph.record(many)
    stage.row("roof", what="launch, in a graph", unit="s", value=best(graph.replay, stage) / count)


def best(call: Callable[[], object], stage: Stage) -> float:
    """Seconds of the median call, of few."""
    return timing.interleave({"": call}, rounds(stage), stage.device)[""].median


def rounds(stage: Stage) -> int:
    return 2 if stage.tiny else 9


def device(stage: Stage) -> dict:
    """What the GPU says of itself."""
    if stage.device == "cpu":
        return {}
    of = torch.cuda.get_device_properties(0)
    facts = ("name", "multi_processor_count", "L2_cache_size", "total_memory", "major", "minor")
    asked = ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,clocks.mem,power.limit", "--format=csv,noheader"]
    said = (
        subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout.strip()
        if record.tool(asked[0])
        else None
    )
    return {"device": {name: getattr(of, name, None) for name in facts}, "nvidia_smi": said}


def tools() -> dict[str, str | None]:
    return {name: record.tool(name) for name in ("nvcc", "compute-sanitizer", "ncu", "cuobjdump", "c++", "git")}


def version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extension() -> dict:
    """How the compiled extension was built, or why there is none."""
    from fastrw.ops import extension

    return extension.build_info() or {"missing": extension.reason}


def summary(rows: list[dict]) -> list[str]:
    lines = []
    for row in rows:
        if row["kind"] == "machine":
            place, of = row["machine"], row.get("device") or {}
            lines.append(f"{of.get('name', place['cpu'])}, {of.get('multi_processor_count', '?')} SMs, "
                         f"driver and clocks {row.get('nvidia_smi')}, {place['cores']} cores")  # fmt: skip
            lines.append(", ".join(f"{name} {v}" for name, v in row["versions"].items()))
            extension = row["extension"]
            built = f"for CUDA {extension.get('cuda')} {extension.get('cuda_archs')}"
            lines.append(f"extension: {extension.get('missing') or built}")
    units = {"B/s": ("GB/s", 1e-9, ",.0f"), "FLOP/s": ("TFLOP/s", 1e-12, ",.1f"), "s": ("µs", 1e6, ".2f")}
    roofs = []
    for row in rows:
        if row["kind"] == "roof":
            unit, scale, form = units[row["unit"]]
            roofs.append((row["what"], number(row["value"] * scale, form), unit))
    return [*lines, "", *table(("roof", "measured", "unit"), roofs)]
