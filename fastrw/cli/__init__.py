"""The command line: one module per command, with add_arguments(parser) and run(args) -> exit status.

May import everything; nothing may import it.
The module of a command is imported only when that command runs, so that none needs the extras of another.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

import fastrw

COMMANDS = {  # name -> (what it does, the extra that installs what it needs)
    "info": ("torch, devices, the compiled extension, and which backend can serve each op", "cli"),
    "verify": ("every method and backend against exact gradients in float64", "cli"),
    "demo": ("see the weights at work on real images with wrong labels", "demo"),
    "bench": ("time ops and whole steps (from a source checkout)", "bench"),
}
EXTRAS = {"rich", "matplotlib", "numpy", "sklearn", "pytest", "pytest_benchmark"}  # modules that extras install
EXAMPLES = """\
examples:
  python -m fastrw info                what this machine can run, and why not the rest
  python -m fastrw info --json         the same for programs
  python -m fastrw verify              are the weights exact here?
  python -m fastrw demo                do the weights help? about a minute on two cores
  python -m fastrw demo --help         the options of a command"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; 2 if a package that it needs is missing."""
    argv = sys.argv[1:] if argv is None else argv
    chosen = argv[0] if argv and argv[0] in COMMANDS else None
    try:
        args = _parser(chosen).parse_args(argv)
        return args.run(args)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRAS:
            raise
        sys.stderr.write(f'fastrw {chosen}: needs {error.name}: pip install "fastrw[{COMMANDS[chosen][1]}]"\n')
        return 2


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m fastrw", description=fastrw.__doc__, epilog=EXAMPLES, formatter_class=raw
    )
    parser.add_argument("--version", action="version", version=f"fastrw {fastrw.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, (text, _) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text, formatter_class=raw)
        if name == chosen:
            module = importlib.import_module(f"fastrw.cli.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser
