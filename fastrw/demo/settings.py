"""What one demo runs, with its defaults; and the error that every part of the demo raises for a user's mistake."""

import math
import shlex
from dataclasses import dataclass, fields

LEARNING_RATE = 2e-3  # Adam's, falling to 0 along a cosine; the same for every method


FSR_DEFAULTS = {"imbalance": 1.0, "clean_per_class": 0, "steps": 390}  # where they differ with --fsr


class DemoError(ValueError):
    """A setting or a file breaks a rule. The text states the rule and what was got."""


@dataclass(frozen=True)
class Settings:
    """The defaults were chosen on seed 0, which is why the demo's own seeds begin at 1."""

    data: str | None = None
    seeds: int = 3
    seed: int = 1
    steps: int = 600
    batch_size: int = 100
    flip: float = 0.4
    imbalance: float = 5.0
    clean_per_class: int = 10
    fsr: bool = False  # learn the weights without clean examples

    def __post_init__(self):
        for name in ("seeds", "steps", "batch_size", *([] if self.fsr else ["clean_per_class"])):
            if getattr(self, name) < 1:
                raise DemoError(f"fastrw.demo: {_option(name)} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise DemoError(f"fastrw.demo: --seed must be at least 0, got {self.seed}")
        if not 0 <= self.flip < 1:
            raise DemoError(f"fastrw.demo: --flip must be in [0, 1), got {self.flip}")
        if self.fsr and self.clean_per_class:
            raise DemoError(f"fastrw.demo: --fsr has no clean set, got --clean-per-class {self.clean_per_class}")
        if not 1 <= self.imbalance < math.inf:
            raise DemoError(f"fastrw.demo: --imbalance must be finite and at least 1, got {self.imbalance}")

    @property
    def all_seeds(self) -> range:
        return range(self.seed, self.seed + self.seeds)

    @property
    def command(self) -> str:
        """The command line that runs these settings."""
        words = ["python", "-m", "fastrw", "demo", *(["--fsr"] if self.fsr else [])]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "fsr" and value != (FSR_DEFAULTS if self.fsr else {}).get(field.name, field.default):
                words += [_option(field.name), str(value)]
        return shlex.join(words)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
