"""A trial: frozen settings that decide one result, the key that it is kept under, and the work that finds it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from fastrw.demo.data import Images
from fastrw.demo.resume import Resumable

Result = dict[str, Any]  # plain numbers, texts, lists and mappings: what JSON can hold


class Work(Resumable):
    """A trial in progress. Call `step` until `done` is `total`; between steps its state can be saved and resumed."""

    total: int
    done = 0

    def step(self) -> None:
        raise NotImplementedError

    def result(self) -> Result:
        raise NotImplementedError


@dataclass(frozen=True)
class Trial:
    """The settings of one trial; kinds of trials add theirs, each with a default."""

    data: str | None = None  # a name of sources.NAMES; None: no images
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """The kind, and the settings that are not at their defaults: a new setting changes no key."""
        held = asdict(self)
        for field in fields(self):
            default = field.default if field.default is not MISSING else None
            if getattr(self, field.name) == default:
                del held[field.name]
        return {"kind": type(self).__name__.lower(), **held}

    def key(self, images: Images | None) -> str:
        """The same for the same settings and the same images, another for all others: 16 hexadecimal digits."""
        held = [self.settings, images and images.fingerprint]
        return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16]

    def start(self, images: Images | None, device: str = "cpu") -> Work:
        raise NotImplementedError


def short(value: float | None) -> float | None:
    """Five significant digits, None where a number is not finite: results are kept in a repository."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.5g}")
