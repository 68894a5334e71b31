"""What launch plans launch on a GPU that is not here, beside what Triton would launch for the same arguments.

python -m tests.gpu_plans     one JSON object a line: a check and the faults it found

In a process of its own: Triton's interpreter, which the other tests switch on, has no launches.
"""

import gc
import json
import weakref
from contextlib import contextmanager
from importlib import import_module
from itertools import product
from unittest.mock import patch

import torch
from torch import Tensor

from tests import op_cases
from tests.mocked_gpu import Driver, Kernel, driver, triton
from tests.op_cases.draw import LAYOUTS, Draw

OPS = [op for op in op_cases.CASES if hasattr(torch.ops.fastrw, f"{op}_triton")]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LAUNCHERS = {op: getattr(import_module(f"fastrw.kernels.{op}"), f"launch_{op}") for op in OPS}
plans = import_module("fastrw.kernels.plans")
runs: list[tuple] = []  # the kernel and what it was launched with


class Noted(Kernel):
    def launch_metadata(self, grid, stream, *args):
        return "metadata"

    def run(self, *args):
        runs.append((self, args))


def compiled(self, key, signature, device, *rest):
    kernel = self.device_caches[device][0][key] = Noted()
    return kernel


def case(op, which=0, dtype=torch.float32, layout="plain", device="cpu"):
    args = op_cases.CASES[op].make(Draw(dtype, layout, device=device), *op_cases.CASES[op].sizes[which])
    return [x.to(device) if isinstance(x, Tensor) else x for x in args]


def launched(run, *args) -> list[tuple]:
    runs.clear()
    run(*args)
    return list(runs)


@contextmanager
def compared(faults: list):
    """Every launch of a plan is repeated through Triton's own front door, and must be the same."""
    plain, seen = plans.Launch._again, []

    def again(launch, tensors):
        (ours, mine), (theirs, bound) = (
            *launched(plain, launch, tensors),
            *launched(lambda: launch._kernel[launch._grid](*tensors, *launch._scalars, **launch._named)),
        )
        seen.append(launch)
        if ours is not theirs:
            faults.append("another kernel")
        if mine[:6] != bound[:6] or len(mine) != len(bound):
            faults.append(f"launched with {mine[:6]}, not with {bound[:6]}")
        faults.extend(f"{x} for {y}" for x, y in zip(mine[9:], bound[9:], strict=False) if not same(x, y))

    with patch.object(plans.Launch, "_again", again):
        yield seen


def same(x, y) -> bool:
    return x is y if isinstance(x, Tensor) else type(x) is type(y) and x == y


def as_bound_by_triton(op: str):
    """Of every dtype, layout and size: the second call is a plan's. Tensors of "meta" are taken for those of a GPU."""
    for dtype, layout, device in product(DTYPES, LAYOUTS, ("cpu", "meta")):
        for which in range(3):
            args = case(op, which, dtype, layout, device)
            LAUNCHERS[op](*args)
            known, faults = len(LAUNCHERS[op].plans), []
            with compared(faults) as seen:
                LAUNCHERS[op](*args)
                LAUNCHERS[op](*(x.clone() if isinstance(x, Tensor) else x for x in args))  # laid out plainly
                LAUNCHERS[op](*args)
            empty = any(isinstance(x, Tensor) and x.numel() == 0 for x in args)
            if not seen and not empty:
                faults.append("nothing launched")
            yield from (f"{dtype} {layout} {which}: {fault}" for fault in faults)
            if len(LAUNCHERS[op].plans) > known + 1:
                yield f"{dtype} {layout} {which}: the same kind has two plans"


def misaligned(x: Tensor) -> Tensor:
    """The numbers and strides of x, an element off."""
    size = x.untyped_storage().size() // x.element_size()
    return torch.cat([x.new_zeros(1), x.as_strided((size,), (1,), 0)]).as_strided(x.shape, x.stride(), 1)


