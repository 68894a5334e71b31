"""What an op takes and returns, in letters. The check, the fake and the tiny input of the self-test follow from it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from . import checks
from .sample import Whole


@dataclass(frozen=True, eq=False)
class Description:
    """letters: name of a tensor -> a letter a dimension: {"a": "rp", "g": "rq"} is a [r, p], g [r, q]; "nC*" has any
    further dimensions, "2C" is [2, C]. wide: those that may have the dtype of the sums instead of that of the first
    tensor. index: those of integers. rules: raises where the arguments break a rule that no letter says.
    outputs: the letters of each output, in the dtype of the sums ("*": the further dimensions of the first tensor); or
    a function that makes them, empty, from the arguments.
    sample: the input of the self-test. A size for each letter, and the value of each argument that is no tensor; or a
    function that draws all arguments.
    """

    op: str
    names: tuple[str, ...]  # of all arguments, in order
    letters: Mapping[str, str]
    outputs: Sequence[str] | Callable
    sample: Mapping[str, object] | Callable[[Whole], tuple]
    wide: Collection[str] = ()
    index: Collection[str] = ()
    rules: Callable[..., None] | None = None

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
        lead = next(x for name, x in given.items() if name not in self.index)
        sizes = {"*": lead.shape[1:]}
        for name, x in given.items():
            sizes |= {letter: (size,) for letter, size in zip(self.letters[name].rstrip("*"), x.shape, strict=False)}
        shapes = ([size for letter in spelled for size in sizes[letter]] for spelled in self.outputs)
        found = tuple(lead.new_empty(shape, dtype=checks.sums(lead.dtype)) for shape in shapes)
        return found if len(found) > 1 else found[0]

    def draw(self, device: torch.device, dtype: torch.dtype) -> tuple:
        """The arguments of the self-test."""
        whole = Whole(device, dtype)
        if callable(self.sample):
            return self.sample(whole)
        sized = {name: [self.sample[letter] for letter in letters] for name, letters in self.letters.items()}
        return tuple(whole(*sized[name]) if name in sized else self.sample[name] for name in self.names)

    def _tensors(self, args: tuple) -> dict:
        return {name: x for name, x in zip(self.names, args, strict=True) if name in self.letters}
