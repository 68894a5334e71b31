"""The dictionary R: the training examples that stand in for reward data, balanced over the classes (Eq. 4)."""

from typing import Any

import torch
from torch import Tensor

from fastrw.fsr import checks
from fastrw.fsr.pushers import MetaMargin, Pusher, Visit


class ProxyDictionary:
    """R = argmax_R sum over x in R of P̂(x), |R| / C examples of each class (Zhang & Pfister 2021, Eq. 4-5).

    It stores indices into the dataset, never the examples: its memory is the labels, a few numbers per training example
    (`pusher.columns` and a flag), and `capacity` indices. It starts with a balanced random selection.

    Each class has k = capacity // C places, of which min(k, examples of the class) are always filled. An example that
    has not been trained on yet, or whose score is not finite, enters only if no other is left. Ties go to the lower
    index.

    Args:
        labels: [N] whole numbers from 0 to C - 1: the labels that all N training examples are trained with.
        num_classes: C; every class needs an example.
        capacity: |R|, at least C.
        pusher: how examples are scored; see `pushers`.
        seed: for the initial choice and `fetch`, which draw from the dictionary's own CPU generator.
        dtype, device: of the history that scores are computed from: float32 or float64.
    Raises:
        TypeError, ValueError: a label out of range, a class without an example, a capacity below the number of classes.
    """

    def __init__(self, labels: Tensor, num_classes: int, *, capacity: int = 2000, pusher: Pusher | None = None,
                 seed: int = 0, dtype: torch.dtype = torch.float32, device: Any = "cpu"):  # fmt: skip
        checks.arguments("ProxyDictionary", num_classes=num_classes, capacity=capacity)
        self.labels = checks.labels("ProxyDictionary", labels, num_classes, name="labels").cpu()
        if capacity < num_classes:
            raise ValueError(
                f"fastrw.ProxyDictionary: capacity must be at least the number of classes, {num_classes}, "
                f"got {capacity}"
            )
        counts = torch.bincount(self.labels, minlength=num_classes)
        if len(empty := (counts == 0).nonzero()):
            raise ValueError(f"fastrw.ProxyDictionary: every class needs an example, got none of class {int(empty[0])}")
        self.capacity, self.num_classes = capacity, num_classes
        self.pusher = MetaMargin() if pusher is None else pusher
        self.generator = torch.Generator().manual_seed(seed)
        N = len(self.labels)
        self.seen = torch.zeros(N, dtype=torch.bool, device=device)
        self.history = torch.zeros(N, self.pusher.columns, dtype=dtype, device=device)
        self._rank = torch.arange(N) - (counts.cumsum(0) - counts).repeat_interleave(counts)  # 0, 1, ... class by class
        self._held = counts.clamp(max=capacity // num_classes)  # [C] filled places of each class
        self._places = self._top(torch.rand(N, generator=self.generator))  # [C, k]; -1 if empty

    def __len__(self) -> int:
        return int(self._held.sum())

    @property
    def indices(self) -> Tensor:
        """[|R|] int64 on the CPU: the examples in the dictionary, class by class, each class best first."""
        return self._places[self._places >= 0]

    @property
    def scores(self) -> Tensor:
        """[N] P̂ of every training example; -inf if it has not been trained on yet or P̂ is not finite."""
        s = self.pusher.score(self.history)
        return torch.where(self.seen & s.isfinite(), s, -torch.inf)

    @torch.no_grad()
    def observe(self, index: Tensor, visit: Visit) -> None:
        """Updates P̂ of the examples at index [n] from their labels, logits and losses."""
        device, dtype = self.history.device, self.history.dtype
        floats = (None if t is None else t.to(device, dtype) for t in (visit.z, visit.ahead, visit.losses))
        index = index.to(device)
        self.history[index] = self.pusher.move(self.history[index], Visit(visit.y.to(device), *floats))
        self.seen[index] = True

    def update(self) -> float:
        """Refills every class with its highest scores (Eq. 4), at the end of an epoch.

        Returns:
            the share of the examples that were not in the dictionary before.
        """
        before, self._places = self.indices, self._top(self.scores.cpu())
        return float((~torch.isin(self.indices, before)).double().mean())

    def fetch(self, q: int) -> Tensor:
        """[q] int64 on the CPU: indices drawn at random from the dictionary, q // C of each class; the remaining q % C
        come from as many classes drawn at random. No example is drawn twice before its whole class has been."""
        checks.arguments("ProxyDictionary.fetch", q=q)
        keys = torch.rand(self._places.shape, generator=self.generator)
        keys[self._places < 0] = 2.0
        shuffled = self._places.gather(1, keys.argsort(1))
        share = torch.full((self.num_classes,), q // self.num_classes)
        share[torch.randperm(self.num_classes, generator=self.generator)[: q % self.num_classes]] += 1
        owner = torch.arange(self.num_classes).repeat_interleave(share)
        rank = torch.arange(q) - (share.cumsum(0) - share)[owner]
        return shuffled[owner, rank % self._held[owner]]

    def purity(self, true_labels: Tensor) -> float:
        """The share of the dictionary that is labelled correctly (section 5.5). true_labels: [N]."""
        true = checks.labels("ProxyDictionary.purity", true_labels, self.num_classes, name="true_labels").cpu()
        if len(true) != len(self.labels):
            raise ValueError(
                f"fastrw.ProxyDictionary.purity: true_labels must be [N] with N = {len(self.labels)}, got {len(true)}"
            )
        return float((true == self.labels)[self.indices].double().mean())

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a resumed run needs except the labels, which come from the dataset."""
        return {name: t.clone() for name, t in self._tensors().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Resumes from `state_dict()`, bit for bit. ValueError if data, classes, capacity or pusher differ."""
        checks.restore("ProxyDictionary", self._tensors(), state)
        self.generator.set_state(state["generator"])

    def _tensors(self) -> dict[str, Tensor]:
        generator = self.generator.get_state()
        return {"places": self._places, "history": self.history, "seen": self.seen, "generator": generator}

    def _top(self, scores: Tensor) -> Tensor:
        """scores [N] -> [C, k] the indices of each class's highest scores, highest first, then -1 for empty places."""
        order = scores.sort(descending=True, stable=True).indices
        order = order[self.labels[order].sort(stable=True).indices]  # class by class
        places = torch.full((self.num_classes, self.capacity // self.num_classes), -1)
        kept = self._rank < places.shape[1]
        best = order[kept]
        places[self.labels[best], self._rank[kept]] = best
        return places
