"""Benchmarks of fastrw: one timing engine, ceilings measured in the same run, no number for what is not exact.

python -m fastrw bench [...]               every op against eager torch, torch.compile and the roof
python -m fastrw bench end_to_end [...]    one whole training step: fastrw and other libraries against a plain step
python -m fastrw bench fsr [...]           one step of FSR, without clean data, against a plain step
python -m fastrw bench overhead [...]      the Python side of a step: microseconds for an operation, a use and a call
python -m fastrw bench scaling [...]       time and memory against n, m, depth and width
python -m fastrw bench gpu [...]           on a GPU machine: tests, sanitizers and all benchmarks, into one result file

Each has a --help. `python -m bench` is the same. `pytest bench/bench_ops.py` runs the ops under pytest-benchmark.
"""

from __future__ import annotations

import importlib

COMMANDS = ("end_to_end", "fsr", "overhead", "scaling", "gpu")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark named by the first word, or the ops; return the exit status."""
    argv = argv or []
    if argv and argv[0] in COMMANDS:
        return importlib.import_module(f"bench.{argv[0]}").main(argv[1:])
    return importlib.import_module("bench.command").main(argv)
