"""`python -m fastrw demo`: example weights at work on real images with wrong labels and rare classes."""

import argparse
import json
import shlex
import textwrap
from dataclasses import asdict, fields
from pathlib import Path

from fastrw.demo.columns import COLUMNS, FSR_COLUMNS, Columns, meanings
from fastrw.demo.settings import FSR_DEFAULTS, DemoError, Settings

DESCRIPTION = """\
Spoils a real training set (flipped labels, imbalanced classes), trains on it in several ways, and shows what the
weights of fastrw do: test accuracy, how well the weights find the flipped labels, and what a step costs."""

EPILOG = """\
examples:
  python -m fastrw demo                                handwritten digits that come with scikit-learn; no download
  python -m fastrw demo --data mnist.npz               any npz with x_train, y_train, x_test, y_test
  python -m fastrw demo --data data/                   IDX files (plain or .gz), or a torchvision download (MNIST/raw)
  python -m fastrw demo --data cifar-10-batches-py/    CIFAR's python batches
  python -m fastrw demo --flip 0.2 --imbalance 20      fewer wrong labels, rarer classes
  python -m fastrw demo --fsr                          no clean set at all: FSR learns which examples to trust
  python -m fastrw demo --steps 3000 --save run.pt     saved as it goes; Ctrl-C stops it
  python -m fastrw demo --resume run.pt                resumes exactly where it stopped

the columns:
{columns}

with --fsr, also:
{fsr_columns}
MixUp blends each example with another one; "all of it" also averages the model's predictions as second labels.

Images below 16x16 are learnt by a small net, grey ones by LeNet, colour ones by three convolutions with GroupNorm.
Classes are thinned first (their shares fall geometrically from 1 to 1/imbalance, in a random order), then labels are
flipped, each to any other class. The clean examples come out of the training set, never out of the test set. Points of
the accuracy curve before the last are of at most 2000 test images.

What to expect: weights help where training would learn the wrong labels by heart. On the digits that takes a few passes
over the images. On a large set a few hundred steps are one or two passes, and plain training does as well or better
(MNIST, seed 1, plain and fastrw: 96.2 and 93.3 % after 600 steps, 95.9 and 96.4 % after 4000): give it more --steps."""

QUICK = {"steps": 12, "seeds": 1}
SAVE_EVERY = 200  # steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m fastrw demo`. Settings not given are None here: --resume must know which were."""
    own = {key: column for key, column in FSR_COLUMNS.items() if key not in COLUMNS}
    parser.description = DESCRIPTION
    parser.epilog = EPILOG.format(columns=_explained(COLUMNS), fsr_columns=_explained(own))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    default = Settings()
    setting = parser.add_argument_group("what to run")
    setting.add_argument("--data", metavar="PATH", help="images, a file or a folder (default: scikit-learn's digits)")
    for name, kind, text in (
        ("seeds", int, "how many seeds"),
        ("seed", int, "the first seed"),
        ("steps", int, "training steps of each method and seed"),
        ("batch-size", int, "n, examples in a batch; also the most clean examples in a validation batch"),
        ("flip", float, "share of the labels that are flipped, in [0, 1)"),
        ("imbalance", float, "how many times more of its images the fullest class keeps than the rarest, from 1 up"),
        ("clean-per-class", int, "clean examples of each class"),
    ):
        value = getattr(default, name.replace("-", "_"))
        metavar = "N" if kind is int else "X"
        setting.add_argument(f"--{name}", type=kind, metavar=metavar, help=f"{text} (default: {value})")
    setting.add_argument("--fsr", action="store_true", default=None, help="learn the weights without a clean set "
                         "(Zhang & Pfister 2021); defaults: " + _words(FSR_DEFAULTS))  # fmt: skip
    setting.add_argument("--quick", action="store_true", help=f"a test run: {_words(QUICK)}; its numbers mean nothing")
    output = parser.add_argument_group("where results and state go")
    output.add_argument("--out", type=Path, metavar="DIR", default=Path("demo_output"),
                        help="folder for weights.png (with --fsr: dictionary.png), accuracy.png and result.json "
                        "(default: demo_output)")  # fmt: skip
    output.add_argument("--json", action="store_true", help="print result.json instead of the table")
    output.add_argument("--save", type=Path, metavar="FILE", help="save the state here as it goes and at "
                        "Ctrl-C (without it: at Ctrl-C only, to DIR/interrupted.pt)")  # fmt: skip
    output.add_argument("--resume", type=Path, metavar="FILE",
                        help="resume a saved state, with its settings; saves to the same FILE")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """0 when done, 2 at a user's mistake, 130 when stopped by Ctrl-C."""
    import torch
    from rich.console import Console

    from fastrw.demo.session import Session

    progress = Console(stderr=True)
    given = {field.name: getattr(args, field.name) for field in fields(Settings)}
    given = (QUICK if args.quick else {}) | {name: value for name, value in given.items() if value is not None}
    try:
        if args.resume:
            session = Session.resume(args.resume)
            _refuse_other_settings(given, session.settings)
        else:
            session = Session(Settings(**(FSR_DEFAULTS if args.fsr else {}) | given))
        if max(session.images.x.shape[1:3]) < 16:
            torch.set_num_threads(1)  # tensors this small: a second thread costs more than it gives
        args.out.mkdir(parents=True, exist_ok=True)
        file = args.save or args.resume
        if not (_train(session, file, progress) and _report(session, args, progress)):
            session.save(file := file or args.out / "interrupted.pt")
            command = f"python -m fastrw demo --resume {shlex.quote(str(file))} --out {shlex.quote(str(args.out))}"
            progress.print(f"Stopped and saved. To resume: {command}", soft_wrap=True)
            return 130
    except (DemoError, OSError) as error:
        progress.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 2
    return 0


