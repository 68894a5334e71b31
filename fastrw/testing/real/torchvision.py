"""torchvision: classification, segmentation, detection, video, optical flow and its own operations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import torchvision.models as M
from torch import Tensor, nn
from torchvision import ops
from torchvision.models import detection, optical_flow, segmentation, video
from torchvision.models import swin_transformer as swin
from torchvision.models.detection import backbone_utils

from ..case import LAYERWISE, TANGENT, Case
from .fitted import Float32, narrow

CASES: list[Case] = []
CLASSES = 5


def images(n: int = 5, size: int = 32) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, size, size), torch.randint(CLASSES, (n,))


def add(name: str, model: Callable[..., nn.Module], expect: frozenset[str] = LAYERWISE, change=lambda model: None,
        data: Callable = images, train: tuple = (), val: tuple = (3,), losses: Callable | None = None
        ) -> None:  # fmt: skip
    kwargs = {} if losses is None else {"losses_fn": losses}
    CASES.append(Case(name, model, data, expect, change, train, val, kwargs=kwargs))


def both(name: str, model: Callable[..., nn.Module], **options: Any) -> None:
    """A net with BatchNorm, which mixes examples in training, but not in evaluation."""
    add(name, model, TANGENT, **options)
    add(f"{name} eval", model, change=nn.Module.eval, **options)


# classification
thin = {"num_classes": CLASSES, "width_per_group": 4}
bottleneck = M.resnet.Bottleneck
resnet = partial(M.ResNet, bottleneck, [1, 1, 1, 1], **thin)
both("ResNet", narrow(partial(M.ResNet, M.resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES)))
both("ResNeXt", narrow(partial(resnet, groups=4), 4))


def narrowed(norm: Callable[[int], nn.Module]) -> Callable[[], nn.Module]:
    """A ResNet with this norm, of as many channels as its convolutions then have."""
    return narrow(partial(resnet, norm_layer=lambda c: norm(c // 8 if c % 8 == 0 else c)))


add("ResNet GroupNorm", narrowed(partial(nn.GroupNorm, 1)))
add("ResNet FrozenBatchNorm", narrowed(ops.FrozenBatchNorm2d))
densenet = partial(M.DenseNet, 4, (2, 2, 2, 2), 8, num_classes=CLASSES)
both("DenseNet", densenet)
add("DenseNet checkpointed eval", partial(densenet, memory_efficient=True), change=nn.Module.eval)
add("MobileNetV2", partial(M.MobileNetV2, CLASSES, width_mult=0.2), TANGENT)


def mobilenet_v3() -> nn.Module:
    config = M.mobilenetv3.InvertedResidualConfig
    blocks = [config(8, 3, 16, 8, True, "RE", 2, 1, 1.0), config(8, 5, 16, 8, False, "HS", 1, 2, 1.0)]
    return M.MobileNetV3(blocks, 16, CLASSES)


both("MobileNetV3", mobilenet_v3)


def efficientnet(fused: bool) -> nn.Module:
    config = M.efficientnet.FusedMBConvConfig if fused else M.efficientnet.MBConvConfig
    return M.EfficientNet([config(1, 3, 1, 8, 8, 1), config(4, 3, 2, 8, 12, 2)], 0.2, 0.4, CLASSES, last_channel=16)


both("EfficientNet", partial(efficientnet, False))
both("EfficientNetV2", partial(efficientnet, True))
add("MNASNet eval", partial(M.MNASNet, 0.1, CLASSES), change=nn.Module.eval)
both("ShuffleNetV2", partial(M.ShuffleNetV2, [2, 2, 2], [8, 8, 16, 24, 32], CLASSES))


def regnet() -> nn.Module:
    parameters = M.regnet.BlockParams([1, 1], [8, 16], [4, 8], [1.0, 1.0], [2, 2], se_ratio=0.25)
    return M.RegNet(parameters, CLASSES, stem_width=8)


both("RegNet", regnet)
add("SqueezeNet", partial(M.SqueezeNet, "1_1", CLASSES))


def with_aux(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """GoogLeNet's and Inception's: those of the auxiliary heads too, of weight 0.3."""
    x, y = batch
    main, *rest = (t for t in model(x) if t is not None)
    losses = [F.cross_entropy(t, y, reduction="none") for t in (main, *rest)]
    return losses[0] + 0.3 * sum(losses[1:])


googlenet = partial(M.GoogLeNet, CLASSES, aux_logits=True, init_weights=False)
add("GoogLeNet", narrow(googlenet), TANGENT, losses=with_aux)
inception = partial(M.Inception3, CLASSES, aux_logits=False, init_weights=False)
add("Inception3 eval", narrow(inception), change=nn.Module.eval, train=(3, 75), val=(2, 75))


def vgg(norm: bool) -> nn.Module:
    return M.VGG(M.vgg.make_layers([64, "M", 128, "M", 512, "M"], batch_norm=norm), CLASSES, init_weights=False)


add("VGG", narrow(partial(vgg, False), 16))
add("VGG BatchNorm", narrow(partial(vgg, True), 16), TANGENT)
add("AlexNet", narrow(partial(M.AlexNet, CLASSES), 16), train=(5, 64), val=(3, 64))


def convnext() -> nn.Module:
    config = M.convnext.CNBlockConfig
    return M.ConvNeXt([config(8, 16, 1), config(16, None, 1)], 0.3, num_classes=CLASSES)


add("ConvNeXt", convnext)
add("VisionTransformer", partial(M.VisionTransformer, 32, 8, 2, 2, 16, 32, 0.1, num_classes=CLASSES))
small_swin = partial(swin.SwinTransformer, [4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=CLASSES)
add("SwinTransformer", partial(small_swin, stochastic_depth_prob=0.3))
v2 = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
add("SwinTransformer v2", partial(small_swin, **v2))
add("SwinTransformer v2 stochastic depth", partial(small_swin, stochastic_depth_prob=0.3, **v2))
maxvit = partial(M.MaxVit, (32, 32), 8, 4, [8, 16], [1, 1], 8, 0.2, num_classes=CLASSES)
both("MaxVit", maxvit)
add("MaxVit LayerNorm", partial(maxvit, norm_layer=partial(nn.GroupNorm, 1)))


# segmentation: a loss per image, the mean over its pixels
def masks(n: int = 4, size: int = 32) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, size, size), torch.randint(-1, CLASSES, (n, size, size))


def per_pixel(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Pixels of class -1 do not count; the auxiliary head does, by half."""
    out, y = model(batch[0]), batch[1]
    total = 0
    for kind, weight in (("out", 1.0), ("aux", 0.5)):
        if kind in out:
            each = F.cross_entropy(out[kind], y, ignore_index=-1, reduction="none").flatten(1)
            total = total + weight * each.sum(1) / (y >= 0).flatten(1).sum(1)
    return total


