"""Images and video of Hugging Face's transformers, from their configurations. Where a model's own loss is a mean over
the whole batch, the losses are its own of each example alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import transformers as T
from torch import Tensor, nn

from ..case import LAYERWISE, TANGENT, Case
from .fitted import Float32

CASES: list[Case] = []
CLASSES, WORDS = 5, 40
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
IMAGE = {"image_size": 16, "patch_size": 8}


def add_to(cases: list[Case], kind: str, config: Any, data: Callable[..., Any], expect: frozenset[str] = LAYERWISE, *,
           name: str = "", losses: Callable | None = None, change: Callable[[nn.Module], Any] = lambda model: None,
           in_float32: bool = False, n: int = 6) -> None:  # fmt: skip
    """A class of transformers, by its name, made from this configuration. losses: None for fastrw's default."""
    kwargs = {} if losses is None else {"losses_fn": losses}

    def model() -> nn.Module:
        made = getattr(T, kind)(config())
        return Float32(made) if in_float32 else made

    n = 4 if losses is each_alone else n  # as many forwards
    cases.append(Case(name or kind, model, data, expect, change, (n,), (3,), kwargs=kwargs))


add = partial(add_to, CASES)


def pixels(n: int, size: int = 16) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(n, 3, size, size), "labels": torch.randint(CLASSES, (n,))}


def images_32(n: int) -> dict[str, Tensor]:
    return pixels(n, 32)


def images_64(n: int) -> dict[str, Tensor]:
    return pixels(n, 64)


def each_alone(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    """The model's own loss of each example alone."""
    n = len(next(iter(batch.values())))
    return torch.stack([model(**{k: v[i : i + 1] for k, v in batch.items()}).loss for i in range(n)])


# classification of images
def classifier(kind: str, config: type, data: Callable[..., Any] = pixels, expect: frozenset[str] = LAYERWISE,
               change: Callable[[nn.Module], Any] = nn.Module.train, name: str = "", **options: Any
               ) -> None:  # fmt: skip
    add(f"{kind}ForImageClassification", lambda: config(num_labels=CLASSES, **options), data, expect, change=change,
        name=name)  # fmt: skip


evaluated = nn.Module.eval
classifier("ViT", T.ViTConfig, **IMAGE, **SIZES)
classifier("DeiT", T.DeiTConfig, **IMAGE, **SIZES)
classifier("Beit", T.BeitConfig, **IMAGE, **SIZES, use_relative_position_bias=True)
classifier("Data2VecVision", T.Data2VecVisionConfig, **IMAGE, **SIZES, use_shared_relative_position_bias=True)
classifier("ViTMSN", T.ViTMSNConfig, **IMAGE, **SIZES)
classifier("Dinov2", T.Dinov2Config, **IMAGE, **SIZES)
classifier("Dinov2WithRegisters", T.Dinov2WithRegistersConfig, **IMAGE, **SIZES)
classifier("IJepa", T.IJepaConfig, **IMAGE, **SIZES)
classifier("Siglip", T.SiglipConfig, vision_config=IMAGE | SIZES, text_config=SIZES)
classifier("CLIP", T.CLIPConfig, vision_config=IMAGE | SIZES, text_config=SIZES)
windows = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2], "window_size": 4}
classifier("Swin", T.SwinConfig, images_32, **windows, drop_path_rate=0.2)
classifier("Swinv2", T.Swinv2Config, images_32, **windows)
classifier("ConvNext", T.ConvNextConfig, images_32, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)
classifier("ConvNextV2", T.ConvNextV2Config, images_32, hidden_sizes=[8, 16], depths=[1, 1], num_stages=2)
resnet = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
classifier("ResNet", T.ResNetConfig, images_32, TANGENT, **resnet)
classifier("ResNet", T.ResNetConfig, images_32, change=evaluated, name="ResNetForImageClassification eval", **resnet)
classifier(
    "RegNet", T.RegNetConfig, images_32, TANGENT, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], groups_width=8
)
classifier("Bit", T.BitConfig, images_32, embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_groups=4)
classifier(
    "MobileViT",
    T.MobileViTConfig,
    images_32,
    TANGENT,
    hidden_sizes=[8, 12, 16],
    neck_hidden_sizes=[4, 4, 8, 8, 8, 8, 16],
    num_attention_heads=2,
    image_size=32,
)
classifier("PoolFormer", T.PoolFormerConfig, images_32, hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1])
classifier(
    "Levit",
    T.LevitConfig,
    images_64,
    TANGENT,
    image_size=64,
    hidden_sizes=[16, 16, 16],
    num_attention_heads=[2, 2, 2],
    key_dim=[8, 8, 8],
    depths=[1, 1, 1],
)
pyramid = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 2, 2, 2]}
classifier("Segformer", T.SegformerConfig, images_32, **pyramid, decoder_hidden_size=16)
classifier("Pvt", T.PvtConfig, images_32, image_size=32, **pyramid)
classifier(
    "FocalNet",
    T.FocalNetConfig,
    images_32,
    image_size=32,
    embed_dim=8,
    depths=[1, 1],
    focal_levels=[2, 2],
    focal_windows=[3, 3],
    hidden_sizes=[8, 16],
)
classifier(
    "SwiftFormer",
    T.SwiftFormerConfig,
    images_32,
    TANGENT,
    image_size=32,
    depths=[1, 1, 1, 1],
    embed_dims=[8, 8, 16, 16],
)
classifier(
    "Hiera",
    T.HieraConfig,
    images_32,
    image_size=[32, 32],
    embed_dim=8,
    depths=[1, 1],
    num_heads=[1, 2],
    num_query_pool=1,
    masked_unit_size=[4, 4],
)
classifier("TextNet", T.TextNetConfig, images_32, TANGENT, hidden_sizes=[8, 8, 8, 8, 8], stem_out_channels=8)


