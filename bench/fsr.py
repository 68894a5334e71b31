"""One whole step of FSR against a plain step: learning to reweight without clean data, Table 4's row for label noise.

A step holds all that FSR does: drawing the reward examples and reading them one by one from a dataset, look-ahead,
margins, scores, weights, the weighted backward, the dictionary's averages; its update at the end of an epoch is shared
out over the epoch's steps. A way is timed only when its scores are those of Algorithm 1 in float64. Of the ways that do
not run the reward forward at every step, one sample is as many steps as share one."""

from __future__ import annotations

import argparse
import copy
import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import Dataset

from bench import record, timing
from bench.floors import floors
from bench.models import MODELS, Batch
from bench.steps import copied_buffers, parameters, plain
from fastrw.fsr import FSR, TABLE_4, MixUp, ProxyDictionary, Relabel
from fastrw.ops.tolerance import relative_error

ROW = TABLE_4["cifar_noise"]
EPOCH = 50_000  # examples in CIFAR's training set
HELD = 4000  # examples that the dataset of this bench has
REFRESH = 10
EXACT = 1e-8  # relative error of the scores in float64


class Held(Dataset):
    """Images read one by one, as most datasets are."""

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.targets = x, y

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.x[i], self.targets[i]


@dataclass(frozen=True)
class Way:
    options: dict | None  # of FSR; None: Algorithm 1 by double backward
    floor: Callable[[float, float], float]  # (forward ÷ plain step, q ÷ b) -> least ratio, by FLOPs
    steps: int = 1  # in one sample
    parts: tuple[str, ...] = ()  # re-labelling, MixUp
    more: dict = field(default_factory=dict)


WAYS = {
    "FSR": Way({}, lambda f, share: 1 + share * f),
    f"FSR, refresh={REFRESH}": Way({"refresh": REFRESH}, lambda f, share: 1 + share * f / REFRESH, REFRESH),
    "FSR, a tenth as reward": Way({"tenth": True}, lambda f, share: 1 + f / 10),
    "FSR, warm-up": Way({"warmup": 10**6}, lambda f, share: 1.0),
    "FSR, relabel and MixUp": Way({}, lambda f, share: 1 + f + share * f, parts=("relabel", "mixup")),
    'FSR, params="all"': Way({"params": "all"}, lambda f, share: 3 + share),
    "double backward, last": Way(None, lambda f, share: 1 + f + share * f, more={"last": True}),
    "double backward, all": Way(None, lambda f, share: 1 + f + (1 - f) * 2 + share, more={"last": False}),
}


def algorithm_1(model: nn.Module, batch: Batch, reward: Batch, optimizer: torch.optim.SGD, last: bool) -> Tensor:
    """The step as one would write it with torch alone, and as FSR's authors did: ω kept in the graph of the look-ahead,
    the model run at Θ̂ on reward and training examples. Leaves the gradient in `.grad`, returns -∂L^R/∂ω [b]."""
    meta = parameters(model)
    if last:
        meta = dict(list(meta.items())[-2:])
    group = optimizer.param_groups[0]
    f = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    omega = torch.full_like(f, 1 / len(f), requires_grad=True)
    gradient = torch.autograd.grad((omega * f).sum(), list(meta.values()), create_graph=True)
    ahead = {}
    for (name, p), g in zip(meta.items(), gradient, strict=True):
        buffer = optimizer.state[p].get("momentum_buffer", 0)
        ahead[name] = p - ROW.eta * (g + group["weight_decay"] * p + group["momentum"] * buffer)
    state = {**ahead, **copied_buffers(model)}
    with torch.no_grad():  # the margin
        F.cross_entropy(functional_call(model, state, (batch[0],)), batch[1], reduction="none") - f.detach()
    state = {**ahead, **copied_buffers(model)}
    reward_loss = F.cross_entropy(functional_call(model, state, (reward[0],)), reward[1])
    decay = sum(group["weight_decay"] / 2 * (t**2).sum() for t in ahead.values())
    (slope,) = torch.autograd.grad(reward_loss + decay, omega, retain_graph=True)
    w = (-slope).clamp(min=0)
    ((w / (w.sum() + 1e-5)) * f).sum().backward()
    return -slope