def resnet_features() -> nn.Module:
    return M._utils.IntermediateLayerGetter(resnet(), {"layer1": "aux", "layer2": "out"})


def fcn(kind: str) -> nn.Module:
    if kind == "fcn":
        return segmentation.FCN(resnet_features(), segmentation.fcn.FCNHead(512, CLASSES),
                                segmentation.fcn.FCNHead(256, CLASSES))  # fmt: skip
    return segmentation.DeepLabV3(resnet_features(), segmentation.deeplabv3.DeepLabHead(512, CLASSES, (2, 4)))


def lraspp() -> nn.Module:
    features = M._utils.IntermediateLayerGetter(mobilenet_v3().features, {"1": "low", "3": "high"})
    return segmentation.LRASPP(features, 8, 48, CLASSES, 16)


for name, model in (
    ("FCN", narrow(partial(fcn, "fcn"))),
    ("DeepLabV3", narrow(partial(fcn, "deeplab"))),
    ("LRASPP", lraspp),
):
    both(name, model, data=masks, losses=per_pixel)


# detection: lists of images and of dicts of targets; the sum of the model's own losses of each image alone
def boxes(n: int = 3, size: int = 48) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    def target(k: int) -> dict[str, Tensor]:
        corner = torch.rand(k, 2) * size / 2
        box = torch.cat([corner, corner + size / 4 + torch.rand(k, 2) * size / 4], 1)
        points = torch.cat([box[:, None, :2] + (box[:, None, 2:] - box[:, None, :2]) * torch.rand(k, 3, 2),
                            torch.ones(k, 3, 1)], 2)  # fmt: skip
        return {"boxes": box, "labels": torch.randint(1, CLASSES, (k,)), "keypoints": points,
                "masks": (torch.rand(k, size, size) > 0.5).to(torch.uint8)}  # fmt: skip

    return [torch.rand(3, size, size) for _ in range(n)], [target(1 + i % 2) for i in range(n)]


