"""The kept trials of an experiment, looked up by their settings."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.papers.convergence import Lemma
from bench.papers.cost import Cost
from bench.papers.sources import PapersError
from bench.papers.training import Training
from bench.papers.trial import Trial
from fastrw.demo.resume import readable

KINDS: dict[str, type[Trial]] = {kind.__name__.lower(): kind for kind in (Training, Lemma, Cost)}


@dataclass(frozen=True)
class Spread:
    """One number over the seeds; false where no seed has it."""

    values: tuple[float, ...]

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def mean(self) -> float:
        return statistics.mean(self.values) if self else math.nan

    def __str__(self) -> str:
        """Mean ± standard deviation (of one value: that value), in per cent."""
        text = f"{100 * self.mean:.1f}" if self else "-"
        return f"{text} ± {100 * statistics.stdev(self.values):.1f}" if len(self.values) > 1 else text


class Results:
    """What `run` wrote of one experiment. Settings are looked up by name; FSR's own as `fsr__capacity`."""

    def __init__(self, document: dict[str, Any]):
        self.name, self.scale, self.header = document["experiment"], document["scale"], document
        self.trials = [(_flat(kept["trial"]), kept) for kept in document["trials"]]

    @classmethod
    def load(cls, file: Path) -> Results:
        with readable(f"fastrw.papers: {file} must be what a run wrote", PapersError):
            return cls(json.loads(file.read_text()))

    def of(self, **settings: Any) -> list[dict[str, Any]]:
        """The results at these settings."""
        return [kept["result"] for _, kept in self._at(settings)]

    def spread(self, path: str, **settings: Any) -> Spread:
        """The number at `path` ("accuracy", "fine_tuned.accuracy"; "error" is 1 - accuracy) over the trials at these
        settings."""
        found = (_reach(result, path) for result in self.of(**settings))
        return Spread(tuple(value for value in found if value is not None))

    def values(self, setting: str, **settings: Any) -> list[Any]:
        """The values that a setting takes, in the order of the trials."""
        return list(dict.fromkeys(flat.get(setting) for flat, _ in self._at(settings)))

    def _at(self, settings: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for flat, kept in self.trials:
            if all(flat.get(name) == value for name, value in settings.items()):
                yield flat, kept


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    """With the defaults that `Trial.settings` left out and FSR's own; JSON's lists are the tuples that they were."""
    settings = dict(settings)
    whole = {**asdict(KINDS[settings.pop("kind")]()), **settings}
    whole |= {f"fsr__{name}": value for name, value in (whole.get("fsr") or {}).items()}
    whole["layers"] = whole.get("fsr__params") or whole.get("params") or "all"  # that are compared by their gradients
    return {name: tuple(value) if isinstance(value, list) else value for name, value in whole.items()}


def _reach(result: Any, path: str) -> float | None:
    if path == "error":
        return 1 - result["accuracy"]
    for name in path.split("."):
        result = result.get(name) if isinstance(result, dict) else None
    return result
