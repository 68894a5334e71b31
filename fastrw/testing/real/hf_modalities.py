"""Speech, images with text, several modalities and time series of Hugging Face's transformers, from configurations."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
import transformers as T
from torch import Tensor, nn

from ..case import TANGENT, Case
from .hf_vision import CLASSES, IMAGE, SIZES, WORDS, add_to, each_alone

CASES: list[Case] = []


# losses: the model's own of each example alone, unless a case says otherwise
add = partial(add_to, CASES, losses=each_alone, change=nn.Module.train, n=5)


# speech
FRONT = {"conv_dim": [8, 8], "conv_stride": [4, 2], "conv_kernel": [8, 4], "num_conv_pos_embeddings": 4,
         "num_conv_pos_embedding_groups": 2, "vocab_size": 10, "num_labels": CLASSES, "mask_time_length": 2,
         "layerdrop": 0.0}  # fmt: skip


def waves(n: int, length: int = 120) -> dict[str, Tensor]:
    return {"input_values": torch.randn(n, length), "labels": torch.randint(CLASSES, (n,))}


def spoken(n: int) -> dict[str, Tensor]:
    return waves(n) | {"labels": torch.randint(1, 10, (n, 4))}


def plain_ctc(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """CTC of the whole batch at once."""
    log_p = model(batch["input_values"]).logits.log_softmax(-1).transpose(0, 1)
    n, labels = log_p.shape[1], batch["labels"]
    return F.ctc_loss(log_p, labels, torch.full((n,), len(log_p)), torch.full((n,), 4), reduction="none")


def by_class(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    return F.cross_entropy(model(**inputs).logits, batch["labels"], reduction="none")


add("Wav2Vec2ForCTC", lambda: T.Wav2Vec2Config(**FRONT, **SIZES), spoken, losses=plain_ctc)
add("HubertForCTC", lambda: T.HubertConfig(**FRONT, **SIZES), spoken)
add("WavLMForCTC", lambda: T.WavLMConfig(**FRONT, **SIZES), spoken, losses=plain_ctc)
add("SEWForCTC", lambda: T.SEWConfig(**FRONT, **SIZES, squeeze_factor=2), spoken, losses=plain_ctc)
add("UniSpeechForCTC", lambda: T.UniSpeechConfig(**FRONT, **SIZES, num_ctc_classes=10), spoken, losses=plain_ctc)
add("Data2VecAudioForCTC", lambda: T.Data2VecAudioConfig(**FRONT, **SIZES), spoken, losses=plain_ctc)
add("Wav2Vec2ForSequenceClassification", lambda: T.Wav2Vec2Config(**FRONT, **SIZES), waves, losses=by_class)
add("UniSpeechSatForSequenceClassification", lambda: T.UniSpeechSatConfig(**FRONT, **SIZES), waves, losses=by_class)
add(
    "Wav2Vec2ConformerForSequenceClassification",
    lambda: T.Wav2Vec2ConformerConfig(**FRONT, **SIZES, conv_depthwise_kernel_size=3),
    waves,
    TANGENT,
    losses=by_class,
)  # BatchNorm


def spectra(n: int) -> dict[str, Tensor]:
    return {"input_features": torch.randn(n, 8, 40), "labels": torch.randint(3, WORDS, (n, 5))}


SEQ2SEQ = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "vocab_size": WORDS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
add(
    "WhisperForConditionalGeneration",
    lambda: T.WhisperConfig(
        **SEQ2SEQ,
        num_mel_bins=8,
        max_source_positions=20,
        max_target_positions=10,
        begin_suppress_tokens=None,
        suppress_tokens=None,
    ),
    spectra,
)
add(
    "Speech2TextForConditionalGeneration",
    lambda: T.Speech2TextConfig(
        **SEQ2SEQ,
        input_feat_per_channel=8,
        max_source_positions=40,
        max_target_positions=10,
        conv_channels=8,
        num_conv_layers=1,
        conv_kernel_sizes=[3],
    ),
    lambda n: spectra(n) | {"input_features": torch.randn(n, 20, 8)},
)
add(
    "ASTForAudioClassification",
    lambda: T.ASTConfig(
        **SIZES, num_labels=CLASSES, patch_size=4, frequency_stride=4, time_stride=4, max_length=16, num_mel_bins=8
    ),
    lambda n: {"input_values": torch.randn(n, 16, 8), "labels": torch.randint(CLASSES, (n,))},
    losses=None,
)

# images with text
TEXT = {"vocab_size": WORDS, "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def captioned(n: int) -> dict[str, Tensor]:
    words = torch.randint(3, WORDS, (n, 6))
    words[:, -1] = 2
    return {"input_ids": words, "pixel_values": torch.randn(n, 3, 16, 16), "attention_mask": torch.ones(n, 6).long()}


def contrast(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Each image against the texts of all: the loss mixes the examples."""
    logits = model(**batch).logits_per_image
    return F.cross_entropy(logits, torch.arange(len(logits)), reduction="none")


