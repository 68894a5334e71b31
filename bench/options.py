"""The options that the benchmarks share, and what they set up."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

import torch

from bench import record


def count(word: str) -> int:
    """The type of an option that counts something."""
    if (number := int(word)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


def positive(word: str) -> float:
    """The type of an option that is a time."""
    if not (number := float(word)) > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {word}")
    return number


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """The type of a positional argument of any number of these names: argparse's `choices` may refuse to have none."""

    def name(word: str) -> str:
        if word not in names:
            raise argparse.ArgumentTypeError(f"no such case: {word!r}; there are {', '.join(names)}")
        return word

    return name


SHARED: dict[str, dict] = {
    "--rounds": {"type": count, "default": 9, "help": "samples of each variant (default: %(default)s)"},
    "--threads": {"type": count, "default": torch.get_num_threads(), "help": "default: %(default)s"},
    "--device": {"default": record.device(), "help": "cpu or cuda (default: %(default)s)"},
    "--json": {"metavar": "FILE", "help": "write everything as one JSON object, rewritten whole as results come in"},
    "--plot": {"metavar": "FILE", "help": "write a PNG"},
}


def make_parser(name: str, doc: str, epilog: str | None = None) -> argparse.ArgumentParser:
    """The parser of the benchmark `name`, described by the first line of its docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m {name}", description=doc.splitlines()[0], epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def share(parser: argparse._ActionsContainer, *names: str, **changes) -> None:
    """Add shared options, with `changes` to what is said of them above."""
    for name in names:
        parser.add_argument(name, **(SHARED[name] | changes))


def set_up(threads: int) -> None:
    """The number of threads, and float32 products without TF32: the bound on errors is that of float32."""
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
