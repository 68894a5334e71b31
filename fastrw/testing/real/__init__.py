"""Real models: classes of public packages, built small from their configurations, with two batches.

May import what lies in testing, and the packages themselves. Each family is a module with a list `CASES`, imported when
its cases are asked for, so that none needs the packages of another.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings

from ..case import Case

# family -> (what it holds, the packages that it needs)
FAMILIES = {
    "hf_causal": ("Hugging Face: models that predict the next token", ("transformers",)),
    "hf_masked": ("Hugging Face: models that predict hidden tokens", ("transformers",)),
    "hf_heads": ("Hugging Face: models of text with a head", ("transformers",)),
    "hf_seq2seq": ("Hugging Face: models with an encoder and a decoder", ("transformers",)),
    "hf_ways": ("Hugging Face: precisions, checkpointing, dropout, packed sequences, compilation", ("transformers",)),
    "hf_vision": ("Hugging Face: images and video", ("transformers",)),
    "hf_modalities": ("Hugging Face: speech, images with text, time series", ("transformers",)),
    "adapters": ("PEFT: adapters of Hugging Face models", ("transformers", "peft")),
    "torchvision": ("classification, segmentation, detection, video", ("torchvision",)),
    "timm": ("image classification", ("timm",)),
    "vision": (
        "further packages: segmentation, medical images, transformers",
        ("segmentation_models_pytorch", "monai", "vit_pytorch", "kornia"),
    ),
    "graphs": ("graph networks: convolutions, norms, pools, whole models", ("torch_geometric",)),
    "tables": ("recommenders, tabular models", ("deepctr_torch", "pytorch_tabnet", "rtdl_revisiting_models")),
    "sequences": (
        "transformers of other packages, taggers, sentence encoders",
        ("x_transformers", "torchcrf", "sentence_transformers"),
    ),
    "codebooks": ("vector quantisation, quantisation-aware training", ("vector_quantize_pytorch",)),
    "dynamics": (
        "spiking networks, neural differential equations",
        ("snntorch", "spikingjelly", "norse", "torchdiffeq"),
    ),
    "metric": ("metric learning", ("pytorch_metric_learning",)),
}


def missing(family: str) -> list[str]:
    """The packages that this family needs and that are not installed."""
    return [package for package in FAMILIES[family][1] if importlib.util.find_spec(package) is None]


def cases(family: str) -> list[Case]:
    """Raises ModuleNotFoundError where a package is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages' own
        return importlib.import_module(f"{__name__}.{family}").CASES
