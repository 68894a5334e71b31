"""Models with an encoder and a decoder, which takes its labels moved by one position."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ..case import Case
from .hf_small import LENGTH, VOCABULARY, add, over_positions, sentences, tokens, words

CASES: list[Case] = []


def translations(n: int = 7, length: int = LENGTH, labels: int = 6) -> dict[str, Tensor]:
    """Sentences and labels of another length, both padded."""
    target = tokens(n, labels)
    return sentences(n, length) | {"labels": target.where(torch.arange(labels) < torch.randint(3, 7, (n, 1)), -100)}


def all_seen(n: int = 7) -> dict[str, Tensor]:
    """No mask, where gradients would not be finite with one."""
    return {k: v for k, v in translations(n).items() if k != "attention_mask"}


def with_decoder(n: int = 7) -> dict[str, Tensor]:
    """With the decoder's inputs."""
    batch = translations(n)
    return batch | {"decoder_input_ids": tokens(*batch["labels"].shape)}


def own(model, batch) -> Tensor:
    """[n]. Given labels, the model makes the decoder's inputs of them."""
    return over_positions(model(**batch).logits, batch["labels"])


seq2seq = partial(add, CASES, translations)
whole = partial(add, CASES, all_seen)
start = {"decoder_start_token_id": 1}
for kind in words("""
    MT5ForConditionalGeneration UMT5ForConditionalGeneration BartForConditionalGeneration
    MBartForConditionalGeneration PegasusForConditionalGeneration MarianMTModel BlenderbotForConditionalGeneration
    BlenderbotSmallForConditionalGeneration PLBartForConditionalGeneration M2M100ForConditionalGeneration
    MvpForConditionalGeneration BigBirdPegasusForConditionalGeneration
"""):
    seq2seq(kind)
seq2seq("T5ForConditionalGeneration", **start)
seq2seq("T5ForConditionalGeneration", "gated", feed_forward_proj="gated-gelu", **start)
seq2seq("PegasusXForConditionalGeneration", block_size=4, num_global_tokens=4)
seq2seq("LongT5ForConditionalGeneration", encoder_attention_type="local", local_radius=3, **start)
seq2seq("LongT5ForConditionalGeneration", "transient global", encoder_attention_type="transient-global", local_radius=3,
        global_block_size=4, **start)  # fmt: skip
add(CASES, with_decoder, "FSMTForConditionalGeneration", src_vocab_size=VOCABULARY, tgt_vocab_size=VOCABULARY,
    langs=["en", "de"], case={"dtype": torch.float32})  # fmt: skip  # it takes no float64
whole("LEDForConditionalGeneration", attention_window=4, max_encoder_position_embeddings=32,
      max_decoder_position_embeddings=32)  # fmt: skip
whole("ProphetNetForConditionalGeneration", kwargs={"losses_fn": own})
# experts with room for all: which examples are with it in a batch makes no difference
seq2seq("NllbMoeForConditionalGeneration", encoder_sparse_step=1, decoder_sparse_step=1, expert_capacity=64,
        num_hidden_layers=1, encoder_layers=1, decoder_layers=1)  # fmt: skip
experts = {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1, "num_layers": 1, "num_decoder_layers": 1}
# its routers draw noise
seq2seq("SwitchTransformersForConditionalGeneration", kwargs={"losses_fn": own}, expert_capacity=64, **experts, **start)
