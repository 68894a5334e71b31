"""Two results of the ops, old and new: which variant of which case got faster or slower, beyond the noise of both.

What is compared is the ratio to eager of the same run, so that a slower machine, or a busier one, changes little. A
change is beyond the noise where the quartiles of the two ratios do not overlap. Ops and cases that only one of the two
results has are counted, no more."""

import argparse
import json
from pathlib import Path

from rich.console import Console
from rich.text import Text

from bench.tables import number, table

KEY = ("op", "case", "dtype", "way")


def load(parser: argparse.ArgumentParser, path: str) -> dict:
    """A result of the ops. Ends with a usage error where the file is none."""
    try:
        result = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        parser.error(f"--compare must name a file that --json wrote, got {path}: {error}")
    if not isinstance(result, dict) or result.get("bench") != "ops":
        parser.error(f"--compare must name a result of the ops, got {path}")
    return result


def changes(old: dict, new: dict) -> list[dict]:
    """Variants that have a ratio to eager in both, largest slowdown first; `change` is new over old."""
    before, after = _ratios(old), _ratios(new)
    found = []
    for key in before.keys() & after.keys():
        was, now = before[key], after[key]
        noise = not (now["quartiles"][0] > was["quartiles"][1] or now["quartiles"][1] < was["quartiles"][0])
        row = {**dict(zip(KEY, key, strict=True)), "old": was["median"], "new": now["median"]}
        found.append({**row, "change": now["median"] / was["median"], "noise": noise})
    return sorted(found, key=lambda row: row["change"], reverse=True)


def _ratios(result: dict) -> dict[tuple, dict]:
    rows = (row for row in result["rows"] if row["to_eager"] and not row["way"].startswith("eager"))
    return {tuple(row[part] for part in KEY): row["to_eager"] for row in rows}


def show(old: dict, new: dict, console: Console) -> None:
    """Print what changed, and what else differs between the two runs."""
    for name in ("machine", "versions"):
        was, now = old[name], new[name]
        differs = [f"{k} {was.get(k)} → {now.get(k)}" for k in sorted({*was, *now}) if was.get(k) != now.get(k)]
        if differs:
            console.print(f"{name} differs: {', '.join(differs)}", style="yellow", highlight=False)
    every = changes(old, new)
    lines = [
        {
            **{"variant" if part == "way" else part: row[part] for part in KEY},
            **{">old": number(row["old"]), ">new": number(row["new"]), ">new ÷ old": number(row["change"])},
            ">": Text("slower", "yellow") if row["change"] > 1 else Text("faster", "green"),
        }
        for row in every
        if not row["noise"]
    ]
    if lines:
        console.print(table(f"ratio to eager, {old['date']} → {new['date']}", lines))
    before, after = _ratios(old).keys(), _ratios(new).keys()
    console.print(
        f"{len(lines)} changed beyond the noise, {len(every) - len(lines)} did not; "
        f"{len(after - before)} only in the new result, {len(before - after)} only in the old one",
        highlight=False,
    )
