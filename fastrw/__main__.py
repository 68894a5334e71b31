"""python -m fastrw info | verify | demo | bench: see fastrw/cli/__init__.py."""

import sys

from fastrw.cli import main

if __name__ == "__main__":
    sys.exit(main())