class Bench:
    """The model, a dataset, a batch and an optimizer with momentum, in one dtype."""

    def __init__(self, name: str, b: int, dtype: torch.dtype = torch.float32, device: str = "cpu"):
        self.model, (self.x, self.y), _ = MODELS[name].make(device, HELD, 1)
        self.model, self.x = self.model.to(dtype), self.x.to(dtype if self.x.is_floating_point() else None)
        self.classes, self.index = MODELS[name].classes, torch.arange(b)
        self.y[: self.classes] = torch.arange(self.classes, device=device)
        self.batch = self.x[:b], self.y[:b]
        self.optimizer = torch.optim.SGD(self.model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
        self.model.zero_grad()
        plain(self.model, self.batch, self.batch)
        self.optimizer.step()  # there is a momentum buffer
        self.optimizer.param_groups[0]["lr"] = 0.0

    def step(self, way: Way, q: int) -> Callable[[], Tensor | None]:
        """One step of the way, which returns its scores."""
        if way.options is None:
            reward = self.x[-q:], self.y[-q:]

            def literal() -> Tensor:
                self.model.zero_grad()
                return algorithm_1(self.model, self.batch, reward, self.optimizer, **way.more)

            return literal
        options = dict(way.options)
        if options.pop("tenth", False):
            q = len(self.index) // 10
        if "relabel" in way.parts:
            options["relabel"] = Relabel(HELD, self.classes, device=self.x.device)
        if "mixup" in way.parts:
            options["mixup"] = MixUp(self.classes)
        found = FSR(self.model, HELD, self.classes, dataset=Held(self.x.cpu(), self.y.cpu()), labels=self.y,
                    optimizer=self.optimizer, capacity=ROW.capacity, q=q, **({"warmup": 0} | options))  # fmt: skip

        def step() -> Tensor | None:
            self.model.zero_grad()
            return found.step(self.index, *self.batch).scores

        step.fsr = found
        return step


def error(name: str, b: int, q: int, way: Way, device: str) -> float | None:
    """Relative error in float64 against double backward on the same reward examples; None where there is no score."""
    made = Bench(name, b, torch.float64, device)
    if way.options is None or way.parts or "warmup" in way.options:
        return None
    twin = copy.deepcopy(made)
    step = made.step(way, q)
    drawn: list[Tensor] = []
    fetch = step.fsr.dictionary.fetch
    step.fsr.dictionary.fetch = lambda size: drawn.append(fetch(size)) or drawn[-1]
    scores = step()
    reward = made.x[drawn[-1]], made.y[drawn[-1]]
    last = way.options.get("params", "last") == "last"
    return relative_error(scores, algorithm_1(twin.model, twin.batch, reward, twin.optimizer, last))


def measure(name: str, ways: list[str], rounds: int, b: int, q: int, device: str) -> list[dict]:
    """A row a way: seconds of a step, ratio to plain, floor, memory."""
    made = Bench(name, b, device=device)
    forward = floors(copy.deepcopy(made.model), made.batch, made.batch)["forward"]
    update = seconds_of_update(made.classes) / (EPOCH / b)

    def plain_step() -> None:
        made.model.zero_grad()
        plain(made.model, made.batch, made.batch)

    errors = {way: error(name, b, q, WAYS[way], device) for way in ways}
    red = [way for way, found in errors.items() if found is not None and not found <= EXACT]
    steps = {"plain": plain_step} | {way: made.step(WAYS[way], q) for way in ways if way not in red}
    samples = {
        way: functools.partial(repeat, step, WAYS[way].steps if way in WAYS else 1) for way, step in steps.items()
    }
    times = timing.interleave(samples, rounds, device)
    peaks = {}
    for way, step in steps.items():
        if hasattr(step, "fsr"):
            step.fsr.end_epoch()  # so that the next step reads reward examples
        peaks[way] = timing.peak_memory(step, device, made.model.zero_grad)
    rows = []
    for way in ["plain", *ways]:
        row = {"model": name, "way": way, "b": b, "q": q, "floor": 1.0, "error": errors.get(way), "red": way in red}
        count, extra = 1, 0.0
        if way != "plain":
            row["floor"] = WAYS[way].floor(forward, q / b)
            count, extra = WAYS[way].steps, update if WAYS[way].options is not None else 0.0
        if way not in red:
            seconds = [s / count + extra for s in times[way].samples]
            found = timing.Timing(times[way].cold / count, tuple(seconds))
            base = times["plain"]
            row |= {"seconds": found.as_dict(), "ratio": found.median / base.median}
            row |= {"quartiles": [s / base.median for s in found.quartiles]}
            row |= {"peak_bytes": peaks[way], "peak_ratio": peaks[way] / peaks["plain"], "update_seconds": extra}
        rows.append(row)
    return rows


def repeat(step: Callable[[], object], times: int) -> None:
    for _ in range(times):
        step()


def seconds_of_update(classes: int) -> float:
    """The median of some updates of a dictionary over an epoch's examples."""
    dictionary = ProxyDictionary(torch.arange(EPOCH) % classes, classes, capacity=ROW.capacity)
    dictionary.seen.fill_(True)
    dictionary.history.normal_()
    found = []
    for _ in range(5):
        start = time.perf_counter()
        dictionary.update()
        found.append(time.perf_counter() - start)
    return sorted(found)[2]


def main(argv: list[str] | None = None) -> int:
    options = (words := parser()).parse_args(argv)
    record.known(words, options.models, MODELS)
    console = record.console()
    torch.set_num_threads(options.threads)
    machine = record.machine(options.device)
    console.print(
        f"{machine.get('gpu', machine['cpu'])}, {machine['threads']} threads, torch {torch.__version__}; "
        f"dictionary of {ROW.capacity}, b = {options.b}, q = {options.q}. {record.caution(machine)}"
    )
    rows = []
    for name in options.models:
        found = measure(name, options.ways, options.rounds, options.b, options.q, options.device)
        show(console, name, found)
        rows += found
    if options.json:
        record.write_json(options.json, {"bench": "fsr", **record.header(options.device), "rows": rows})
    return 1 if any(row["red"] for row in rows) else 0


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(prog="python -m bench fsr", description=__doc__.splitlines()[0])
    words.add_argument("models", nargs="*", metavar="model", default=["resnet32_bn"],
                       help=f"of {', '.join(MODELS)}; resnet32_bn by default")  # fmt: skip
    words.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY",
                       help=f"of {', '.join(map(repr, WAYS))}; all by default")  # fmt: skip
    words.add_argument("-b", type=int, default=ROW.b, help=f"training examples in a step (Table 4: {ROW.b})")
    words.add_argument("-q", type=int, default=ROW.q, help=f"reward examples in a step (Table 4: {ROW.q})")
    words.add_argument("--rounds", type=int, default=9)
    words.add_argument("--threads", type=int, default=torch.get_num_threads())
    words.add_argument("--device", default=record.device(), help="cpu or cuda")
    words.add_argument("--json", metavar="FILE")
    return words


def show(console: Console, name: str, rows: list[dict]) -> None:
    shown = Table(title=f"{name}: ratio of a step to a plain step", title_justify="left", box=box.SIMPLE)
    shown.add_column("way", no_wrap=True)
    for heading in ("ms", "ratio", "quartiles", "floor", "memory", "error in float64"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        wrong = "-" if row["error"] is None else f"{row['error']:.0e}"
        if row["red"]:
            shown.add_row(row["way"], "-", "wrong", "-", f"{row['floor']:.2f}", "-", wrong)
            continue
        low, high = row["quartiles"]
        shown.add_row(row["way"], f"{row['seconds']['median'] * 1e3:.1f}", f"{row['ratio']:.2f}",
                      f"{low:.2f}-{high:.2f}", f"{row['floor']:.2f}", f"{row['peak_ratio']:.2f}", wrong)  # fmt: skip
    console.print(shown)


if __name__ == "__main__":
    sys.exit(main())
