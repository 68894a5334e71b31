"""The options, and the run: stages in order, each with its share of the time that is left."""

import argparse
import signal
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

from rich.console import Console

from bench import record
from bench.driver import make_parser, positive
from bench.gpu import picture, process, summary
from bench.gpu.stage import ROWS, Stage, find, write

STAGES = ("machine", "self_test", "steps", "tests", "op_times", "profile", "sanitizer", "rest")  # most telling first
RESERVE = 3  # seconds for the last summary

EPILOG = """\
the files in the folder, at most six, complete up to the second in which a run is interrupted:
  summary.md    tables of all that was found, written anew after each stage and printed last
  rows.jsonl    every figure, a JSON object a line, each on the disk before the next is measured
  steps.png     the whole steps, as a picture
  output.txt    what the stages printed
  trace.json.gz the profile of the worst step, for chrome://tracing or ui.perfetto.dev

the stages, most telling first; each may take its share of the time that is left, then it is stopped:
{stages}

examples:
  python -m bench.gpu --minutes 7.5 --out found              on a GPU machine
  python -m bench.gpu --only steps profile --out again       some stages, with all the time for them
  python -m bench.gpu --device cpu --tiny --out rehearsed    every stage without a GPU, on small stand-ins
"""


def main(argv: list[str] | None = None, began: float | None = None, placed: dict | None = None) -> int:
    """began: the time.time() from which the minutes count; placed: how the extension was put in place meanwhile."""
    options, began = parse(argv), began or time.time()
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    if options.device == "cuda" and (why := no_gpu()):
        console.print(f"bench.gpu: needs a GPU: {why}; rehearse with --device cpu --tiny")
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ends = began + 60 * options.minutes
    code = 0
    try:
        open_run(options, began, placed)
        for i, name in enumerate(options.only):
            seconds = share(options.only[i:], ends - time.time() - RESERVE)
            fault = "overrun" if name == options.overrun else "crash" if name == options.crash else None
            stage = Stage(name, options.out, options.device, options.tiny, began, time.time() + seconds, fault)
            console.print(f"bench.gpu: {name} (at most {seconds:.0f} s)")
            with open(options.out / "output.txt", "ab") as output:
                output.write(f"\n== {name}\n".encode())
                output.flush()
                status = process.run(stage, output)
            code = code if status == "finished" else 1
            console.print(f"bench.gpu: {name}: {status} after {time.time() - stage.ends + seconds:.0f} s")
            summary.write(options.out)
            if name == "steps" and (why := picture.draw(options.out)):
                console.print(f"bench.gpu: no {picture.NAME}: {why}")
    except KeyboardInterrupt:
        code = 130
    finally:
        summary.write(options.out)
        print((options.out / summary.NAME).read_text(), flush=True)
    return code


def parse(argv: list[str] | None) -> argparse.Namespace:
    told = "\n".join(f"  {name:<12}  {(find(name).__doc__ or '').splitlines()[0]}" for name in STAGES)
    parser = make_parser("bench.gpu", "Everything that needs a GPU: figures, tests and profiles, most telling first.",
                         EPILOG.format(stages=told))  # fmt: skip
    stamp = datetime.now(timezone.utc).strftime("%Y-%m-%d-%H%M%S")
    default = record.ROOT / "bench" / "results" / f"gpu-{stamp}"
    parser.add_argument("--minutes", type=positive, default=7.5, help="for all of it (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=default, metavar="DIR",
                        help="a new or empty folder (default: bench/results/gpu-<time>)")  # fmt: skip
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES), metavar="STAGE",
                        help="of the stages below, in their order")  # fmt: skip
    rehearsal = parser.add_argument_group("rehearsal")
    rehearsal.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu needs --tiny")
    rehearsal.add_argument("--tiny", action="store_true", help="small models, few cases, short times")
    rehearsal.add_argument("--overrun", choices=STAGES, metavar="STAGE", help="this stage hangs after its first row")
    rehearsal.add_argument("--crash", choices=STAGES, metavar="STAGE", help="this stage fails after its first row")
    options = parser.parse_args(argv)
    options.only = [name for name in STAGES if name in options.only]
    if options.device == "cpu" and not options.tiny:
        parser.error("--device cpu is a rehearsal, which needs --tiny: the models are of a GPU's size")
    if (options.out / ROWS).exists():
        parser.error(f"--out must be a folder without results, got {options.out}, which has a {ROWS}")
    return options


def no_gpu() -> str | None:
    """Why nothing can be run here; None where there is a GPU."""
    import torch

    if torch.cuda.is_available():
        return None
    why = "this torch was built without CUDA" if torch.version.cuda is None else "torch sees no CUDA device"
    return f"{why} (torch {torch.__version__})"


def open_run(options: argparse.Namespace, began: float, placed: dict | None) -> None:
    """The first row, and a first summary: whatever happens next, there is something to read."""
    about = {"command": record.command([sys.executable, *sys.orig_argv[1:]]), "commit": record.commit()}
    asked = {"minutes": options.minutes, "device": options.device, "tiny": options.tiny, "stages": options.only}
    date = datetime.fromtimestamp(began, timezone.utc).isoformat(timespec="seconds")
    write(options.out, {"stage": "run", "kind": "begin", "date": date, **about, **asked, "extension": placed})
    summary.write(options.out)


def share(stages: list[str], left: float) -> float:
    """Seconds for the first of these stages."""
    limits = [find(name).LIMIT for name in stages]
    return max(left, 0) * limits[0] / sum(limits)
