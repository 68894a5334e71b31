"""python -m fastrw bench: every op at the sizes of real layers, against eager torch and the roof."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterable
from fnmatch import fnmatchcase

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import COMMANDS, compare, record, roof, tables, timing
from bench.cases import CASES, is_large
from bench.ops import BACKENDS, DTYPES, measure
from bench.options import positive, set_up, share

EPILOG = (
    "other benchmarks, each with its own --help:\n"
    + "".join(f"  python -m fastrw bench {name:<18} {what}\n" for name, what in COMMANDS.items())
    + """
examples:
  python -m fastrw bench                                   all ops, the cases that fit a CPU
  python -m fastrw bench --quick                           two cases for each op, in seconds
  python -m fastrw bench --op conv_dot                     one op; "conv_*" for several
  python -m fastrw bench --case "resnet*" --threads 1      one model's layers, on one thread
  python -m fastrw bench --compile all                     torch.compile in every case: some seconds each
  python -m fastrw bench --json new.json --plot new.png    a result file and a picture
  python -m fastrw bench --json new.json --compare old.json   what got faster or slower beyond the noise
  python -m fastrw bench --compare old.json new.json       the same for two files; nothing is run
  python -m fastrw bench --paper                           FLOPs, bytes and floors; nothing is run
  python -m fastrw bench --ahead-of-time --op gram_dot     what the compilers made of the GPU kernels, without a GPU

the columns:
  variant     a backend of fastrw (* is what backend="auto" takes here), eager torch in one or two forms that one would
              write, or torch.compile of the first of these
  time        median; the variants of a case take turns. Inputs are warm in cache on a CPU, cold on a GPU
  ÷ eager     the ratio to the fastest eager form, turn by turn; below 1 is faster. Then its quartiles
  ÷ compile   the same, to torch.compile
  GB/s        the least bytes that the case moves (inputs read once, results written once) over its time
  GFLOP/s     the op's own FLOPs over its time, rows of weight 0 not counted
  of roof     the least time that this machine needs over the time taken: by its peak FLOP/s, and by the bandwidth of
              its memory or of the cache that the case fits in, both measured at the start of the same run. A variant
              that needs fewer FLOPs than the op as written may be above 100 %

