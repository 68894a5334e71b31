"""`python -m fastrw bench`: the benchmarks, which are beside the package in a source checkout."""

import argparse
import importlib
import sys
from pathlib import Path

import fastrw


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Everything after `bench`, --help too, is passed on to the benchmarks."""
    parser.prefix_chars = ""  # nothing is an option here
    parser.add_argument("arguments", nargs="*")


def run(args: argparse.Namespace) -> int:
    """Runs `python -m bench` with these arguments."""
    checkout = Path(fastrw.__file__).parents[1]
    if not (checkout / "bench/__main__.py").exists():
        sys.stderr.write("fastrw bench: the benchmarks are in the source checkout, not in the installed package\n")
        return 2
    sys.path.insert(0, str(checkout))
    return importlib.import_module("bench").main(args.arguments)
