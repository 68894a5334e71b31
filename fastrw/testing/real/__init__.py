"""Real models: classes of public packages, built small from their configurations, each with its two batches.

May import what lies in testing, and the packages themselves. Each family is a module with a list `CASES`, imported when
its cases are asked for, so that none needs the packages of another.
"""

from __future__ import annotations

import importlib
import importlib.util

from ..case import Case

# family -> (what it holds, the packages that it needs)
FAMILIES = {
    "hf": ("Hugging Face: language models of every kind", ("transformers",)),
    "hf_vision": ("Hugging Face: images, speech, several modalities; adapters", ("transformers", "peft")),
    "torchvision": ("classification, segmentation, detection, video", ("torchvision",)),
    "timm": ("image classification", ("timm",)),
}


def missing(family: str) -> list[str]:
    """The packages that this family needs and that are not installed."""
    return [package for package in FAMILIES[family][1] if importlib.util.find_spec(package) is None]


def cases(family: str) -> list[Case]:
    """Raises ModuleNotFoundError where a package is missing."""
    return importlib.import_module(f"{__name__}.{family}").CASES