add(
    "CLIPModel",
    lambda: T.CLIPConfig(vision_config=IMAGE | SIZES, text_config=SIZES | TEXT, projection_dim=8),
    captioned,
    TANGENT,
    losses=contrast,
)
add(
    "SiglipModel",
    lambda: T.SiglipConfig(vision_config=IMAGE | SIZES, text_config=SIZES | TEXT),
    captioned,
    TANGENT,
    losses=contrast,
)
add(
    "BlipForConditionalGeneration",
    lambda: T.BlipConfig(vision_config=IMAGE | SIZES, text_config=SIZES | TEXT | {"encoder_hidden_size": 16}),
    lambda n: captioned(n) | {"labels": torch.randint(3, WORDS, (n, 6))},
)
add(
    "ViltForQuestionAnswering",
    lambda: T.ViltConfig(**IMAGE, **SIZES, **TEXT, num_labels=CLASSES, max_image_length=-1),
    lambda n: captioned(n) | {"labels": torch.rand(n, CLASSES)},
)
add(
    "GitForCausalLM",
    lambda: T.GitConfig(vision_config=IMAGE | SIZES, **SIZES, **TEXT),
    lambda n: captioned(n) | {"labels": torch.randint(3, WORDS, (n, 6))},
)


def with_image(n: int) -> dict[str, Tensor]:
    """4 places for the patches of the image, then words."""
    words = torch.cat([torch.full((n, 4), WORDS - 1), torch.randint(3, WORDS - 1, (n, 5))], 1)
    labels = torch.where(words == WORDS - 1, -100, words)
    return {
        "input_ids": words,
        "pixel_values": torch.randn(n, 3, 16, 16),
        "attention_mask": torch.ones_like(words),
        "labels": labels,
    }


LLAMA = SIZES | TEXT | {"num_key_value_heads": 1}
add(
    "LlavaForConditionalGeneration",
    lambda: T.LlavaConfig(
        vision_config=T.CLIPVisionConfig(**IMAGE, **SIZES),
        text_config=T.LlamaConfig(**LLAMA),
        image_token_index=WORDS - 1,
        vision_feature_layer=-1,
    ),
    with_image,
)
add(
    "PaliGemmaForConditionalGeneration",
    lambda: T.PaliGemmaConfig(
        vision_config=T.SiglipVisionConfig(**IMAGE, **SIZES, projection_dim=16),
        text_config=T.GemmaConfig(**LLAMA, head_dim=8),
        image_token_index=WORDS - 1,
        projection_dim=16,
        hidden_size=16,
        vocab_size=WORDS,
    ),
    lambda n: with_image(n) | {"token_type_ids": torch.cat([torch.zeros(n, 5), torch.ones(n, 4)], 1).long()},
)
add(
    "IdeficsForVisionText2Text",
    lambda: T.IdeficsConfig(
        **LLAMA,
        additional_vocab_size=0,
        cross_layer_interval=1,
        use_resampler=False,
        vision_config={
            "embed_dim": 16,
            "image_size": 16,
            "patch_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
        },
    ),
    lambda n: (
        {k: v for k, v in with_image(n).items() if k != "pixel_values"}
        | {"pixel_values": torch.randn(n, 1, 3, 16, 16), "image_attention_mask": torch.ones(n, 9, 1).long()}
    ),
)
add(
    "Idefics3ForConditionalGeneration",
    lambda: T.Idefics3Config(
        vision_config=IMAGE | SIZES, text_config=T.LlamaConfig(**LLAMA), image_token_id=WORDS - 1, scale_factor=1
    ),
    lambda n: with_image(n) | {"pixel_values": torch.randn(n, 1, 3, 16, 16)},
)


def page(n: int) -> dict[str, Tensor]:
    corner = torch.randint(0, 20, (n, 6, 2))
    return {
        "input_ids": torch.randint(3, WORDS, (n, 6)),
        "bbox": torch.cat([corner, corner + 5], 2),
        "attention_mask": torch.ones(n, 6).long(),
        "labels": torch.randint(CLASSES, (n, 6)),
    }


