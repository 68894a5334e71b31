"""One Triton kernel with everything fixed that the compiler needs to know: what tests.ahead_of_time compiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import triton

BYTES = {"bf16": 2, "fp16": 2, "fp32": 4}
# family of configs -> dtype, that of the other factor, precision
KINDS = {
    "half": [("bf16", "bf16", "ieee"), ("fp16", "fp16", "ieee")],
    "wide": [("bf16", "fp32", "ieee"), ("fp16", "fp32", "ieee")],
    "tf32": [("fp32", "fp32", "tf32")],
    "ieee": [("fp32", "fp32", "ieee")],
}
KINDS["narrow"] = [kind for kinds in (*KINDS.values(),) for kind in kinds]


class Build(NamedTuple):
    kernel: triton.JITFunction
    types: dict[str, str]  # of the arguments that are no constants
    constants: dict[str, object]
    aligned: bool  # addresses are multiples of 16 bytes
    num_warps: int
    num_stages: int
    about: dict[str, object]  # what the report says of it
    tensor_rows: int = 0  # of the product that tensor cores take; 0: none
    least: int = 80  # compute capability
    load_bytes: int = 16  # the widest load there should be, where aligned


def units(dtype: str, aligned: bool) -> int:
    """Elements in 16 bytes, 1 where rows are not aligned to them."""
    return 16 // BYTES[dtype] if aligned else 1


def build(
    kernel: triton.JITFunction,
    config: Sequence[int],
    pointers: Mapping[str, str],  # name -> dtype
    constants: Mapping[str, object],
    *,
    aligned: bool,
    about: Mapping[str, object],
    floats: Sequence[str] = (),
    tensor_rows: int = 0,
    least: int = 80,
    load_bytes: int = 16,
) -> Build:
    """The build whose blocks and warps are those of the config; arguments that are neither of these are integers."""
    *blocks, num_warps, num_stages = config
    names = kernel.arg_names
    free = [name for name in names if name.startswith("BLOCK_") and name not in constants]
    constants = dict(zip(free, blocks, strict=True)) | constants
    types = {name: f"*{pointers[name]}" if name in pointers else "i32" for name in names if name not in constants}
    types |= dict.fromkeys(floats, "fp32")
    about = {"kernel": kernel.__name__.strip("_").removesuffix("_kernel"), **about, "config": list(config)}
    return Build(kernel, types, constants, aligned, num_warps, num_stages, about, tensor_rows, least, load_bytes)


def tensor_rows(rows: int, dtype: str, precision: str) -> int:
    """Rows of a product on tensor cores: exact float32 products are not taken there."""
    return 0 if dtype == "fp32" and precision == "ieee" else rows
