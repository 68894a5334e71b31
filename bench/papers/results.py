"""The kept trials of an experiment, asked by their settings."""

from __future__ import annotations

import json
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

KINDS: dict[str, type[Trial]] = {kind.__name__.lower(): kind for kind in (Training, Lemma, Cost)}


@dataclass(frozen=True)
class Spread:
    """One number over the seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.mean(self.values)

    def said(self, scale: float = 100, digits: int = 1) -> str:
        """Mean ± standard deviation (of one value: that value), times `scale`."""
        text = f"{scale * self.mean:.{digits}f}"
        return f"{text} ± {scale * statistics.stdev(self.values):.{digits}f}" if len(self.values) > 1 else text


class Results:
    """What `run` wrote of one experiment."""

    def __init__(self, document: dict[str, Any]):
        self.name, self.scale, self.header = document["experiment"], document["scale"], document
        self.trials = [(_flat(_whole(kept["trial"])), kept) for kept in document["trials"]]

    @classmethod
    def load(cls, file: Path) -> Results:
        try:
            return cls(json.loads(file.read_text()))
        except (ValueError, KeyError, TypeError) as error:
            raise PapersError(f"fastrw.papers: {file} must be what a run wrote, got: {error!r}") from error

    def of(self, **settings: Any) -> list[dict[str, Any]]:
        """The results at these settings; `fsr__capacity` asks for FSR's own."""
        return [kept["result"] for _, kept in self._at(settings)]

    def spread(self, path: str, **settings: Any) -> Spread | None:
        """The number at `path` ("accuracy", "fine_tuned.accuracy") over the trials at these settings, or None."""
        found = [value for result in self.of(**settings) if (value := _reach(result, path)) is not None]
        return Spread(tuple(found)) if found else None

    def values(self, setting: str, **settings: Any) -> list[Any]:
        """The values that a setting takes, in the order of the trials."""
        found = [_seen(flat.get(setting.replace("__", "."))) for flat, _ in self._at(settings)]
        return list(dict.fromkeys(found))

    @property
    def images(self) -> str:
        return ", ".join(dict.fromkeys(kept["images"] for _, kept in self.trials if kept["images"])) or "none"

    @property
    def seconds(self) -> float:
        return sum(kept["seconds"] for _, kept in self.trials)

    def _at(self, settings: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        wanted = {name.replace("__", "."): _seen(value) for name, value in settings.items()}
        for flat, kept in self.trials:
            if all(_seen(flat.get(name)) == value for name, value in wanted.items()):
                yield flat, kept


def _whole(settings: dict[str, Any]) -> dict[str, Any]:
    """With the defaults that `Trial.settings` left out."""
    settings = dict(settings)
    return {**asdict(KINDS[settings.pop("kind")]()), **settings}


def _flat(settings: dict[str, Any]) -> dict[str, Any]:
    own = settings.get("fsr") or {}
    return {**settings, **{f"fsr.{name}": value for name, value in own.items()}}


def _seen(value: Any) -> Any:
    """Lists of JSON as the tuples that they were."""
    return tuple(value) if isinstance(value, list) else value


def _reach(result: dict[str, Any], path: str) -> float | None:
    for name in path.split("."):
        if not isinstance(result, dict) or (result := result.get(name)) is None:
            return None
    return result
