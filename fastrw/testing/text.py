"""Text: transformers by hand and of torch.nn, attention in its forms, embeddings, tied tables, mixtures of experts."""

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .case import ANY, LAYERWISE, Net, case, labels, param, sentences, series, words

VOCAB = 11


class HandMade(nn.Module):
    """Pre-norm transformer blocks written out; `attend(q, k, v) -> rows` is given."""

    def __init__(self, attend, d: int = 8, layers: int = 2, heads: int = 2):
        super().__init__()
        self.attend, self.heads = attend, heads
        self.table, self.pos = nn.Embedding(VOCAB, d), nn.Embedding(16, d)
        self.blocks = nn.ModuleList(
            nn.ModuleDict({
                "norm1": nn.LayerNorm(d), "qkv": nn.Linear(d, 3 * d), "out": nn.Linear(d, d),
                "norm2": nn.LayerNorm(d), "up": nn.Linear(d, 2 * d), "down": nn.Linear(2 * d, d),
            })
            for _ in range(layers)
        )  # fmt: skip
        self.head = nn.Linear(d, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens) + self.pos(torch.arange(tokens.shape[1], device=tokens.device))
        n, length, d = x.shape
        for block in self.blocks:
            q, k, v = block["qkv"](block["norm1"](x)).chunk(3, -1)
            q, k, v = (z.view(n, length, self.heads, -1).transpose(1, 2) for z in (q, k, v))
            x = x + block["out"](self.attend(q, k, v).transpose(1, 2).reshape(n, length, d))
            x = x + block["down"](F.gelu(block["up"](block["norm2"](x))))
        return self.head(x.mean(1))


