"""python -m bench.papers: three papers' experiments on example weights, run again and compared with the papers."""

from __future__ import annotations

import argparse
import json
import os
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bench import record
from bench.papers import sources
from bench.papers.experiments import EXPERIMENTS, SCALES, Experiment
from bench.papers.quick import quick
from bench.papers.sources import PapersError
from bench.papers.trial import Stopped, Store, Trial
from fastrw.demo.resume import ctrl_c

OUT = Path("papers_output")
HERE = Path(__file__).resolve().parent
EPILOG = """\
examples:
  python -m bench.papers list                            every experiment, its trials and what it shows
  python -m bench.papers run --data images/              all of them, at the scale of two cores: about an hour
  python -m bench.papers run "l2r-*" --data images/      some; a name or a pattern
  python -m bench.papers run l2r-imbalance               without --data: scikit-learn's digits, to test the machinery
  python -m bench.papers run --scale paper --device cuda --data images/ --download
  python -m bench.papers report                          RESULTS.md, its plots and one HTML page, from the kept results

the images: --data names a folder that holds mnist*.npz, cifar10*.npz, cifar100*.npz, ham10000*.npz (arrays x_train,
y_train, x_test, y_test; or JPEG), IDX files or CIFAR's python batches, also in the folders that torchvision makes. No
image is part of this project.

Every trial is stored under a key of its settings, so that a stopped run (Ctrl-C) resumes where it was, and experiments
share the trials that they have in common. --scale cpu is smaller in models, steps and data, as `list` and the report
say; --scale paper is the paper's setting."""


def main(argv: list[str] | None = None) -> int:
    """0 when done, 2 at a user's mistake, 130 when stopped by Ctrl-C."""
    options = parser().parse_args(argv)
    console = record.console()
    try:
        return options.do(options, console)
    except (PapersError, OSError) as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 2


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(
        prog="python -m bench.papers",
        description=__doc__.partition(": ")[2].capitalize(),
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("names", nargs="*", metavar="NAME", default=["*"],
                       help="experiments, by name or pattern (default: all)")  # fmt: skip
    which.add_argument("--scale", choices=SCALES, default="cpu",
                       help="cpu: minutes to an hour on two cores (default); paper: a GPU")  # fmt: skip
    each = words.add_subparsers(required=True, metavar="list | run | report")

    listing = each.add_parser("list", parents=[which], help="the experiments, their trials and what they show")
    listing.set_defaults(do=show_list)
    listing.add_argument("--json", action="store_true", help="every trial's settings, for programs")

    running = each.add_parser("run", parents=[which], help="run experiments, or resume them")
    running.set_defaults(do=run)
    running.add_argument("--data", metavar="DIR", help="folder (or file) of images; default: scikit-learn's digits")
    running.add_argument("--download", action="store_true", help="let torchvision fetch what --data lacks")
    running.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"results and state (default: {OUT})")
    running.add_argument("--device", default=record.device(), help="cpu or cuda")
    running.add_argument("--threads", type=int, default=torch.get_num_threads())
    running.add_argument("--quick", action="store_true", help="a few steps of each trial; its numbers mean nothing")
    running.add_argument("--seeds", type=int, metavar="N", help="only the first N seeds of every experiment")

    telling = each.add_parser("report", help="Markdown, plots and one HTML page from kept results")
    telling.set_defaults(do=report)
    telling.add_argument("--results", type=Path, default=HERE / "results", metavar="DIR",
                         help="DIR/EXPERIMENT.json, as `run` wrote them (default: those kept here)")  # fmt: skip
    telling.add_argument("--markdown", type=Path, default=HERE / "RESULTS.md", metavar="FILE")
    telling.add_argument("--html", type=Path, default=OUT / "report.html", metavar="FILE")
    return words


def chosen(patterns: list[str]) -> list[Experiment]:
    """The experiments that match a pattern, in the order of the patterns."""
    found: dict[str, Experiment] = {}
    for pattern in patterns:
        if not (names := [name for name in EXPERIMENTS if fnmatchcase(name, pattern)]):
            known = ", ".join(EXPERIMENTS)
            raise PapersError(f"fastrw.papers: NAME must be an experiment of {known}, got {pattern}")
        found |= {name: EXPERIMENTS[name] for name in names}
    return [*found.values()]


