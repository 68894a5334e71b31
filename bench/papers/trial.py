"""A trial: frozen settings that decide one result, the work that finds it, and the store that runs each trial once."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from bench import record
from bench.papers.sources import PapersError
from fastrw.demo.data import Images
from fastrw.demo.resume import Resumable, readable, replacing

SAVE_EVERY = 60  # seconds
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


class Stopped(Exception):
    """Ctrl-C between two steps: what was done is saved."""


class Store:
    """A folder of finished trials (`trials/KEY.json`) and of begun ones (`trials/KEY.pt`)."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder) / "trials"

    def find(self, trial: Trial, images: Images | None) -> dict[str, Any] | None:
        """What is kept of a finished trial, or None."""
        file = self._file(trial, images, "json")
        with readable(f"fastrw.papers: {file} must be a result that a run wrote", PapersError):
            return json.loads(file.read_text()) if file.exists() else None

    def run(
        self, trial: Trial, images: Images | None, *, device: str = "cpu",
        on_step: Callable[[int, int], Any] = lambda done, total: None, stopped: Callable[[], bool] = lambda: False,
    ) -> dict[str, Any]:  # fmt: skip
        """The kept result, or a new one. `on_step(done, total)` is called after every step.

        Raises:
            Stopped: `stopped()` was true after a step; the next run resumes there, with the same result.
        """
        if (kept := self.find(trial, images)) is not None:
            return kept
        work = trial.start(images, device)
        partial, seconds = self._file(trial, images, "pt"), 0.0
        if partial.exists():
            with readable(f"fastrw.papers: {partial} must be a state that a run saved", PapersError):
                state = torch.load(partial, weights_only=True, map_location=device)
                seconds = state["seconds"]
                work.load_state_dict(state["work"])
        began = saved = time.perf_counter()
        while work.done < work.total:
            work.step()
            on_step(work.done, work.total)
            now = time.perf_counter()
            if stopped() or (now - saved > SAVE_EVERY and work.done < work.total):
                self.folder.mkdir(parents=True, exist_ok=True)
                with replacing(partial) as temporary:
                    torch.save({"seconds": seconds + now - began, "work": work.state_dict()}, temporary)
                saved = now
                if stopped():
                    raise Stopped
        kept = {
            "trial": trial.settings,
            "images": images and images.name,
            "device": device,
            "seconds": round(seconds + time.perf_counter() - began, 2),
            "result": work.result(),
        }
        record.write_json(self._file(trial, images, "json"), kept)
        partial.unlink(missing_ok=True)
        return kept

    def _file(self, trial: Trial, images: Images | None, kind: str) -> Path:
        return self.folder / f"{trial.key(images)}.{kind}"
