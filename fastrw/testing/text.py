"""Sequences: transformers by hand, of torch.nn and like Hugging Face's, forms of attention, mixtures of experts."""

from collections.abc import Callable
from dataclasses import make_dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .batches import VOCAB, drawn, length_first, sentences, series, words
from .case import ANY, case, features, named
from .models import TransformerLayer
from .parts import dense, direct_losses, embedding, encoder, headed, learned, linear, net, sequence, tie_head


def transformer(name: str, **attention: bool) -> None:
    """A case with two pre-norm transformer blocks written out."""

    def rule(net, tokens):
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        return net.blocks(net.table(tokens) + net.pos(steps)).mean(1)

    blocks = sequence(*2 * [partial(TransformerLayer, 8, 2, 2, **attention)])
    features(name, rule, words, width=8, table=embedding(VOCAB, 8), pos=embedding(16, 8), blocks=blocks)


transformer("transformer_by_hand")
transformer("default_sdpa", fused=True)
transformer("causal_sdpa", fused=True, causal=True)

with_padding = drawn(8, lambda n: (torch.randn(n, 5, 6), torch.arange(5) >= torch.randint(2, 6, (n, 1))))


@named(features, with_padding, width=6, body=partial(encoder, 6, 10, batch_first=True, norm_first=True))
def encoder_with_padding_mask(net, x, padding):
    keep = (~padding).unsqueeze(-1)
    return (net.body(x, src_key_padding_mask=padding) * keep).sum(1) / keep.sum(1)


batch_first = headed(lambda net, x: net.body(x).mean(1), 6, body=partial(encoder, 6, 10, batch_first=True))
mean_of_steps = headed(lambda net, x: net.body(x).mean(0), 6, body=partial(encoder, 6, 10))
first_step = headed(lambda net, x: net.body(x)[0], 6, body=partial(encoder, 6, 10))
as_long_as_many = drawn(7, lambda n: torch.randn(n, n, 6))
case("encoder_batch_first", batch_first, series)
# Inputs [length, n, d]: examples are dimension 1.
case("encoder_sequence_first", mean_of_steps, length_first, losses_fn=direct_losses)
# As many positions as examples: the shape alone cannot tell them apart.
case("encoder_length_is_n", first_step, as_long_as_many, losses_fn=direct_losses)

translations = drawn(8, lambda n: (torch.randn(n, 5, 6), torch.randn(n, 3, 6)), lambda n: torch.randint(0, 4, (n, 3)))
encoder_and_decoder = partial(nn.Transformer, 6, 2, 1, 1, 8, 0.0, batch_first=True)


@named(features, translations, width=6, body=encoder_and_decoder)
def encoder_decoder(net, source, target):
    """nn.Transformer, two inputs, cross-attention and a causal mask."""
    mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=source.dtype)
    return net.body(source, target, tgt_mask=mask.to(source.device), tgt_is_causal=True)


attention = partial(nn.MultiheadAttention, 6, 2, kdim=4, vdim=3, add_bias_kv=True, add_zero_attn=True, batch_first=True)
# Other widths for keys and values, learned key and value, an all-zero key.
features("attention_all_parameters", lambda net, x: net.attend(x, x[..., :4], x[..., :3])[0].mean(1),
         series, width=6, attend=attention)  # fmt: skip
# Siamese branches: one layer on whole sequences, on their beginnings and on their mean.
features("layer_used_on_three_lengths",
         lambda net, x: torch.cat([net.mix(part).tanh().sum(1) for part in (x, x[:, :2], x.mean(1, keepdim=True))], -1),
         series, width=15, mix=linear(6, 5))  # fmt: skip


def hf_linear(q: int, p: int) -> Callable:
    """Hugging Face's Conv1D, a linear layer: weight [p, q], rows flattened and `addmm`."""

    def rule(net, x):
        return torch.addmm(net.bias, x.view(-1, x.size(-1)), net.weight).view(*x.shape[:-1], q)

    return net(rule, weight=learned(p, q), bias=learned(q))


features("hf_conv1d", lambda net, tokens: net.down(F.gelu(net.up(net.table(tokens)))).mean(1),
         words, width=6, table=embedding(VOCAB, 6), up=hf_linear(8, 6), down=hf_linear(6, 8))  # fmt: skip
CausalOutput = make_dataclass("CausalOutput", ("logits", "hidden"))  # as the models of Hugging Face return


def hf_batch(n: int = 8) -> dict[str, Tensor]:
    """Labels of -100 are ignored; the other positions are averaged within the example."""
    tokens, targets = sentences(n)
    valid = torch.arange(5) < torch.randint(1, 6, (n, 1))
    return {"input_ids": tokens, "attention_mask": valid.long(), "labels": targets.masked_fill(~valid, -100)}


def hf_model(name: str, wrap: Callable, **options) -> None:
    """A case with a model that takes tokens and a mask by name and returns `wrap(logits=..., hidden=...)`."""

    def rule(net, input_ids, attention_mask, labels=None):
        x = net.table(input_ids)
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
        mask = attention_mask[:, None, :].bool() & causal
        rows = F.scaled_dot_product_attention(*net.attend(x).split(6, -1), attn_mask=mask)
        hidden = net.norm(x + net.mix(rows))
        return wrap(logits=net.head(hidden), hidden=hidden)

    make = net(
        rule, table=embedding(VOCAB, 6), attend=hf_linear(18, 6), mix=hf_linear(6, 6),
        norm=partial(nn.LayerNorm, 6), head=linear(6, VOCAB, bias=False),
    )  # fmt: skip
    case(name, make, hf_batch, change=tie_head, **options)


hf_model("hf_mapping_and_dataclass", CausalOutput)
hf_model("hf_mapping_and_mapping", dict, val=(3,))


def experts():
    return nn.ModuleList(dense(6, 7, 6, activation=nn.ReLU) for _ in range(3))


@named(features, series, width=6, experts=experts, gate=linear(6, 3), expect=ANY)
def mixture_of_experts_top1(net, x):
    """Each row goes to the expert with the largest gate: which rows an expert gets depends on the batch."""
    rows = x.reshape(-1, x.shape[-1])
    gate, chosen = net.gate(rows).softmax(-1).max(-1)
    out = torch.zeros_like(rows)
    for index, expert in enumerate(net.experts):
        mine = (chosen == index).nonzero().squeeze(1)
        out = out.index_add(0, mine, expert(rows[mine]) * gate[mine, None])
    return (rows + out).view_as(x).mean(1)


@named(features, series, width=6, experts=experts, gate=linear(6, 3), expect=ANY)
def mixture_of_experts_top2(net, x):
    """As above with two experts per row, written with boolean masks."""
    gate, chosen = net.gate(x).softmax(-1).topk(2, -1)
    out = torch.zeros_like(x)
    for index, expert in enumerate(net.experts):
        hit = (chosen == index).any(-1)
        out[hit] += expert(x[hit]) * gate[chosen == index][:, None]
    return (x + out).mean(1)
