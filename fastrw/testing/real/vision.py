"""Further packages of images: segmentation_models_pytorch, monai, vit_pytorch and kornia."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import kornia
import monai.losses as ML
import monai.networks.nets as N
import segmentation_models_pytorch as S
import torch
import torch.nn.functional as F
import vit_pytorch as V
from torch import Tensor, nn
from vit_pytorch import cait, cct, cvt, deepvit, levit, max_vit, pit, simple_vit, t2t

from ..case import LAYERWISE, TANGENT, Case
from .fitted import narrow

CASES: list[Case] = []
CLASSES = 3
evaluated = nn.Module.eval


def images(n: int, size: int = 32) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, size, size), torch.randint(CLASSES, (n,))


def maps(n: int, *size: int, channels: int = 3) -> tuple[Tensor, Tensor]:
    return torch.randn(n, channels, *size), torch.randint(CLASSES, (n, *size))


def add(name: str, model: Callable[[], nn.Module], data: Callable[..., Any], expect: frozenset[str] = LAYERWISE, *,
        losses: Callable | None = None, change: Callable[[nn.Module], Any] = nn.Module.train) -> None:  # fmt: skip
    kwargs = {} if losses is None else {"losses_fn": losses}
    CASES.append(Case(name, model, data, expect, change, (5,), (3,), kwargs=kwargs))


# segmentation_models_pytorch: encoders with BatchNorm
small_maps = partial(maps, channels=3)


def dice(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A Dice loss of each image alone."""
    loss = S.losses.DiceLoss("multiclass")
    return torch.stack([loss(o[None], y[None]) for o, y in zip(model(batch[0]), batch[1], strict=True)])


for kind in ("Unet", "Linknet", "PSPNet", "DeepLabV3Plus"):
    make = narrow(partial(getattr(S, kind), "resnet18", encoder_weights=None, classes=CLASSES), 4)
    data = lambda n: maps(n, 64, 64)  # noqa: E731
    if kind in ("Unet", "DeepLabV3Plus"):
        add(f"smp {kind}", make, data, TANGENT, losses=dice)
    add(f"smp {kind} eval", make, data, change=evaluated, losses=dice if kind == "Unet" else None)

# monai
volumes = partial(maps, channels=1)


def medical(loss: nn.Module) -> Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor]:
    """One of monai's losses with reduction="none", as a mean for each image."""
    return lambda model, batch: loss(model(batch[0]), batch[1][:, None]).flatten(1).mean(1)


by_dice = medical(ML.DiceLoss(to_onehot_y=True, softmax=True, reduction="none"))
plane, cube = {"spatial_dims": 2, "in_channels": 1}, {"spatial_dims": 3, "in_channels": 1}
flat, deep = (lambda n: volumes(n, 32, 32)), (lambda n: volumes(n, 16, 16, 16))
unet = partial(N.UNet, **plane, out_channels=CLASSES, channels=(4, 8, 8), strides=(2, 2))
add("monai UNet", unet, flat, losses=by_dice)
add("monai UNet BatchNorm", partial(unet, norm="batch"), flat, TANGENT, losses=by_dice)
add("monai UNet 3d residual", partial(N.UNet, **cube, out_channels=CLASSES, channels=(4, 8), strides=(2,),
    num_res_units=1), deep, losses=medical(ML.FocalLoss(to_onehot_y=True, reduction="none")))  # fmt: skip
add(
    "monai BasicUNet",
    partial(N.BasicUNet, **plane, out_channels=CLASSES, features=(4, 4, 8, 8, 8, 4)),
    flat,
    losses=by_dice,
)
add(
    "monai AttentionUnet",
    partial(N.AttentionUnet, **plane, out_channels=CLASSES, channels=(4, 8), strides=(2,)),
    flat,
    TANGENT,
    losses=by_dice,
)
add(
    "monai SegResNet",
    partial(N.SegResNet, init_filters=8, **plane, out_channels=CLASSES, blocks_down=(1, 1), blocks_up=(1,)),
    flat,
    losses=by_dice,
)
add(
    "monai UNETR",
    partial(N.UNETR, 1, CLASSES, 32, feature_size=4, hidden_size=16, mlp_dim=16, num_heads=2, spatial_dims=2),
    flat,
    losses=by_dice,
)
add(
    "monai DynUNet",
    partial(
        N.DynUNet,
        **plane,
        out_channels=CLASSES,
        kernel_size=[3] * 3,
        strides=[1, 2, 2],
        upsample_kernel_size=[2, 2],
        filters=[4, 8, 8],
    ),
    flat,
    losses=by_dice,
)
one_channel = lambda n: (torch.randn(n, 1, 32, 32), torch.randint(CLASSES, (n,)))  # noqa: E731
add(
    "monai DenseNet",
    partial(N.DenseNet, **plane, out_channels=CLASSES, init_features=8, growth_rate=4, block_config=(1, 1)),
    one_channel,
    TANGENT,
)
add(
    "monai ViT",
    partial(
        N.ViT,
        1,
        32,
        8,
        hidden_size=16,
        mlp_dim=16,
        num_layers=1,
        num_heads=2,
        classification=True,
        num_classes=CLASSES,
        spatial_dims=2,
    ),
    one_channel,
    losses=lambda model, batch: F.cross_entropy(model(batch[0])[0], batch[1], reduction="none"),
)

