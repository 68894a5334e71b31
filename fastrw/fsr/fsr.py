"""FSR's training step (Zhang & Pfister 2021, Algorithm 1): `.grad` receives the gradient of the weighted loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from fastrw.api.backward import untraced
from fastrw.api.options import check
from fastrw.engine import guards
from fastrw.engine.ordinary import backward
from fastrw.fsr import checks
from fastrw.fsr.dictionary import ProxyDictionary
from fastrw.fsr.indexed import Indexed, examples, labels_of
from fastrw.fsr.lookahead import Lookahead
from fastrw.fsr.paths import AnyLayer, Inputs, LastLayer, Outputs
from fastrw.fsr.pushers import Pusher, Visit
from fastrw.fsr.soft_labels import MixUp, Relabel
from fastrw.fsr.statistics import EpochReport, FSRStep, Totals
from fastrw.fsr.weights import weights
from fastrw.graph import nested
from fastrw.state.snapshot import State


class FSR:
    """Example weights without clean data: the reward examples are training examples that are learned well.

        s_i = -∂L^R(Θ̂)/∂ω_i at ω = 1/b,   Θ̂ = Θ - η (μ m + Σ_i ω_i ∇f_i(Θ) + wd Θ)           (Algorithm 1, Eq. 3)
        w   = 1/b + α s, normalised;   .grad += Σ_i w_i ∇f_i  (+ the gradient of the second loss, with relabel)
        P̂_i ← λ P̂_i + (1 - λ) (L(f(x_i; Θ), y_i) - L(f(x_i; Θ̂), y_i))                         (Eq. 5)

    L^R is the mean loss of q examples drawn from the dictionary, equally many of each class; at the end of an epoch the
    dictionary takes the highest P̂ of each class (Eq. 4).

        train_set = ...                                   # train_set[i] is (x, y)
        loader = DataLoader(fastrw.fsr.Indexed(train_set), batch_size=100, shuffle=True)
        fsr = fastrw.fsr.FSR(model, len(train_set), 10, dataset=train_set, optimizer=optimizer)
        for epoch in range(epochs):
            for index, x, y in loader:
                optimizer.zero_grad()
                fsr.step(index, x, y)
                optimizer.step()
            print(fsr.end_epoch())

    L is cross-entropy of the model's logits [n, C]. With MixUp the model also runs on the unmixed inputs, for the
    second term of the margin. Where the paper and its authors' code differ, `variant` chooses between them:

                            "code" (which produced the paper's figures)         "paper" (as printed)
        weights             see `weights.weights`                               see `weights.weights`
        margin, first term  f_i as trained: of x̃_i, smoothed                    L(f(x_i; Θ), y_i)
        re-labelling        from f(x̃; Θ)                                        from f(x; Θ), which is trained too

    Under MixUp the first term of "code" is much the same for all examples, so the margin ranks by the loss at Θ̂.

    Args:
        model: any module that returns logits [n, C], in the mode that you train it in.
        dataset_size, num_classes: N and C.
        dataset: dataset[i] is (x, y), and may be `Indexed`; reward examples are read from it by index.
        labels: [N], the labels that dataset[i] gives. Default: its `targets`; without them, each example is read once.
        optimizer: the one that trains the model. Its momentum buffers and its weight decay are read for the
            look-ahead; FSR never steps it.
        lookahead: "momentum" (the authors' code: μ and m are the optimizer's), "plain" (μ = 0, Algorithm 1 as
            printed), None: "momentum" if the optimizer has momentum.
        eta: η; None: the optimizer's current learning rate.
        weight_decay: wd, the regularisation loss wd/2 |Θ^meta|² inside both losses; None: the optimizer's (0 without
            one, or if its decay is decoupled from the loss, as AdamW's is).
        params: Θ^meta: "last" (the last layer: a few matrix products), "all", names with wildcards, or parameters.
        alpha: α.
        normalize: "rectify" (label noise) or "shift" (long tail); see `weights.weights`.
        variant: "code" or "paper"; see above.
        capacity, pusher, seed: of the dictionary; see `ProxyDictionary`.
        q: reward examples in a step.
        refresh: steps between two reward batches. 1 is Algorithm 1. With k, the last layer's inputs for a reward batch
            serve k steps (its logits and gradients are always current): the forward of q examples, most of what FSR
            costs, runs at one step in k. Needs the last layer.
        warmup: epochs with w_i = 1/b, in which only P̂ (and ŷ) are learned. A long one is the deferred schedule.
        label_smoothing: of the weighted loss and of L^R, in [0, 1).
        relabel: adds `Relabel`'s loss after the warm-up; ŷ is learned from the start.
        mixup: blends the examples of the weighted loss.
        scaler: a `torch.amp.GradScaler`, as in `Reweighter`.

    A step changes only `.grad`, FSR's own state, and what one training forward and reading the reward examples change
    (running statistics, random states); a step that raises leaves everything as it was. Reward batches do not update
    running statistics. Several processes are refused, as by `Reweighter`.

    Raises:
        TypeError, ValueError: a rule is broken; the text gives the rule and what was passed.
    Source: Zhang & Pfister 2021, Algorithm 1, Eq. 3-7, sections 4 and 5; its authors' code for "code".
    """

    def __init__(
        self, model: nn.Module, dataset_size: int, num_classes: int, *, dataset: Any,
        labels: Tensor | Sequence[int] | None = None, optimizer: Optimizer | None = None, lookahead: str | None = None,
        eta: float | None = 0.1, weight_decay: float | None = None, params: Any = "last", alpha: float = 1.0,
        normalize: str = "rectify", variant: str = "code", capacity: int = 2000, pusher: Pusher | None = None,
        seed: int = 0, q: int = 200, refresh: int = 1, warmup: int = 20, label_smoothing: float = 0.0,
        relabel: Relabel | None = None, mixup: MixUp | None = None, scaler: Any = None,
    ):  # fmt: skip
        if not isinstance(model, nn.Module):
            raise TypeError(f"fastrw.FSR: model must be a torch.nn.Module, got {type(model).__name__}")
        checks.arguments(
            "FSR", dataset_size=dataset_size, num_classes=num_classes, q=q, refresh=refresh, warmup=warmup, eta=eta,
            weight_decay=weight_decay, alpha=alpha, label_smoothing=label_smoothing, lookahead=lookahead,
            normalize=normalize, variant=variant,
        )  # fmt: skip
        for name, value, kind in (("relabel", relabel, Relabel), ("mixup", mixup, MixUp)):
            if value is not None and not isinstance(value, kind):
                raise TypeError(f"fastrw.FSR: {name} must be a fastrw.fsr.{kind.__name__}, got {type(value).__name__}")
        if relabel is not None and relabel.predictions.shape != (dataset_size, num_classes):
            got = tuple(relabel.predictions.shape)
            raise ValueError(f"fastrw.FSR: relabel must be of [N, C] = {(dataset_size, num_classes)}, got {got}")
        if mixup is not None and mixup.num_classes != num_classes:
            raise ValueError(f"fastrw.FSR: mixup must be of {num_classes} classes, got {mixup.num_classes}")
        self.dataset = dataset.dataset if isinstance(dataset, Indexed) else dataset
        labels = labels_of(self.dataset, dataset_size) if labels is None else torch.as_tensor(labels)
        if len(labels) != dataset_size:
            raise ValueError(f"fastrw.FSR: labels must be [N] with N = {dataset_size}, got {tuple(labels.shape)}")
        self.model, self.num_classes = model, num_classes
        self.lookahead = Lookahead(model, params, optimizer, lookahead, eta, weight_decay)
        first = next(iter(self.lookahead.params.values()))
        self._device = first.device
        self.dictionary = ProxyDictionary(
            labels, num_classes, capacity=capacity, pusher=pusher, seed=seed,
            dtype=torch.promote_types(first.dtype.to_real(), torch.float32), device=first.device,
        )  # fmt: skip
        path = model, self.lookahead, num_classes, label_smoothing
        self._last, self._any = LastLayer.of(*path), AnyLayer(*path)
        if refresh > 1 and self._last is None:
            raise ValueError(f'fastrw.FSR: refresh needs params="last" and a linear last layer, got refresh={refresh}')
        self.alpha, self.normalize, self.variant = alpha, normalize, variant
        self.q, self.refresh, self.warmup = q, refresh, warmup
        self.relabel, self.mixup, self._scaler = relabel, mixup, scaler
        self.epoch = 0  # epochs that have ended
        self._totals = Totals()
        self._features: tuple[Tensor, Tensor] | None = None  # see Outputs.features
        self._uses = 0  # steps that have used these features

    @untraced
    def step(self, index: Tensor, x: Any, y: Tensor, *, scale: float = 1.0) -> FSRStep:
        """Adds the gradient of the weighted loss to `.grad` and scores the batch's examples.

        Args:
            index: [b] positions of the examples in the dataset, without repeats.
            x: their inputs: a tensor, a tuple (`model(*x)`) or a mapping (`model(**x)`).
            y: [b] their labels, those of the dataset.
            scale: a factor on the gradient: 1/k, if one step has k micro-batches.
        Returns:
            FSRStep: weights, losses, scores, reward loss.
        Raises:
            TypeError, ValueError: index out of range or repeated, labels not the dataset's, losses not finite.
        """
        check("FSR.step", method="auto", backend="auto", score_dtype=None, scale=scale)
        guards.one_process("fastrw.FSR.step: ")
        guards.no_synchronized_norm(self.lookahead.structure.modules, "fastrw.FSR.step: ")
        guards.not_sharded(self.model.parameters(), "fastrw.FSR.step: ")
        index = checks.indices("FSR.step", index, len(self.dictionary.labels))
        y = checks.labels("FSR.step", y, self.num_classes)
        if len(index) != len(y):
            raise ValueError(f"fastrw.FSR.step: index and y must have one length, got {len(index)} and {len(y)}")
        known = self.dictionary.labels[index.cpu()]
        if len(wrong := (known != y.cpu()).nonzero()):
            i = int(wrong[0])
            raise ValueError(
                f"fastrw.FSR.step: y must be the dataset's labels at index, got {int(y[i])} for example "
                f"{int(index[i])}, whose label is {int(known[i])}"
            )
        self.lookahead.structure = self.lookahead.structure.current()
        state, generator = State(self.lookahead.structure), self.dictionary.generator.get_state()
        try:
            with torch.enable_grad(), nested.refused():
                found, outputs = self._step(index, x, y.to(self._device), scale)
        except BaseException:
            state.undo()
            self.dictionary.generator.set_state(generator)
            raise
        self._commit(index, y, found, outputs)
        return found

    def end_epoch(self, true_labels: Tensor | None = None) -> EpochReport:
        """Refills the dictionary (Eq. 4) and ends the epoch: call it after the last step of each.

        Args:
            true_labels: [N], if they are known: the report then gives the dictionary's purity.
        Returns:
            EpochReport; `print` it for a one-line summary.
        """
        if true_labels is not None:
            self.dictionary.purity(true_labels)  # rejects bad labels before anything changes
        entered = self.dictionary.update()
        purity = None if true_labels is None else self.dictionary.purity(true_labels)
        report = self._totals.report(self.epoch, entered, purity)
        self.epoch, self._totals, self._features, self._uses = self.epoch + 1, Totals(), None, 0
        return report

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs besides model, optimizer and torch's random state."""
        return {
            "dictionary": self.dictionary.state_dict(),
            "relabel": self.relabel and self.relabel.state_dict(),
            "epoch": self.epoch,
            "totals": self._totals.state_dict(),
            "features": self._features and tuple(t.clone() for t in self._features),
            "uses": self._uses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resumes from `state_dict()`, bit for bit. ValueError if it belongs to another dataset or other options."""
        wanted = ("dictionary", "relabel", "epoch", "totals", "features", "uses")
        if not isinstance(state, dict) or any(name not in state for name in wanted):
            got = ", ".join(map(str, state)) if isinstance(state, dict) else type(state).__name__
            raise ValueError(f"fastrw.FSR: a state must hold {', '.join(wanted)}, got {got or 'nothing'}")
        if (state["relabel"] is None) != (self.relabel is None):
            raise ValueError("fastrw.FSR: a state must have re-labels where FSR does, got one without the other")
        if self.relabel is not None:  # before the dictionary is written to
            checks.fits("Relabel", self.relabel.tensors(), state["relabel"])
        self.dictionary.load_state_dict(state["dictionary"])
        if self.relabel is not None:
            self.relabel.load_state_dict(state["relabel"])
        self.epoch, self._totals, self._uses = state["epoch"], Totals(**state["totals"]), state["uses"]
        self._features = state["features"] and tuple(t.to(self._device) for t in state["features"])

    @property
    def weighs(self) -> bool:
        """Is the warm-up over? Until then every weight is 1/b."""
        return self.epoch >= self.warmup

    def _step(self, index: Tensor, x: Any, y: Tensor, scale: float) -> tuple[FSRStep, Outputs]:
        reuses = self.weighs and self._features is not None and self._uses < self.refresh
        reward = self._features if reuses else self._reward() if self.weighs else None
        mixed, target = (x, y) if self.mixup is None else self.mixup(x, y)
        relabels = self.weighs and self.relabel is not None
        inputs = Inputs(x, mixed, target, reward, reuses, self.dictionary.pusher.looks_ahead,
                        trains_plain=relabels and self.variant == "paper")  # fmt: skip
        start = State(self.lookahead.structure)  # reading the reward examples may have drawn random numbers
        outputs, served_by = self._last and self._last.run(inputs, start), "last layer"
        if outputs is None:
            if self.refresh > 1:
                raise ValueError("fastrw.FSR: refresh needs logits that a linear last layer makes of rows, got others")
            start.rewind()
            self._last = None  # it would not serve the next step either
            outputs, served_by = self._any.run(inputs, start), "any layer"
        f = outputs.losses
        if bad := int((~f.isfinite()).sum()):
            raise ValueError(f"fastrw.FSR.step: losses must be finite, got {bad} of {len(f)} that are not")
        s = outputs.scores
        w = torch.full_like(f, 1 / len(f)) if s is None else weights(s, self.alpha, self.normalize, self.variant)
        total = (w.to(f.dtype) * f).masked_fill_(w == 0, 0).sum()
        if relabels:
            total = total + self.relabel.loss(index, self._relabelled(outputs))
        total = total * scale if scale != 1 else total
        backward(total if self._scaler is None else self._scaler.scale(total))
        return FSRStep(w, f.detach(), s, outputs.reward_loss, served_by), outputs

    def _reward(self) -> tuple[Any, Tensor]:
        """q examples of the dictionary, read from the dataset."""
        picked = self.dictionary.fetch(self.q)
        x, y = examples(self.dataset, picked)
        if not torch.equal(y.cpu(), self.dictionary.labels[picked]):
            raise ValueError("fastrw.FSR: dataset[i] must give the label that labels[i] says, got another")
        return tree_map(lambda t: t.to(self._device) if isinstance(t, Tensor) else t, x), y.to(self._device)

    def _relabelled(self, outputs: Outputs) -> Tensor:
        """The logits [b, C] that ŷ averages and the second loss trains."""
        return outputs.logits if self.variant == "code" else outputs.plain

    def _commit(self, index: Tensor, y: Tensor, found: FSRStep, outputs: Outputs) -> None:
        """Updates FSR's own state, once the step has succeeded."""
        before = outputs.before if self.variant == "code" else None
        self.dictionary.observe(index, Visit(y, outputs.plain.detach(), outputs.ahead, before))
        if self.relabel is not None:
            self.relabel.update(index, self._relabelled(outputs))
        self._totals.add(found)
        if self.refresh > 1 and outputs.features is not None:
            self._uses = self._uses + 1 if outputs.features is self._features else 1
            self._features = outputs.features
