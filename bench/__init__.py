"""Benchmarks of fastrw: one file per question, one way of timing, ceilings measured in the same run.

python -m bench                      every bench this machine can run, in short form
python -m bench gram_dot [...]       one op: backends, eager and torch.compile against the roof
python -m bench end_to_end [...]     one whole training step: fastrw and its peers against a plain step
python -m bench gpu [...]            on a GPU machine: tests, sanitizers and all benches, into one result file
"""

from __future__ import annotations

import importlib

SHORT = {"gram_dot": ["--rounds", "20", "--no-compile"], "end_to_end": ["--rounds", "3"]}
WORDS = (*SHORT, "gpu")


def main(argv: list[str] | None = None) -> int:
    """Run the bench named by the first word, or all of them in short form; return the exit status."""
    if not argv:
        return max(run(word, options) for word, options in SHORT.items())
    if argv[0] in WORDS:
        return run(argv[0], argv[1:])
    from rich import print

    print(__doc__)
    return 0 if argv[0] in ("-h", "--help") else 2


def run(word: str, argv: list[str]) -> int:
    return importlib.import_module(f"bench.{word}").main(argv)
