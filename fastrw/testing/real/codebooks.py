"""Vector quantisation of vector_quantize_pytorch, and quantisation-aware training of torch.ao: values rounded in the
forward, whose codebooks and ranges move with the batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
import vector_quantize_pytorch as Q
from torch import Tensor, nn
from torch.ao import quantization as A

from ..case import LAYERWISE, TANGENT, Case
from .fitted import Float32

CASES: list[Case] = []
WIDTH, LENGTH, CLASSES = 4, 3, 3


class Coded(nn.Module):
    """An autoencoder with a codebook in the middle: series [n, length, 5], or [n, 5] where `flat`."""

    def __init__(self, codebook: nn.Module):
        super().__init__()
        self.enter, self.codebook, self.leave = nn.Linear(5, WIDTH), codebook, nn.Linear(WIDTH, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The reconstruction; what was quantised, and its codes; the codebook's own loss."""
        h = self.enter(x)
        out = self.codebook(h)
        code, *more = out if isinstance(out, tuple) else (out,)
        own = [t for t in more if t.is_floating_point()]
        return self.leave(code), h, code, own[-1] if own else h.new_zeros(())


def series(n: int = 6) -> tuple[Tensor]:
    return (torch.randn(n, LENGTH, 5),)


def committed(model: Coded, batch: tuple[Tensor]) -> Tensor:
    """The error of each example, and how far it lies from its codes."""
    found, h, code, _ = model(batch[0])
    return (found - batch[0]).square().mean((1, 2)) + 0.3 * (h - code.detach()).square().mean((1, 2))


def with_own(model: Coded, batch: tuple[Tensor]) -> Tensor:
    """The error of each example, and the codebook's own loss, which is a mean over the batch."""
    found, *_, own = model(batch[0])
    return (found - batch[0]).square().mean((1, 2)) + own.sum()


def add(name: str, codebook: Callable[[], nn.Module], losses=committed, expect=LAYERWISE) -> None:
    CASES.append(Case(name, lambda: Coded(codebook()), series, expect, kwargs={"losses_fn": losses}))


def vector(**options) -> Callable[[], nn.Module]:
    return lambda: Q.VectorQuantize(WIDTH, 8, **options)


add("VectorQuantize", vector())
add("VectorQuantize_cosine", vector(use_cosine_sim=True))
add("VectorQuantize_kmeans", vector(kmeans_init=True))
add("VectorQuantize_heads", vector(heads=2, codebook_dim=2, separate_codebook_per_head=True))
add("VectorQuantize_sampled", vector(stochastic_sample_codes=True, sample_codebook_temp=0.5))
add("VectorQuantize_dead_codes", vector(threshold_ema_dead_code=2))
add("VectorQuantize_rotation", vector(rotation_trick=True))
add("VectorQuantize_learned", vector(learnable_codebook=True, ema_update=False))
add("VectorQuantize_own", vector(), with_own, TANGENT)
add("VectorQuantize_orthogonal", vector(learnable_codebook=True, ema_update=False, orthogonal_reg_weight=1.0), with_own,
    TANGENT)  # fmt: skip
add("ResidualVQ", lambda: Q.ResidualVQ(dim=WIDTH, num_quantizers=2, codebook_size=8))
add("ResidualVQ_dropout", lambda: Q.ResidualVQ(dim=WIDTH, num_quantizers=3, codebook_size=8, quantize_dropout=True))
add("ResidualVQ_shared", lambda: Q.ResidualVQ(dim=WIDTH, num_quantizers=2, codebook_size=8, shared_codebook=True))
add("GroupedResidualVQ", lambda: Q.GroupedResidualVQ(dim=WIDTH, num_quantizers=2, groups=2, codebook_size=8))
add("FSQ", lambda: Q.FSQ(levels=[5, 3, 3], dim=WIDTH))
add("ResidualFSQ", lambda: Q.ResidualFSQ(dim=WIDTH, levels=[5, 3], num_quantizers=2))
add("LFQ", lambda: Q.LFQ(codebook_size=8, dim=WIDTH))
add("LFQ_entropy", lambda: Q.LFQ(codebook_size=8, dim=WIDTH), with_own, TANGENT)  # the mean entropy of the batch
add("ResidualLFQ", lambda: Q.ResidualLFQ(dim=WIDTH, codebook_size=8, num_quantizers=2))
add("SimVQ", lambda: Q.SimVQ(dim=WIDTH, codebook_size=8))
add("SimVQ_straight", lambda: Q.SimVQ(dim=WIDTH, codebook_size=8, rotation_trick=False))
add("ResidualSimVQ", lambda: Q.ResidualSimVQ(dim=WIDTH, codebook_size=8, num_quantizers=2))


# quantisation-aware training


class Small(nn.Module):
    def __init__(self, norm: Callable[[], nn.Module]):
        super().__init__()
        self.quant, self.dequant = A.QuantStub(), A.DeQuantStub()
        self.conv, self.norm, self.act, self.head = nn.Conv2d(2, 4, 3), norm(), nn.ReLU(), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.norm(self.conv(self.quant(x))))
        return self.dequant(self.head(h.mean((2, 3))))


def images(n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 2, 6, 6), torch.randint(CLASSES, (n,))


def by_class(model: nn.Module, batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def trained(name: str, fused: list[str], norm: Callable[[], nn.Module], expect=LAYERWISE, backend="qnnpack") -> None:
    def make() -> nn.Module:
        model = Small(norm)
        model.qconfig = A.get_default_qat_qconfig(backend)
        if fused:
            A.fuse_modules_qat(model.train(), fused, inplace=True)
        return Float32(A.prepare_qat(model.train()))

    CASES.append(Case(name, make, images, expect, kwargs={"losses_fn": by_class}))


trained("quantised", [], nn.Identity)
trained("quantised_by_channel", [], nn.Identity, backend="x86")
trained("quantised_fused_norm", ["conv", "norm", "act"], lambda: nn.BatchNorm2d(4), TANGENT)
