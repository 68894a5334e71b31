"""The columns of the demo's table: their headings, how their numbers are shown, and what the help says about them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    name: str  # in the help and the caption
    heading: str
    meaning: str
    factor: float = 1
    digits: int = 2


ACCURACY = Column(
    "accuracy", "accuracy\n%", "test images classified correctly, mean ± standard deviation over the seeds", 100, 1
)
AUC = Column(
    "AUC", "AUC", "the chance that a correctly labelled training example has more weight than a flipped one (1: all "
    "found, 0.5: guessing), by its mean weight over the second half of the steps",
)  # fmt: skip
TO_PLAIN = Column(
    "step / plain", "step ÷\nplain",
    "median time of a whole training step as a ratio to plain training's, taken in turns in one process",
)  # fmt: skip
# by key in results and rows
COLUMNS = {
    "use_of_clean": Column(
        "clean set", "clean set", "what the method does with the few examples whose labels are known to be right: all "
        'methods but "clean only" train on them together with the spoilt ones; fastrw also weighs by them'),
    "accuracy": ACCURACY,
    "balanced_accuracy": Column(
        "balanced", "balanced\n%", "the mean of the classes' accuracies, shown where it differs by a point or more",
        100, 1),
    "auc": AUC,
    "step_to_plain": TO_PLAIN,
    "step_to_algorithm_1": Column(
        "step / Alg. 1", "step ÷\nAlg. 1", "the same, to the paper's Algorithm 1 by double backward, which finds the "
        "same weights"),
}  # fmt: skip
FSR_COLUMNS = {
    "accuracy": ACCURACY,
    "best": Column(
        "best", "best\n%", "the highest accuracy on the way, which only a clean test set can tell", 100, 1),
    "purity": Column(
        "purity", "purity\n%", "share of correctly labelled examples in the dictionary that stands in for a clean set, "
        "at the end", 100, 1),
    "auc": AUC,
    "zero_share": Column("weights of 0", "weights\nof 0, %", "their share in the last epoch", 100, 0),
    "step_to_plain": TO_PLAIN,
}  # fmt: skip
