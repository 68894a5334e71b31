"""Runs the trials of experiments, each once: a result is kept under its trial's key, a stopped trial goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench import record
from bench.papers.sources import PapersError
from bench.papers.trial import Trial
from fastrw.demo.data import Images
from fastrw.demo.resume import readable, replacing

SAVE_EVERY = 60  # seconds


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
            Stopped: `stopped()` said so after a step; the next run goes on from there as if never stopped.
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