def show_list(options: argparse.Namespace, console: Console) -> int:
    experiments = chosen(options.names)
    if options.json:
        found = {each.name: [trial.settings for trial in each.trials(options.scale)] for each in experiments}
        console.out(json.dumps(found, indent=1), highlight=False)
        return 0
    table = Table(box=box.SIMPLE_HEAD, title=f"--scale {options.scale}", title_justify="left")
    for column in ("name", "what it shows", "where", "images", "trials"):
        table.add_column(column, justify="right" if column == "trials" else "left", overflow="fold")
    for each in experiments:
        count = str(len(each.trials(options.scale)))
        table.add_row(each.name, each.title, f"{each.paper}, {each.shows}", each.data or "-", count)
    console.print(table)
    differs: dict[str, list[str]] = {}
    for each in experiments:
        differs.setdefault(each.differs.get(options.scale, ""), []).append(each.name)
    differs.pop("", None)
    for text, names in differs.items():
        console.print(f"[bold]{', '.join(names)}[/bold] differs from the paper: {text}\n", highlight=False)
    return 0


def run(options: argparse.Namespace, console: Console) -> int:
    experiments = chosen(options.names)
    for name in ("threads", "seeds"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise PapersError(f"fastrw.papers: --{name} must be at least 1, got {value}")
    torch.set_num_threads(options.threads)
    header = record.header(options.device) | {"command": command(options)}
    store = Store(options.out)
    plan = [(each, wanted(each, options)) for each in experiments]
    look = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    screen = console if console.is_terminal else Console(stderr=True)
    try:
        with Progress(*look, console=screen) as progress, ctrl_c() as stopped:
            everything = progress.add_task("all trials", total=sum(len(trials) for _, trials in plan))
            one = progress.add_task("")

            def advance(done: int, total: int) -> None:
                progress.update(one, completed=done, total=total)

            for experiment, trials in plan:
                kept = []
                for trial in trials:
                    images = sources.images(trial.data, options.data, options.download) if trial.data else None
                    words = (experiment.name, getattr(trial, "method", ""), trial.seed)
                    progress.reset(one, description=" ".join(map(str, words)))
                    kept.append(store.run(trial, images, device=options.device, on_step=advance, stopped=stopped))
                    progress.advance(everything)
                write(options.out / f"{experiment.name}.json", experiment, options.scale, header, kept)
    except Stopped:
        console.print("stopped and saved: the same command goes on from here", soft_wrap=True)
        return 130
    done = f"written: {options.out}{os.sep}EXPERIMENT.json"
    console.print(f"{done}; python -m bench.papers report --results {options.out}")
    return 0


def wanted(experiment: Experiment, options: argparse.Namespace) -> list[Trial]:
    trials = [t for t in experiment.trials(options.scale) if options.seeds is None or t.seed < options.seeds]
    return list(dict.fromkeys(map(quick, trials))) if options.quick else trials


def command(options: argparse.Namespace) -> str:
    """As one would type it, without the user's own paths."""
    words = ["python -m bench.papers run", *(name for name in options.names if name != "*"), f"--scale {options.scale}"]
    words += ["--data DIR"] if options.data else []
    words += [f"--device {options.device}", f"--threads {options.threads}"]
    words += [f"--seeds {options.seeds}"] if options.seeds else []
    return " ".join(words + ["--quick"] * options.quick)


def write(file: Path, experiment: Experiment, scale: str, header: dict, kept: list[dict]) -> None:
    """One file an experiment, a line a trial: small enough to keep."""
    head = {"experiment": experiment.name, "scale": scale, **header}
    lines = ",\n".join(json.dumps(compact(each), separators=(",", ":")) for each in kept)
    text = json.dumps(head, indent=1)[:-2] + ',\n "trials": [\n' + lines + "\n ]\n}\n"
    record.write_whole(file, text.encode())


def compact(kept: dict) -> dict:
    """Without what the report does not read: counts of models other than the last, weights beyond their AUC."""
    result = {name: value for name, value in kept["result"].items() if name != "weights"}
    for name in ("stopped", "fine_tuned", "stopped_fine_tuned"):
        if name in result:
            result[name] = {key: value for key, value in result[name].items() if key != "confusion"}
    return {**{key: kept[key] for key in ("trial", "images", "device", "seconds")}, "result": result}


def report(options: argparse.Namespace, console: Console) -> int:
    from bench.papers.report import write_report

    for file in write_report(options.results, options.markdown, options.html):
        console.print(f"written: {file}", soft_wrap=True, highlight=False)
    return 0
