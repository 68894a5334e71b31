"""Language models of Hugging Face's transformers, from their configurations."""

from __future__ import annotations

import torch
import transformers as T
from torch import Tensor

from ..case import LAYERWISE, Case

VOCABULARY = 60
CASES: list[Case] = []


def add(kind: str, config: T.PretrainedConfig, data, expect: frozenset[str] = LAYERWISE, **kwargs) -> None:
    """A class of transformers, by its name, made from this configuration."""
    CASES.append(Case(kind, lambda: getattr(T, kind)(config), data, expect, kwargs=kwargs))


def causal(n: int = 7, length: int = 6) -> dict[str, Tensor]:
    """The tokens are the labels; the last tokens of some examples are padding."""
    tokens = torch.randint(3, VOCABULARY, (n, length))
    mask = torch.arange(length) < torch.randint(3, length + 1, (n, 1))
    return {"input_ids": tokens, "attention_mask": mask.long(), "labels": tokens.where(mask, -100)}


SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
add("LlamaForCausalLM", T.LlamaConfig(vocab_size=VOCABULARY, **SIZES), causal)
