"""The Python side of a step: microseconds for each operation, each use of a parameter, and each call.

Tensors are tiny, so that arithmetic is next to nothing, and models long: a cost is the slope between a short model and
a long one, of the same way, taken in turns."""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from torch.nn import functional as F

import fastrw
from bench import record, tables, timing
from bench.goals import OVERHEAD, missed
from bench.models import MODELS, Batch, Model, images, on_this
from bench.steps import plain, reweighter
from fastrw.api.problem import Problem
from fastrw.engine.plan import key_of
from fastrw.graph.walk import Graph
from fastrw.ops import backends

WIDTH, N, M = 4, 8, 2
SHORT, LONG = 4, 104  # operations or uses
HUNDRED = LONG - SHORT

EPILOG = """\
the lines:
  forward              the model and its loss, as anyone runs them
  walk and key         of the autograd graph, at every step: goal 3 µs an operation (0.3 ms on ResNet-32)
  plain step           one forward and one backward
  step                 what Reweighter.backward adds to a plain step, by the way the gradient is made
  products             the three products of a use (V, score, update) alone, straight from the ops' backend
  step - products      what remains is reading and dispatching: goal 3 µs an operation, 20 µs a use

the columns:
  an operation         that takes no parameter, of the batch (torch.relu)
  a functional         the same as torch.nn.functional has it, in Python, with a keyword (F.relu, as nn.ReLU calls it)
  a use                a linear layer; its parameters are selected
  a use not selected   a linear layer outside `params`: an operation that touches no selected parameter
  a call               what is left at none of them

Times are the least of all turns, of the CPU, on one thread: other work on the machine adds little.

calibration: the first call on a model (owners measured, hooks looked for, a score held against its example's own
gradient) and those after it. What was learned serves graphs of the same structure and shapes. The first call of a
process (on a tiny model) also lets every backend prove itself, and imports what is imported late.

  python -m bench.overhead --json overhead.json"""


class Chain(nn.Module):
    """`uses` linear layers, `operations` and `functionals` ReLUs in a row, and a head."""

    def __init__(self, uses: int, operations: int, functionals: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(uses))
        self.head, self.operations, self.functionals = nn.Linear(WIDTH, 3), operations, functionals

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        for _ in range(self.operations):
            x = torch.relu(x)
        for _ in range(self.functionals):
            x = F.relu(x, inplace=False)
        return self.head(x)


def batches() -> tuple[Batch, Batch]:
    return tuple((torch.randn(size, WIDTH), torch.zeros(size).long()) for size in (N, M))


def step_of(step: Callable, *sizes: int, **options) -> Callable[[], object]:
    model, (batch, val_batch) = Chain(*sizes), batches()

    def run():
        model.zero_grad()
        step(model, batch, val_batch, **options)

    return run


def kept_step(*sizes: int, **options) -> Callable[[], object]:
    """One Reweighter for all steps, as in a training loop."""
    model, (batch, val_batch) = Chain(*sizes), batches()
    step = fastrw.Reweighter(model, **options)

    def run():
        model.zero_grad()
        step.backward(batch, val_batch)

    return run


def forward(*sizes: int) -> Callable[[], object]:
    model, (batch, val_batch) = Chain(*sizes), batches()
    problem = Problem(model, batch, val_batch)
    return lambda: problem.losses(batch)


def walked(*sizes: int) -> Callable[[], object]:
    model, (batch, val_batch) = Chain(*sizes), batches()
    losses = Problem(model, batch, val_batch).losses(batch)
    return lambda: hash(key_of(Graph(losses.grad_fn), frozenset(), len(losses))[0])


def products(uses: int, *_sizes: int) -> Callable[[], object]:
    """V from the validation rows, the score along it, the weighted gradient."""
    a, g, w = torch.randn(N + M, WIDTH), torch.randn(N + M, WIDTH), torch.rand(N)
    rows = a[:N], g[:N], a[N:], g[N:]

    def best(op: str, *args) -> Callable:
        return backends.choose(op, "auto", *args).run

    V, v_b = best("weighted_outer", *rows[2:], None)(*rows[2:], None)
    outer, project = best("weighted_outer", *rows[:2], w), best("project_dot", *rows[:2], V, v_b)

    @torch.no_grad()
    def run():
        for _ in range(uses):
            W, b = outer(rows[2], rows[3], None)
            project(rows[0], rows[1], W, b)
            outer(rows[0], rows[1], w)

    return run


WAYS: dict[str, Callable[..., Callable]] = {
    "forward": forward,
    "walked": walked,
    "plain": functools.partial(step_of, plain),
    "assembled": functools.partial(kept_step, update="assembled"),
    "backward": functools.partial(kept_step, update="backward"),
    "tangent": functools.partial(kept_step, method="tangent"),
    "params=last": functools.partial(kept_step, params="last"),
    "products": products,
}
SIZES = {  # how many uses, operations and functionals
    "none": (SHORT, 0, 0),
    "operations": (SHORT, HUNDRED, 0),
    "functionals": (SHORT, 0, HUNDRED),
    "uses": (LONG, 0, 0),
}
COLUMNS = "operation", "functional", "use", "unselected", "call"
# the line -> what it is the difference of
LINES: dict[str, tuple[str, ...]] = {
    "forward": ("forward",),
    "walk and key": ("walked",),
    "plain step": ("plain",),
    "step, assembled": ("assembled", "plain"),
    "step, backward": ("backward", "plain"),
    "step, tangent": ("tangent", "plain"),
    "step, params=last": ("params=last", "plain"),
    "products": ("products",),
    "step - products, assembled": ("assembled", "plain", "products"),
}


