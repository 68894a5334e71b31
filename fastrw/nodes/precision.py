"""In what precision an operation computes: that of its dtype, unless torch is told to round float32 products first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import cache

import torch
from torch import backends
from torch.autograd.graph import Node

from fastrw.graph.saved import is_custom

# Device -> kind of operation -> its setting, which says what holds, whichever setting it inherits from.
_CUDNN_RNN = backends._FP32Precision("cuda", "rnn")  # which has no public name
SETTINGS = {
    "cuda": {"product": backends.cuda.matmul, "conv": backends.cudnn.conv, "rnn": _CUDNN_RNN},
    "cpu": {"product": backends.mkldnn.matmul, "conv": backends.mkldnn.conv, "rnn": backends.mkldnn.rnn},
}  # fmt: skip
ANY = frozenset({"product", "conv", "rnn"})  # what a custom function may be made of
PRODUCT = frozenset({"product"})  # all else may be made of them: attention, a convolution without cuDNN
_NAMED = {"conv": re.compile("conv(?!ert)"), "rnn": re.compile("rnn|lstm|gru")}


@cache
def kinds(name: str) -> frozenset[str]:
    """The kinds of operations of which one of torch's own, or a node, of this name is made."""
    return PRODUCT | {kind for kind, named in _NAMED.items() if named.search(name.lower())}


def told(device: torch.device) -> tuple[str, ...]:
    """Every setting for the device."""
    return tuple([setting.fp32_precision for setting in SETTINGS.get(device.type, {}).values()])


def rounds_as(dtype: torch.dtype, device: torch.device, made_of: Iterable[str] = PRODUCT) -> torch.dtype:
    """The dtype as which operations of `dtype` round what they multiply. TF32 has as many bits as float16."""
    if dtype == torch.float16 and device.type == "cuda" and backends.cuda.matmul.allow_fp16_accumulation:
        return torch.bfloat16  # sums as long as those of a layer lose three bits and more
    if dtype not in (torch.float32, torch.complex64) or device.type not in SETTINGS:
        return dtype
    told = {SETTINGS[device.type][kind].fp32_precision for kind in made_of}
    if "bf16" in told and has_bf16(device):
        return torch.bfloat16
    return torch.float16 if "tf32" in told and has_tf32(device) else dtype


def of_graph(nodes: Iterable[Node]) -> set[torch.dtype]:
    """The dtypes as which the operations of these nodes round."""
    seen = {
        (m.dtype, m.device, ANY if is_custom(node) else kinds(node.name()))
        for node in nodes
        for m in node._input_metadata
    }
    return {rounds_as(*one) for one in seen}


def has_tf32(device: torch.device) -> bool:
    """Are there instructions for products of TF32?"""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return _has_mkldnn() and torch.cpu._is_amx_fp16_supported()


def has_bf16(device: torch.device) -> bool:
    """Are there instructions for products of bfloat16 that float32 is rounded for? A GPU is never told to."""
    return device.type == "cpu" and _has_mkldnn() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _has_mkldnn() -> bool:
    return backends.mkldnn.is_available() and backends.mkldnn.enabled


def uncached_autocast(device: str) -> AbstractContextManager:
    """Autocast as it is, without its cache of casts: that would connect a recorded step with what ran before it."""
    on, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return torch.autocast(device, dtype, enabled=on, cache_enabled=False)
