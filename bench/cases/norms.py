"""The ops on a norm's affine parameters: x and g [n, S, C], statistics [n, S, G] of G groups of channels."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.cases.case import Case

EPS = 1e-5


@dataclass(frozen=True)
class Norm:
    """A layer or RMS norm over C, or a group norm over S and a group of channels, whose x is [n, C, S] in memory."""

    kind: str  # "layer", "rms" or "group"
    n: int
    S: int
    C: int
    groups: int = 1

    def make(self, draw) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """x, g, mean, rstd, the statistics those of x, expanded over S by a group norm."""
        if self.kind == "group":
            x, g = (draw(self.n, self.C, self.S).mT for _ in range(2))
            grouped = x.unflatten(2, (self.groups, -1)).float()
            statistics = grouped.mean((1, 3)), torch.rsqrt(grouped.var((1, 3), correction=0) + EPS)
            mean, rstd = (t.to(x.dtype)[:, None].expand(-1, self.S, -1) for t in statistics)
            return x, g, mean, rstd
        x, g = draw(self.n, self.S, self.C), draw(self.n, self.S, self.C)
        if self.kind == "rms":
            return x, g, None, torch.rsqrt(x.float().square().mean(2, keepdim=True) + EPS).to(x.dtype)
        rstd = torch.rsqrt(x.float().var(2, correction=0, keepdim=True) + EPS)
        return x, g, x.float().mean(2, keepdim=True).to(x.dtype), rstd.to(x.dtype)

    @property
    def elements(self) -> int:
        """x, g and the statistics."""
        statistics = self.n * (self.groups if self.kind == "group" else self.S)
        return 2 * self.n * self.S * self.C + (1 if self.kind == "rms" else 2) * statistics

    def __str__(self) -> str:
        return f"{self.kind} n={self.n} S={self.S} C={self.C}" + (f" G={self.groups}" if self.groups > 1 else "")


def _normalized(x: Tensor, mean: Tensor | None, rstd: Tensor) -> Tensor:
    x = x.unflatten(2, (rstd.shape[2], -1))
    return ((x if mean is None else x - mean.unsqueeze(3)) * rstd.unsqueeze(3)).flatten(2)


def _written_out(x: Tensor, g: Tensor, mean: Tensor | None, rstd: Tensor, V_gamma: Tensor, V_beta: Tensor | None):
    there = _normalized(x, mean, rstd) * V_gamma
    return ((there if V_beta is None else there + V_beta) * g).sum((1, 2))


FUSED = {  # (x, rstd, gamma, beta) -> [n, S, C]
    "layer": lambda x, rstd, gamma, beta: F.layer_norm(x, x.shape[2:], gamma, beta, EPS),
    "rms": lambda x, rstd, gamma, beta: F.rms_norm(x, x.shape[2:], gamma, EPS),
    "group": lambda x, rstd, gamma, beta: F.group_norm(x.mT, rstd.shape[2], gamma, beta, EPS).mT,
}


def _fused(kind: str, x: Tensor, g: Tensor, mean: Tensor | None, rstd: Tensor, V_gamma: Tensor, V_beta: Tensor | None):
    return (FUSED[kind](x, rstd, V_gamma, V_beta) * g).sum((1, 2))


def _group_instance(x: Tensor, g: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """The statistics do not vary over S: they wait until after the sums."""
    gamma, beta = (g * x).sum(1), g.sum(1)
    mean, rstd = (t[:, 0].repeat_interleave(x.shape[2] // t.shape[2], 1) for t in (mean, rstd))
    return (gamma - mean * beta) * rstd, beta


def _group_sums(x: Tensor, g: Tensor, mean: Tensor, rstd: Tensor, V_gamma: Tensor, V_beta: Tensor) -> Tensor:
    gamma, beta = _group_instance(x, g, mean, rstd)
    return gamma @ V_gamma + beta @ V_beta


def norm_dot(norm: Norm) -> Case:
    rms = norm.kind == "rms"
    eager = {"written out": _written_out, f"F.{norm.kind}_norm": partial(_fused, norm.kind)}
    return Case(
        sizes=str(norm),
        make=lambda draw: (*norm.make(draw), draw(norm.C), None if rms else draw(norm.C)),
        eager=eager | ({"sums first": _group_sums} if norm.kind == "group" else {}),
        flops=(4 if rms else 6) * norm.n * norm.S * norm.C,
        elements=norm.elements + (1 if rms else 2) * norm.C,
        results=norm.n,
        terms=2 * norm.S * norm.C,
    )


def norm_instance(norm: Norm) -> Case:
    eager = {"written out": lambda x, g, mean, rstd: ((g * _normalized(x, mean, rstd)).sum(1), g.sum(1))}
    return Case(
        sizes=str(norm),
        make=norm.make,
        eager=eager | ({"sums first": _group_instance} if norm.kind == "group" else {}),
        flops=(4 if norm.kind == "rms" else 5) * norm.n * norm.S * norm.C,
        elements=norm.elements,
        results=2 * norm.n * norm.C,
        terms=norm.S,
    )


NORMS = {
    # ResNet-32 by group norm, a transformer of 64 tokens
    "resnet 16 32²": Norm("group", 100, 32 * 32, 16, 8),
    "resnet 32 16²": Norm("group", 100, 16 * 16, 32, 8),
    "resnet 64 8²": Norm("group", 100, 8 * 8, 64, 8),
    "transformer": Norm("layer", 64, 64, 128),
    "transformer rms": Norm("rms", 64, 64, 128),
    "wrn 160 32²": Norm("group", 128, 32 * 32, 160, 32),
    "vit": Norm("layer", 64, 197, 384),
    "gpt2": Norm("layer", 16, 1024, 768),
    "gpt2 rms": Norm("rms", 16, 1024, 768),
}

NORM_CASES = {
    "norm_dot": {name: norm_dot(norm) for name, norm in NORMS.items()},
    "norm_instance": {name: norm_instance(norm) for name, norm in NORMS.items()},
}
