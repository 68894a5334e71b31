"""python -m bench.gpu: see bench/gpu/__init__.py."""

import sys

from bench.gpu.command import main

sys.exit(main(sys.argv[1:]))