def attention_by_hand(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v


@case(LAYERWISE)
def transformer_by_hand():
    return HandMade(attention_by_hand), words(8), words(4)


@case(LAYERWISE)
def default_sdpa():
    return HandMade(F.scaled_dot_product_attention), words(8), words(4)


@case(LAYERWISE)
def causal_sdpa():
    return HandMade(partial(F.scaled_dot_product_attention, is_causal=True)), words(8), words(4)


def encoder(**options) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(6, 2, 10, 0.0, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


@case(LAYERWISE)
def encoder_batch_first():
    model = Net(lambda net, x: net.head(net.body(x).mean(1)), body=encoder(batch_first=True), head=nn.Linear(6, 4))
    return model, series(8), series(4)


@case(LAYERWISE)
def encoder_with_padding_mask():
    def rule(net, x, padding):
        keep = (~padding).unsqueeze(-1)
        return net.head((net.body(x, src_key_padding_mask=padding) * keep).sum(1) / keep.sum(1))

    def batch(n):
        return (torch.randn(n, 5, 6), torch.arange(5) >= torch.randint(2, 6, (n, 1))), labels(n)

    return Net(rule, body=encoder(batch_first=True, norm_first=True), head=nn.Linear(6, 4)), batch(8), batch(4)


def sequence_first_losses(model, batch):
    x, target = batch
    return F.cross_entropy(model(x), target, reduction="none")


@case(LAYERWISE, losses_fn=sequence_first_losses)
def encoder_sequence_first():
    """Inputs [length, n, d]: examples are dimension 1."""

    def batch(n):
        return torch.randn(5, n, 6), labels(n)

    return Net(lambda net, x: net.head(net.body(x).mean(0)), body=encoder(), head=nn.Linear(6, 4)), batch(8), batch(4)


@case(LAYERWISE, losses_fn=sequence_first_losses)
def encoder_length_is_n():
    """As many positions as examples: a shape alone cannot tell them apart."""

    def batch(n):
        return torch.randn(n, n, 6), labels(n)

    return Net(lambda net, x: net.head(net.body(x)[0]), body=encoder(), head=nn.Linear(6, 4)), batch(7), batch(4)


@case(LAYERWISE)
def encoder_decoder():
    """nn.Transformer, two inputs, cross-attention and a causal mask."""

    def rule(net, source, target):
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=source.dtype)
        return net.head(net.body(source, target, tgt_mask=mask.to(source.device), tgt_is_causal=True))

    def batch(n):
        return (torch.randn(n, 5, 6), torch.randn(n, 3, 6)), torch.randint(0, 4, (n, 3))

    body = nn.Transformer(6, 2, 1, 1, 8, 0.0, batch_first=True)
    return Net(rule, body=body, head=nn.Linear(6, 4)), batch(8), batch(4)


@case(LAYERWISE)
def attention_all_parameters():
    """Other widths for keys and values, learned key and value, an all-zero key."""

    def rule(net, x):
        return net.head(net.attend(x, x[..., :4], x[..., :3])[0].mean(1))

    attend = nn.MultiheadAttention(6, 2, kdim=4, vdim=3, add_bias_kv=True, add_zero_attn=True, batch_first=True)
    return Net(rule, attend=attend, head=nn.Linear(6, 4)), series(8), series(4)


@case(LAYERWISE)
def embedding_with_padding():
    model = Net(lambda net, x: net.head(net.table(x).mean(1)), table=nn.Embedding(VOCAB, 5, 0), head=nn.Linear(5, 4))
    (x, y), (x_val, y_val) = words(8), words(4)
    x[:, 3:], x_val[:2, 2:] = 0, 0
    return model, (x, y), (x_val, y_val)


@case(ANY)
def embedding_by_frequency():
    """Its gradient is divided by how often a token is in the batch, so examples meet in the backward alone."""
    table = nn.Embedding(VOCAB, 5, scale_grad_by_freq=True)
    return (
        Net(lambda net, x: net.head(net.table(x).tanh().mean(1)), table=table, head=nn.Linear(5, 4)),
        words(8),
        words(4),
    )


@case(ANY)
def embedding_sparse():
    table = nn.Embedding(VOCAB, 5, sparse=True)
    return (
        Net(lambda net, x: net.head(net.table(x).tanh().mean(1)), table=table, head=nn.Linear(5, 4)),
        words(8),
        words(4),
    )


def bag(mode: str):
    model = Net(lambda net, x: net.head(net.bag(x)), bag=nn.EmbeddingBag(VOCAB, 5, mode=mode), head=nn.Linear(5, 4))
    return model, words(8), words(4)


for mode, expect in {"sum": LAYERWISE, "mean": LAYERWISE, "max": ANY}.items():
    case(expect, name=f"embedding_bag_{mode}")(partial(bag, mode))


@case(LAYERWISE)
def embedding_bag_with_offsets():
    """Bags of different sizes, one flat list of tokens, weighted."""

    def rule(net, tokens, offsets, weights):
        return net.head(net.bag(tokens, offsets, weights))

    def batch(n):
        sizes = torch.randint(1, 5, (n,))
        total = int(sizes.sum())
        return (torch.randint(0, VOCAB, (total,)), sizes.cumsum(0) - sizes, torch.rand(total)), labels(n)

    return Net(rule, bag=nn.EmbeddingBag(VOCAB, 5, mode="sum"), head=nn.Linear(5, 4)), batch(8), batch(4)


@case(LAYERWISE)
def tied_embeddings():
    """One table read at the input and multiplied by at the output."""

    def rule(net, tokens):
        return F.linear(net.norm(net.mix(net.table(tokens)).tanh()), net.table.weight)

    model = Net(rule, table=nn.Embedding(VOCAB, 6), mix=nn.Linear(6, 6), norm=nn.LayerNorm(6))
    return model, sentences(8), sentences(4)


@case(LAYERWISE)
def tied_modules():
    """The same parameter under two names."""
    model = Net(lambda net, x: net.head(net.table(x).tanh()), table=nn.Embedding(VOCAB, 6), head=nn.Linear(6, VOCAB))
    model.head.weight = model.table.weight
    return model, sentences(8), sentences(4)


@case(LAYERWISE)
def layer_used_twice():
    def rule(net, tokens):
        x = net.table(tokens)
        return net.head(net.mix(net.norm(net.mix(x).relu())).mean(1))

    parts = {"table": nn.Embedding(VOCAB, 6), "mix": nn.Linear(6, 6), "norm": nn.LayerNorm(6), "head": nn.Linear(6, 4)}
    return Net(rule, **parts), words(8), words(4)


@case(LAYERWISE)
def layer_used_on_three_lengths():
    """Siamese branches: one layer on whole sequences, on halves and on their mean."""

    def rule(net, x):
        parts = (x, x[:, :2], x.mean(1, keepdim=True))
        return net.head(torch.cat([net.mix(part).tanh().sum(1) for part in parts], -1))

    return Net(rule, mix=nn.Linear(6, 5), head=nn.Linear(15, 4)), series(8), series(4)


class Conv1D(nn.Module):
    """Hugging Face's linear layer: weight [p, q], rows flattened and `addmm`."""

    def __init__(self, q: int, p: int):
        super().__init__()
        self.weight, self.bias = param(p, q), param(q)

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return rows.view(*x.shape[:-1], self.weight.shape[1])


@case(LAYERWISE)
def hf_conv1d():
    def rule(net, tokens):
        return net.head(net.down(F.gelu(net.up(net.table(tokens)))).mean(1))

    return (
        Net(rule, table=nn.Embedding(VOCAB, 6), up=Conv1D(8, 6), down=Conv1D(6, 8), head=nn.Linear(6, 4)),
        words(8),
        words(4),
    )


@dataclass
class CausalOutput:
    """What a Hugging Face model gives: the logits are one field."""

    logits: Tensor
    hidden: Tensor


class HFModel(nn.Module):
    """Tokens and a mask by name, a dataclass with `.logits` out."""

    def __init__(self, wrap=CausalOutput):
        super().__init__()
        self.wrap = wrap
        self.table, self.attend, self.mix = nn.Embedding(VOCAB, 6), Conv1D(18, 6), Conv1D(6, 6)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, VOCAB, bias=False)
        self.head.weight = self.table.weight

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None):
        x = self.table(input_ids)
        q, k, v = self.attend(x).split(6, -1)
        mask = attention_mask[:, None, :].bool() & torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril().to(
            x.device
        )
        hidden = self.norm(x + self.mix(F.scaled_dot_product_attention(q, k, v, attn_mask=mask)))
        return self.wrap(logits=self.head(hidden), hidden=hidden)


