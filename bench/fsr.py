"""One whole step of FSR against a plain step: learning to reweight without clean data, Table 4's row for label noise.

A step is all that FSR does: drawing the reward examples and reading them one by one from a dataset, look-ahead,
margins, scores, weights, the weighted backward, the dictionary's averages; its update at the end of an epoch is spread
over the steps of the epoch. A variant is timed only when its scores are those of Algorithm 1 in float64. Where steps
share a forward of the reward examples, one sample is as many steps as share one."""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from rich.table import Table
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from bench import tables, timing
from bench.driver import Run, make_parser, share, some_of
from bench.floors import floors
from bench.models import MODELS, Batch, copied_buffers
from bench.steps import plain
from fastrw.fsr import FSR, TABLE_4, MixUp, ProxyDictionary, Relabel
from fastrw.ops.tolerance import relative_error

ROW = TABLE_4["cifar_noise"]
EPOCH = 50_000  # examples in CIFAR's training set
HELD = 4000  # examples in the dataset here
REFRESH = 10
EXACT = 1e-8  # relative error of the scores in float64


@dataclass(frozen=True)
class Variant:
    floor: Callable[[float, float], float]  # (forward ÷ plain step, q ÷ b) -> least ratio, by FLOPs
    options: dict | None = field(default_factory=dict)  # of FSR; None: Algorithm 1 by double backward
    steps: int = 1  # in one sample
    tenth: bool = False  # q is b ÷ 10
    relabel_and_mixup: bool = False
    last: bool = True  # the gradients of the last layer alone are compared

    @property
    def checked(self) -> bool:
        """Does Algorithm 1 have the same scores?"""
        return self.options is not None and "warmup" not in self.options and not self.relabel_and_mixup


VARIANTS = {
    "FSR": Variant(lambda f, share: 1 + share * f),
    f"FSR, refresh={REFRESH}": Variant(lambda f, share: 1 + share * f / REFRESH, {"refresh": REFRESH}, REFRESH),
    "FSR, a tenth as reward": Variant(lambda f, share: 1 + f / 10, tenth=True),
    "FSR, warm-up": Variant(lambda f, share: 1.0, {"warmup": 10**6}),
    "FSR, relabel and MixUp": Variant(lambda f, share: 1 + f + share * f, relabel_and_mixup=True),
    'FSR, params="all"': Variant(lambda f, share: 3 + share, {"params": "all"}, last=False),
    "double backward, last": Variant(lambda f, share: 1 + f + share * f, None),
    "double backward, all": Variant(lambda f, share: 1 + f + (1 - f) * 2 + share, None, last=False),
}


def algorithm_1(model: torch.nn.Module, batch: Batch, reward: Batch, optimizer: torch.optim.SGD, last: bool) -> Tensor:
    """The step as one would write it with torch alone, and as FSR's authors did: ω kept in the graph of the look-ahead,
    the model run at Θ̂ on reward and training examples. Leaves the gradient in `.grad`, returns -∂L^R/∂ω [b]."""
    meta = dict([*model.named_parameters()][-2 if last else 0 :])
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
        self.plain()
        self.optimizer.step()  # now there is a momentum buffer
        self.optimizer.param_groups[0]["lr"] = 0.0

    def plain(self) -> None:
        self.model.zero_grad()
        plain(self.model, self.batch, self.batch)

    def literal(self, reward: Batch, last: bool) -> Tensor:
        self.model.zero_grad()
        return algorithm_1(self.model, self.batch, reward, self.optimizer, last)

    def learner(self, variant: Variant, q: int) -> FSR:
        """FSR on a dataset whose images are read one by one, as most are."""
        options = {"warmup": 0, "q": len(self.index) // 10 if variant.tenth else q} | variant.options
        if variant.relabel_and_mixup:
            options |= {"relabel": Relabel(HELD, self.classes, device=self.x.device), "mixup": MixUp(self.classes)}
        return FSR(self.model, HELD, self.classes, dataset=TensorDataset(self.x.cpu(), self.y.cpu()), labels=self.y,
                   optimizer=self.optimizer, capacity=ROW.capacity, **options)  # fmt: skip

    def learn(self, learner: FSR) -> Tensor | None:
        """One step of FSR, which returns its scores."""
        self.model.zero_grad()
        return learner.step(self.index, *self.batch).scores


def error(model: str, b: int, q: int, variant: Variant, device: str) -> float | None:
    """Relative error in float64 against double backward on the same reward examples; None where there is no score."""
    if not variant.checked:
        return None
    made = Bench(model, b, torch.float64, device)
    twin, learner = copy.deepcopy(made), made.learner(variant, q)
    drawn: list[Tensor] = []
    fetch = learner.dictionary.fetch
    learner.dictionary.fetch = lambda size: drawn.append(fetch(size)) or drawn[-1]
    scores = made.learn(learner)
    return relative_error(scores, twin.literal((made.x[drawn[-1]], made.y[drawn[-1]]), variant.last))


def measure(model: str, names: list[str], rounds: int, b: int, q: int, device: str) -> list[dict]:
    """A row for each variant, named by its key "way": seconds of a step, ratio to plain, floor, memory."""
    made = Bench(model, b, device=device)
    forward = floors(copy.deepcopy(made.model), made.batch, made.batch)["forward"]
    update = seconds_of_update(made.classes) / (EPOCH / b)
    rows = {"plain": {"floor": 1.0, "error": None, "red": False}}
    learners, steps, counts = {}, {"plain": made.plain}, {"plain": 1}
    for name in names:
        variant = VARIANTS[name]
        wrong = error(model, b, q, variant, device)
        red = wrong is not None and not wrong <= EXACT
        rows[name] = {"floor": variant.floor(forward, q / b), "error": wrong, "red": red}
        if red:
            continue
        counts[name] = variant.steps
        if variant.options is None:
            steps[name] = partial(made.literal, (made.x[-q:], made.y[-q:]), variant.last)
        else:
            learners[name] = made.learner(variant, q)
            steps[name] = partial(made.learn, learners[name])
    runs = {name: lambda step=step, times=counts[name]: [step() for _ in range(times)] for name, step in steps.items()}
    times = timing.interleave(runs, rounds, device)

    def before(learner: FSR | None) -> None:
        made.model.zero_grad()
        if learner:
            learner.end_epoch()  # so that the step reads reward examples

    peaks = {
        name: timing.peak_memory(step, device, partial(before, learners.get(name))) for name, step in steps.items()
    }
    for name, row in rows.items():
        row |= {"model": model, "way": name, "b": b, "q": q}
        if name in steps:
            extra = update if name in learners else 0.0
            seconds = tuple(sample / counts[name] + extra for sample in times[name].samples)
            row |= timing.Timing(times[name].cold / counts[name], seconds).against(times["plain"])
            row |= {"peak_bytes": peaks[name], "peak_ratio": peaks[name] / peaks["plain"], "update_seconds": extra}
    return [*rows.values()]


def seconds_of_update(classes: int) -> float:
    """The median over some updates of a dictionary of an epoch's examples."""
    dictionary = ProxyDictionary(torch.arange(EPOCH) % classes, classes, capacity=ROW.capacity)
    dictionary.seen.fill_(True)
    dictionary.history.normal_()
    return timing.interleave({"update": dictionary.update}, 5, warmup=0)["update"].median


def main(argv: list[str] | None = None) -> int:
    parser = make_parser("bench.fsr", __doc__)
    share(parser, "models", default=["resnet32_bn"], help=f"of {', '.join(MODELS)}; resnet32_bn by default")
    some_of(parser, "--ways", VARIANTS)
    parser.add_argument("-b", type=int, default=ROW.b, help="training examples in a step (Table 4: %(default)s)")
    parser.add_argument("-q", type=int, default=ROW.q, help="reward examples in a step (Table 4: %(default)s)")
    share(parser, "--rounds", "--threads", "--device", "--json")
    options = parser.parse_args(argv)
    with Run("fsr", options, rows=[]) as run:
        run.opening(f"dictionary of {ROW.capacity}, b = {options.b}, q = {options.q}")
        for name in options.models:
            rows = measure(name, options.ways, options.rounds, options.b, options.q, options.device)
            run.add(rows, table(name, rows))
    return run.status


def table(name: str, rows: list[dict]) -> Table:
    lines = [
        {
            "variant": row["way"],
            ">ms": tables.median(row, ".1f"),
            ">ratio": "wrong" if row["red"] else tables.number(row["ratio"]),
            ">quartiles": tables.quartiles(row.get("quartiles")),
            ">floor": tables.number(row["floor"]),
            ">memory": tables.number(row.get("peak_ratio")),
            ">error in float64": tables.number(row["error"], ".0e"),
            "style": tables.style(row),
        }
        for row in rows
    ]
    return tables.table(f"{name}: ratio of a step to a plain step", lines)


if __name__ == "__main__":
    sys.exit(main())
