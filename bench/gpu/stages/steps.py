"""Whole steps of six models, eager, captured and compiled, under torch's defaults and bfloat16 autocast."""

from __future__ import annotations

import copy
import gc
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

import fastrw
from bench import exactness, timing
from bench import steps as known
from bench.goals import ON_GPU, missed
from bench.gpu import pool, stand_ins
from bench.gpu.stage import Stage
from bench.gpu.summary import number, table
from bench.gpu.variants import FORMS, Run, autocast, on_model, prepare
from bench.models import Model
from bench.steps import Step
from fastrw.ops.tolerance import relative_error

LIMIT = 210
EAGER_SHARE = 0.65  # of the time: for all but what is compiled as a whole
MODELS = ("resnet32_gn", "resnet32_bn", "wrn28_10", "vit_s", "gpt2_small", "transformer")
IN_BFLOAT16 = ("wrn28_10", "vit_s", "gpt2_small")  # as people train them: that setting comes first
ORDER = [(name, "bf16" if (name in IN_BFLOAT16) is first else "defaults") for first in (True, False) for name in MODELS]
TRAINED = ORDER[: len(MODELS)]
# variants that are timed in turns with the plain step; what has to be compiled may take longer than all others
GROUPS = (
    ("plain", "Reweighter", "plain captured", "capture", "update=backward", "params=last"),
    ("plain compiled",),
)
# the same for what is compiled as a whole, on TRAINED: with Inductor's code, which fastrw's ops are nodes
# of; as CUDA graphs; and with Inductor's code in the place of the ops that it might fuse
COMPILED = (
    ("plain", "Reweighter", "plain compiled", "compiled"),
    ("plain replays", "compiled replays"),
    ("compiled, ops fused",),
)
ROUNDS = 15
NO_ERRORS = {"scores_error": None, "gradient_error": None}
PLAIN = tuple(name for name in FORMS if name.startswith("plain"))
NOT_COMPILED = ("Reweighter", "capture")
WHOLE = (*NOT_COMPILED, "compiled", "compiled replays")  # what the goal of a whole step is taken on
FUSED = "compiled, ops fused"

Errors = Callable[[str, Run, nn.Module], dict]  # of a variant


def run(stage: Stage) -> None:
    items, first = ORDER[1::3][:2] if stage.tiny else ORDER, time.time() + EAGER_SHARE * stage.left
    pool.over(replace(stage, ends=first), measure, items, 1, shares=3)
    pool.over(stage, measure_compiled, TRAINED[-1 if stage.tiny else 0 :], 1, shares=3)


def measure(stage: Stage, name: str, setting: str) -> None:
    """Each variant of a model is checked, its memory taken, and then all take turns."""
    about, case = {"model": name, "setting": setting}, stand_ins.models(stage.tiny)[name]
    errors: Errors = no_errors
    try:
        errors = Truths(stage, case, setting, about).errors
    except Exception:
        stage.failure("failure", item=[name, setting, "algorithm 1"], **about)
    in_groups(stage, case, GROUPS, errors, about)


def measure_compiled(stage: Stage, name: str, setting: str) -> None:
    """The same for what is compiled as a whole, beside the eager step, which it is compared with on the whole batch:
    the batches on which `measure` compares would have to be compiled, too."""
    about, case = {"model": name, "setting": setting}, stand_ins.models(stage.tiny)[name]
    in_groups(stage, case, COMPILED, Beside().errors, about)


def in_groups(stage: Stage, case: Model, groups: Sequence[Sequence[str]], errors: Errors, about: dict) -> None:
    gc.collect()  # the graphs of the model before
    torch.cuda.empty_cache()
    runs: dict[str, Run] = {}
    for group in groups:
        for variant in group:
            if stage.left < 1:
                return
            try:
                runs[variant] = prepared(stage, case, variant, errors, about)
            except fastrw.Refused as refusal:
                stage.row("refused", **about, variant=variant, why=str(refusal))
            except Exception:
                stage.failure("failure", item=[about["model"], about["setting"], variant], **about)
        if "plain" in runs:
            take_turns(stage, {v: run for v, run in runs.items() if v in ("plain", *group)}, about)


