"""Sequences: transformers by hand, of torch.nn and like Hugging Face's, forms of attention, mixtures of experts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .case import ANY, LAYERWISE, case, forward
from .parts import (
    VOCAB,
    direct_losses,
    drawn,
    embedding,
    length_first,
    linear,
    net,
    param,
    sentences,
    series,
    words,
)


class HandMade(nn.Module):
    """Two pre-norm transformer blocks written out; `attend(q, k, v) -> rows` is given."""

    def __init__(self, attend: Callable, d: int = 8):
        super().__init__()
        self.attend = attend
        self.table, self.pos = nn.Embedding(VOCAB, d), nn.Embedding(16, d)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "norm1": nn.LayerNorm(d), "qkv": nn.Linear(d, 3 * d), "out": nn.Linear(d, d),
                "norm2": nn.LayerNorm(d), "up": nn.Linear(d, 2 * d), "down": nn.Linear(2 * d, d),
            })
            for _ in range(2)
        )  # fmt: skip
        self.head = nn.Linear(d, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens) + self.pos(torch.arange(tokens.shape[1], device=tokens.device))
        n, length, d = x.shape
        for block in self.blocks:
            qkv = block["qkv"](block["norm1"](x)).chunk(3, -1)
            rows = self.attend(*(z.view(n, length, 2, -1).transpose(1, 2) for z in qkv))  # two heads
            x = x + block["out"](rows.transpose(1, 2).reshape(n, length, d))
            x = x + block["down"](F.gelu(block["up"](block["norm2"](x))))
        return self.head(x.mean(1))


def attention_by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v


sdpa = F.scaled_dot_product_attention
case("transformer_by_hand", LAYERWISE, lambda: HandMade(attention_by_hand), words)
case("default_sdpa", LAYERWISE, lambda: HandMade(sdpa), words)
case("causal_sdpa", LAYERWISE, lambda: HandMade(partial(sdpa, is_causal=True)), words)


def encoder(**options) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(6, 2, 10, 0.0, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@forward(LAYERWISE, series, body=partial(encoder, batch_first=True), head=linear(6, 4))
def encoder_batch_first(net, x):
    return net.head(net.body(x).mean(1))


with_padding = drawn(8, lambda n: (torch.randn(n, 5, 6), torch.arange(5) >= torch.randint(2, 6, (n, 1))))


@forward(LAYERWISE, with_padding, body=partial(encoder, batch_first=True, norm_first=True), head=linear(6, 4))
def encoder_with_padding_mask(net, x, padding):
    keep = (~padding).unsqueeze(-1)
    return net.head((net.body(x, src_key_padding_mask=padding) * keep).sum(1) / keep.sum(1))


mean_of_steps = net(lambda net, x: net.head(net.body(x).mean(0)), body=encoder, head=linear(6, 4))
first_step = net(lambda net, x: net.head(net.body(x)[0]), body=encoder, head=linear(6, 4))
as_long_as_many = drawn(7, lambda n: torch.randn(n, n, 6))
# Inputs [length, n, d]: examples are dimension 1.
case("encoder_sequence_first", LAYERWISE, mean_of_steps, length_first, losses_fn=direct_losses)
# As many positions as examples: the shape alone cannot tell them apart.
case("encoder_length_is_n", LAYERWISE, first_step, as_long_as_many, losses_fn=direct_losses)


def translations(n=8):
    return (torch.randn(n, 5, 6), torch.randn(n, 3, 6)), torch.randint(0, 4, (n, 3))


transformer = partial(nn.Transformer, 6, 2, 1, 1, 8, 0.0, batch_first=True)


@forward(LAYERWISE, translations, body=transformer, head=linear(6, 4))
def encoder_decoder(net, source, target):
    """nn.Transformer, two inputs, cross-attention and a causal mask."""
    mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=source.dtype)
    return net.head(net.body(source, target, tgt_mask=mask.to(source.device), tgt_is_causal=True))


attention = partial(nn.MultiheadAttention, 6, 2, kdim=4, vdim=3, add_bias_kv=True, add_zero_attn=True, batch_first=True)


@forward(LAYERWISE, series, attend=attention, head=linear(6, 4))
def attention_all_parameters(net, x):
    """Other widths for keys and values, learned key and value, an all-zero key."""
    return net.head(net.attend(x, x[..., :4], x[..., :3])[0].mean(1))


@forward(LAYERWISE, series, mix=linear(6, 5), head=linear(15, 4))
def layer_used_on_three_lengths(net, x):
    """Siamese branches: one layer on whole sequences, on their beginnings and on their mean."""
    parts = (x, x[:, :2], x.mean(1, keepdim=True))
    return net.head(torch.cat([net.mix(part).tanh().sum(1) for part in parts], -1))


class Conv1D(nn.Module):
    """Hugging Face's linear layer: weight [p, q], rows flattened and `addmm`."""

    def __init__(self, q: int, p: int):
        super().__init__()
        self.weight, self.bias = param(p, q), param(q)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return rows.view(*x.shape[:-1], self.weight.shape[1])


