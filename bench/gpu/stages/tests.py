"""The tests of the ops, of captured steps and of Reweighter that need a GPU, in 12 processes, a row a test."""

from bench.gpu import report
from bench.gpu.stage import Stage

LIMIT = 55
FILES = ("tests/test_op_gpu.py", "tests/test_grouped_gram_dot_gpu.py", "tests/test_capture.py",
         "tests/test_reweighter_gpu.py")  # fmt: skip
summary = report.summary


def run(stage: Stage) -> None:
    """In a rehearsal those tests skip for want of a GPU; the captured steps run on their stand-in."""
    if stage.tiny:
        report.pytest(stage, FILES, 1, "-k", "replayed or repeated or (self_test and combine)")
    else:
        report.pytest(stage, FILES, 12, "-m", "gpu")