def wider(x: Tensor) -> Tensor:
    """The numbers of x, each row further from the next."""
    return torch.cat([x, x], -1)[..., : x.shape[-1]]


def others(args: list):
    """What differs from the arguments in one ingredient of their kind."""
    for i, x in enumerate(args):
        if isinstance(x, Tensor):
            for change in (misaligned, wider) if x.ndim > 1 else (misaligned,):
                yield f"{change.__name__} {i}", [*args[:i], change(x), *args[i + 1 :]]
    for name, change in {
        "dtype": lambda x: x.bfloat16() if x.is_floating_point() else x,
        "device": lambda x: x.to("meta"),
    }.items():
        yield name, [change(x) if isinstance(x, Tensor) else x for x in args]


def kinds(op: str):
    """Arguments of another kind get another plan, those of the same kind do not."""
    launch, args = LAUNCHERS[op], case(op)
    launch.plans.clear()
    launch(*args)
    for what, changed in others(args):
        for expected in (1, 0):
            known = len(launch.plans)
            launch(*changed)
            if len(launch.plans) != known + expected:
                yield f"{what}: {len(launch.plans) - known} new plans, not {expected}"
    multiplies = op in ("gram_dot", "project_dot", "weighted_outer", "conv_dot", "conv_instance", "conv_outer")
    for setting in (torch.backends.cuda.matmul, torch.backends.cudnn.conv) if multiplies else ():
        before, known = setting.fp32_precision, len(launch.plans)
        own = (setting is torch.backends.cudnn.conv) == op.startswith("conv")
        setting.fp32_precision = "ieee" if before == "tf32" else "tf32"
        runs.clear()
        launch(*args)
        precision = {x for _, found in runs for x in found if x in ("ieee", "tf32")} if own else set()
        if len(launch.plans) - known != own or (own and precision != {setting.fp32_precision}):
            yield f"TF32 {own}: {len(launch.plans) - known} new plans, {precision}"
        setting.fp32_precision = before
        if len(launch.plans) - known != own:
            yield "TF32 is not of the kind"


def numbers_are_of_the_kind():
    """Those that are no tensors, and their type."""
    launch, args = LAUNCHERS["gram_dot"], case("gram_dot")
    for bias, again in ((1.0, 2.0), (1, 1.0), (0, 0.0)):
        (_, first), (_, second) = *launched(launch, *args[:4], bias), *launched(launch, *args[:4], again)
        found = [[x for x in run[9:] if isinstance(x, float)] for run in (first, second)]
        if found != [[bias], [again]]:
            yield f"{found}, not {bias} and {again}"
    launch, args = LAUNCHERS["embedding_dot"], case("embedding_dot")
    for padding in (-1, 2, 2, -1):
        ((_, found),) = launched(launch, *args[:3], padding)
        given = [x for x in found[9:] if isinstance(x, int)]
        if padding not in given:
            yield f"padding {padding} is not among {given}"


def the_current_stream_is_read_at_each_launch():
    for op in OPS:
        for stream in (0, 7, 9):
            with patch.object(Driver, "get_current_stream", lambda self, device, stream=stream: stream):
                found = {args[3] for _, args in launched(LAUNCHERS[op], *case(op))}
            if found != {stream}:
                yield f"{op}: launched on {found}, not on {stream}"


def the_device_of_the_tensors_is_made_the_current_one():
    """Where it is not."""

    class At:
        def __init__(self, device):
            self.device = device

        def __enter__(self):
            entered.append(self.device)

        def __exit__(self, *_):
            pass

    for op in OPS:
        args, entered = case(op), []
        count = len(launched(LAUNCHERS[op], *args))
        with patch.object(Driver, "get_current_device", lambda self: 1), patch.object(torch.cuda, "device", At):
            launched(LAUNCHERS[op], *args)
        if entered != [0] * count:
            yield f"{op}: made {entered} current for {count} launches"


