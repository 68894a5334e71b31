"""The columns of the demo's table. Key in results and rows -> heading, factor and digits of its numbers, meaning."""

Columns = dict[str, tuple[str, float, int, str]]

COLUMNS: Columns = {
    "use_of_clean": ("clean set", 1, 0, "what the method does with the few examples whose labels are known to be "
                     'right: all methods but "clean only" train on them together with the spoilt ones; fastrw also '
                     "weighs by them"),
    "accuracy": ("accuracy\n%", 100, 1, "test images classified correctly, mean ± standard deviation over the seeds"),
    "balanced_accuracy": ("balanced\n%", 100, 1, "the mean of the classes' accuracies, shown where it differs by a "
                          "point or more"),
    "auc": ("AUC", 1, 2, "the chance that a correctly labelled training example has more weight than a flipped one (1: "
            "all found, 0.5: guessing), by its mean weight over the second half of the steps"),
    "step_to_plain": ("step ÷\nplain", 1, 2, "median time of a whole training step as a ratio to plain training's, "
                      "taken in turns in one process"),
    "step_to_algorithm_1": ("step ÷\nAlg. 1", 1, 2, "the same, to the paper's Algorithm 1 by double backward, which "
                            "finds the same weights"),
}  # fmt: skip
FSR_COLUMNS: Columns = {
    "accuracy": COLUMNS["accuracy"],
    "best": ("best\n%", 100, 1, "the highest accuracy during training, which only a clean test set can show"),
    "purity": ("purity\n%", 100, 1, "share of correctly labelled examples in the dictionary that stands in for a clean "
               "set, at the end"),
    "auc": COLUMNS["auc"],
    "zero_share": ("weights\nof 0, %", 100, 0, "their share in the last epoch"),
    "step_to_plain": COLUMNS["step_to_plain"],
}  # fmt: skip


def meanings(columns: Columns) -> dict[str, str]:
    """Heading -> meaning."""
    return {heading.replace("\n", " "): meaning for heading, _, _, meaning in columns.values()}
