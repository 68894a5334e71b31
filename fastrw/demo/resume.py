"""Stopping and going on: the state of a run, files written whole or not at all, Ctrl-C between two steps."""

import os
import pickle
import signal
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fastrw.demo.settings import DemoError

# what reading a broken file can raise
UNREADABLE = (OSError, RuntimeError, EOFError, KeyError, TypeError, ValueError, AttributeError, pickle.UnpicklingError,
              zipfile.BadZipFile, zlib.error)  # fmt: skip


class Resumable:
    """Its state is that of the attributes named in `kept`: their own state where they have one, else their value."""

    kept: tuple[str, ...] = ()

    def state_dict(self) -> dict[str, Any]:
        return {name: _state(getattr(self, name)) for name in self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.kept:
            value = getattr(self, name)
            if isinstance(value, torch.Generator):
                value.set_state(state[name])
            elif hasattr(value, "load_state_dict"):
                value.load_state_dict(state[name])
            else:
                setattr(self, name, state[name])


def _state(value: Any) -> Any:
    if isinstance(value, torch.Generator):
        return value.get_state()
    return value.state_dict() if hasattr(value, "state_dict") else value


@contextmanager
def readable(rule: str, kind: type[ValueError] = DemoError) -> Iterator[None]:
    """Raises a `kind` that states the rule where the block meets a broken file."""
    try:
        yield
    except UNREADABLE as error:
        raise kind(f"{rule}, got: {error!r}") from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path next to `path` to write to; it replaces `path` only if the block ends without an error.

    An interrupted write leaves what was there before."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def ctrl_c() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C was pressed; a second Ctrl-C interrupts at once."""
    pressed: list[bool] = []

    def stop(*_) -> None:
        pressed.append(True)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