def image_tokens(n: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(16, (n, 9)), "labels": torch.randint(CLASSES, (n,))}


add(
    "ImageGPTForImageClassification",
    lambda: T.ImageGPTConfig(vocab_size=17, n_positions=9, n_embd=16, n_layer=2, n_head=2, num_labels=CLASSES),
    image_tokens,
    losses=each_alone,
)


# reconstruction, segmentation, depth, detection
def masked_patches(n: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(n, 3, 16, 16), "noise": torch.rand(n, 4)}


add(
    "ViTMAEForPreTraining",
    lambda: T.ViTMAEConfig(
        **IMAGE,
        **SIZES,
        decoder_hidden_size=16,
        decoder_intermediate_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        mask_ratio=0.5,
    ),
    masked_patches,
    losses=each_alone,
)


def image_with_mask(n: int) -> dict[str, Tensor]:
    return {
        "pixel_values": torch.randn(n, 3, 16, 16),
        "bool_masked_pos": torch.tensor([[True, False, True, False]]).expand(n, -1),
    }


add(
    "ViTForMaskedImageModeling",
    lambda: T.ViTConfig(**IMAGE, **SIZES, encoder_stride=8),
    image_with_mask,
    losses=each_alone,
)


def maps(n: int, size: int = 32) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(n, 3, size, size), "labels": torch.randint(CLASSES, (n, size, size))}