def hooks_see_every_launch():
    knobs, args = triton.knobs.runtime, case("weighted_outer")
    launch = LAUNCHERS["weighted_outer"]
    launch(*args)
    for name, place in (("launch_enter_hook", 7), ("launch_exit_hook", 8)):
        chain, hook = getattr(knobs, name), print
        chain.add(hook)
        found = launched(launch, *args)
        chain.remove(hook)
        if not found or any(args[place] is not chain for _, args in found):
            yield f"{name} is not called"
    known, seen = len(launch.plans), []
    for kernel in (import_module("fastrw.kernels.weighted_outer")._weighted_outer_kernel,):
        kernel.add_pre_run_hook(lambda *args, **named: seen.append(args))
        launch(*args)
        kernel.pre_run_hooks.clear()
    if len(seen) != 1 or len(launch.plans) != known:
        yield "a hook of the kernel is not called"
    with patch.object(knobs, "jit_cache_hook", lambda **_: None):
        launch(*case("weighted_outer", 1))
        if len(launch.plans) != known:
            yield "a plan is kept from a hook"


def plans_are_few():
    launch, args = LAUNCHERS["combine"], case("combine")
    launch.plans.clear()
    with patch.object(plans, "LIMIT", 3):
        for n in range(1, 6):
            launch(args[0][:n], args[1][:n])
            newest = next(reversed(launch.plans))
        if len(launch.plans) != 3 or newest not in launch.plans:
            yield f"{len(launch.plans)} plans"


def no_tensor_is_kept():
    """By whatever a plan refers to."""
    for op in OPS:
        for which in range(3):
            args = case(op, which)
            results = LAUNCHERS[op](*args)
            alive = [weakref.ref(x) for x in (*args, *(results if isinstance(results, tuple) else (results,)))
                     if isinstance(x, Tensor)]  # fmt: skip
            runs.clear()
            del args, results
            gc.collect()
            if any(ref() is not None for ref in alive):
                yield f"{op} keeps a tensor"
        reached, found = list(LAUNCHERS[op].plans.values()), set()
        while reached:
            x = reached.pop()
            if isinstance(x, Tensor):
                yield f"{op} keeps a tensor of {tuple(x.shape)}"
            for cell in getattr(x, "__closure__", None) or ():
                if id(cell) not in found:
                    found.add(id(cell))
                    reached.append(cell.cell_contents)
            reached += x if isinstance(x, (list, tuple)) else ()


def nothing_is_bound_or_measured_again():
    """Neither Triton's front door nor what a plan is made of is met a second time."""

    def refuse(*args, **named):
        raise AssertionError("again")

    for op in OPS:
        module = import_module(f"fastrw.kernels.{op}")
        args = case(op)
        LAUNCHERS[op](*args)
        again = {name: refuse for name in ("unit", "_unit", "cdiv", "choose_config", "sm_count", "along_channels",
                                           "Launch") if hasattr(module, name)}  # fmt: skip
        jit = triton.runtime.jit.JITFunction
        with patch.multiple(module, **again), patch.object(jit, "run", refuse), patch.object(triton, "cdiv", refuse):
            try:
                LAUNCHERS[op](*args)
            except AssertionError:
                yield op


CHECKS = {
    **{f"as_bound_by_triton.{op}": (as_bound_by_triton, op) for op in OPS},
    **{f"kinds.{op}": (kinds, op) for op in OPS},
    **{check.__name__: (check,) for check in (
        numbers_are_of_the_kind, the_current_stream_is_read_at_each_launch, hooks_see_every_launch, plans_are_few,
        the_device_of_the_tensors_is_made_the_current_one, no_tensor_is_kept, nothing_is_bound_or_measured_again,
    )},
}  # fmt: skip


@torch.no_grad()
def main() -> None:
    driver.set_active(Driver())
    triton.runtime.jit.JITFunction._do_compile = compiled
    for name, (check, *args) in CHECKS.items():
        print(json.dumps({"check": name, "faults": list(check(*args))[:5]}), flush=True)


if __name__ == "__main__":
    main()
