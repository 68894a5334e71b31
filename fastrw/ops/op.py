"""An op: its arguments and results in letters, from which follow its check, fake and self-test input; its backends."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from . import checks
from .sample import Whole


class Backend(NamedTuple):
    """One implementation of an op."""

    name: str
    can: Callable[..., str | None]  # why it cannot serve these arguments; None when it can
    run: Callable


@dataclass(frozen=True, eq=False)
class Op:
    """letters: name of a tensor -> a letter a dimension: {"a": "rp", "g": "rq"} is a [r, p], g [r, q]; "nC*" has any
    further dimensions, "2C" is [2, C]. wide: those that may have the dtype of the sums instead of that of the first
    tensor. index: those of integers. rules: raises where the arguments break a rule that no letter says.
    outputs: the letters of each output, in the dtype of the sums ("*": the further dimensions of the first tensor); or
    a function that makes them, empty, from the arguments.
    sample: the input of the self-test. A size for each letter, and the value of each argument that is no tensor; or a
    function that draws all arguments. further_sample: another such function, where other sizes take another kernel.
    order: device type -> what "auto" tries, fastest first. reference_wins: for which arguments it tries nothing, as the
    reference is the fastest; cheap, for it runs at every call.
    fuses: device types on which "auto" is the reference where torch.compile compiles it with what is around it.
    """

    name: str
    names: tuple[str, ...]  # of all arguments, in order
    letters: Mapping[str, str]
    outputs: Sequence[str] | Callable
    sample: Mapping[str, object] | Callable[[Whole], tuple]
    order: Mapping[str, tuple[str, ...]]
    wide: Collection[str] = ()
    index: Collection[str] = ()
    rules: Callable[..., None] | None = None
    reference_wins: Callable[..., bool] | None = None
    fuses: Collection[str] = ()
    further_sample: Callable[[Whole], tuple] | None = None
    backends: dict[str, Backend] = field(default_factory=dict)
    chosen: dict[tuple, Backend] = field(default_factory=dict)

    def check(self, *args) -> None:
        """Raises ValueError or TypeError where an argument breaks a rule."""
        if self.letters:
            checks.tensors(self.name, self.letters, self._tensors(args), self.wide, self.index)
        if self.rules is not None:
            self.rules(*args)

    def fake(self, *args):
        """Empty outputs, for torch.compile."""
        self.check(*args)
        if callable(self.outputs):
            return self.outputs(*args)
        given = self._tensors(args)
        lead = next(x for name, x in given.items() if name not in self.index)
        sizes = {"*": lead.shape[1:]}
        for name, x in given.items():
            sizes |= {letter: (size,) for letter, size in zip(self.letters[name].rstrip("*"), x.shape, strict=False)}
        shapes = ([size for letter in spelled for size in sizes[letter]] for spelled in self.outputs)
        found = tuple(lead.new_empty(shape, dtype=checks.sums(lead.dtype)) for shape in shapes)
        return found if len(found) > 1 else found[0]

    def draw(self, device: torch.device, dtype: torch.dtype) -> tuple:
        """Tiny inputs on which every backend must equal the reference, bit for bit."""
        whole = Whole(device, dtype)
        if callable(self.sample):
            return self.sample(whole)
        sized = {name: [self.sample[letter] for letter in letters] for name, letters in self.letters.items()}
        return tuple(whole(*sized[name]) if name in sized else self.sample[name] for name in self.names)

    def draws(self, device: torch.device, dtype: torch.dtype) -> Iterator[tuple]:
        """All inputs of the self-test."""
        yield self.draw(device, dtype)
        if self.further_sample is not None:
            yield self.further_sample(Whole(device, dtype))

    def _tensors(self, args: tuple) -> dict[str, Tensor]:
        """Those that are given, by name."""
        named = zip(self.names, args, strict=True)
        return {name: x for name, x in named if name in self.letters and x is not None}


def leading(args: tuple) -> Tensor:
    """The first floating point tensor: its device and dtype are those of the call."""
    first = args[0]
    if isinstance(first, Tensor) and first.dtype.is_floating_point:
        return first
    return next(x for x in args if isinstance(x, Tensor) and x.dtype.is_floating_point)
