"""Looking up rows of a table: T = D[idx], and 0 where the index is the padding."""

import torch
import torch.nn.functional as F

from fastrw.errors import UntracedUse
from fastrw.ops import embedding_dot
from fastrw.rules.directed import Rule

SCALED = "fastrw.rules: a table's gradient must be that of the loss, got scale_grad_by_freq=True"


def embedding(input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, sparse=False):
    if scale_grad_by_freq:
        raise UntracedUse(SCALED)
    rows = F.embedding(input, weight.direction)
    if padding_idx is None:
        return rows
    padding = padding_idx if padding_idx >= 0 else len(weight.value) + padding_idx
    return rows.masked_fill((input == padding).unsqueeze(-1), 0)


def embedding_rows(g, backend, input, weight, padding_idx=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False,
                   sparse=False):  # fmt: skip
    if scale_grad_by_freq:
        raise UntracedUse(SCALED)
    d, padding = weight.direction, -1 if padding_idx is None else padding_idx % len(weight.value)
    return embedding_dot(input.reshape(-1), g.reshape(-1, d.shape[1]).to(d.dtype), d, padding, backend=backend)


def embedding_bag(input, weight, offsets=None, max_norm=None, norm_type=2.0, scale_grad_by_freq=False, mode="mean",
                  sparse=False, per_sample_weights=None, include_last_offset=False, padding_idx=None):  # fmt: skip
    """Linear in the table, but for "max": there the row that won gives its direction."""
    if scale_grad_by_freq:
        raise UntracedUse(SCALED)
    if mode != "max":
        return F.embedding_bag(input, weight.direction, offsets, mode=mode, per_sample_weights=per_sample_weights,
                               include_last_offset=include_last_offset, padding_idx=padding_idx)  # fmt: skip
    if input.ndim == 2:
        offsets = torch.arange(0, input.numel(), input.shape[1], device=input.device)
    if padding_idx is not None and padding_idx < 0:
        padding_idx += len(weight.value)
    found = torch.embedding_bag(
        weight.value, input.flatten(), offsets, False, 2, False, None, include_last_offset, padding_idx
    )
    values, _, sizes, winners = found
    bags = len(values)
    return weight.direction.gather(0, winners[:bags].clamp(min=0)).masked_fill((sizes[:bags] == 0).unsqueeze(-1), 0)


RULES = {F.embedding: Rule(embedding, "weight", dot=embedding_rows), F.embedding_bag: Rule(embedding_bag, "weight")}
