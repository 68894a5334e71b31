"""Table 4 of Zhang & Pfister 2021: the hyper-parameters of each experiment, and FSR made from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from fastrw.fsr.fsr import FSR
from fastrw.fsr.pushers import MetaMargin
from fastrw.fsr.soft_labels import MixUp, Relabel


@dataclass(frozen=True)
class Preset:
    """A row of Table 4, with what section 5 adds about the experiment."""

    capacity: int  # |R|
    q: int  # reward batch
    b: int  # training batch: the loader's, not FSR's
    momentum: float = 0.9  # λ of the pusher
    eta: float = 0.1  # η of the look-ahead
    alpha: float = 1.0  # α of Eq. 3
    beta: float | None = None  # β of Eq. 7; None: no re-labelling and no MixUp
    p: float | None = None  # factor of the second loss
    normalize: str = "rectify"
    label_smoothing: float = 0.0
    warmup: int = 20  # epochs; the deferred schedule waits for the first decay of the learning rate

    def make(self, model: nn.Module, dataset_size: int, num_classes: int, **others: Any) -> FSR:
        """FSR of this row; `others` are arguments of `FSR` (dataset, optimizer, ...) and override the row's."""
        names = ("capacity", "q", "eta", "alpha", "normalize", "label_smoothing", "warmup")
        own = {name: getattr(self, name) for name in names} | {"pusher": MetaMargin(self.momentum)}
        if self.beta is not None:
            device = next(model.parameters()).device
            if "relabel" not in others:
                own["relabel"] = Relabel(dataset_size, num_classes, beta=self.beta, p=self.p, device=device)
            if "mixup" not in others:
                own["mixup"] = MixUp(num_classes)
        return FSR(model, dataset_size, num_classes, **(own | others))


_LONG_TAIL = {"normalize": "shift", "label_smoothing": 0.1}

TABLE_4 = {
    "cifar_noise": Preset(2000, 200, 100, beta=0.1, p=2.0),
    "webvision": Preset(5000, 200, 16, beta=0.1, p=1.0),
    "cifar_long_tailed": Preset(3000, 800, 100, **_LONG_TAIL),
    "cifar_long_tailed_deferred": Preset(3000, 800, 100, **_LONG_TAIL, warmup=160),
    "inaturalist": Preset(2000, 350, 32, **_LONG_TAIL),  # |R| as printed: below its 8142 classes, so give a capacity
    "cifar_long_tailed_noise": Preset(3000, 200, 128, beta=0.1, p=2.0),
}