A variant that is not exact by the rule of fastrw/ops/tolerance.py gets no number but a red line, and exit status 1."""
)


def main(argv: list[str] | None = None) -> int:
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.cpu_time and (timing.on_gpu(options.device) or options.threads > 1):
        parser.error("--cpu-time is for one thread: it needs --device cpu --threads 1")
    chosen = choose(parser, options)
    console = record.console()
    if options.ahead_of_time:
        from bench import ahead_of_time

        return ahead_of_time.main(list(chosen), options.target, options.json, console)
    dtypes = [DTYPES[name] for name in options.dtype]
    if options.paper:
        for table in tables.on_paper(chosen, dtypes):
            console.print(table)
        return 0
    old = compare.load(parser, options.compare[0]) if options.compare else None
    if options.compare and len(options.compare) == 2:
        compare.show(old, compare.load(parser, options.compare[1]), console)
        return 0
    result = run(chosen, dtypes, options, console)
    if options.plot and result["rows"]:
        from bench.plot import plot_ops

        plot_ops(result, options.plot)
    if old:
        compare.show(old, result, console)
    return 130 if not result["complete"] else record.status(result["rows"])


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastrw bench",
        description=__doc__.partition(": ")[2].capitalize(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_argument_group("what to measure")
    what.add_argument("--op", nargs="+", metavar="OP", help=f"names or patterns of: {', '.join(CASES)}")
    what.add_argument("--case", nargs="+", metavar="CASE", help="names or patterns; --paper lists them")
    what.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    what.add_argument("--backend", nargs="+", choices=BACKENDS, default=BACKENDS, help="eager is always measured")
    what.add_argument("--large", action="store_true", help="include the cases meant for a GPU on a CPU too")
    how = parser.add_argument_group("how")
    share(how, "--device", "--threads")
    how.add_argument("--seconds", type=positive, default=0.3, help="to spend on timing a case (default: %(default)s)")
    share(how, "--rounds", default=None, help="samples of each variant, instead of --seconds")
    how.add_argument("--cpu-time", action="store_true", help="CPU seconds: one thread on a machine with other work")
    how.add_argument("--compile", choices=("none", "some", "all"), default="some",
                     help="torch.compile in no case, in the first of each op (default), in all")  # fmt: skip
    how.add_argument("--quick", action="store_true", help="two cases for each op, few rounds, no torch.compile")
    out = parser.add_argument_group("results")
    share(out, "--json")
    share(out, "--plot", help="write a PNG of the ratios to eager")
    out.add_argument("--compare", nargs="+", metavar="OLD", help="a result to compare with; two: nothing is run")
    instead = parser.add_argument_group("instead of measuring")
    instead.add_argument("--paper", action="store_true", help="the work of each case and its floor on an H100")
    instead.add_argument("--ahead-of-time", action="store_true", help="registers, spills, shared memory and matrix "
                         "instructions of each GPU kernel")  # fmt: skip
    instead.add_argument("--target", nargs="+", type=int, default=[90], metavar="SM",
                         help="the GPUs that Triton compiles for ahead of time (default: 90, an H100)")  # fmt: skip
    return parser


def choose(parser: argparse.ArgumentParser, options: argparse.Namespace) -> dict[str, list[str]]:
    """The chosen cases of each op. Ends with a usage error where a name fits none."""
    check(parser, "op", options.op, CASES)
    check(parser, "case", options.case, dict.fromkeys(name for cases in CASES.values() for name in cases))
    if options.compare and len(options.compare) > 2:
        parser.error(f"--compare takes one file or two, got {len(options.compare)}")
    every = options.large or options.paper or timing.on_gpu(options.device)
    chosen = {}
    for op in (op for op in CASES if fits(op, options.op)):
        names = [name for name in CASES[op] if fits(name, options.case) and (every or not is_large(name))]
        if names:
            chosen[op] = names[:2] if options.quick else names
    if not chosen:
        parser.error("these cases are meant for a GPU: --large takes them all the same, or no op has such a case")
    return chosen


def check(parser: argparse.ArgumentParser, kind: str, patterns: list[str] | None, names: Iterable[str]) -> None:
    for pattern in patterns or ():
        if not any(fits(name, [pattern]) for name in names):
            parser.error(f"no such {kind}: {pattern!r}; there are {', '.join(names)}")


def fits(name: str, patterns: list[str] | None) -> bool:
    return patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)


def run(chosen: dict[str, list[str]], dtypes: list[torch.dtype], options: argparse.Namespace, console: Console) -> dict:
    """Measure, print, and write the JSON anew after each op; Ctrl-C ends it early, with what there is by then."""
    set_up(options.threads)
    timing.clock = time.process_time if options.cpu_time else time.perf_counter
    result = {"bench": "ops", **record.header(options.device), "clock": timing.clock.__name__}
    result |= {"complete": False, "rows": []}
    total = len(dtypes) * sum(map(len, chosen.values()))
    look = (TextColumn("{task.description:<44}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    screen = console if console.is_terminal else Console(stderr=True)
    with Progress(*look, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("the roof of this machine", total=total)
        try:
            ceilings = roof.measure(options.device, tuple(dtypes), caches=not timing.on_gpu(options.device))
            result["roof"] = ceilings.as_dict()
            console.print(opening(result, ceilings), highlight=False)
            if options.quick:
                options.seconds, options.compile = min(options.seconds, 0.06), "none"
            for op, dtype in itertools.product(chosen, dtypes):
                rows: list[dict] = []
                for index, name in enumerate(chosen[op]):
                    progress.update(bar, description=f"{op} {name}")
                    compiled = options.compile == "all" or (options.compile == "some" and index == 0)
                    found = measure(op, name, dtype, options, ceilings, compiled=compiled)
                    rows += found
                    result["rows"] += found
                    progress.advance(bar)
                console.print(tables.of_op(rows), *tables.reasons(rows), sep="\n")
                record.write_json(options.json, result)
            result["complete"] = True
        except KeyboardInterrupt:
            console.print("stopped: the rest was not measured", style="red")
    console.print(tables.summary(result["rows"]))
    record.write_json(options.json, result)
    return result


def opening(result: dict, ceilings: roof.Roof) -> str:
    """Where the figures come from, and how far to trust them."""
    lines = [f"{record.place(result['machine'])}, torch {torch.__version__}, load {result['load'][0]:.2f}",
             f"measured roof: {ceilings}", record.caution(result["machine"])]  # fmt: skip
    if result["load"][0] > 0.5 and result["clock"] != "process_time":
        lines.append("other work runs on this machine: trust the ratios, not the times, or use --cpu-time --threads 1")
    return "\n".join(filter(None, lines))
