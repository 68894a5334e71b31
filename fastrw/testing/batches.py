"""The batches of the zoo, as functions that draw them: vectors, series, images and sentences, with their labels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

VOCAB = 11


def labels(n: int, classes: int = 4) -> Tensor:
    return torch.randint(0, classes, (n,))


def drawn(n: int, inputs: Callable[[int], Any], target: Callable[[int], Any] = labels) -> Callable[..., tuple]:
    """A function that draws (inputs(n), target(n)), by default labels [n], with this n unless another is given."""
    return lambda n=n: (inputs(n), target(n))


def labelled(n: int, *shape: int, target: Callable[[int], Any] = labels) -> Callable[..., tuple]:
    """As `drawn`, with x [n, *shape]."""
    return drawn(n, lambda n: torch.randn(n, *shape), target)


def tokens(n: int, length: int = 5) -> Tensor:
    return torch.randint(0, VOCAB, (n, length))


def words(n: int = 8, length: int = 5) -> tuple[Tensor, Tensor]:
    """Tokens [n, length] and labels [n]."""
    return tokens(n, length), labels(n)


vectors, series, images = labelled(9, 6), labelled(8, 5, 6), labelled(8, 3, 8, 8)
length_first = drawn(8, lambda n: torch.randn(5, n, 6))  # for `direct_losses`
sentences = drawn(8, tokens, tokens)  # tokens [n, 5] and the token to predict at each position [n, 5]
