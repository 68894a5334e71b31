"""Steps that torch.compile compiles whole, a plain one and fastrw's; what that costs, and after how many steps it is
paid back."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

import fastrw
from bench.models import Batch, losses
from bench.twins import CannotRun, Twins

BACKEND = "inductor"  # in a rehearsal "aot_eager": all but the code
PLAIN, REWEIGHTER = "plain, compiled", "Reweighter, compiled"
EAGER = {PLAIN: "plain", REWEIGHTER: "Reweighter"}  # the same step, not compiled
QUICKLY = ("mlp", "lenet")  # the models that are compiled in less than minutes
FIRST_STEPS = 3  # an eager one, one that compiles, and the second compiled one, which is made eagerly too

_seconds: dict[tuple[str, torch.dtype], float] = {}
_warm: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def mean_and_losses(model: nn.Module, *batch: Tensor) -> tuple[Tensor, Tensor]:
    f = losses(model, batch)
    return f.mean(), f.detach()


def compiled_loss(model: nn.Module, backend: str, mode: str | None = None) -> Callable[..., tuple[Tensor, Tensor]]:
    """(inputs, targets) -> mean loss and losses [n], compiled with the model. torch counts what it compiles by code,
    and stops at eight: each model has a code of its own."""
    own = FunctionType(mean_and_losses.__code__.replace(), globals(), mean_and_losses.__name__)
    function = torch.compile(own, dynamic=False, backend=backend, mode=mode)
    return lambda *batch: function(model, *batch)


_losses = Twins(lambda twin: compiled_loss(twin, BACKEND))
_reweighters = Twins(lambda twin: fastrw.Reweighter(twin, compile=BACKEND))


def plain(model: nn.Module, batch: Batch, _val_batch: Batch) -> tuple[Tensor, str]:
    """A plain step whose loss is compiled with the model."""
    _, loss = _losses.of(model)

    def step() -> Tensor:
        mean, f = loss(*batch)
        mean.backward()
        return f

    return _warmed(PLAIN, model, step)(), "plain"


def reweighter(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    """The step of fastrw.Reweighter(compile=True). Raises CannotRun where it runs eagerly."""
    _, ours = _reweighters.of(model)
    out = _warmed(REWEIGHTER, model, lambda: ours.backward(batch, val_batch))()
    if not out.compilation.used:
        raise CannotRun(f"not compiled: {out.compilation.why}")
    return out.scores, f"{out.method}, {out.update}"


def _warmed(name: str, model: nn.Module, step: Callable[[], Any]) -> Callable[[], Any]:
    """The step, after those that compile it on a new model."""
    known = _warm.setdefault(model, set())
    if name not in known:
        known.add(name)
        start = time.perf_counter()
        for _ in range(FIRST_STEPS):
            model.zero_grad()
            step()
        model.zero_grad()
        kind = name, next(model.parameters()).dtype
        _seconds[kind] = max(time.perf_counter() - start, _seconds.get(kind, 0.0))
    return step


@contextmanager
def from_nothing(methods: Collection[str]) -> Iterator[None]:
    """For one model: nothing that was compiled before is on the disk. A step that is checked, then timed, is compiled
    twice; the slower time is what it costs, as the other finds its code on the disk."""
    _seconds.clear()
    if BACKEND != "inductor" or not EAGER.keys() & {*methods}:
        yield
        return
    from torch._inductor.utils import fresh_cache

    with fresh_cache():
        yield


def tell_costs(rows: Mapping[str, dict]) -> None:
    """Give the rows of one model their "compiling", None where nothing was compiled: `seconds` that it took, and after
    how many `steps` the step has paid for it `beside` the eager one; None: never, or that was not measured."""
    for method, row in rows.items():
        row["compiling"] = None
        if row["seconds"] is None or method not in EAGER:
            continue
        seconds = max(took for (name, dtype), took in _seconds.items() if name == method and dtype != torch.float64)
        row["compiling"] = {"seconds": seconds, "beside": None, "steps": None}
        if beside := (rows.get(EAGER[method]) or {}).get("seconds"):
            saved = beside["median"] - row["seconds"]["median"]
            row["compiling"] |= {"beside": EAGER[method], "steps": seconds / saved if saved > 0 else None}


def costs(rows: Collection[dict]) -> Iterator[str]:
    """The same in words."""
    for row in rows:
        if cost := row.get("compiling"):
            back = "" if cost["beside"] is None else f", never paid back: not faster than {cost['beside']}"
            if cost["steps"] is not None:
                back = f", paid back after {cost['steps']:,.0f} steps beside {cost['beside']}"
            yield f"{row['method']}: compiling took {cost['seconds']:.0f} s{back}"
