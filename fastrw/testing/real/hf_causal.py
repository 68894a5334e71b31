"""Language models that predict the next token: attention, recurrence, convolutions, mixtures of experts."""

from __future__ import annotations

from functools import partial

from ..case import Case
from .hf_small import add, causal, next_token, same_token, unpadded, words

CASES: list[Case] = []
lm = partial(add, CASES, causal)

# attention, with a mask and padding
for kind in words("""
    GPT2LMHeadModel GPTBigCodeForCausalLM GPTNeoXForCausalLM GPTNeoXJapaneseForCausalLM OPTForCausalLM
    BloomForCausalLM FalconForCausalLM MptForCausalLM LlamaForCausalLM MistralForCausalLM MinistralForCausalLM
    Qwen2ForCausalLM Qwen3ForCausalLM GemmaForCausalLM Gemma2ForCausalLM Gemma3ForCausalLM VaultGemmaForCausalLM
    PhiForCausalLM Phi3ForCausalLM StableLmForCausalLM OlmoForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM
    CohereForCausalLM Cohere2ForCausalLM Starcoder2ForCausalLM PersimmonForCausalLM BioGptForCausalLM
    CTRLLMHeadModel OpenAIGPTLMHeadModel GraniteForCausalLM NemotronForCausalLM HeliumForCausalLM SmolLM3ForCausalLM
    GlmForCausalLM Glm4ForCausalLM NanoChatForCausalLM BitNetForCausalLM Exaone4ForCausalLM ApertusForCausalLM
    ArceeForCausalLM SeedOssForCausalLM HunYuanDenseV1ForCausalLM Ernie4_5ForCausalLM ModernBertDecoderForCausalLM
    DogeForCausalLM
"""):
    lm(kind)
lm("FalconForCausalLM", "alibi", alibi=True, new_decoder_architecture=True)
lm("GPTNeoForCausalLM", attention_types=[[["global", "local"], 1]], window_size=4)
lm("GPTJForCausalLM", rotary_dim=4)
lm("CodeGenForCausalLM", rotary_dim=4, n_head=4)
lm("DiffLlamaForCausalLM", num_key_value_heads=2)
lm("Gemma3nForCausalLM", layer_types=["sliding_attention", "full_attention"], num_kv_shared_layers=0,
   hidden_size_per_layer_input=4, vocab_size_per_layer_input=60, laurel_rank=4,
   activation_sparsity_pattern=[0.5, 0.0])  # fmt: skip

# decoders of other families
for kind in words("""
    BertLMHeadModel RobertaForCausalLM XLMRobertaForCausalLM ElectraForCausalLM RoFormerForCausalLM
    BigBirdForCausalLM MegatronBertForCausalLM ErnieForCausalLM
"""):
    lm(kind, is_decoder=True)
for kind in words("""
    BartForCausalLM MBartForCausalLM PegasusForCausalLM MarianForCausalLM BlenderbotForCausalLM PLBartForCausalLM
    TrOCRForCausalLM
"""):
    lm(kind)
lm("XmodForCausalLM", is_decoder=True, languages=["en_XX"], default_language="en_XX")
# ngrams are predicted, too, so the model's own loss is of another kind
add(CASES, unpadded, "ProphetNetForCausalLM", kwargs={"losses_fn": same_token})

# recurrence, state spaces, linear attention
states = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_chunk_size": 4}
hybrid = {"layer_types": ["linear_attention", "full_attention"]}
delta = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 2}
lm("MambaForCausalLM", state_size=4)
lm("FalconMambaForCausalLM", state_size=4)
lm("Mamba2ForCausalLM", num_heads=4, head_dim=8, state_size=8, n_groups=1, chunk_size=4)
lm("RwkvForCausalLM")
lm("RecurrentGemmaForCausalLM", block_types=["recurrent", "attention"], attention_window_size=8)
lm("BambaForCausalLM", attn_layer_indices=[1], **states)
lm("FalconH1ForCausalLM", mamba_d_ssm=32, mamba_n_groups=1, **states)
lm("GraniteMoeHybridForCausalLM", layer_types=["mamba", "attention"], shared_intermediate_size=32, **states)
lm("Zamba2ForCausalLM", layers_block_type=["mamba", "hybrid"], mamba_d_state=8, n_mamba_heads=4, mamba_headdim=8,
   mamba_ngroups=1, num_mem_blocks=1, chunk_size=4, use_mamba_kernels=False, use_mem_rope=False)  # fmt: skip
lm("JambaForCausalLM", attn_layer_offset=1, attn_layer_period=2, expert_layer_offset=1, expert_layer_period=2,
   use_mamba_kernels=False, mamba_d_state=4)  # fmt: skip
lm("Qwen3NextForCausalLM", **hybrid, **delta)
lm("Qwen3_5ForCausalLM", **hybrid, **delta)
lm("MiniMaxForCausalLM", **hybrid, block_size=4)
lm("OlmoHybridForCausalLM", **delta)
lm("Lfm2ForCausalLM")

# experts: each token goes to those that its gate chooses
heads = {"kv_lora_rank": 8, "q_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
         "num_key_value_heads": 2, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}  # fmt: skip
for kind in words("""
    MixtralForCausalLM Qwen2MoeForCausalLM Qwen3MoeForCausalLM OlmoeForCausalLM GptOssForCausalLM
    GraniteMoeForCausalLM
"""):
    lm(kind)
for kind in ("Qwen3MoeForCausalLM", "GptOssForCausalLM"):
    lm(kind, "loop over experts", experts_implementation="eager", num_hidden_layers=1)
lm("PhimoeForCausalLM", kwargs={"losses_fn": next_token})  # draws which experts
lm("JetMoeForCausalLM", num_hidden_layers=1, kv_channels=8)
lm("DbrxForCausalLM", attn_config={"kv_n_heads": 1, "clip_qkv": 8.0, "rope_theta": 1e4},
   ffn_config={"hidden_size": 16, "ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2})  # fmt: skip
lm("DeepseekV2ForCausalLM", **heads)
lm("DeepseekV3ForCausalLM", head_dim=4, **heads)
lm("Glm4MoeForCausalLM", first_k_dense_replace=1)
lm("Ernie4_5_MoeForCausalLM", moe_num_experts=4, moe_k=2, moe_layer_start_index=0)
lm("HunYuanMoEV1ForCausalLM", moe_topk=2)
lm("Lfm2MoeForCausalLM", layer_types=["conv", "full_attention"], num_dense_layers=1)
lm("Llama4ForCausalLM", num_hidden_layers=1, interleave_moe_layer_step=1)