@forward(
    LAYERWISE, words,
    table=embedding(VOCAB, 6), up=partial(Conv1D, 8, 6), down=partial(Conv1D, 6, 8), head=linear(6, 4),
)  # fmt: skip
def hf_conv1d(net, tokens):
    return net.head(net.down(F.gelu(net.up(net.table(tokens)))).mean(1))


@dataclass
class CausalOutput:
    """The output of a Hugging Face model: the logits are one field."""

    logits: Tensor
    hidden: Tensor


class HFModel(nn.Module):
    """Takes tokens and a mask by name and returns `wrap(logits=..., hidden=...)`."""

    def __init__(self, wrap: Callable):
        super().__init__()
        self.wrap = wrap
        self.table, self.attend, self.mix = nn.Embedding(VOCAB, 6), Conv1D(18, 6), Conv1D(6, 6)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, VOCAB, bias=False)
        self.head.weight = self.table.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None):
        x = self.table(input_ids)
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        rows = sdpa(*self.attend(x).split(6, -1), attn_mask=attention_mask[:, None, :].bool() & causal)
        hidden = self.norm(x + self.mix(rows))
        return self.wrap(logits=self.head(hidden), hidden=hidden)


def hf_batch(n: int = 8) -> dict[str, Tensor]:
    """Labels of -100 are ignored; the other positions are averaged within the example."""
    tokens, targets = sentences(n)
    valid = torch.arange(5) < torch.randint(1, 6, (n, 1))
    return {"input_ids": tokens, "attention_mask": valid.long(), "labels": targets.masked_fill(~valid, -100)}


case("hf_mapping_and_dataclass", LAYERWISE, lambda: HFModel(CausalOutput), hf_batch)
case("hf_mapping_and_mapping", LAYERWISE, lambda: HFModel(dict), hf_batch, val=(3,))


def experts():
    return nn.ModuleList(nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 6)) for _ in range(3))


@forward(ANY, series, experts=experts, gate=linear(6, 3), head=linear(6, 4))
def mixture_of_experts_top1(net, x):
    """Each row goes to the expert with the largest gate: which rows an expert gets depends on the batch."""
    rows = x.reshape(-1, x.shape[-1])
    gate, chosen = net.gate(rows).softmax(-1).max(-1)
    out = torch.zeros_like(rows)
    for index, expert in enumerate(net.experts):
        mine = (chosen == index).nonzero().squeeze(1)
        out = out.index_add(0, mine, expert(rows[mine]) * gate[mine, None])
    return net.head((rows + out).view_as(x).mean(1))


@forward(ANY, series, experts=experts, gate=linear(6, 3), head=linear(6, 4))
def mixture_of_experts_top2(net, x):
    """As above with two experts per row, written with boolean masks."""
    gate, chosen = net.gate(x).softmax(-1).topk(2, -1)
    out = torch.zeros_like(x)
    for index, expert in enumerate(net.experts):
        hit = (chosen == index).any(-1)
        out[hit] += expert(x[hit]) * gate[chosen == index][:, None]
    return net.head((x + out).mean(1))