def _explained(columns: Columns) -> str:
    return "\n".join(textwrap.fill(meaning, 119, initial_indent=f"  {heading:<21}", subsequent_indent=" " * 23)
                     for heading, meaning in meanings(columns).items())  # fmt: skip


def _words(settings: dict) -> str:
    return ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())


def _refuse_other_settings(given: dict, settings: Settings) -> None:
    saved = asdict(settings)
    other = [f"{name} = {value} (saved: {saved[name]})" for name, value in given.items() if value != saved[name]]
    if other:
        raise DemoError(f"fastrw.demo: --resume takes its settings from the file, got {', '.join(other)}")


def _train(session, file: Path | None, console) -> bool:
    """Runs the session under progress bars, saving to `file`. False if Ctrl-C stopped it (between two steps)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fastrw.demo.resume import ctrl_c

    settings = session.settings
    columns = (TextColumn("{task.description:<17}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.fields[state]}"))  # fmt: skip
    if file:
        session.save(file)  # an unwritable place is better known now
    with ctrl_c() as stopped, Progress(*columns, console=console) as progress:
        bars = {name: progress.add_task(name, total=settings.steps * settings.seeds, state="")
                for name in session.methods}  # fmt: skip
        for result in session.results:
            progress.advance(bars[result["method"]], settings.steps)
        if session.run:
            progress.advance(bars[session.run.name], session.run.steps)
        for taken, run in enumerate(session.advance(), 1):
            state = f"seed {run.seed}" + (f", test accuracy {run.curve[-1][1]:.1%}" if run.curve else "")
            progress.update(bars[run.name], advance=1, state=state)
            if stopped():
                return False
            if file and taken % SAVE_EVERY == 0:
                session.save(file)
    if file:
        session.save(file)
    return True


def _report(session, args: argparse.Namespace, console) -> bool:
    """Times the steps, writes the files, prints the table. False if Ctrl-C stopped the timing."""
    from rich.console import Console

    from fastrw.demo import plots, report
    from fastrw.demo.noise import make_task
    from fastrw.demo.resume import replacing
    from fastrw.demo.timing import step_times

    settings, images, results = session.settings, session.images, session.results
    limit = {"rounds": 3} if args.quick else {}
    try:
        with console.status("timing the steps of all methods in turns"):
            times = step_times(make_task(images, settings, settings.seed), settings, **limit)
    except KeyboardInterrupt:
        return False
    rows = report.summary(settings, results, times)
    document = json.dumps(report.document(images, settings, results, rows), indent=1)
    with replacing(args.out / "result.json") as temporary:
        temporary.write_text(document + "\n")
    files = [*plots.save_all(results, args.out, settings), args.out / "result.json"]
    output = Console()
    if args.json:
        output.out(document, highlight=False)
    else:
        output.print(report.table(images, settings, rows))
        output.print("written: " + ", ".join(map(str, files)), soft_wrap=True, highlight=False)
    return True
