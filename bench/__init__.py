"""Benchmarks of fastrw: one timing engine, ceilings measured in the same run, no number for what is not exact.

`python -m fastrw bench` (or `python -m bench`) measures every op; one of COMMANDS as its first word measures something
else. Each has a --help. `pytest bench/bench_ops.py` runs the ops under pytest-benchmark.
"""

import importlib

COMMANDS = {
    "end_to_end": "one whole training step: fastrw and other libraries against a plain step",
    "fsr": "one step of FSR, without clean data, against a plain step",
    "overhead": "the Python side of a step: microseconds for an operation, a use and a call",
    "scaling": "time and memory of a step against n, m, depth and width",
    "gpu": "on a GPU machine: everything that needs one in ten minutes, most telling first",
}


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark named by the first word, or the ops; return the exit status."""
    argv = argv or []
    if argv and argv[0] in COMMANDS:
        return importlib.import_module(f"bench.{argv[0]}").main(argv[1:])
    return importlib.import_module("bench.command").main(argv)
