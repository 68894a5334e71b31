"""Language models that predict hidden tokens."""

from __future__ import annotations

from functools import partial

import torch

from ..case import Case
from .hf_small import LENGTH, add, causal, hidden, same_token, unpadded, words

CASES: list[Case] = []
lm = partial(add, CASES, hidden)

for kind in words("""
    BertForMaskedLM RobertaForMaskedLM RobertaPreLayerNormForMaskedLM CamembertForMaskedLM XLMRobertaForMaskedLM
    XLMRobertaXLForMaskedLM DistilBertForMaskedLM AlbertForMaskedLM ElectraForMaskedLM DebertaForMaskedLM
    DebertaV2ForMaskedLM MPNetForMaskedLM MobileBertForMaskedLM ConvBertForMaskedLM SqueezeBertForMaskedLM
    BigBirdForMaskedLM FunnelForMaskedLM NystromformerForMaskedLM ErnieForMaskedLM RoFormerForMaskedLM
    MegatronBertForMaskedLM EuroBertForMaskedLM ModernBertForMaskedLM EsmForMaskedLM Data2VecTextForMaskedLM
    NomicBertForMaskedLM YosoForMaskedLM
"""):
    lm(kind)
lm("DebertaForMaskedLM", "relative", relative_attention=True, pos_att_type="c2p|p2c", max_relative_positions=8,
   position_biased_input=False)  # fmt: skip
lm("DebertaV2ForMaskedLM", "relative", relative_attention=True, pos_att_type="c2p|p2c", position_buckets=4,
   norm_rel_ebd="layer_norm", share_att_key=True, conv_kernel_size=3)  # fmt: skip
lm("RemBertForMaskedLM", input_embedding_size=16, output_embedding_size=16)
lm("LukeForMaskedLM", entity_vocab_size=10, entity_emb_size=16)
lm("EsmcForMaskedLM", num_key_value_heads=2)
lm("JinaEmbeddingsV3ForMaskedLM")
lm("GteForMaskedLM")
lm("TapasForMaskedLM", max_position_embeddings=16)
lm("LayoutLMForMaskedLM", max_2d_position_embeddings=16)
lm("MraForMaskedLM", case={"dtype": torch.float32})  # takes no float64
lm("XmodForMaskedLM", languages=["en_XX"], default_language="en_XX")
for quantised in (False, True):  # it observes the range of each batch
    lm("IBertForMaskedLM", "quantised" * quantised, quant_mode=quantised, kwargs={"losses_fn": same_token})
lm("PerceiverForMaskedLM", num_latents=4, d_latents=16, num_blocks=1, num_self_attends_per_block=1,
   num_self_attention_heads=2, num_cross_attention_heads=2, qk_channels=16, v_channels=16,
   max_position_embeddings=LENGTH)  # fmt: skip
add(CASES, partial(hidden, length=48), "BigBirdForMaskedLM", "sparse", attention_type="block_sparse", block_size=4,
    num_random_blocks=1, max_position_embeddings=64)  # fmt: skip
for kind in ("FNetForMaskedLM", "LongformerForMaskedLM"):  # no mask, or gradients that are not finite with one
    add(CASES, unpadded, kind, **({"attention_window": 4} if kind.startswith("Long") else {}))
# reversible layers run a backward of their own within the backward: refused by name
add(CASES, unpadded, "ReformerForMaskedLM", expect=frozenset(), attention_head_size=8, feed_forward_size=32,
    attn_layers=["local"], axial_pos_embds=False, local_attn_chunk_length=4)  # fmt: skip

# XLM and XLNet predict the label of the same position
for kind in ("XLMWithLMHeadModel", "FlaubertWithLMHeadModel", "XLNetLMHeadModel"):
    add(CASES, causal, kind)
