"""Loops over two loaders: the clean examples are few, so their loader is repeated for as long as the other lasts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

__all__ = ["Cycle", "cycle"]


def cycle(loader: Iterable, *, sampler: Any = None) -> Cycle:
    """The batches of a loader, without end.

        for (x, y), (xv, yv) in zip(train_loader, fastrw.data.cycle(clean_loader)):

    Every pass iterates over the loader anew, so that it shuffles and augments anew (`itertools.cycle` repeats the
    batches of the first pass, and holds them all).

    Args:
        loader: a DataLoader, or anything that can be iterated over again.
        sampler: its `set_epoch(k)` is called before pass k = 0, 1, ... Default: the sampler, or batch sampler, of the
            loader, where it has a `set_epoch`.
    Returns:
        Cycle: an iterator; its `state_dict()` and `load_state_dict()` resume at the same pass and batch.
    Raises:
        TypeError: the loader cannot be iterated over, or only once.
        ValueError: the loader is empty (where it has no length: when its first batch is asked for).
    """
    return Cycle(loader, sampler)


class Cycle(Iterator):
    """See `cycle`."""

    def __init__(self, loader: Iterable, sampler: Any = None):
        if isinstance(loader, Iterator):
            raise TypeError(
                f"fastrw.data.cycle: loader must start anew at each pass, got a {type(loader).__name__}, which ends "
                "after one (give the DataLoader itself)"
            )
        if not hasattr(loader, "__iter__") and not hasattr(loader, "__getitem__"):
            raise TypeError(f"fastrw.data.cycle: loader must be iterable, got {type(loader).__name__}")
        if sampler is not None and not hasattr(sampler, "set_epoch"):
            raise TypeError(f"fastrw.data.cycle: sampler must have set_epoch, got {type(sampler).__name__}")
        self.passes = 0  # that have ended
        self.position = 0  # batches of the present pass so far
        self._loader = loader
        batches = getattr(loader, "batch_sampler", None)
        own = (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
        self._own = list({id(one): one for one in own if one is not None}.values())
        self._samplers = [one for one in (self._own if sampler is None else [sampler]) if hasattr(one, "set_epoch")]
        self._batches: Iterator | None = None  # of the present pass, once it has begun
        self._random = self._random_states()  # when it began
        try:
            empty = len(loader) == 0  # type: ignore[arg-type]
        except TypeError:  # it has no length
            empty = False
        if empty:
            raise self._empty()

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = self._resumed() if self.position else self._begun()
        try:
            batch = next(self._batches)
        except StopIteration:
            if not self.position:
                self._batches = None
                raise self._empty() from None
            self.passes, self.position, self._batches = self.passes + 1, 0, None
            return next(self)
        self.position += 1
        return batch

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: the pass, the batches of it so far, and the random states that it began with."""
        return {"passes": self.passes, "position": self.position, "random": [t.clone() for t in self._random]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`: the next batch is the one that would have come, if the loader is the same. The
        batches before it are loaded again, and left out."""
        numbers = [state.get(name) if isinstance(state, dict) else None for name in ("passes", "position")]
        if not all(isinstance(k, int) and k >= 0 for k in numbers) or len(state.get("random", ())) != len(self._random):
            raise ValueError(f"fastrw.data.cycle: a state must be that of a cycle over such a loader, got {state!r}")
        self.passes, self.position = numbers
        self._random, self._batches = [t.clone() for t in state["random"]], None

    def _begun(self) -> Iterator:
        self._random = self._random_states()
        for sampler in self._samplers:
            sampler.set_epoch(self.passes)
        return iter(self._loader)

    def _resumed(self) -> Iterator:
        """The present pass, after the batches that have been given."""
        now, began = torch.get_rng_state(), self._random
        try:
            for generator, state in zip([torch.default_generator, *self._generators()], began, strict=True):
                generator.set_state(state)
            batches = self._begun()
            for k in range(self.position):
                if next(batches, self) is self:
                    raise ValueError(
                        f"fastrw.data.cycle: a state must be that of a cycle over such a loader, got {self.position} "
                        f"batches of a pass of {k}"
                    )
        finally:
            torch.set_rng_state(now)
        return batches

    def _generators(self) -> list[torch.Generator]:
        """What the loader shuffles by, beside torch's own generator."""
        found = {id(g): g for one in self._own if (g := getattr(one, "generator", None)) is not None}
        return list(found.values())

    def _random_states(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(generator.get_state() for generator in self._generators())]

    def _empty(self) -> ValueError:
        return ValueError(
            f"fastrw.data.cycle: loader must give a batch, got an empty {type(self._loader).__name__} (with drop_last, "
            "the batch size must not exceed the number of examples)"
        )