def per_image(model: nn.Module, batch: tuple[list[Tensor], list[dict[str, Tensor]]]) -> Tensor:
    """An image at a time: the losses that the model returns are means over all images of its call. The sampling of
    proposals draws random numbers."""
    each = ({**y, "keypoints": y["keypoints"].float()} for y in batch[1])  # it takes no others
    return torch.stack([sum(model([x], [y]).values()) for x, y in zip(batch[0], each, strict=True)])


def pyramid(channels: int = 8) -> nn.Module:
    net, layers = narrowed(ops.FrozenBatchNorm2d)(), {"layer1": "0", "layer2": "1"}
    return backbone_utils.BackboneWithFPN(net, layers, [32, 64], channels)


anchors = detection.anchor_utils.AnchorGenerator
sizes = {"min_size": 48, "max_size": 48}
regions = {
    **sizes, "num_classes": CLASSES, "rpn_anchor_generator": anchors(((8,), (16,), (32,)), ((0.5, 1.0, 2.0),) * 3),
    "rpn_pre_nms_top_n_train": 30, "rpn_post_nms_top_n_train": 12, "rpn_batch_size_per_image": 16,
    "box_batch_size_per_image": 8,
}  # fmt: skip


def box_head() -> dict[str, Any]:
    return {
        "box_roi_pool": ops.MultiScaleRoIAlign(["0", "1"], 3, 2), "num_classes": None,
        "box_head": detection.faster_rcnn.TwoMLPHead(8 * 9, 16),
        "box_predictor": detection.faster_rcnn.FastRCNNPredictor(16, CLASSES),
    }  # fmt: skip


def faster_rcnn() -> nn.Module:
    return detection.FasterRCNN(pyramid(), **regions | box_head())


def mask_rcnn() -> nn.Module:
    return detection.MaskRCNN(
        pyramid(), **regions | box_head(), mask_roi_pool=ops.MultiScaleRoIAlign(["0", "1"], 4, 2),
        mask_head=detection.mask_rcnn.MaskRCNNHeads(8, (8,), 1),
        mask_predictor=detection.mask_rcnn.MaskRCNNPredictor(8, 8, CLASSES),
    )  # fmt: skip


def keypoint_rcnn() -> nn.Module:
    return detection.KeypointRCNN(
        pyramid(), **regions | box_head(), keypoint_roi_pool=ops.MultiScaleRoIAlign(["0", "1"], 4, 2),
        keypoint_head=detection.keypoint_rcnn.KeypointRCNNHeads(8, (8,)),
        keypoint_predictor=detection.keypoint_rcnn.KeypointRCNNPredictor(8, 3),
    )  # fmt: skip


def retinanet() -> nn.Module:
    return detection.RetinaNet(
        pyramid(), CLASSES, **sizes, anchor_generator=anchors(((8,), (16,), (32,)), ((1.0, 2.0),) * 3)
    )


def fcos() -> nn.Module:
    return detection.FCOS(pyramid(32), CLASSES, **sizes, anchor_generator=anchors(((8,), (16,), (32,)), ((1.0,),) * 3))


