"""One case of any op in every variant there is: the backends that can serve, eager forms, torch.compile.

Each is checked against the reference in float64 before it is timed; one that is wrong gets no number."""

from argparse import Namespace
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from bench import roof, timing
from bench.cases import CASES, Case, Draw
from fastrw import Refused, ops
from fastrw.ops import backends, reference, tolerance
from fastrw.ops.self_test import as_tuple

BACKENDS = ("reference", "cpp", "cuda", "triton")
COMPILED = "torch.compile"
EAGER_MODE = ("eager", "reference")  # the reference is written in torch
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def by(variant: str) -> str:
    """The backend that computes it, or "eager", or torch.compile."""
    return variant.partition(":")[0]


def variants(
    op: str, case: Case, args: tuple, chosen: Sequence[str] = BACKENDS, *, compiled: bool
) -> dict[str, timing.Run]:
    """Everything that may compute the case, whether or not it can serve here; `chosen` are the backends."""
    forms = {f": {form}": call for form, call in case.forms.items()} or {"": getattr(ops, op, None)}
    found = {name + form: partial(call, *args, backend=name) for form, call in forms.items() for name in chosen}
    found |= {f"eager: {form}": partial(call, *args) for form, call in case.eager.items()}
    if compiled:
        torch.compiler.reset()  # past a few shapes of one function, torch.compile would run it eagerly
        found[COMPILED] = partial(torch.compile(next(iter(case.eager.values())), dynamic=False), *args)
    return found


class Judge:
    """Knows the right result of a case, and how far from it a variant may be."""

    def __init__(self, op: str, case: Case, args: tuple):
        spec = case.spec or getattr(reference, op)
        self.terms = case.terms
        self.truths = as_tuple(spec(*map(_double, args)))
        plain = as_tuple(spec(*args))
        self.plain = [tolerance.relative_error(x, truth) for x, truth in zip(plain, self.truths, strict=True)]

    def __call__(self, name: str, run: timing.Run) -> dict:
        """Its largest error; why it gets no number (None: it gets one), and whether because it is wrong."""
        try:
            outputs = as_tuple(run())
        except Refused as refusal:  # "fastrw.<op>: ..., got 'cuda', which <reason>"
            return {"why": str(refusal).partition(", which ")[2] or str(refusal), "red": False, "error": None}
        except Exception as error:  # torch may lack a form or a compiler; a backend has to serve or refuse
            why = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
            return {"why": why, "red": by(name) in BACKENDS, "error": None}
        errors = []
        for x, truth, plain in zip(outputs, self.truths, self.plain, strict=True):
            errors.append(tolerance.relative_error(x, truth))
            if not errors[-1] <= (bound := tolerance.bound(x.dtype, plain, self.terms)):
                return {"why": f"wrong: error {errors[-1]:.0e} > {bound:.0e}", "red": True, "error": errors[-1]}
        return {"why": None, "red": False, "error": max(errors)}


def _double(x):
    if isinstance(x, list):
        return [_double(y) for y in x]
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


@torch.no_grad()
def measure(
    op: str, name: str, dtype: torch.dtype, options: Namespace, ceilings: roof.Roof, *, compiled: bool = False
) -> list[dict]:
    """A row for each variant, named by its key "way"; what is measured is None where it got no number, as `why` says.

    options: device, backend (several), and rounds or else seconds. The keys are those that `compare` reads in files."""
    case, device = CASES[op][name], options.device
    args = case.make(Draw(dtype, device))
    runs = variants(op, case, args, options.backend, compiled=compiled)
    judge = Judge(op, case, args)
    verdicts = {variant: judge(variant, run) for variant, run in runs.items()}
    green = {variant: run for variant, run in runs.items() if verdicts[variant]["why"] is None}
    rounds = options.rounds or timing.rounds_within(options.seconds, green, device)
    times = timing.interleave(green, rounds, device, cold_cache=timing.on_gpu(device))
    eager = min((t for variant, t in times.items() if by(variant) in EAGER_MODE), key=lambda t: t.median, default=None)
    auto = backends.choose(op, "auto", *args).name if op in backends.names() else None
    flops, nbytes = case.flops, case.bytes(dtype)
    floor, floor_h100 = (roofs.floor(flops, nbytes, dtype) for roofs in (ceilings, roof.H100))
    rows = []
    for variant, verdict in verdicts.items():
        row = {"op": op, "case": name, "sizes": case.sizes, "dtype": roof.name(dtype), "way": variant}
        row |= {"auto": variant == auto, "flops": flops, "bytes": nbytes, "floor": floor, "floor_h100": floor_h100}
        row |= verdict
        row |= dict.fromkeys(("seconds", "to_eager", "to_compile", "bandwidth", "rate", "of_roof"))
        if time := times.get(variant):
            row |= {"seconds": {**time.summary(), "rounds": len(time.samples)}, "of_roof": floor / time.median}
            row |= {"bandwidth": nbytes / time.median, "rate": flops / time.median}
            row["to_eager"] = time.over(eager) if eager else None
            row["to_compile"] = time.over(times[COMPILED]) if COMPILED in times else None
        rows.append(row)
    return rows