LAYOUT = SIZES | TEXT | {"max_2d_position_embeddings": 64, "num_labels": CLASSES}
add("LayoutLMForTokenClassification", lambda: T.LayoutLMConfig(**LAYOUT), page, losses=None, change=nn.Module.eval)
add(
    "LayoutLMv3ForTokenClassification",
    lambda: T.LayoutLMv3Config(
        **LAYOUT,
        input_size=16,
        patch_size=8,
        coordinate_size=2,
        shape_size=4,
        rel_pos_bins=8,
        max_rel_pos=16,
        rel_2d_pos_bins=8,
        max_rel_2d_pos=16,
    ),
    lambda n: page(n) | {"pixel_values": torch.randn(n, 3, 16, 16)},
)


def read_aloud(n: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(n, 3, 16, 16), "labels": torch.randint(3, WORDS, (n, 5))}


def reader(encoder: T.PretrainedConfig, text: T.PretrainedConfig) -> T.PretrainedConfig:
    config = T.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, text)
    config.decoder_start_token_id, config.pad_token_id = 1, 0
    return config


MBART = {k: v for k, v in SEQ2SEQ.items() if k not in ("decoder_start_token_id",)} | {"max_position_embeddings": 16}
add(
    "VisionEncoderDecoderModel",
    lambda: reader(
        T.ViTConfig(**IMAGE, **SIZES),
        T.TrOCRConfig(**MBART, is_decoder=True, add_cross_attention=True, cross_attention_hidden_size=16),
    ),
    read_aloud,
)  # TrOCR

# any modality, time series, decisions
PERCEIVER = {
    "d_latents": 16,
    "num_latents": 6,
    "num_blocks": 1,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 2,
    "num_cross_attention_heads": 2,
    "num_labels": CLASSES,
}
add(
    "PerceiverForSequenceClassification",
    lambda: T.PerceiverConfig(**PERCEIVER, d_model=16, vocab_size=WORDS, max_position_embeddings=8),
    lambda n: {
        "inputs": torch.randint(3, WORDS, (n, 8)),
        "attention_mask": torch.ones(n, 8).long(),
        "labels": torch.randint(CLASSES, (n,)),
    },
    losses=by_class,
)
PATCH = {
    "num_input_channels": 2,
    "context_length": 16,
    "patch_length": 4,
    "patch_stride": 4,
    "d_model": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "ffn_dim": 16,
    "prediction_length": 4,
}


def series(n: int) -> dict[str, Tensor]:
    return {"past_values": torch.randn(n, 16, 2), "future_values": torch.randn(n, 4, 2)}


add("PatchTSTForPrediction", lambda: T.PatchTSTConfig(**PATCH, loss="mse", norm_type="layernorm"), series)
add(
    "PatchTSTForPrediction",
    lambda: T.PatchTSTConfig(**PATCH, loss="mse"),
    series,
    change=nn.Module.eval,
    name="PatchTSTForPrediction BatchNorm eval",
)
add(
    "PatchTSMixerForPrediction",
    lambda: T.PatchTSMixerConfig(
        **{k: v for k, v in PATCH.items() if k not in ("num_attention_heads", "ffn_dim", "num_hidden_layers")},
        num_layers=1,
        self_attn=True,
        self_attn_heads=2,
    ),
    series,
)


def history(n: int) -> dict[str, Tensor]:
    return {
        "past_values": torch.rand(n, 20),
        "past_time_features": torch.randn(n, 20, 2),
        "past_observed_mask": torch.ones(n, 20),
        "future_values": torch.rand(n, 4),
        "future_time_features": torch.randn(n, 4, 2),
    }


SERIES = {
    "prediction_length": 4,
    "context_length": 12,
    "lags_sequence": [1, 2, 8],
    "num_time_features": 2,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
}
add("TimeSeriesTransformerForPrediction", lambda: T.TimeSeriesTransformerConfig(**SERIES), history)
add("InformerForPrediction", lambda: T.InformerConfig(**SERIES, sampling_factor=2), history)
add("AutoformerForPrediction", lambda: T.AutoformerConfig(**SERIES, moving_average=3), history, in_float32=True)


def games(n: int) -> dict[str, Tensor]:
    steps = torch.arange(4).expand(n, 4)
    return {
        "states": torch.randn(n, 4, 3),
        "actions": torch.randn(n, 4, 2),
        "rewards": torch.randn(n, 4, 1),
        "returns_to_go": torch.randn(n, 4, 1),
        "timesteps": steps,
        "attention_mask": torch.ones(n, 4).long(),
    }


def imitate(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return (model(**batch).action_preds - batch["actions"]).square().mean((1, 2))


add(
    "DecisionTransformerModel",
    lambda: T.DecisionTransformerConfig(
        state_dim=3, act_dim=2, hidden_size=16, max_ep_len=8, n_layer=1, n_head=2, n_positions=32
    ),
    games,
    losses=imitate,
)