def prepared(stage: Stage, case: Model, variant: str, errors: Errors, about: dict) -> Run:
    """The step, after its first calls; a row tells what they took, how exact it is, its memory and where it waits."""
    start = time.perf_counter()
    run, model = on_model(case, about["setting"], variant, stage)
    for _ in range(3):  # the second step still plans, the third compiles nothing
        out = run()
        timing.wait(stage.device)
    cold = time.perf_counter() - start
    peak = timing.peak_memory(run, stage.device)
    waits = synchronisations(run, stage.device)
    done = out.compilation if isinstance(out, fastrw.Step) else None
    stage.row("prepared", **about, variant=variant, cold=cold, peak_bytes=peak, waits=len(waits), where=waits[:5],
              compilation=done and {**asdict(done), "recompilations": done.recompilations},
              **errors(variant, run, model))  # fmt: skip
    return run


def take_turns(stage: Stage, runs: dict[str, Run], about: dict) -> None:
    """A row a round: seconds of each step by the device's clock, and of the Python call alone."""
    until = time.time() + stage.left / 3
    for turn in range(2 if stage.tiny else ROUNDS):
        if turn > 1 and time.time() > until:
            return
        names = list(runs)[turn % len(runs) :] + list(runs)[: turn % len(runs)]
        seconds = {name: timing.sample(runs[name], stage.device) for name in names}
        stage.row("round", **about, seconds=seconds, host={name: host(runs[name], stage.device) for name in names})


def host(run: Run, device: str) -> float:
    """Seconds until Python is back, with a queue that was empty."""
    timing.wait(device)
    start = time.perf_counter()
    run()
    taken = time.perf_counter() - start
    timing.wait(device)
    return taken


class Truths:
    """Algorithm 1 in float64 on few examples of a model, and how far a variant is from it there."""

    def __init__(self, stage: Stage, case: Model, setting: str, about: dict):
        self._case, self._stage = case, stage
        self._cast = autocast(setting, stage.device)
        model, *batches = case.make(stage.device)
        self._here = (model, *case.small(*batches))
        self._double = copy.deepcopy(model).double(), *map(exactness.double, self._here[1:])
        self._found: dict[Step, tuple] = {}
        stage.row("algorithm 1", **about, **self._errors(known.double_backward, known.double_backward))

    def errors(self, variant: str, _run: Run, _model: nn.Module) -> dict:
        """Relative, of the scores and of the gradient; None for a plain step in another form: the same formula."""
        if variant in PLAIN[1:]:
            return NO_ERRORS
        return self._errors(
            known.STEPS[variant],
            known.plain if variant == "plain" else known.EXPECTED.get(variant, known.double_backward),
        )

    def _errors(self, step: Step, expected: Step) -> dict:
        if expected not in self._found:
            self._found[expected] = exactness.run(expected, *self._double)[:2]
        with self._cast:
            found = exactness.run(step, *self._here)[:2]
        errors = (relative_error(x, truth) for x, truth in zip(found, self._found[expected], strict=True))
        return dict(zip(NO_ERRORS, errors, strict=True))


class Beside:
    """The results of the eager step, and how far from them a compiled one is."""

    def __init__(self) -> None:
        self._found: tuple[Tensor, Tensor] | None = None

    def errors(self, variant: str, run: Run, model: nn.Module) -> dict:
        out = run()
        if not isinstance(out, fastrw.Step) or out.scores is None:
            return NO_ERRORS
        found = out.scores.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        if variant == "Reweighter":
            self._found = found
        if self._found is None or variant == "Reweighter":
            return NO_ERRORS
        errors = (relative_error(x, truth) for x, truth in zip(found, self._found, strict=True))
        return dict(zip(NO_ERRORS, errors, strict=True))


def no_errors(_variant: str, _run: Run, _model: nn.Module) -> dict:
    return NO_ERRORS


# Triton's kernels and Inductor's; neighbours are different models: they are in the GPU's memory at the same time
TO_COMPILE = [(*step, variant) for variant in ("Reweighter", "plain compiled") for step in ORDER]
TO_COMPILE_WHOLE = [(*step, variant) for variant in ("compiled", FUSED, "compiled replays") for step in TRAINED]


def warm(stage: Stage, name: str, setting: str, variant: str) -> None:
    """Run a step once, so that the process that times it finds its kernels compiled, in the caches on the disk."""
    start = time.perf_counter()
    prepare(stand_ins.models(stage.tiny)[name], setting, variant, stage)()
    timing.wait(stage.device)
    stage.row("compiled", model=name, setting=setting, variant=variant, seconds=time.perf_counter() - start)


def synchronisations(run: Run, device: str) -> list[str]:
    """Where one step waits for the GPU, as torch sees it."""
    if device == "cpu":
        return []
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]