# vit_pytorch
vit = {"image_size": 32, "patch_size": 8, "num_classes": CLASSES, "dim": 16, "depth": 2, "heads": 2, "mlp_dim": 16}
add("ViT", partial(V.ViT, **vit), images)
add("SimpleViT", partial(simple_vit.SimpleViT, **vit), images)
add("DeepViT", partial(deepvit.DeepViT, **vit), images)
add("CaiT", partial(cait.CaiT, **vit, cls_depth=1, layer_dropout=0.2), images)
add(
    "CCT",
    partial(
        cct.CCT,
        img_size=32,
        embedding_dim=16,
        n_conv_layers=1,
        num_layers=1,
        num_heads=2,
        mlp_ratio=1,
        num_classes=CLASSES,
        positional_embedding="learnable",
    ),
    images,
)
add("PiT", partial(pit.PiT, **vit | {"depth": (1, 1)}), images)
add(
    "T2TViT",
    partial(
        t2t.T2TViT,
        dim=16,
        image_size=32,
        depth=1,
        heads=2,
        mlp_dim=16,
        num_classes=CLASSES,
        t2t_layers=((7, 4), (3, 2)),
    ),
    images,
)


def with_branches(model: nn.Module) -> None:
    """The branches start at 0, where nothing passes the BatchNorm before them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)


add(
    "LeViT",
    partial(levit.LeViT, image_size=64, num_classes=CLASSES, stages=2, dim=(8, 16), depth=1, heads=(1, 2), mlp_mult=1),
    lambda n: images(n, 64),
    TANGENT,
    change=with_branches,
)
cvts = {
    f"s{k}_{name}": value
    for k in (1, 2, 3)
    for name, value in (("emb_dim", 8), ("heads", 1), ("depth", 1), ("mlp_mult", 1))
}
add("CvT", partial(cvt.CvT, num_classes=CLASSES, **cvts), lambda n: images(n, 64), TANGENT)
add("CvT eval", partial(cvt.CvT, num_classes=CLASSES, **cvts), lambda n: images(n, 64), change=evaluated)
add(
    "MaxViT",
    partial(max_vit.MaxViT, num_classes=CLASSES, dim_conv_stem=8, dim=8, dim_head=4, depth=(1,), window_size=4),
    images,
    TANGENT,
)


# kornia: augmentations drawn in the forward, and losses
class Augmented(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        K = kornia.augmentation
        self.augment = nn.Sequential(
            K.RandomHorizontalFlip(0.5), K.RandomAffine(10.0, p=0.5), K.ColorJitter(0.1, p=0.5)
        )
        self.conv, self.blur, self.head = (
            nn.Conv2d(3, 6, 3),
            kornia.filters.GaussianBlur2d((3, 3), (1.0, 1.0)),
            nn.Linear(6, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blur(self.conv(self.augment(x.sigmoid()))).relu().mean((2, 3)))


def focal(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return kornia.losses.focal_loss(model(batch[0]), batch[1], 0.5, 2.0, "none").flatten(1).mean(1)


def ssim(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return kornia.losses.ssim_loss(model(batch[0]), batch[0], 5, reduction="none").flatten(1).mean(1)


add("kornia augmentations", Augmented, images)
add("kornia focal loss", Augmented, images, losses=focal)
add(
    "kornia SSIM",
    lambda: nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 3, 3, padding=1)),
    images,
    losses=ssim,
)
