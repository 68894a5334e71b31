"""A trial: frozen settings that decide one result, the key that it is kept under, and the work that finds it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Protocol

from fastrw.demo.data import Images

Result = dict[str, Any]  # plain numbers, texts, lists and mappings: what JSON can hold


class Work(Protocol):
    """A trial under way. `step` until `done` is `total`; between steps its state can be kept and taken up again."""

    total: int
    done: int

    def step(self) -> None: ...
    def result(self) -> Result: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Trial:
    """The settings of one trial; kinds of trials add theirs, each with a default."""

    data: str | None = None  # a name of sources.NAMES; None: no images
    seed: int = 0

    @property
    def kind(self) -> str:
        return type(self).__name__.lower()

    @property
    def settings(self) -> dict[str, Any]:
        """The kind, and the settings that are not at their defaults: what a new setting leaves as it was."""
        held = asdict(self)
        for field in fields(self):
            default = field.default if field.default is not MISSING else None
            if getattr(self, field.name) == default:
                del held[field.name]
        return {"kind": self.kind, **held}

    def key(self, images: Images | None) -> str:
        """The same for the same settings and the same images, another for all others: 16 hexadecimal digits."""
        held = [self.settings, images and images.fingerprint]
        return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16]

    def start(self, images: Images | None, device: str) -> Work:
        raise NotImplementedError
