"""Parts of the one-pass step, by operation."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from fastrw import plan
from fastrw.parts.convolution import DIMENSIONS, convolution
from fastrw.parts.elementwise import elementwise
from fastrw.parts.embedding import embedding
from fastrw.parts.generic import Generic
from fastrw.parts.norms import NAMES, norm
from fastrw.parts.part import Gradients, Owned, Part, Products
from fastrw.parts.rows import Rows, gram_scores
from fastrw.rules import elementwise as pointwise
from fastrw.tape import Use

__all__ = ["Gradients", "Owned", "Part", "Products", "gram_scores", "part_of"]


def _rows(use: Use, g: Tensor, owned: Owned, products: Products) -> Part | None:
    operands = plan.gram_operands(use)
    if operands is None or g.shape[-1] == 0 or owned.inner % g.shape[-1]:
        return None
    return Rows(use, operands, g, owned, products)


PARTS = {
    **dict.fromkeys((F.linear, plan.ADDMM), _rows),
    **dict.fromkeys(DIMENSIONS, convolution),
    **dict.fromkeys(NAMES, norm),
    F.embedding: embedding,
    **dict.fromkeys(pointwise.RULES, elementwise),
}


def part_of(use: Use, gs: dict[int, tuple[Tensor, Owned]], products: Products) -> Part:
    """The part of a use with these output-gradients: output -> g and owners."""
    maker = PARTS.get(use.function)
    if maker is not None and list(gs) == [0] and not use.call.in_place and use.call.random is None:
        g, owned = gs[0]
        part = maker(use, g, owned, products)
        if part is not None:
            return part
    return Generic(use, gs)
