"""The zoo: tiny models, one for every claim of exactness and one for every known trap, each with its two batches.

May import only torch: the models that test the library must not be built from it. Each file adds its cases
when it is imported. `cases()` lists them all; `cases("resnet*")` those with a name that matches the pattern.
"""

from fnmatch import fnmatchcase

from . import bare, coupled, embeddings, inputs, losses, odd, real, recurrent, text, vision, weights  # noqa: F401
from .case import _REGISTRY, ANY, Case
from .parts import Net

__all__ = ["ANY", "Case", "Net", "cases", "real"]


def cases(pattern: str = "*") -> list[Case]:
    """The cases with a name that matches the shell pattern, in the order they were added."""
    return [case for name, case in _REGISTRY.items() if fnmatchcase(name, pattern)]
