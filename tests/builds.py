"""The builds that the launchers ask Triton for, recorded without a GPU and without compiling.

A stand-in driver says which GPU there is, a hook of Triton's takes each specialisation just before it would be
compiled, and the launchers run on tensors of the meta device: what is recorded is what a GPU would meet, from the
dtype and alignment of every pointer to the number of warps. They are called as the tests on a GPU call them, and at the
sizes of the benchmarks.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from inspect import signature
from itertools import product
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget

from bench import cases as bench_cases
from fastrw.ops import backends
from tests import op_cases
from tests.op_cases.draw import Draw

SM_COUNT = {80: 108, 90: 132, 100: 148}  # A100, H100 and H200, B200, by compute capability
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
COMMON = ("plain", "transposed", "channels last")  # layouts in which any size is met, the others being margins
OPS = [op for op in op_cases.CASES if hasattr(torch.ops.fastrw, f"{op}_triton")]


@dataclass
class Build:
    """One specialisation of a kernel, as Triton's compiler takes it."""

    kernel: triton.JITFunction
    types: dict[str, str]  # of every argument
    constants: dict[tuple[int, ...], object]
    attributes: dict[tuple[int, ...], list]
    num_warps: int
    num_stages: int
    capabilities: set[int] = field(default_factory=set)  # the GPUs on which it was asked for
    families: set[str] = field(default_factory=set)  # of configs, for which it was
    callers: set[str] = field(default_factory=set)  # "tests" on a GPU, "bench", "users"

    @property
    def constant(self) -> dict[str, object]:
        """The constants by name."""
        return {self.kernel.arg_names[at]: value for (at,), value in self.constants.items()}

    @property
    def dtype(self) -> str:
        """Of the first argument."""
        return self.types[self.kernel.arg_names[0]].lstrip("*")

    @property
    def config(self) -> tuple[int, ...]:
        known = {**self.constant, "num_warps": self.num_warps, "num_stages": self.num_stages}
        return tuple(known[name] for name in _module(self.kernel).Config._fields if name in known)

    @property
    def about(self) -> dict[str, object]:
        """What tells it from other builds of its kernel."""
        in_config = _module(self.kernel).Config._fields
        return {
            "kernel": self.kernel.__name__.strip("_").removesuffix("_kernel"),
            "family": "/".join(sorted(self.families)),
            "config": self.config,
            **{
                name: kind[1:] if kind[0] == "*" else None for name, kind in self.types.items() if name.endswith("_ptr")
            },
            **{name: value for name, value in self.constant.items() if name not in in_config and value is not None},
            "aligned": [self.kernel.arg_names[at] for (at,), found in self.attributes.items() if found],
        }


class _Driver:
    """Stands in for Triton's driver of a GPU that is not here; the number of a device is its compute capability."""

    capability = 80

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)


class _OnPaper(Draw):
    """Arguments in every layout, without numbers in them."""

    def __init__(self, dtype: torch.dtype, layout: str = "plain"):
        super().__init__(dtype, layout, device="meta")

    def _randn(self, shape) -> torch.Tensor:
        return torch.empty(shape, device="meta")

    def index(self, high: int, *shape: int) -> torch.Tensor:
        return torch.empty(shape, dtype=torch.int64, device="meta")

    def __call__(self, *shape: int) -> torch.Tensor:  # the three words of the benchmarks' Draw
        return self.normal(*shape)

    def indices(self, r: int, v: int) -> torch.Tensor:
        return self.index(v, r)


def record(op: str, capabilities=tuple(SM_COUNT)) -> list[Build]:
    """Every build of the op's kernels that its launcher asks for on these GPUs."""
    module = import_module(f"fastrw.kernels.{op}")
    launch, choose, found = getattr(module, f"launch_{op}"), getattr(module, "choose_config", None), {}
    driver, now = _Driver(), {"family": "only", "caller": ""}

    def choose_config(*args):
        now["family"] = signature(choose).bind(*args).arguments.get("family", "only")
        return choose(*args)

    def take(*, fn, compile, **rest) -> bool:
        key = (fn.name, repr(compile["key"]))
        if key not in found:
            found[key] = Build(
                fn.jit_function, compile["signature"], compile["constants"], compile["configs"][0],
                compile["num_warps"], compile["num_stages"]
            )  # fmt: skip
        found[key].capabilities.add(driver.capability)
        found[key].families.add(now["family"])
        found[key].callers.add(now["caller"])
        return True  # nothing is compiled, nothing is launched

    here = {
        "sm_count": lambda device: SM_COUNT[driver.capability],
        "hopper": lambda device: driver.capability >= 90,
        "choose_config": choose_config,
    }
    here = {name: value for name, value in here.items() if hasattr(module, name)}
    with patch.multiple(module, **here), patch.object(triton.knobs.runtime, "jit_cache_hook", take):
        triton.runtime.driver.set_active(driver)
        for now["caller"], args in _calls(op):
            for driver.capability, precision in product(capabilities, ("ieee", "tf32")):
                with _precision(precision):
                    launch(*args)
    return list(found.values())


def _calls(op: str) -> Iterator[tuple[str, tuple]]:
    """Who calls the op's launcher with which arguments."""
    case = op_cases.CASES[op]
    for dtype in DTYPES:
        yield "tests", backends.get(op).draw(torch.device("cpu"), dtype)  # the self-test
        for layout in case.layouts:
            for sizes in case.sizes[:2]:
                yield "tests", case.make(_OnPaper(dtype, layout), *sizes)
            for sizes in (*case.sizes, *case.large) if layout in COMMON else ():
                yield "tests" if layout == "plain" else "users", case.make(_OnPaper(dtype, layout), *sizes)
        if dtype != torch.float16:  # the benchmarks take the others
            for measured in bench_cases.CASES[op].values():
                yield "bench", measured.make(_OnPaper(dtype))


@contextmanager
def _precision(wanted: str) -> Iterator[None]:
    """What torch.backends allows for products of float32."""
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [place.fp32_precision for place in places]
    for place in places:
        place.fp32_precision = wanted
    try:
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def _module(kernel: triton.JITFunction):
    return sys.modules[kernel.fn.__module__]
