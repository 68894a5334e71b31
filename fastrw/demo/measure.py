"""What is measured of a training: accuracy, the confusion of classes, the weights of right and of wrong labels."""

from typing import Any

import torch
from sklearn.metrics import confusion_matrix, roc_auc_score
from torch import Tensor, nn

from fastrw.demo.noise import Task
from fastrw.demo.resume import Resumable


@torch.no_grad()
def predictions(model: nn.Module, x: Tensor) -> Tensor:
    """The class of the highest output, in evaluation mode. [N, C, H, W] -> [N] int64."""
    training = model.training
    model.eval()
    found = torch.cat([model(part).argmax(1) for part in x.split(500)]) if len(x) else x.new_zeros(0, dtype=torch.long)
    model.train(training)
    return found


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float | None:
    """The share of right predictions; None if there are no examples."""
    return (predictions(model, x) == y).double().mean().item() if len(y) else None


def test_scores(model: nn.Module, task: Task) -> dict[str, Any]:
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


class WeightRecord(Resumable):
    """The mean weight n * w_i of each of N examples over the recorded steps; 1 is the weight of plain training."""

    kept = ("sums", "times", "zeros", "total")

    def __init__(self, N: int):
        self.sums = torch.zeros(N, dtype=torch.float64)
        self.times = torch.zeros(N, dtype=torch.float64)
        self.zeros = self.total = 0

    def add(self, index: Tensor, w: Tensor) -> None:
        """The weights w [n] of one step's batch, at index [n] of the training set."""
        index, w = index.cpu(), w.detach().double().cpu()
        self.sums.index_add_(0, index, len(w) * w)
        self.times.index_add_(0, index, torch.ones_like(w))
        self.zeros += int((w == 0).sum())
        self.total += len(w)

    @property
    def means(self) -> Tensor:
        """[N] float64, NaN where an example was not seen."""
        return self.sums / self.times


def auc(weights: Tensor, right: Tensor) -> float | None:
    """The chance that a random right label has more weight than a random wrong one; None where one kind is missing.

    weights [N], NaN where unknown; right [N] bool."""
    seen = ~weights.isnan()
    both_kinds = len(right[seen].unique()) == 2
    return float(roc_auc_score(right[seen], weights[seen])) if both_kinds else None
