"""What is looked at during and after a training: curves, test scores, the weights of right and of wrong labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.metrics import confusion_matrix, roc_auc_score
from torch import Tensor, nn

from bench.papers.task import Task
from bench.papers.trial import Result

if TYPE_CHECKING:
    from bench.papers.training import Run

WATCHED = 1000  # examples behind each point of a curve
BINS = 40
TOP = 4.0  # of n * w in histograms; what is above is counted in the last bin


@torch.no_grad()
def predictions(model: nn.Module, x: Tensor) -> Tensor:
    """The class of the highest output, in evaluation mode. [N, C, H, W] -> [N] int64."""
    training = model.training
    model.eval()
    found = torch.cat([model(part).argmax(1) for part in x.split(500)]) if len(x) else x.new_zeros(0, dtype=torch.long)
    model.train(training)
    return found


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float | None:
    """The share of right predictions, None of no examples."""
    return (predictions(model, x) == y).double().mean().item() if len(y) else None


def test_scores(model: nn.Module, task: Task) -> Result:
    """Accuracy, balanced accuracy (the mean of the classes' recalls) and confusion counts [K][K] on the whole test
    set; rows are true classes."""
    found = predictions(model, task.x_test)
    counts = confusion_matrix(task.y_test.cpu(), found.cpu(), labels=range(task.classes))
    recall = counts.diagonal() / counts.sum(1).clip(1)
    return {
        "accuracy": float(counts.trace() / counts.sum()),
        "balanced_accuracy": float(recall[counts.sum(1) > 0].mean()),
        "confusion": counts.tolist(),
    }


class Watch:
    """The curve, the model that did best on the held-out examples, and the weights of the second half of the steps."""

    def __init__(self, N: int):
        self.curve: list[list] = []  # [step, test accuracy, held-out accuracy, training accuracy], labels as seen
        self.best: dict[str, Tensor] | None = None
        self.best_held = -1.0
        self.weight_sum = torch.zeros(N, dtype=torch.float64)  # of n * w_i
        self.times_seen = torch.zeros(N, dtype=torch.float64)
        self.zeros = self.weights = 0

    def saw(self, index: Tensor, w: Tensor) -> None:
        index, w = index.cpu(), w.detach().double().cpu()
        self.weight_sum.index_add_(0, index, len(w) * w)
        self.times_seen.index_add_(0, index, torch.ones_like(w))
        self.zeros += int((w == 0).sum())
        self.weights += len(w)

    def point(self, step: int, model: nn.Module, task: Task) -> None:
        held = accuracy(model, task.x_held[:WATCHED], task.y_held[:WATCHED])
        some = torch.linspace(0, len(task.y) - 1, min(WATCHED, len(task.y))).long()
        test = torch.linspace(0, len(task.y_test) - 1, min(WATCHED, len(task.y_test))).long()
        self.curve.append([
            step,
            accuracy(model, task.x_test[test], task.y_test[test]),
            held,
            accuracy(model, task.x[some], task.y[some]),
        ])  # fmt: skip
        if held is not None and held > self.best_held:
            self.best_held = held
            self.best = {name: value.detach().clone() for name, value in model.state_dict().items()}

    def result(self, task: Task) -> Result:
        """`auc`: the chance that a random right label has more mean weight than a random wrong one."""
        found: Result = {"curve": [[step, *map(_short, rest)] for step, *rest in self.curve]}
        seen = self.times_seen > 0
        right = (task.y == task.true).cpu()[seen]
        if self.weights:
            found["zero_share"] = _short(self.zeros / self.weights)
        if len(right.unique()) == 2:
            w = (self.weight_sum / self.times_seen)[seen]
            found["auc"] = _short(float(roc_auc_score(right, w)))
            found["weights"] = {"right": histogram(w[right].numpy()), "wrong": histogram(w[~right].numpy())}
        return found

    def state_dict(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def probe(run: Run) -> Result:
    """The weights that the model at hand gives to examples it never saw (Ren et al. 2018, Fig. 3).

    `mixed`: batches of held-out examples as they are. `single`: for each class but the background, a batch of that
    class alone of which the noise share is relabelled as background. Histograms of n * w.
    """
    task, n = run.task, run.trial.n
    found = {kind: {"right": [], "wrong": []} for kind in ("mixed", "single")}

    def weigh(kind: str, x: Tensor, y: Tensor, right: Tensor) -> None:
        w = len(y) * run.learner.weights((x, y), run.clean_batch())
        found[kind]["right"].append(w[right].double().cpu().numpy())
        found[kind]["wrong"].append(w[~right].double().cpu().numpy())

    right = task.y_held == task.true_held
    for part in torch.arange(len(right)).split(n):
        if len(part) > 1:
            weigh("mixed", task.x_held[part], task.y_held[part], right[part])
    if run.trial.noise == "background":
        for k in range(task.classes):
            members = (task.true_held == k).nonzero()[:, 0][:n]
            if k != task.background and len(members) > 1:
                labels = torch.full_like(members, k)
                labels[: round(run.trial.flip * len(members))] = task.background
                weigh("single", task.x_held[members], labels, labels == k)
    return {
        kind: {group: histogram(np.concatenate(each)) for group, each in groups.items()}
        for kind, groups in found.items()
        if groups["right"]
    }


def histogram(w: np.ndarray) -> Result:
    """How many of n * w are exactly 0, how many fall into each of BINS equal bins of (0, TOP], and their mean."""
    counts, _ = np.histogram(w[w > 0].clip(max=TOP), BINS, (0, TOP))
    return {"zero": int((w == 0).sum()), "counts": counts.tolist(), "mean": _short(float(w.mean())) if len(w) else None}


def _short(value: float | None) -> float | None:
    """Five significant digits: results are kept in a repository."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
