"""Real models: classes of public packages, built small from their configurations, with two batches.

May import what lies in testing, and the packages themselves. Each family is a module with a list `CASES`, imported
only when its cases are asked for, so that none needs the packages of another.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings

from ..case import Case

# family -> (what it holds, the packages that it needs)
FAMILIES = {
    "hf": ("Hugging Face: language models of every kind", ("transformers",)),
    "hf_vision": ("Hugging Face: images, speech, several modalities; adapters", ("transformers", "peft")),
    "torchvision": ("classification, segmentation, detection, video", ("torchvision",)),
    "timm": ("image classification", ("timm",)),
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
