"""How a step scales: time and memory of plain and reweighted steps against n, m, depth and width, one at a time."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from rich.table import Table
from rich.text import Text
from torch import nn

from bench import record, tables
from bench.driver import Run, count, make_parser, share, some_of
from bench.end_to_end import measure
from bench.models import Model, images
from fastrw.testing.models import Transformer, mlp, resnet

VARIANTS = ["Reweighter", "update=backward", "params=last", "double_backward"]

EPILOG = """\
One of n, m, depth and width is swept, the others keep the family's own size. Every variant is checked against
Algorithm 1 at every point before it is timed, and the variants of a point take turns. `depth` counts layers (of a
transformer), hidden layers (mlp) or residual blocks (resnet); `width` features or channels.

  python -m bench.scaling --family mlp --axes n m --ways Reweighter --json new.json --plot new.png

A cell of a variant: its time and its peak memory, each over that of the plain step at the same point."""


@dataclass(frozen=True)
class Family:
    """A kind of model of any depth and width, its own size, and what is swept."""

    build: Callable[[int, int], nn.Module]  # depth, width
    inputs: Callable[[int], torch.Tensor]
    sweeps: dict[str, tuple[int, ...]]
    own: dict[str, int]
    classes: int = 10

    def case(self, **size: int) -> Model:
        size = self.own | size
        build = partial(self.build, size["depth"], size["width"])
        return Model(build, self.inputs, self.classes, size["n"], size["m"])


SWEEPS = {"n": (8, 16, 32, 64, 128), "m": (2, 4, 8, 16, 32), "depth": (1, 2, 4, 8), "width": (32, 64, 128, 256)}
FAMILIES = {
    "mlp": Family(
        lambda depth, width: mlp(256, width, depth),
        images(256),
        {"n": (16, 64, 256, 1024), "m": (4, 16, 64, 256), "depth": (1, 4, 16, 64), "width": (64, 256, 1024, 2048)},
        {"n": 128, "m": 16, "depth": 4, "width": 512},
    ),
    "transformer": Family(
        lambda depth, width: Transformer(width=width, layers=depth, heads=max(width // 32, 1)),
        lambda n: torch.randint(1000, (n, 32)),
        SWEEPS,
        {"n": 32, "m": 4, "depth": 2, "width": 128},
        classes=2,
    ),
    "resnet": Family(
        lambda depth, width: resnet((3, 16, 16), 10, [width] * depth, partial(nn.GroupNorm, 4)),
        images(3, 16, 16),
        SWEEPS | {"width": (8, 16, 32, 64)},
        {"n": 32, "m": 4, "depth": 2, "width": 32},
    ),
}
AXES = "n", "m", "depth", "width"


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("bench.scaling", __doc__, EPILOG)
    parser.add_argument("--family", choices=FAMILIES, default="transformer", help="the model (%(default)s)")
    some_of(parser, "--axes", AXES, metavar="AXIS")
    some_of(parser, "--ways", VARIANTS)
    parser.add_argument("--points", type=count, default=5, help="the first so many of each sweep (%(default)s)")
    share(parser, "--rounds", "--threads", "--device", "--json", "--plot")
    parser.set_defaults(n=None, m=None, patience=4.0)  # as end_to_end.measure reads them
    options = parser.parse_args(argv)
    family = FAMILIES[options.family]
    with Run("scaling", options, family=options.family, own=family.own, rows=[]) as run:
        for axis in options.axes:
            rows = sweep(family, axis, options)
            run.add(rows, table(axis, rows, family.own))
    return run.status


def sweep(family: Family, axis: str, options: argparse.Namespace) -> list[dict]:
    """The rows of `end_to_end.measure` at each point, with the sizes of the point."""
    rows = []
    for value in family.sweeps[axis][: options.points]:
        with record.progress(f"{axis} = {value}: ") as say:
            found = measure(options.family, family.case(**{axis: value}), options.ways, options, "on", say)
        rows += [{"axis": axis, "value": value, **family.own, axis: value, **row} for row in found]
    return rows


def table(axis: str, rows: list[dict], own: dict[str, int]) -> Table:
    lines: dict[int, dict] = {}
    for row in rows:
        line = lines.setdefault(row["value"], {f">{axis}": str(row["value"])})
        if row["method"] == "plain":
            line |= {">plain ms": tables.median(row), ">plain MB": tables.number(row["peak_bytes"], ".1f", 1e-6)}
        else:
            cell = row["why"] or f"{row['ratio']:.2f}  {row['peak_ratio']:.2f}"
            line[f">{row['method']}"] = Text(cell, tables.style(row))
    rest = ", ".join(f"{key} {value}" for key, value in own.items() if key != axis)
    return tables.table(f"\nagainst {axis} ({rest}): plain step; then time and memory over it", [*lines.values()])


if __name__ == "__main__":
    sys.exit(main())
