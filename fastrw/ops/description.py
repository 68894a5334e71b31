"""What an op takes and returns, in letters. The check, the fake and the tiny input of the self-test follow from it."""

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from . import checks
from .sample import Whole


@dataclass(frozen=True, eq=False)
class Description:
    """`register` says what each field holds."""

    op: str
    names: tuple[str, ...]  # of all arguments, in order
    letters: Mapping[str, str]
    outputs: Sequence[str] | Callable
    tiny: Mapping[str, object] | Callable[[Whole], tuple]
    wide: Collection[str]
    index: Collection[str]
    rules: Callable[..., None] | None

    def check(self, *args) -> None:
        """Raises ValueError or TypeError where an argument breaks a rule."""
        if self.letters:
            checks.tensors(self.op, self.letters, wide=self.wide, index=self.index, **self._tensors(args))
        if self.rules is not None:
            self.rules(*args)

    def fake(self, *args):
        """Empty outputs, for torch.compile."""
        self.check(*args)
        if callable(self.outputs):
            return self.outputs(*args)
        given = {name: x for name, x in self._tensors(args).items() if x is not None}
        sizes = {
            letter: size
            for name, x in given.items()
            for letter, size in zip(self.letters[name].rstrip("*"), x.shape, strict=False)
        }
        lead = next(x for name, x in given.items() if name not in self.index)
        shapes = (
            [size for letter in spelled for size in ([sizes[letter]] if letter != "*" else lead.shape[1:])]
            for spelled in self.outputs
        )
        found = tuple(lead.new_empty(shape, dtype=checks.sums(lead.dtype)) for shape in shapes)
        return found if len(found) > 1 else found[0]

    def sample(self, device: torch.device, dtype: torch.dtype) -> tuple:
        """Arguments on which every backend must equal the reference, bit for bit."""
        whole = Whole(device, dtype)
        if callable(self.tiny):
            return self.tiny(whole)
        sized = {name: [self.tiny[letter] for letter in letters] for name, letters in self.letters.items()}
        return tuple(whole(*sized[name]) if name in sized else self.tiny[name] for name in self.names)

    def _tensors(self, args: tuple) -> dict:
        return {name: x for name, x in zip(self.names, args, strict=True) if name in self.letters}


def names_of(function: Callable) -> tuple[str, ...]:
    """The names of a function's arguments."""
    return tuple(inspect.signature(function).parameters)
