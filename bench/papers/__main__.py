"""python -m bench.papers: see bench/papers/command.py."""

import sys

from bench.papers.command import main

sys.exit(main(sys.argv[1:]))
