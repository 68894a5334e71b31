"""The Python side of a step: microseconds for each operation, each use of a parameter, and each call.

Tensors are tiny, so that arithmetic is next to nothing, and models long: a cost is the slope between a short model and
a long one of the same variant, taken in turns."""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn
from torch.nn import functional as F

import fastrw
from bench import goals, record, tables, timing
from bench.driver import Run, make_parser, share
from bench.models import MODELS, Batch, Model, images, on_this
from bench.steps import plain, reweighter
from fastrw.api.problem import Problem
from fastrw.engine.cache import Cache
from fastrw.graph.walk import Graph
from fastrw.ops import backends

WIDTH, N, M = 4, 8, 2
SHORT, LONG = 4, 104  # operations or uses
HUNDRED = LONG - SHORT

EPILOG = """\
the rows: what Reweighter.backward adds to a plain step, by how the gradient is made, and two parts of it: the walk over
the autograd graph, with its key, and the three products of a use (V, score, update) straight from the ops' backend.
"step - products" is what remains: reading and dispatching. Goals stand beside what they are for.

the columns, in microseconds for each:
  an operation         without parameters, on the batch (torch.relu)
  a functional         the same in torch.nn.functional, in Python, with a keyword (F.relu, as nn.ReLU calls it)
  a use                a linear layer whose parameters are selected
  a use not selected   a linear layer outside `params`: an operation that touches no selected parameter
  a call               what is left when there are none of them

Times are the minimum over all rounds, in CPU seconds, on one thread: other work on the machine adds little.

calibration: the first call on a model (owners measured, hooks looked for, a score checked against its example's own
gradient) and those after it. What was learned serves graphs of the same structure and shapes. The first call of a
process (on a tiny model) also tests every backend, and does the late imports.

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


def forward(model: Chain, batch: Batch, val_batch: Batch) -> timing.Run:
    return partial(Problem(model, batch, val_batch).losses, batch)


def walked(model: Chain, batch: Batch, val_batch: Batch) -> timing.Run:
    losses = Problem(model, batch, val_batch).losses(batch)
    return lambda: Cache(Graph(losses.grad_fn), frozenset(), len(losses), ()).plan()[0]


def step(model: Chain, batch: Batch, val_batch: Batch, **options) -> timing.Run:
    """One Reweighter for all steps, as in a training loop; without options a plain step."""
    take = fastrw.Reweighter(model, **options).backward if options else partial(plain, model)

    def run():
        model.zero_grad()
        take(batch, val_batch)

    return run


def products(model: Chain, _batch: Batch, _val_batch: Batch) -> timing.Run:
    """V from the validation rows, the score along it, the weighted gradient."""
    a, g, w = torch.randn(N + M, WIDTH), torch.randn(N + M, WIDTH), torch.rand(N)
    rows = a[:N], g[:N], a[N:], g[N:]

    outer = backends.choose("weighted_outer", "auto", *rows[:2], w).run
    project = backends.choose("project_dot", "auto", *rows[:2], *outer(*rows[2:], None)).run

    @torch.no_grad()
    def run():
        for _ in model.layers:
            V, v_b = outer(rows[2], rows[3], None)
            project(rows[0], rows[1], V, v_b)
            outer(rows[0], rows[1], w)

    return run


# each makes from a model and its batches what is timed
VARIANTS: dict[str, Callable[[Chain, Batch, Batch], timing.Run]] = {
    "forward": forward,
    "walked": walked,
    "plain": step,
    "assembled": partial(step, update="assembled"),
    "backward": partial(step, update="backward"),
    "tangent": partial(step, method="tangent"),
    "params=last": partial(step, params="last"),
    "products": products,
}
SIZES = {  # how many uses, operations and functionals
    "none": (SHORT, 0, 0),
    "operations": (SHORT, HUNDRED, 0),
    "functionals": (SHORT, 0, HUNDRED),
    "uses": (LONG, 0, 0),
}
# the row -> the variants that it is the difference of
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
    """The rows in microseconds, and the minimum times that they come from: what disturbs a run only adds."""
    batch, val_batch = ((torch.randn(size, WIDTH), torch.zeros(size).long()) for size in (N, M))
    runs = {
        (name, size): make(Chain(*SIZES[size]), batch, val_batch) for name, make in VARIANTS.items() for size in SIZES
    }
    clock, timing.clock = timing.clock, time.process_time
    try:
        taken = timing.interleave(runs, rounds, warmup=5)
    finally:
        timing.clock = clock
    least = {name: {size: min(taken[name, size].samples) * 1e6 for size in SIZES} for name in VARIANTS}
    rows = []
    for line, (first, *less) in LINES.items():
        at = {size: least[first][size] - sum(least[name][size] for name in less) for size in SIZES}
        operation, functional, use = ((at[size] - at["none"]) / HUNDRED for size in SIZES if size != "none")
        row = {"line": line, "operation": operation, "functional": functional, "use": use, "unselected": None}
        row |= {"call": at["none"] - (SHORT + 1) * use, "goals": goals.OVERHEAD.get(line, {})}
        if line == "products":
            row |= {"operation": None, "functional": None}
        if "last" in line:
            row |= {"use": None, "unselected": use}
        rows.append(row)
    return rows, least


def calibration(name: str, case: Model, later: int = 5) -> dict:
    """Seconds of the first call on a model, of those after it (median), and of one with half the batch."""
    model, batch, val_batch = case.make()
    half = tuple(t[: len(t) // 2] for t in batch)
    seconds = []
    for b in (batch, *[batch] * later, half):
        model.zero_grad()
        start = time.perf_counter()
        _, served_by = reweighter(model, b, val_batch)
        seconds.append(time.perf_counter() - start)
    after = statistics.median(seconds[1:-1])
    return {"model": name, "served_by": served_by, "first": seconds[0], "later": after,
            "ratio": seconds[0] / after, "other_size": seconds[-1]}  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("bench.overhead", __doc__, EPILOG)
    share(parser, "--rounds", default=40)
    parser.add_argument("--models", nargs="*", choices=MODELS, default=on_this("cpu"), metavar="MODEL",
                        help="whose first calls are timed; none without a name")  # fmt: skip
    share(parser, "--json")
    parser.set_defaults(threads=1, device="cpu")
    options = parser.parse_args(argv)
    with Run("overhead", options, rows=[]) as run, record.progress() as say:
        say("first calls")  # before all else: the first of them is the first of this process
        calibrated = [calibration("of the process", Model(lambda: Chain(1, 1, 1), images(WIDTH), 3, N, M))]
        for name in options.models:
            say(f"first calls on {name}")
            calibrated.append(calibration(name, MODELS[name]))
        say("slopes")
        rows, least = slopes(options.rounds)
        run.result |= {"least": least, "calibration": calibrated}
        run.add(rows, table(rows), first_calls(calibrated))
    return run.status


def table(rows: list[dict]) -> Table:
    def cell(row: dict, key: str) -> Text:
        figure, goal = row[key], row["goals"].get(key)
        said = tables.number(figure, ".1f", missing="") + (f" (goal {goal:.0f})" if goal else "")
        return Text(said, goals.colour(figure, goal))

    columns = {"an operation": "operation", "a functional": "functional", "a use": "use",
               "a use not selected": "unselected", "a call": "call"}  # fmt: skip
    lines = [{"": row["line"], **{f">{of}": cell(row, key) for of, key in columns.items()}} for row in rows]
    return tables.table("the Python side, µs (one thread)", lines)


def first_calls(rows: list[dict]) -> Table:
    lines = [
        {
            "model": row["model"],
            "served by": row["served_by"],
            ">first call": tables.number(row["first"], ".1f", 1e3),
            ">later calls": tables.number(row["later"], ".1f", 1e3),
            ">ratio": tables.number(row["ratio"], ".1f"),
            ">at n/2": tables.number(row["other_size"], ".1f", 1e3),
        }
        for row in rows
    ]
    return tables.table("calibration, ms", lines)


if __name__ == "__main__":
    sys.exit(main())