def results(rows: list[dict]) -> list[dict]:
    """A step each: model, setting, variant, ms, host_ms, ratio to the plain step of the same rounds, and what its row
    of "prepared" tells. Rounds of a run that was cut off count as they are."""
    found = []
    told: dict[tuple, dict] = {}
    for row in rows:
        if row["kind"] == "prepared":  # plain steps twice: the first is the one that was checked
            told.setdefault((row["model"], row["setting"], row["variant"]), row)
    for (model, setting, variant), row in told.items():
        rounds = [r for r in rows if r["kind"] == "round" and (r["model"], r["setting"]) == (model, setting)]
        rounds = [r for r in rounds if variant in r["seconds"]]
        if rounds:
            ratio = statistics.median(r["seconds"][variant] / r["seconds"]["plain"] for r in rounds)
            ms, host_ms = (1e3 * statistics.median(r[of][variant] for r in rounds) for of in ("seconds", "host"))
            found.append({**row, "kind": "step", "ms": ms, "host_ms": host_ms, "ratio": ratio, "rounds": len(rounds)})
    return found


def compiling(steps: dict[tuple, dict]) -> list[str]:
    """What compiling whole steps took, and after how many steps they have paid for it; what runs eagerly, and why."""
    lines, more = [], []
    for (model, setting, variant), row in steps.items():
        done = row.get("compilation")
        if done and not done["used"]:
            more.append(f"- not compiled: {model} {setting} {variant}: {done['why'][:160]}")
        elif done:
            eager, plain = steps.get((model, setting, "Reweighter")), steps.get((model, setting, "plain compiled"))
            saved = (eager["ms"] - row["ms"]) / 1e3 if eager else None
            back = "" if saved is None else f"{done['seconds'] / saved:.0f}" if saved > 0 else "never"
            lines.append((model, setting, variant, number(done["seconds"], ".0f"), back, done["recompilations"],
                          number(row["ms"] / plain["ms"] if plain else None), number(row["host_ms"]), row["waits"],
                          number(row["scores_error"], ".0e"), number(row["gradient_error"], ".0e")))  # fmt: skip
    heads = ("model", "setting", "variant", "s to compile, or to load", "steps that pay for it", "recompilations",
             "÷ plain compiled", "host ms", "waits", "err s to eager", "err g")  # fmt: skip
    return [*table(heads, lines), *more]


def judged(ratio: float | None, goal: float | None) -> str:
    told = number(ratio) + (f" ({goal:g})" if goal else "")
    return f"**{told}**" if missed(ratio, goal) else told


def summary(rows: list[dict]) -> list[str]:
    """Ratios to the plain step, and the one that the goals speak of: the better of ours to the best plain one."""
    steps = {(row["model"], row["setting"], row["variant"]): row for row in results(rows)}
    lines, more = [], []
    for model, setting in dict.fromkeys(key[:2] for key in steps):
        here = {variant: steps.get((model, setting, variant)) for variant in FORMS}
        if here["plain"] is None:
            continue
        ratios = {variant: row and row["ratio"] for variant, row in here.items()}
        best = [min((ratios[v] for v in of if ratios[v]), default=None) for of in (WHOLE, PLAIN)]
        found = best[0] / best[1] if all(best) else None
        lines.append(
            (
                model,
                setting,
                number(here["plain"]["ms"]),
                *map(number, list(ratios.values())[1:]),
                judged(found, ON_GPU.get(model)),
            )
        )
        ours = [here[variant] for variant in FORMS if variant not in PLAIN and here[variant]]
        more += [(model, setting, row["variant"], number(row["host_ms"]), row["waits"],
                  number(row["peak_bytes"] / max(here["plain"]["peak_bytes"], 1)),
                  number(row["scores_error"], ".0e"), number(row["gradient_error"], ".0e"))
                 for row in ours if row["variant"] in ("Reweighter", "update=backward")]  # fmt: skip
    told = table(
        ("model", "setting", "plain ms", *(f"{v} ÷" for v in list(FORMS)[1:]), "ours ÷ best plain (goal)"), lines
    )
    told += ["", *table(("model", "setting", "variant", "host ms", "waits", "memory ÷", "err s", "err g"), more)]
    told += ["", *compiling(steps)]
    refused = [row for row in rows if row["kind"] == "refused"]
    told += [f"- refused: {row['model']} {row['setting']} {row['variant']}: {row['why'][:160]}" for row in refused[:4]]
    return told