def slopes(rounds: int) -> tuple[list[dict], dict]:
    """A row a line, in microseconds, and the least times that they come from: what disturbs a run only adds."""
    ways = {(way, size): make(*SIZES[size]) for way, make in WAYS.items() for size in SIZES}
    clock, timing.clock = timing.clock, time.process_time
    try:
        taken = timing.interleave(ways, rounds, warmup=5)
    finally:
        timing.clock = clock
    least = {way: {size: min(taken[way, size].samples) for size in SIZES} for way in WAYS}
    rows = []
    for line, (first, *less) in LINES.items():
        at = {size: least[first][size] - sum(least[way][size] for way in less) for size in SIZES}
        operation, functional, use = (
            (at[size] - at["none"]) / HUNDRED * 1e6 for size in ("operations", "functionals", "uses")
        )
        if line == "products":
            operation = functional = None
        selected = "last" not in line
        row = {"line": line, "operation": operation, "functional": functional, "use": use if selected else None}
        row |= {"unselected": None if selected else use, "call": at["none"] * 1e6 - (SHORT + 1) * use}
        row["goals"] = OVERHEAD.get(line, {})
        rows.append(row)
    return rows, {way: {size: seconds * 1e6 for size, seconds in found.items()} for way, found in least.items()}


def calibration(name: str, case: Model, later: int = 5) -> dict:
    """Seconds of the first call on a model, of those after it (median), and of one with half the batch."""
    model, batch, val_batch = case.make()
    seconds = []
    half = tuple(t[: len(t) // 2] for t in batch)
    for b in (batch, *[batch] * later, half):
        model.zero_grad()
        start = time.perf_counter()
        _, served_by = reweighter(model, b, val_batch)
        seconds.append(time.perf_counter() - start)
    after = statistics.median(seconds[1:-1])
    return {"model": name, "served_by": served_by, "first": seconds[0], "later": after,
            "ratio": seconds[0] / after, "other_size": seconds[-1]}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    words = argparse.ArgumentParser(
        prog="python -m bench.overhead", description=__doc__.splitlines()[0], epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    words.add_argument("--rounds", type=int, default=40, help="turns that each way takes (%(default)s)")
    words.add_argument(
        "--models",
        nargs="*",
        default=on_this("cpu"),
        metavar="MODEL",
        help="whose first calls are timed; none without a name",
    )
    words.add_argument("--json", metavar="FILE", help="all figures, for programs")
    options = words.parse_args(argv)
    record.known(words, options.models, MODELS)
    if options.rounds < 1:
        words.error("--rounds is 1 or more")
    console, threads = record.console(), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with record.progress() as status:
            status.update("first calls")  # before all else: the first of them is the first of this process
            calibrated = [calibration("of the process", Model(lambda: Chain(1, 1, 1), images(WIDTH), 3, N, M))]
            for name in options.models:
                status.update(f"first calls on {name}")
                calibrated.append(calibration(name, MODELS[name]))
            status.update("slopes")
            rows, least = slopes(options.rounds)
    finally:
        torch.set_num_threads(threads)
    console.print(table(rows))
    console.print(first_calls(calibrated))
    if options.json:
        found = {"rows": rows, "least": least, "calibration": calibrated}
        record.write_json(options.json, {"bench": "overhead", **record.header("cpu"), **found})
    return 0


def table(rows: list[dict]) -> Table:
    shown = tables.columns(
        Table(title="the Python side, µs (one thread)", **tables.STYLE),
        ("",),
        ("an operation", "a functional", "a use", "a use not selected", "a call"),
    )
    for row in rows:
        cells = [_against(row[key], row["goals"].get(key)) for key in COLUMNS]
        shown.add_row(row["line"], *cells)
    return shown


def _against(figure: float | None, goal: float | None) -> Text:
    if figure is None:
        return Text("")
    if goal is None:
        return Text(f"{figure:.1f}")
    return Text(f"{figure:.1f} (goal {goal:.0f})", "red" if missed(figure, goal) else "green")


def first_calls(rows: list[dict]) -> Table:
    shown = tables.columns(
        Table(title="calibration, ms", **tables.STYLE),
        ("model", "served by"),
        ("first call", "later calls", "ratio", "at n/2"),
    )
    for row in rows:
        times = [f"{row[key] * 1e3:.1f}" for key in ("first", "later")]
        shown.add_row(row["model"], row["served_by"], *times, f"{row['ratio']:.1f}", f"{row['other_size'] * 1e3:.1f}")
    return shown


if __name__ == "__main__":
    sys.exit(main())
