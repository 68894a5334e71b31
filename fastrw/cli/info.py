"""`python -m fastrw info`: what this machine can run, and why not the rest."""

import argparse
import importlib.util
import json
import platform
import sys
from importlib.metadata import version

import torch

import fastrw
from fastrw.ops import backends, extension

EPILOG = """\
examples:
  python -m fastrw info            tables (JSON where rich is not installed)
  python -m fastrw info --json     {"fastrw", "torch", "devices", "extension", "backends", ...}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m fastrw info`."""
    parser.epilog = EPILOG
    parser.add_argument("--json", action="store_true", help="one JSON object")


def collect() -> dict:
    """Everything that info shows, ready for JSON."""
    processor = platform.processor() or platform.machine()
    return {
        "fastrw": fastrw.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "triton": version("triton") if importlib.util.find_spec("triton") else None,
        "devices": [
            {"device": "cpu", "name": processor, "threads": torch.get_num_threads()},
            *map(_gpu, range(torch.cuda.device_count())),
        ],
        "extension": {
            "loaded": extension.reason is None,
            "reason": extension.reason,
            "build_command": extension.BUILD_COMMAND,
            **extension.build_info(),
        },
        "backends": [row._asdict() for row in backends.status()],
    }


def _gpu(index: int) -> dict:
    found = torch.cuda.get_device_properties(index)
    capability, memory = f"{found.major}.{found.minor}", round(found.total_memory / 2**30, 1)
    return {"device": f"cuda:{index}", "name": found.name, "capability": capability, "memory_gib": memory}


def run(args: argparse.Namespace) -> int:
    """Shows the tables, or the JSON; 0 either way, because a missing extension is a fact here and not a failure."""
    facts = collect()
    if args.json or importlib.util.find_spec("rich") is None:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")
    else:
        _show(facts)
    return 0


def _show(facts: dict) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    def table(title: str, *columns: str) -> Table:
        return Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, show_header=len(columns) > 2)

    machine = table("This machine", "", "")
    for name in ("fastrw", "python", "torch", "torch_cuda", "triton"):
        machine.add_row(name.replace("_", " "), str(facts[name]))
    for device in facts["devices"]:
        details = ", ".join(f"{key} {value}" for key, value in device.items() if key not in ("device", "name"))
        machine.add_row(device["device"], f"{device['name']}  ({details})")

    compiled = table("Compiled extension", "", "")
    for name, value in facts["extension"].items():
        if name != "reason" or value is not None:
            compiled.add_row(name.replace("_", " "), Text(", ".join(value) if isinstance(value, list) else str(value)))

    served = table("Backends", "op", "backend", "serves", "why not")
    for row in facts["backends"]:
        serves = Text("yes", "green") if row["serves"] else Text("no", "yellow")
        served.add_row(row["op"], row["backend"], serves, Text(row["reason"] or ""))

    Console().print(machine, compiled, served)
