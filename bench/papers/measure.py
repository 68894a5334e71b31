"""What is measured during and after a training: curves, and the weights of right and of wrong labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from bench.papers.task import SpoiltTask
from bench.papers.trial import Result, short
from fastrw.demo.measure import WeightRecord, accuracy, auc
from fastrw.demo.resume import Resumable

WATCHED = 1000  # examples behind each point of a curve
BINS = 40
TOP = 4.0  # of n * w in histograms; what is above is counted in the last bin


class Watch(Resumable):
    """The curve, the model that did best on the held-out examples, and the weights of the second half of the steps."""

    kept = ("curve", "best", "best_held", "weights")

    def __init__(self, N: int):
        self.curve: list[list] = []  # [step, test accuracy, held-out accuracy, training accuracy], labels as seen
        self.best: dict[str, Tensor] | None = None
        self.best_held = -1.0
        self.weights = WeightRecord(N)

    def point(self, step: int, model: nn.Module, task: SpoiltTask) -> None:
        held = accuracy(model, task.x_held[:WATCHED], task.y_held[:WATCHED])
        test, some = (torch.linspace(0, len(of) - 1, min(WATCHED, len(of))).long() for of in (task.y_test, task.y))
        seen = accuracy(model, task.x[some], task.y[some])
        self.curve.append([step, accuracy(model, task.x_test[test], task.y_test[test]), held, seen])
        if held is not None and held > self.best_held:
            self.best_held = held
            self.best = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def result(self, task: SpoiltTask) -> Result:
        found: Result = {"curve": [[step, *map(short, rest)] for step, *rest in self.curve]}
        w, right = self.weights.means, (task.y == task.true).cpu()
        if self.weights.total:
            found["zero_share"] = short(self.weights.zeros / self.weights.total)
        if (share := auc(w, right)) is not None:
            found["auc"] = short(share)
            found["weights"] = histograms(w, right)
        return found


def probe(weigh: Callable[[Tensor, Tensor], Tensor], task: SpoiltTask, n: int, flip: float | None) -> Result:
    """Histograms of the weights n * w that a model gives to examples it never saw (Ren et al. 2018, Fig. 3).

    `mixed`: batches of n held-out examples as they are. `single`, where labels are flipped to the background: for each
    other class, a batch of that class alone of which the share `flip` is relabelled as background.
    weigh: x [n, C, H, W], y [n] -> w [n].
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {"mixed": [], "single": []}
    right = task.y_held == task.true_held
    for part in torch.arange(len(right)).split(n):
        if len(part) > 1:
            found["mixed"].append((weigh(task.x_held[part], task.y_held[part]), right[part]))
    for k in range(task.classes if flip is not None else 0):
        members = (task.true_held == k).nonzero()[:, 0][:n]
        if k != task.background and len(members) > 1:
            labels = torch.full_like(members, k)
            labels[: round(flip * len(members))] = task.background
            found["single"].append((weigh(task.x_held[members], labels), labels == k))
    return {
        kind: histograms(torch.cat([(len(w) * w).double() for w, _ in batches]), torch.cat([r for _, r in batches]))
        for kind, batches in found.items()
        if batches
    }


def histograms(w: Tensor, right: Tensor) -> Result:
    """Of right and of wrong labels: how many of n * w are exactly 0, how many fall into each of BINS equal bins of
    (0, TOP], and their mean. w [N], NaN where unknown; right [N] bool."""
    found = {}
    for name, kind in (("right", right), ("wrong", ~right)):
        part = w[kind & ~w.isnan()].cpu().numpy()
        counts, _ = np.histogram(part[part > 0].clip(max=TOP), BINS, (0, TOP))
        mean = short(float(part.mean())) if len(part) else None
        found[name] = {"zero": int((part == 0).sum()), "counts": counts.tolist(), "mean": mean}
    return found
