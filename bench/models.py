"""The models that every end-to-end figure is taken on, each with a training and a validation batch.

Five of a size for two CPU cores; three more of the size that people train on a GPU."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastrw.testing.models import LanguageModel, Transformer, VisionTransformer, lenet, mlp, resnet, wide_resnet

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Model:
    """A model and the batches it is measured on: n training examples, m validation examples."""

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Tensor]
    classes: int = 10
    n: int = 100
    m: int = 10
    positions: tuple[int, ...] = ()  # a target at each
    large: bool = False  # for a GPU

    def small(self, batch: Batch, val_batch: Batch) -> tuple[Batch, Batch]:
        """The batches it is checked on: Algorithm 1 of a large model, in float64, has no room for all of them."""
        if not self.large:
            return batch, val_batch
        return tuple(t[:4] for t in batch), tuple(t[:2] for t in val_batch)

    def make(self, device: str = "cpu", n: int | None = None, m: int | None = None) -> tuple[nn.Module, Batch, Batch]:
        """The model, a training batch and a validation batch, the same at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self.build().to(device)
            sizes = (n or self.n, m or self.m)
            shapes = ((b, *self.positions) for b in sizes)
            train, val = (
                (self.inputs(shape[0]).to(device), torch.randint(self.classes, shape).to(device)) for shape in shapes
            )
        return model, train, val


def images(*shape: int) -> Callable[[int], Tensor]:
    return lambda n: torch.randn(n, *shape)


MODELS = {
    "mlp": Model(mlp, images(784)),
    "lenet": Model(partial(lenet, (1, 28, 28), 10), images(1, 28, 28)),
    "transformer": Model(Transformer, lambda n: torch.randint(1000, (n, 64)), classes=2, n=64, m=8),
    "resnet32_gn": Model(partial(resnet, (3, 32, 32), 10, norm=partial(nn.GroupNorm, 8)), images(3, 32, 32)),
    "resnet32_bn": Model(partial(resnet, (3, 32, 32), 10), images(3, 32, 32)),
    "wrn28_10": Model(
        partial(wide_resnet, (3, 32, 32), 10, stem_last=True), images(3, 32, 32), n=128, m=16, large=True
    ),
    "vit_s": Model(VisionTransformer, images(3, 224, 224), classes=1000, n=64, m=8, large=True),
    "gpt2_small": Model(
        LanguageModel, lambda n: torch.randint(50257, (n, 512)), classes=50257, n=16, m=2, positions=(512,), large=True
    ),
}


def on_this(device: str) -> list[str]:
    """The models measured there unless told otherwise."""
    return [name for name, model in MODELS.items() if device.startswith("cuda") or not model.large]


def losses(model: nn.Module, batch: Batch, state: dict[str, Tensor] | None = None) -> Tensor:
    """f_i [n], averaged over the positions of an example; with `state`, at those parameters and buffers."""
    inputs, targets = batch
    output = model(inputs) if state is None else functional_call(model, state, (inputs,))
    if output.ndim == 2:
        return F.cross_entropy(output, targets, reduction="none")
    return F.cross_entropy(output.movedim(-1, 1), targets, reduction="none").mean(1)


def twice_differentiable() -> AbstractContextManager:
    """Attention by torch's math backend: the fused kernels have neither forward mode nor a second derivative."""
    return sdpa_kernel(SDPBackend.MATH)


def validation_gradient(model: nn.Module, val_batch: Batch) -> dict[str, Tensor]:
    """V of the mean validation loss, by parameter; buffers are left as they were."""
    here = dict(model.named_parameters())
    val_loss = losses(model, val_batch, here | copied_buffers(model)).mean()
    return dict(zip(here, torch.autograd.grad(val_loss, list(here.values())), strict=True))


def copied_buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}