def hf_batch(n: int) -> dict[str, Tensor]:
    tokens, targets = sentences(n)
    valid = torch.arange(5) < torch.randint(1, 6, (n, 1))
    return {"input_ids": tokens, "attention_mask": valid.long(), "labels": targets.masked_fill(~valid, -100)}


@case(LAYERWISE)
def hf_mapping_and_dataclass():
    """Labels of -100 are ignored, the positions left are averaged within the example."""
    return HFModel(), hf_batch(8), hf_batch(4)


@case(LAYERWISE)
def hf_mapping_and_mapping():
    return HFModel(wrap=dict), hf_batch(8), hf_batch(3)


def top1(net, x):
    """Each row goes to the expert with the largest gate: rows of one expert are whatever the batch makes them."""
    rows = x.reshape(-1, x.shape[-1])
    gate, chosen = net.gate(rows).softmax(-1).max(-1)
    out = torch.zeros_like(rows)
    for index, expert in enumerate(net.experts):
        mine = (chosen == index).nonzero().squeeze(1)
        out = out.index_add(0, mine, expert(rows[mine]) * gate[mine, None])
    return net.head((rows + out).view_as(x).mean(1))


def top2(net, x):
    """As top1 with two experts a row, written by boolean masks."""
    gate, chosen = net.gate(x).softmax(-1).topk(2, -1)
    out = torch.zeros_like(x)
    for index, expert in enumerate(net.experts):
        hit = (chosen == index).any(-1)
        out[hit] += expert(x[hit]) * gate[chosen == index][:, None]
    return net.head((x + out).mean(1))


def experts(rule):
    hidden = nn.ModuleList(nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 6)) for _ in range(3))
    return Net(rule, gate=nn.Linear(6, 3), experts=hidden, head=nn.Linear(6, 4)), series(8), series(4)


case(ANY, name="mixture_of_experts_top1")(partial(experts, top1))
case(ANY, name="mixture_of_experts_top2")(partial(experts, top2))
