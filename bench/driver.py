"""What every benchmark does: read its options, print and write rows as they come in, draw them, end with a status."""

import argparse
import time
from collections.abc import Iterable

import torch

from bench import record, timing
from bench.models import MODELS


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


def model(word: str) -> str:
    """The type of a positional argument that may be absent: argparse's `choices` may refuse to have none."""
    if word not in MODELS:
        raise argparse.ArgumentTypeError(f"no such case: {word!r}; there are {', '.join(MODELS)}")
    return word


SHARED: dict[str, dict] = {
    "models": {"nargs": "*", "type": model, "metavar": "model", "help": f"of {', '.join(MODELS)}"},
    "--rounds": {"type": count, "default": 9, "help": "samples of each variant (default: %(default)s)"},
    "--threads": {"type": count, "default": torch.get_num_threads(), "help": "default: %(default)s"},
    "--device": {"default": record.device(), "help": "cpu or cuda (default: %(default)s)"},
    "--cpu-time": {"action": "store_true", "help": "CPU seconds: one thread on a machine with other work"},
    "--json": {"metavar": "FILE", "help": "write everything as one JSON object, rewritten whole as results come in"},
    "--plot": {"metavar": "FILE", "help": "write a PNG of the figures"},
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


def some_of(parser: argparse.ArgumentParser, option: str, names: Iterable[str], metavar: str = "VARIANT") -> None:
    """An option that takes any number of `names`; without it all of them."""
    parser.add_argument(option, nargs="+", choices=[*names], default=[*names], metavar=metavar,
                        help=f"of {', '.join(map(repr, names))}; all by default")  # fmt: skip


def set_clock(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """What all times are taken by. Ends with a usage error where CPU seconds would say nothing."""
    if options.cpu_time and (timing.on_gpu(options.device) or options.threads > 1):
        parser.error("--cpu-time is for one thread: it needs --device cpu --threads 1")
    timing.clock = time.process_time if options.cpu_time else time.perf_counter


class Run:
    """A benchmark while it runs; `about` is its part of the result, with the list `rows`, or `runs` that have one each.

    Ctrl-C ends the `with` block early and keeps what was measured. `status` is the exit status: 1 where something was
    wrong, 130 after Ctrl-C. options: threads, device, json, and plot where there is a picture."""

    def __init__(self, bench: str, options: argparse.Namespace, **about):
        torch.set_num_threads(options.threads)
        # no TF32: the bound on errors is that of float32
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        self.options, self.console = options, record.console()
        self.result = {"bench": bench, **record.header(options.device), **about, "complete": False}

    def opening(self, *facts: str) -> None:
        """Where the figures come from, and how far to trust them."""
        machine, load = self.result["machine"], self.result["load"][0]
        said = ", ".join([record.place(machine), f"torch {torch.__version__}, load {load:.2f}", *facts])
        self.console.print(said, *filter(None, [record.caution(machine)]), sep="\n", highlight=False)

    def add(self, rows: list[dict], *shown: object, to: dict | None = None) -> None:
        """Keep these rows, print what is shown of them, and write the result anew."""
        (to or self.result)["rows"] += rows
        if shown:
            self.console.print(*shown, sep="\n")
        record.write_json(self.options.json, self.result)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type | None, *_) -> bool:
        if kind not in (None, KeyboardInterrupt):
            return False
        if kind:
            self.console.print("stopped: the rest was not measured", style="red")
        self.result["complete"] = not kind
        record.write_json(self.options.json, self.result)
        rows = [row for part in self.result.get("runs", [self.result]) for row in part["rows"]]
        self.status = 130 if kind else int(any(row.get("red") for row in rows))
        if rows and getattr(self.options, "plot", None):
            from bench.plot import draw

            draw(self.result, self.options.plot)
        return True
