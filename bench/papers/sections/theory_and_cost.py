"""Lemma 1 checked step by step, and what a step costs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bench.papers import paper_numbers
from bench.papers.convergence import counterexample
from bench.papers.drawing import COLOURS, bars
from bench.papers.results import Results, Spread
from bench.papers.section import Figure, Finding, Section, Table

BATCH = 20  # of the counterexample


def lemma(results: Results) -> Section:
    rates = sorted(results.values("rate"))
    by_rate = {rate: results.of(rate=rate) for rate in rates}
    n = results.values("n")[0]
    rows = [
        [f"{rate:g} × bound", *_range(found, "rises", 0), *_range(found, "largest_rise", 3), *_range(found, "last", 3)]
        for rate, found in by_rate.items()
    ]
    at_bound, one = by_rate[rates[0]], counterexample(BATCH)
    first, steps = at_bound[0], sum(int(r["curve"][-1][0]) for r in at_bound)
    return Section(
        findings=[
            Finding("with α at most 2n/(Lσ²) the validation loss never rises (Lemma 1)",
                    f"{sum(r['rises'] for r in at_bound)} rises in {steps} steps of softmax regression at that α",
                    all(r["rises"] == 0 for r in at_bound)),
            Finding("that holds for any batch",
                    f"{BATCH} equal examples of loss log cosh θ (L = σ = 1), from θ = 1: at 2n/(Lσ²) it goes from "
                    f"{one['before']:.2f} to {one['lemma']:.2f}, at 2/(Lσ²) to {one['safe']:.3f}",
                    one["lemma"] <= one["before"]),
            Finding("the least |∇G|² so far is below C/√T for some C (Theorem 2)", _decay(first), None),
        ],
        blocks=[
            f"Softmax regression in float64 with 40 % wrong labels; L = {first['L']:g} and σ = {first['sigma']:g} "
            f"follow from the inputs, so that 2n/(Lσ²) = {first['bound']:.3g} at n = {n}. The bounds are of the worst "
            "case and loose here, which is why rises begin well above them.",
            "The lemma as printed does not hold. Its proof (Eq. 35) takes |Σ c_i ∇f_i|² for at most Σ c_i² |∇f_i|² by "
            "the triangle inequality; where the gradients of a batch are parallel, the left side is n times the right. "
            "With that factor the same proof gives 2/(Lσ²), n times smaller, and Theorem 2 stands with it.",
            Table("Steps at which G rose, the largest rise, and G at the end (from the least seed to the largest).",
                  ["α", "rises", "largest rise", "G at the end"], rows),
            Figure("lemma", "G over the steps (left) and the least |∇G|² so far (right), first seed.",
                   _descent({f"{rate:g}": found[0] for rate, found in by_rate.items()}), (8.4, 3.6)),
        ],
    )  # fmt: skip


def _range(found: list[dict], key: str, digits: int) -> list[str]:
    values = sorted(result[key] for result in found if result[key] is not None)
    if not values:
        return ["-"]
    low, high = (f"{value:.{digits}f}" if value < 1e4 else f"{value:.1e}" for value in (values[0], values[-1]))
    return [low if low == high else f"{low} to {high}"]


def _decay(result: dict) -> str:
    (early, _, _, first), (late, _, _, last) = result["curve"][1], result["curve"][-1]
    return (f"it falls by {first / last:.1f} from step {early:.0f} to {late:.0f}, 1/√T by {(late / early) ** 0.5:.1f}; "
            "C is not known")  # fmt: skip


def _descent(named: dict[str, dict]) -> Callable[[Any], None]:
    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        for index, (rate, result) in enumerate(named.items()):
            steps, loss, _, least = zip(*result["curve"], strict=True)
            for axes, values in ((left, loss), (right, least)):
                axes.plot(steps, values, color=f"C{index}", label=f"{rate} × bound")
                axes.set_yscale("log")
                axes.set_xlabel("steps")
        left.set_title("G, the validation loss")
        right.set_title("least |∇G|² so far")
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center")

    return draw


NAMES = {"Reweighter": "fastrw", "double_backward": "Algorithm 1 by double backward", "FSR": "FSR (fastrw)"}


def overhead(results: Results) -> Section:
    cases = [(model, n) for model in results.values("model") for n in results.values("n", model=model)]
    found = {case: results.of(model=case[0], n=case[1])[0]["rows"] for case in cases}
    ours = [rows["Reweighter"]["ratio"] for rows in found.values()]
    theirs = [rows["double_backward"]["ratio"] for rows in found.values()]
    rows = [
        [model, str(n), f"{1e3 * found[model, n]['plain']['seconds']:.1f}", *(
            f"{found[model, n][way]['ratio']:.2f}" for way in ("Reweighter", "double_backward"))]
        for model, n in cases
    ]  # fmt: skip
    return Section(
        findings=[
            Finding(f"training takes {paper_numbers.REIMPLEMENTATION_COST} times as long",
                    f"{min(theirs):.1f} to {max(theirs):.1f} times by double backward", sum(theirs) / len(theirs) > 2),
            Finding("open: how does the overhead scale with model and batch?",
                    f"with fastrw from {min(ours):.2f} to {max(ours):.2f} times a plain step", None),
        ],
        blocks=[
            Table("A whole reweighted step (10 clean examples) as a ratio to a plain one, by training batch n. Medians "
                  f"of interleaved rounds, in {results.trials[0][1]['result']['clock']}.",
                  ["network", "n", "plain, ms", "fastrw", "double backward"], rows),
            Figure("overhead", "Time of a reweighted step beside a plain one.",
                   _ratios(found, ("Reweighter", "double_backward")), (8.4, 3.8)),
        ],
    )  # fmt: skip


def fsr_cost(results: Results) -> Section:
    found = {(kept["model"], kept["n"]): trial["result"]["rows"] for kept, trial in results.trials}
    ways = ("Reweighter", "double_backward", "FSR")
    rows = [
        [f"{model}, n = {n}", NAMES[way], f"{each[way]['ratio']:.2f}", f"{each[way]['memory']:.2f}"]
        for (model, n), each in found.items()
        for way in ways
    ]
    fsr = [each["FSR"]["ratio"] for each in found.values()]
    l2r = [each["double_backward"]["ratio"] for each in found.values()]
    return Section(
        findings=[
            Finding(f"FSR takes {paper_numbers.FSR_COST['time']} times as long as plain training",
                    f"{min(fsr):.2f} to {max(fsr):.2f}", max(fsr) < 2),
            Finding(f"L2R by double backward takes {paper_numbers.L2R_COST['time']} times",
                    f"{min(l2r):.2f} to {max(l2r):.2f}", min(l2r) > 2),
        ],
        blocks=[
            Table("Time and peak memory of a step beside a plain one. L2R with as many clean examples as training "
                  "ones, FSR with the last layer and a reward batch twice the training batch (Table 4: 200 and 100).",
                  ["", "", "time", "memory"], rows),
            Figure("fsr-cost", "Time of a step beside a plain one (Fig. 4 left).", _ratios(found, ways)),
            f"The paper (section 5.4): FSR {paper_numbers.FSR_COST['time']} in time and "
            f"{paper_numbers.FSR_COST['memory']} in memory, L2R {paper_numbers.L2R_COST['time']} and "
            f"{paper_numbers.L2R_COST['memory']}.",
        ],
    )  # fmt: skip


def _ratios(found: dict[tuple[str, int], dict], ways: tuple[str, ...]) -> Callable[[Any], None]:
    """A group of bars for each network and batch."""
    labels = [f"{model}\nn = {n}" for model, n in found]
    colours = (COLOURS["l2r"], COLOURS["plain"], COLOURS["fsr"])
    series = {
        NAMES[way]: (colour, [Spread((rows[way]["ratio"],)) for rows in found.values()])
        for way, colour in zip(ways, colours, strict=False)
    }
    return bars(labels, series, "time ÷ plain step", scale=1)


SECTIONS = {"lemma": lemma, "overhead": overhead, "fsr-cost": fsr_cost}