class Features(nn.Module):
    """Two maps, of half and a quarter of the size."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.down = nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 12, 3, 2, 1)
        self.out_channels = [8, 12]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        low = self.enter(x).relu()
        return {"0": low, "1": self.down(low).relu()}


def ssd() -> nn.Module:
    generator = detection.anchor_utils.DefaultBoxGenerator([[2], [2]], steps=[4, 8])
    return detection.ssd.SSD(Features(), generator, (48, 48), CLASSES)


for name, model in (("FasterRCNN", faster_rcnn), ("MaskRCNN", mask_rcnn), ("KeypointRCNN", keypoint_rcnn),
                    ("RetinaNet", retinanet), ("FCOS", fcos), ("SSD", ssd)):  # fmt: skip
    add(name, model, data=boxes, val=(2,), losses=per_image)


# video, and optical flow
def clips(n: int = 4, frames: int = 4, size: int = 16) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, frames, size, size), torch.randint(CLASSES, (n,))


def r3d(conv: type[nn.Module], stem: type[nn.Module]) -> nn.Module:
    return video.VideoResNet(video.resnet.BasicBlock, [conv] * 4, [1, 1, 1, 1], stem, num_classes=CLASSES)


both("VideoResNet r3d", narrow(partial(r3d, video.resnet.Conv3DSimple, video.resnet.BasicStem)), data=clips)


def pooled(model: nn.Module) -> None:
    """For clips smaller than 14 frames of 224 pixels."""
    model.eval().avgpool = nn.AdaptiveAvgPool3d(1)


add("S3D eval", narrow(partial(video.S3D, CLASSES)), change=pooled, data=clips, train=(3, 8, 32), val=(2, 8, 32))
add("SwinTransformer3d", partial(video.SwinTransformer3d, [2, 4, 4], 8, [2, 2], [2, 2], [2, 2, 2],
                                 num_classes=CLASSES), data=clips)  # fmt: skip


def mvit() -> nn.Module:
    block = video.mvit.MSBlockConfig
    blocks = [block(1, 8, 8, [3, 3, 3], [], [1, 2, 2], []), block(2, 8, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2])]
    return video.MViT((16, 16), 4, blocks, True, True, True, True, num_classes=CLASSES, stochastic_depth_prob=0.2)


add("MViT", mvit, data=clips)


def flows(n: int = 3, size: int = 128) -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(n, 3, size, size), torch.rand(n, 3, size, size), torch.randn(n, 2, size, size)


def end_point(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    a, b, flow = batch
    found = model(a, b, num_flow_updates=1)
    return sum(0.8**k * (f - flow).abs().mean((1, 2, 3)) for k, f in enumerate(found))


def raft() -> nn.Module:
    r = optical_flow.raft
    encoder = partial(r.FeatureEncoder, block=r.BottleneckBlock, layers=(8, 8, 8, 16, 24))
    return Float32(r.RAFT(
        feature_encoder=encoder(norm_layer=nn.InstanceNorm2d), context_encoder=encoder(norm_layer=nn.Identity),
        corr_block=r.CorrBlock(num_levels=2, radius=1),
        update_block=r.UpdateBlock(
            motion_encoder=r.MotionEncoder(in_channels_corr=18, corr_layers=(8,), flow_layers=(8, 4), out_channels=10),
            recurrent_block=r.RecurrentBlock(input_size=10 + 8, hidden_size=16, kernel_size=((1, 5), (5, 1)),
                                             padding=((0, 2), (2, 0))),
            flow_head=r.FlowHead(in_channels=16, hidden_size=8),
        ),
    ))  # fmt: skip


add("RAFT", raft, data=flows, val=(2,), losses=end_point)


# its own operations, in small nets
class Deformed(nn.Module):
    def __init__(self, masked: bool) -> None:
        super().__init__()
        self.masked = masked
        self.offset, self.mask = nn.Conv2d(3, 18, 3, padding=1), nn.Conv2d(3, 9, 3, padding=1)
        self.deformed, self.head = ops.DeformConv2d(3, 8, 3, padding=1), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        mask = self.mask(x).sigmoid() if self.masked else None
        return self.head(self.deformed(x, self.offset(x), mask).relu().mean((2, 3)))


class Pooled(nn.Module):
    """One box an image; boxes [n, 5] hold the image's index."""

    def __init__(self, pool: Callable) -> None:
        super().__init__()
        self.pool, self.conv, self.head = pool, nn.Conv2d(3, 4, 3), nn.Linear(4 * 9, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        box = x.new_tensor([[1.0, 1.0, 9.0, 9.0]]).expand(len(x), 4)
        box = torch.cat([torch.arange(len(x), device=x.device)[:, None].to(x), box], 1)
        return self.head(self.pool(self.conv(x), box, (3, 3)).flatten(1))


def dropped(mode: str) -> nn.Module:
    layers = nn.Conv2d(3, 8, 3), ops.DropBlock2d(0.3, 3), ops.StochasticDepth(0.4, mode), nn.ReLU()
    return nn.Sequential(*layers, ops.SqueezeExcitation(8, 4), nn.AvgPool2d(14), nn.Flatten(),
                         ops.MLP(32, [16, CLASSES]))  # fmt: skip


for masked in (False, True):
    add(f"DeformConv2d mask={masked}", partial(Deformed, masked), train=(6, 12), val=(3, 12))
for pool in (ops.roi_align, ops.roi_pool):
    add(pool.__name__, partial(Pooled, pool), train=(6, 12), val=(3, 12))
for mode in ("batch", "row"):
    add(f"StochasticDepth {mode}", partial(dropped, mode))