def per_pixel(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    logits = F.interpolate(model(batch["pixel_values"]).logits, batch["labels"].shape[1:], mode="bilinear")
    return F.cross_entropy(logits, batch["labels"], reduction="none").mean((1, 2))


add(
    "SegformerForSemanticSegmentation",
    lambda: T.SegformerConfig(num_labels=CLASSES, **pyramid | {"hidden_sizes": [8] * 4}, decoder_hidden_size=16),
    maps,
    TANGENT,
    losses=per_pixel,
)  # its head has a BatchNorm
add(
    "SegformerForSemanticSegmentation",
    lambda: T.SegformerConfig(num_labels=CLASSES, **pyramid | {"hidden_sizes": [8] * 4}, decoder_hidden_size=16),
    maps,
    losses=per_pixel,
    change=evaluated,
    name="SegformerForSemanticSegmentation eval",
)
add(
    "UperNetForSemanticSegmentation",
    lambda: T.UperNetConfig(
        backbone_config=T.ConvNextConfig(
            hidden_sizes=[8] * 4, depths=[1] * 4, out_features=[f"stage{k}" for k in range(1, 5)]
        ),
        hidden_size=8,
        pool_scales=[1, 2],
        num_labels=CLASSES,
        auxiliary_in_channels=8,
        auxiliary_channels=8,
        auxiliary_num_convs=1,
    ),
    maps,
    TANGENT,
    losses=per_pixel,
)
add(
    "BeitForSemanticSegmentation",
    lambda: T.BeitConfig(
        num_labels=CLASSES,
        image_size=32,
        patch_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        out_indices=[1, 2, 3, 4],
        pool_scales=[1, 2],
        auxiliary_channels=8,
    ),
    maps,
    TANGENT,
    losses=per_pixel,
)


def depth(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    found = model(batch["pixel_values"]).predicted_depth
    target = F.interpolate(batch["labels"][:, None].to(found.dtype), found.shape[1:])[:, 0]
    return (found - target).abs().mean((1, 2))


add(
    "DPTForDepthEstimation",
    lambda: T.DPTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
        head_in_index=-1,
        is_hybrid=False,
    ),
    maps,
    losses=depth,
)
add(
    "DepthAnythingForDepthEstimation",
    lambda: T.DepthAnythingConfig(
        backbone_config=T.Dinov2Config(
            image_size=28,
            patch_size=14,
            reshape_hidden_states=False,
            apply_layernorm=True,
            out_features=["stage1", "stage2"],
            **SIZES,
        ),
        patch_size=14,
        reassemble_hidden_size=16,
        reassemble_factors=[2, 1],
        neck_hidden_sizes=[4, 8],
        fusion_hidden_size=8,
        head_in_index=-1,
        head_hidden_size=8,
    ),
    lambda n: maps(n, 28),
    losses=depth,
)


def boxed(n: int) -> dict[str, Any]:
    labels = [
        {"class_labels": torch.randint(CLASSES, (k,)), "boxes": torch.rand(k, 4) / 4 + 0.25}
        for k in (1 + i % 2 for i in range(n))
    ]
    return {"pixel_values": torch.randn(n, 3, 32, 32), "labels": labels}


yolos = {"num_labels": CLASSES, "image_size": [32, 32], "patch_size": 8, "num_detection_tokens": 4, **SIZES}
add("YolosForObjectDetection", lambda: T.YolosConfig(**yolos), boxed, losses=each_alone, in_float32=True)
backbone = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
decoder = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_queries": 4,
    "num_labels": CLASSES,
}
features = lambda: T.ResNetConfig(**resnet, out_features=["stage2"])  # noqa: E731
add(
    "DetrForObjectDetection",
    lambda: T.DetrConfig(backbone_config=features(), **backbone, **decoder),
    boxed,
    losses=each_alone,
    in_float32=True,
)
add(
    "ConditionalDetrForObjectDetection",
    lambda: T.ConditionalDetrConfig(backbone_config=features(), **backbone, **decoder),
    boxed,
    losses=each_alone,
)
add(
    "DeformableDetrForObjectDetection",
    lambda: T.DeformableDetrConfig(
        backbone_config=features(),
        num_feature_levels=1,
        encoder_n_points=2,
        decoder_n_points=2,
        **backbone,
        **decoder | {"d_model": 32},
    ),
    boxed,
    losses=each_alone,
)


# video
def clips(n: int) -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(n, 4, 3, 16, 16), "labels": torch.randint(CLASSES, (n,))}


add(
    "VideoMAEForVideoClassification",
    lambda: T.VideoMAEConfig(num_labels=CLASSES, num_frames=4, tubelet_size=2, **IMAGE, **SIZES),
    clips,
)
add(
    "TimesformerForVideoClassification",
    lambda: T.TimesformerConfig(num_labels=CLASSES, num_frames=4, **IMAGE, **SIZES),
    clips,
)
add(
    "VivitForVideoClassification",
    lambda: T.VivitConfig(num_labels=CLASSES, num_frames=4, tubelet_size=[2, 8, 8], image_size=16, **SIZES),
    clips,
)
