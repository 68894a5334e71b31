"""Every op at the sizes of real layers, against eager torch and the roof."""

import argparse
import itertools
from collections.abc import Iterable
from fnmatch import fnmatchcase

from bench import COMMANDS, compare, record, roof, tables, timing
from bench.cases import CASES, is_large
from bench.driver import Run, make_parser, positive, set_clock, share
from bench.ops import BACKENDS, DTYPES, measure

EPILOG = (
    "other benchmarks, each with its own --help:\n"
    + "".join(f"  python -m fastrw bench {name:<18} {what}\n" for name, what in COMMANDS.items())
    + """
examples:
  python -m fastrw bench --quick                           two cases for each op, in seconds
  python -m fastrw bench --op "conv_*" --case "resnet*"    some ops on one model's layers
  python -m fastrw bench --json new.json --plot new.png --compare old.json
  python -m fastrw bench --compare old.json new.json       what got faster or slower beyond the noise; nothing is run
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
    options, chosen = parse(argv)
    if options.ahead_of_time:
        from bench import ahead_of_time

        return ahead_of_time.main(list(chosen), options.target, options.json, record.console())
    if options.paper:
        for op, names in chosen.items():
            record.console().print(tables.on_paper(op, names, options.dtype))
        return 0
    if len(options.compare) == 2:
        compare.show(*options.compare, record.console())
        return 0
    run = measure_all(options, chosen)
    if options.compare:
        compare.show(*options.compare, run.result, run.console)
    return run.status


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, dict[str, list[str]]]:
    """The options and the chosen cases of each op. Ends with a usage error where a name fits none."""
    parser = make_parser("fastrw bench", __doc__, EPILOG)
    what = parser.add_argument_group("what to measure")
    what.add_argument("--op", nargs="+", metavar="OP", default="*", help=f"names or patterns of: {', '.join(CASES)}")
    what.add_argument("--case", nargs="+", metavar="CASE", default="*", help="names or patterns; --paper lists them")
    what.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"])
    what.add_argument("--backend", nargs="+", choices=BACKENDS, default=BACKENDS, help="eager is always measured")
    what.add_argument("--large", action="store_true", help="include the cases meant for a GPU on a CPU too")
    how = parser.add_argument_group("how")
    share(how, "--device", "--threads")
    how.add_argument("--seconds", type=positive, default=0.3, help="to spend on timing a case (default: %(default)s)")
    share(how, "--rounds", default=None, help="samples of each variant, instead of --seconds")
    share(how, "--cpu-time")
    how.add_argument("--compile", choices=("none", "some", "all"), default="some",
                     help="torch.compile in no case, in the first of each op (default), in all (slow)")  # fmt: skip
    how.add_argument("--quick", action="store_true", help="two cases for each op, few rounds, no torch.compile")
    out = parser.add_argument_group("results")
    share(out, "--json")
    share(out, "--plot", help="write a PNG of the ratios to eager")
    out.add_argument("--compare", nargs="+", metavar="OLD", default=[], help="a result to compare with, or old and new")
    instead = parser.add_argument_group("instead of measuring")
    instead.add_argument("--paper", action="store_true", help="FLOPs and bytes of each case, and its floor on an H100")
    instead.add_argument("--ahead-of-time", action="store_true", help="registers, spills, shared memory and matrix "
                         "instructions of each GPU kernel")  # fmt: skip
    instead.add_argument("--target", nargs="+", type=int, default=[90], metavar="SM",
                         help="the GPUs that Triton compiles for ahead of time (default: 90, an H100)")  # fmt: skip
    options = parser.parse_args(argv)
    set_clock(parser, options)
    if len(options.compare) > 2:
        parser.error(f"--compare takes one file or two, got {len(options.compare)}")
    ops = fitting(parser, "op", CASES, options.op)
    cases = fitting(parser, "case", dict.fromkeys(itertools.chain(*CASES.values())), options.case)
    options.compare = [compare.load(parser, path) for path in options.compare]
    options.dtype = [DTYPES[name] for name in options.dtype]
    every = options.large or options.paper or timing.on_gpu(options.device)
    chosen = {op: [name for name in CASES[op] if name in cases and (every or not is_large(name))] for op in ops}
    if not any(chosen.values()):
        parser.error("these cases are meant for a GPU: --large takes them all the same, or no op has such a case")
    if options.quick:
        options.seconds, options.compile = min(options.seconds, 0.06), "none"
    return options, {op: names[:2] if options.quick else names for op, names in chosen.items() if names}


def fitting(parser: argparse.ArgumentParser, kind: str, names: Iterable[str], patterns: list[str]) -> list[str]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            parser.error(f"no such {kind}: {pattern!r}; there are {', '.join(names)}")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def measure_all(options: argparse.Namespace, chosen: dict[str, list[str]]) -> Run:
    """Measure, print, and write the JSON anew after each case; Ctrl-C ends it early, with what there is by then."""
    total, done = len(options.dtype) * sum(map(len, chosen.values())), itertools.count(1)
    with Run("ops", options, clock=timing.clock.__name__, rows=[]) as run, record.progress() as say:
        say("the roof of this machine")
        ceilings = roof.measure(options.device, options.dtype, caches=not timing.on_gpu(options.device))
        run.result["roof"] = ceilings.as_dict()
        run.opening(f"measured roof: {ceilings}")
        if run.result["load"][0] > 0.5 and not options.cpu_time:
            run.console.print("other work runs on this machine: trust the ratios, not the times, or use --cpu-time "
                              "--threads 1")  # fmt: skip
        for op, dtype in itertools.product(chosen, options.dtype):
            rows: list[dict] = []
            for name in chosen[op]:
                say(f"{op} {name} ({next(done)} of {total})")
                compiled = options.compile == "all" or (options.compile == "some" and not rows)
                rows += (found := measure(op, name, dtype, options, ceilings, compiled=compiled))
                run.add(found)
            run.console.print(tables.of_op(rows), *tables.reasons(rows), sep="\n")
    run.console.print(tables.summary(run.result["rows"]))
    return run
