"""Small models of Hugging Face's transformers by the name of their class, the batches that they take, and losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import transformers as T
from torch import Tensor, nn

from ..case import LAYERWISE, Case

VOCABULARY, LENGTH = 60, 8
# What configurations call the sizes of a model; each takes those that it knows.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "dim", "embedding_size"), 16),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "n_inner", "d_inner", "hidden_dim", "encoder_ffn_dim",
                     "decoder_ffn_dim"), 32),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "d_kv", "head_dim"), 8),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "num_decoder_layers", "encoder_layers",
                     "decoder_layers", "num_encoder_layers", "num_attention_heads", "num_heads", "n_head", "n_heads",
                     "encoder_attention_heads", "decoder_attention_heads", "num_encoder_attention_heads",
                     "num_decoder_attention_heads", "num_experts_per_tok"), 2),
    "num_key_value_heads": 1,
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
}  # fmt: skip


def small(kind: str, **own: Any) -> T.PretrainedConfig:
    """The configuration of a class of models, without dropout. own: what differs from SIZES."""
    kinds = getattr(T, kind).config_class
    known = vars(kinds())
    still = {name: 0.0 for name, value in known.items() if "drop" in name and isinstance(value, float)}
    return kinds(**{name: value for name, value in SIZES.items() if name in known} | still | own)


def made(kind: str, own: Mapping[str, Any]) -> nn.Module:
    config = small(kind, **own)
    # the default, grouped_mm, takes no float64
    config._experts_implementation = own.get("experts_implementation", "batched_mm")
    return getattr(T, kind)(config)


def add(to: list[Case], data: Callable, kind: str, note: str = "", *, expect: frozenset[str] = LAYERWISE,
        case: Mapping[str, Any] | None = None, kwargs: Mapping[str, Any] | None = None, **own: Any
        ) -> None:  # fmt: skip
    """A case of this class. note: how it differs from another of the same class; case: fields of `Case`; kwargs: those
    of the calls; own: of the configuration."""
    name = f"{kind} {note}".strip()
    to.append(Case(name, partial(made, kind, own), data, expect, kwargs=kwargs or {}, **(case or {})))


def words(text: str) -> list[str]:
    return text.split()


def tokens(n: int = 7, length: int = LENGTH) -> Tensor:
    return torch.randint(3, VOCABULARY, (n, length))


def sentences(n: int = 7, length: int = LENGTH, left: bool = False) -> dict[str, Tensor]:
    """Tokens, with padding at the end or, if `left`, at the beginning."""
    drawn, lengths = tokens(n, length), torch.randint(3, length + 1, (n, 1))
    mask = torch.arange(length) >= length - lengths if left else torch.arange(length) < lengths
    return {"input_ids": drawn.where(mask, 0), "attention_mask": mask.long()}


def causal(n: int = 7, length: int = LENGTH, left: bool = False) -> dict[str, Tensor]:
    """The tokens are the labels."""
    batch = sentences(n, length, left)
    return batch | {"labels": batch["input_ids"].where(batch["attention_mask"].bool(), -100)}


def unpadded(n: int = 7, length: int = LENGTH) -> dict[str, Tensor]:
    drawn = tokens(n, length)
    return {"input_ids": drawn, "labels": drawn}


def hidden(n: int = 7, length: int = LENGTH) -> dict[str, Tensor]:
    """Some of the tokens are to be predicted, in each example the first."""
    batch = sentences(n, length)
    asked = (torch.rand(n, length) < 0.4) & batch["attention_mask"].bool()
    asked[:, 0] = True
    return batch | {"labels": tokens(n, length).where(asked, -100)}


def over_positions(logits: Tensor, labels: Tensor) -> Tensor:
    """[n]: the mean cross-entropy of each example's positions with a label."""
    losses = F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")
    return losses.sum(1) / (labels != -100).sum(1)


def logits_of(model: nn.Module, batch: Mapping[str, Tensor], **more: Any) -> Tensor:
    return model(**{k: v for k, v in batch.items() if k != "labels"}, **more).logits


def next_token(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """[n]: logits at t predict the label at t + 1."""
    return over_positions(logits_of(model, batch)[:, :-1], batch["labels"][:, 1:])


def same_token(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    return over_positions(logits_of(model, batch), batch["labels"])
