"""Everything that needs a GPU, in ten minutes, most telling first: what is measured is on the disk at once.

command.py   the options, and the run: stages in order, each with its share of the time that is left
process.py   a stage as a process group that ends at its limit, or with the run
stage.py     what a stage is given: its rows, its time, its device
pool.py      items over worker processes, where one that dies is a row
summary.py   the rows so far, as tables in markdown; picture.py the whole steps, drawn
replays.py   device time of a call, by a replayed graph of launches; host time apart
roofs.py     the roofs that figures are held to
samples.py   ops called one by one without pytest, for compute-sanitizer and ncu
counters.py  what ncu counts of a kernel
stand_ins.py what takes a GPU's place in a rehearsal (--device cpu --tiny); stub.py: a tool's
stages/      one file a stage: what it measures, and how that is told
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    from bench.gpu.command import main

    return main(argv)
