"""What ncu counts of single kernels: how it is called, and what is read from what it says."""

import csv
import sys
from collections.abc import Iterable, Sequence

SECTIONS = ("SpeedOfLight", "MemoryWorkloadAnalysis", "Occupancy", "LaunchStats")
Pick = tuple[str, str, str, str]  # op, variant, case, dtype
SEPARATOR = "spin_kernel"  # what samples launch first of each pick
LAUNCHES = 24  # that are profiled, of all calls together
WANTED = {  # metric and unit -> our name; a rate of memory has the name of a share of it
    ("Duration", None): "ns",
    ("Compute (SM) Throughput", "%"): "sm",
    ("DRAM Throughput", "%"): "dram",
    ("L2 Hit Rate", "%"): "l2_hit",
    ("Achieved Occupancy", "%"): "occupancy",
    ("Theoretical Occupancy", "%"): "occupancy_at_most",
    ("Registers Per Thread", None): "registers",
}
NANOSECONDS = {"ns": 1, "nsecond": 1, "us": 1e3, "usecond": 1e3, "ms": 1e6, "msecond": 1e6, "s": 1e9, "second": 1e9}


def command(ncu: Sequence[str], picks: Iterable[Pick], device: str) -> list[str]:
    """The words; the clocks stay as they are, and only what lies between the sample's marks is profiled."""
    words = [*ncu, "--clock-control", "none", "--profile-from-start", "off", "--csv", "--page", "details"]
    words += ["--apply-rules", "no"]
    words += ["--print-units", "base", "--target-processes", "application-only", "--launch-count", str(LAUNCHES)]
    words += [word for section in SECTIONS for word in ("--section", section)]
    words += [sys.executable, "-m", "bench.gpu.samples", "--device", device]
    return words + [word for pick in picks for word in ("--pick", *pick)]


def kernels(lines: Iterable[str], picks: Sequence[Pick]) -> list[dict]:
    """A dict for each launch, in order, of the lines of its CSV: all that begin with a quotation mark."""
    found: dict[str, dict] = {}
    pick = -1
    for row in csv.DictReader(line for line in lines if line.startswith('"')):
        if row["ID"] not in found:
            pick += SEPARATOR in row["Kernel Name"]
            found[row["ID"]] = {"pick": picks[max(pick, 0)], "kernel": row["Kernel Name"][:150], "ns": None}
        metric, unit, value = row["Metric Name"], row["Metric Unit"], (row["Metric Value"] or "").replace(",", "")
        name = WANTED.get((metric, unit)) or WANTED.get((metric, None))
        if name is None:
            continue
        try:
            found[row["ID"]][name] = float(value) * (NANOSECONDS[unit] if name == "ns" else 1)
        except (ValueError, KeyError):  # "n/a"
            found[row["ID"]][name] = None
    return [launch for launch in found.values() if SEPARATOR not in launch["kernel"]]


def refusal(lines: Iterable[str]) -> str | None:
    """What ncu says where it may not or cannot count."""
    return next((line.strip("= ") for line in lines if line.startswith("==ERROR==")), None)
