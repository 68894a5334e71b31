"""One case of any op, computed in every way there is: the backends that can serve, eager forms, torch.compile.

Each is held against the reference in float64 before it is timed; one that is wrong gets no number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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
EAGER = "eager: "
IN_EAGER_MODE = ("eager", "reference")  # the reference is torch, too
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Way = Callable[[], object]


@dataclass(frozen=True)
class Settings:
    """How a case is measured."""

    device: str
    ceilings: roof.Roof
    backends: tuple[str, ...] = BACKENDS
    rounds: int | None = None  # as many as `seconds` allow
    seconds: float = 0.3


def on_gpu(device: str) -> bool:
    return device.startswith("cuda")


def ways(op: str, case: Case, args: tuple, served_by: tuple[str, ...] = BACKENDS, *, compiled: bool) -> dict[str, Way]:
    """Every way to compute the case, whether or not it can serve here."""
    words = {f": {form}": word for form, word in case.words.items()} or {"": partial(_word, op)}
    found = {name + form: partial(word, *args, backend=name) for form, word in words.items() for name in served_by}
    found |= {EAGER + form: partial(run, *args) for form, run in case.eager.items()}
    if compiled:
        torch.compiler.reset()  # past a few shapes of one function, torch.compile would run it eagerly
        found[COMPILED] = partial(torch.compile(next(iter(case.eager.values())), dynamic=False), *args)
    return found


def _word(op: str, *args, backend: str):
    return getattr(ops, op)(*args, backend=backend)


class Judge:
    """Knows what a case has to give, and how far from it a result may be."""

    def __init__(self, op: str, case: Case, args: tuple):
        spec = case.spec or getattr(reference, op)
        self.terms = case.terms
        self.truths = as_tuple(spec(*map(_double, args)))
        plain = as_tuple(spec(*args))
        self.plain = [tolerance.relative_error(x, truth) for x, truth in zip(plain, self.truths, strict=True)]

    def __call__(self, name: str, way: Way) -> dict:
        """Its largest error; why it gets no number (None: it gets one), and whether because it is wrong."""
        try:
            outputs = as_tuple(way())
        except Refused as refusal:  # "fastrw.<op>: ..., got 'cuda', which <reason>"
            return {"why": str(refusal).partition(", which ")[2] or str(refusal), "red": False, "error": None}
        except Exception as error:  # torch may lack a form or a compiler; a backend has to serve or refuse
            why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
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
def measure(op: str, name: str, dtype: torch.dtype, settings: Settings, *, compiled: bool = False) -> list[dict]:
    """One row a way; what is measured is None where it got no number, `why` says so."""
    case, device = CASES[op][name], settings.device
    args = case.make(Draw(dtype, device))
    every = ways(op, case, args, settings.backends, compiled=compiled)
    judge = Judge(op, case, args)
    verdicts = {way: judge(way, run) for way, run in every.items()}
    green = {way: run for way, run in every.items() if verdicts[way]["why"] is None}
    rounds = settings.rounds or timing.rounds_within(settings.seconds, green, device)
    times = timing.interleave(green, rounds, device, cold_cache=on_gpu(device))
    eager = min((times[way] for way in green if by(way) in IN_EAGER_MODE), key=lambda t: t.median, default=None)
    chosen = backends.choose(op, "auto", *args).name if op in backends.names() else None
    work = {"flops": case.flops, "bytes": case.bytes(dtype), "floor": settings.ceilings.floor(
        case.flops, case.bytes(dtype), dtype)}  # fmt: skip
    work["floor_h100"] = roof.H100.floor(case.flops, case.bytes(dtype), dtype)
    rows = []
    for way, verdict in verdicts.items():
        row = {"op": op, "case": name, "sizes": case.sizes, "dtype": str(dtype).removeprefix("torch."), "way": way}
        row |= {"auto": way == chosen, **work, **verdict}
        row |= dict.fromkeys(("seconds", "to_eager", "to_compile", "bandwidth", "rate", "of_roof"))
        if way in times:
            time = times[way]
            row |= {"seconds": time.summary(), "of_roof": work["floor"] / time.median}
            row |= {"bandwidth": work["bytes"] / time.median, "rate": work["flops"] / time.median}
            row["to_eager"] = time.over(eager) if eager else None
            row["to_compile"] = time.over(times[COMPILED]) if COMPILED in times else None
        rows.append(row)
    return rows


def by(way: str) -> str:
    """The backend that computes it, or "eager", or torch.compile."""
    return way.partition(":")[0]
