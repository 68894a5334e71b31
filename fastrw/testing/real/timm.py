"""Image classifiers of timm, small by their arguments or by narrower layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import timm
import timm.models as M
import torch
from torch import Tensor, nn

from ..case import LAYERWISE, TANGENT, Case
from .fitted import narrow

CASES: list[Case] = []
CLASSES = 5


def images(n: int = 5, size: int = 32) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, size, size), torch.randint(CLASSES, (n,))


def add(name: str, make: str | Callable[..., nn.Module] = "", expect: frozenset[str] = LAYERWISE, *, size: int = 32,
        by: int = 1, change: Callable[[nn.Module], Any] = lambda model: None, **options: Any) -> None:  # fmt: skip
    """make: a class of timm, or the name of a model, by default `name`; by: how much narrower its layers are."""
    made = make if callable(make) else partial(timm.create_model, make or name)
    model = narrow(partial(made, num_classes=CLASSES, **options), by)
    CASES.append(Case(name, model, images, expect, change, (5, size), (3, size)))


def in_training(name: str, make: str | Callable[..., nn.Module] = "", **options: Any) -> None:
    """With BatchNorm, which mixes the examples."""
    add(name, make, TANGENT, **options)


def in_evaluation(name: str, make: str | Callable[..., nn.Module] = "", **options: Any) -> None:
    """With BatchNorm, which then does not mix the examples."""
    add(f"{name} eval", make or name, change=nn.Module.eval, **options)


# convolutions
resnet = {"layers": [1, 1, 1, 1], "channels": (8, 8, 16, 16), "stem_width": 8}
four = {"depths": (1, 1, 1, 1)}
in_training("resnet18", **resnet)
in_evaluation("resnet18", **resnet)
add("resnet18 GroupNorm", "resnet18", norm_layer=timm.layers.GroupNorm1, **resnet)
in_training("resnetblur18", **resnet)
in_evaluation("seresnet18", **resnet)
in_training("ecaresnet50t", **resnet)
in_evaluation("resnet50d", **resnet)
in_training("resnest14d", by=8)
in_evaluation("res2net50_26w_4s", **resnet)
in_training("skresnet18", **resnet | {"channels": (16, 16, 16, 16)})
in_training("seresnext26d_32x4d", **resnet | {"cardinality": 4, "base_width": 32})
add("resnetv2 GroupNorm", M.resnetv2.ResNetV2, layers=[1, 1], channels=(16, 32), stem_chs=8,
    norm_layer=partial(timm.layers.GroupNormAct, num_groups=2))  # fmt: skip
add(
    "nfnet",
    lambda num_classes: M.nfnet.NormFreeNet(
        M.nfnet.NfCfg((1, 1, 1, 1), (8, 8, 16, 16), stem_chs=8, attn_layer="se", attn_kwargs={}), num_classes
    ),
)
in_training("senet", M.senet.SENet, block=M.senet.SEResNetBlock, layers=(1, 1, 1, 1), groups=1, reduction=8, by=8)
in_training("tinynet_e", by=4)
in_evaluation("mobilenetv3_small_050")
in_training("mobilenetv4_conv_small_050")
in_training("ghostnet_050")
in_evaluation("densenet121", growth_rate=8, block_config=(2, 2), by=4)
in_training("dla34", by=8)
in_training("DPN", M.dpn.DPN, size=64, small=True, k_sec=(1, 1), inc_sec=(4, 8), k_r=8, groups=2, num_init_features=8)
in_evaluation("hrnet_w18_small", by=2)
in_training("vgg11_bn", by=32)
in_training("regnetx_002", by=4)
in_evaluation("regnety_002", by=8)
in_training("repvgg_a0", by=16)
in_training("vovnet39a", by=8)
in_training("tresnet", M.tresnet.TResNet, layers=[1, 1, 1, 1], width_factor=0.125)
in_training("starnet_s1", by=4)
in_training("convmixer", M.convmixer.ConvMixer, dim=8, depth=2, kernel_size=3, patch_size=4)
in_training("fasternet", M.fasternet.FasterNet, embed_dim=8, feature_dim=16, **four)
in_training("rexnet", M.rexnet.RexNet, initial_chs=8, final_chs=16, width_mult=0.5)
in_training("inception_next", M.inception_next.MetaNeXt, dims=(16, 16, 16, 16), **four)
add("rdnet", M.rdnet.RDNet, growth_rates=(8, 8), num_blocks_list=(1, 2), block_type=("Block", "BlockESE"),
    is_downsample_block=(None, True), num_init_features=8)  # fmt: skip
add("convnext_atto", dims=(8, 8, 16, 16), drop_path_rate=0.3, **four)
add("convnextv2_atto", dims=(8, 8, 16, 16), **four)
add("mambaout_femto", dims=(8, 8, 16, 16), **four)
add("edgenext_xx_small", dims=(8, 16, 16, 16), depths=(1, 1, 2, 1), heads=(2, 2, 2, 2))

# transformers with BatchNorm
in_training("levit", M.levit.Levit, img_size=64, size=64, embed_dim=(32, 32), key_dim=8, depth=(1, 1), num_heads=(2, 2))
in_evaluation("mobilevit_xxs", by=1)
in_training(
    "efficientformer_v2",
    M.efficientformer_v2.EfficientFormerV2,
    img_size=32,
    embed_dims=(8, 16),
    downsamples=(False, True),
    depths=(1, 1),
    num_vit=1,
)
in_training(
    "fastvit", M.fastvit.FastVit, layers=(1, 1, 1, 1), embed_dims=(8, 8, 16, 16), token_mixers=("repmixer",) * 4
)
in_training("xcit_nano_12_p16_224", img_size=32, embed_dim=16, depth=2, num_heads=2)
in_training(
    "maxvit",
    lambda num_classes: M.maxxvit.MaxxVit(
        M.maxxvit.MaxxVitCfg((32, 32), (1, 1), ("M", "M"), 8), 64, num_classes=num_classes
    ),
    size=64,
)
in_training(
    "visformer",
    M.visformer.Visformer,
    img_size=32,
    init_channels=8,
    embed_dim=16,
    depth=3,
    num_heads=2,
    norm_layer=nn.BatchNorm2d,
)
in_evaluation("visformer", M.visformer.Visformer, img_size=32, init_channels=8, embed_dim=16, depth=3, num_heads=2)
in_training(
    "tiny_vit", M.tiny_vit.TinyVit, embed_dims=(8, 8, 16, 16), num_heads=(1, 2, 2, 2), window_sizes=(2, 2, 2, 2), **four
)
in_training(
    "efficientvit_mit",
    M.efficientvit_mit.EfficientVit,
    widths=(8, 8, 16),
    depths=(1, 1, 1),
    head_dim=8,
    head_widths=(16, 16),
)
in_training("swiftformer", M.swiftformer.SwiftFormer, layers=[1, 1, 1, 1], embed_dims=[8, 8, 16, 16])
in_training(
    "shvit",
    M.shvit.SHViT,
    embed_dim=(16, 16, 16),
    partial_dim=(8, 8, 8),
    qk_dim=(4, 4, 4),
    depth=(1, 1, 1),
    types=("i", "s", "s"),
    size=64,
)

# transformers and multilayer perceptrons without
small = {"embed_dim": 16, "depth": 2, "num_heads": 2}
patches = {"img_size": 32, "patch_size": 8}
stages = {"img_size": 64, "embed_dims": (8, 16, 16, 16), "num_heads": (1, 2, 2, 2), "depths": (1, 1, 1, 1)}
windows = {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2)}
mixer = {"embed_dim": 16, "num_blocks": 2, **patches}
add("vit_tiny_patch16_224", **patches, **small)
add("vit with LayerScale and stochastic depth", "vit_tiny_patch16_224", drop_path_rate=0.3, init_values=0.1,
    class_token=False, global_pool="avg", **patches, **small)  # fmt: skip
add("vit with patch dropout", "vit_tiny_patch16_224", patch_drop_rate=0.3, **patches, **small)
add("deit3_small_patch16_224", **patches, **small)
add("deit_tiny_distilled_patch16_224", **patches, **small)
add("vit_relpos_small_patch16_224", **patches, **small)
add("vit_sam", M.vision_transformer_sam.VisionTransformerSAM, window_size=2, use_rel_pos=True, **patches, **small)
add("naflexvit_base_patch16_gap", **small)
add("eva02_tiny_patch14_224", **patches, **small)
add("beit_base_patch16_224", drop_path_rate=0.2, **patches, **small)
add("cait_xxs24_224", **patches, **small)
add("swin_tiny_patch4_window7_224", **windows)
add("swinv2_tiny_window8_256", **windows)
add("swinv2_cr_tiny_224", **windows)
add("MlpMixer", M.mlp_mixer.MlpMixer, **mixer)
add(
    "gMLP",
    M.mlp_mixer.MlpMixer,
    block_layer=M.mlp_mixer.SpatialGatingBlock,
    mlp_layer=timm.layers.GatedMlp,
    mlp_ratio=4,
    **mixer,
)
add("ResMLP", M.mlp_mixer.MlpMixer, block_layer=M.mlp_mixer.ResBlock, mlp_ratio=4, **mixer)
metaformer = partial(M.metaformer.MetaFormer, depths=(1, 1), dims=(8, 32))
add("PoolFormer", metaformer, layer_scale_init_values=0.1)
add(
    "CAFormer",
    metaformer,
    token_mixers=[M.metaformer.SepConv, M.metaformer.Attention],
    norm_layers=[M.metaformer.LayerNorm2dNoBias, M.metaformer.LayerNormNoBias],
)
in_training("volo", M.volo.VOLO, img_size=64, size=64, layers=[1, 1], stem_hidden_dim=8, embed_dims=[16, 32],
    num_heads=[2, 2], downsamples=(True, False), outlook_attention=(True, False), use_aux_head=False)  # fmt: skip
add("twins_svt_small", **stages, size=64)
add("twins_pcpvt_small", **stages, size=64)
add("pvt_v2_b0", **{k: v for k, v in stages.items() if k != "img_size"}, size=64)
add("crossvit", M.crossvit.CrossVit, img_size=48, size=48, img_scale=(1.0, 1.0), patch_size=(12, 16), embed_dim=(8, 16),
    depth=((1, 1, 0),), num_heads=(2, 2), mlp_ratio=(2, 2, 1))  # fmt: skip
add("coat", M.coat.CoaT, img_size=64, size=64, patch_size=4, embed_dims=(16, 16, 16, 16), serial_depths=(1, 1, 1, 1),
    parallel_depth=1, num_heads=8)  # fmt: skip
add("davit_tiny", depths=(1, 1), embed_dims=(8, 16), num_heads=(2, 2), window_size=4)
add("focalnet", M.focalnet.FocalNet, depths=(1, 1), embed_dim=8, focal_levels=(2, 2), focal_windows=(3, 3))
add(
    "hiera",
    M.hiera.Hiera,
    img_size=(64, 64),
    size=64,
    embed_dim=8,
    stages=(1, 1, 1),
    q_pool=2,
    mask_unit_size=(4, 4),
    mask_unit_attn=(True, True, False),
)
add(
    "mvitv2",
    lambda num_classes: M.mvitv2.MultiScaleVit(
        M.mvitv2.MultiScaleVitCfg(depths=(1, 1), embed_dim=8, num_heads=1, stride_q=((1, 1), (2, 2))),
        img_size=32,
        num_classes=num_classes,
    ),
)
add("nest", M.nest.Nest, img_size=32, num_levels=2, embed_dims=(8, 16), num_heads=(2, 2), depths=(1, 1))
add("pit", M.pit.PoolingVisionTransformer, stride=8, base_dims=(8, 8), depth=(1, 1), heads=(1, 2), **patches)
add("sequencer2d_s", layers=(1, 1, 1, 1), embed_dims=(8, 8, 8, 8), hidden_sizes=(4, 4, 4, 4))
add("tnt", M.tnt.TNT, img_size=32, inner_dim=8, embed_dim=16, depth=2, num_heads_inner=2, num_heads_outer=2)
add("convit_tiny", local_up_to_layer=1, **patches, **small)
add(
    "gcvit",
    M.gcvit.GlobalContextVit,
    img_size=64,
    size=64,
    embed_dim=8,
    depths=(1, 1),
    num_heads=(1, 2),
    window_ratio=(8, 8),
)
