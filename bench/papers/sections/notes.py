"""What a reader should know beside the numbers, written after looking at them: by experiment and scale."""

NOTES = {
    ("l2r-uniform", "cpu"): (
        "The level is far below the paper's: a small network on 2,000 images. The clean set is a tenth as large as the "
        "training set, in the paper a fiftieth. What carries over is the order: plain training learns every wrong "
        "label by heart (dotted line), L2R does not, and random weights help a third as much."
    ),
    ("l2r-background", "cpu"): (
        "L2R gains most where noise is one-sided: its weights tell right labels from wrong ones much better here (AUC "
        "0.88) than under uniform flips (0.57). Early stopping on held-out examples as noisy as the training set picks "
        "models that answer the background class, so that ES alone is worse than the end of training; in the paper it "
        "helped. The oracle's weights hardly help against memorising before fine-tuning; there they did."
    ),
    ("lesions", "cpu"): (
        "The two baselines of the paper, at 14 and 17 %, are at the level of one answer for everything (1/7). With the "
        "same kind of data and a small network ours reach 45 and 48 %, and L2R with 21 clean images stays below them: "
        "about 70 % of its weights are 0, and 800 steps are few. So the paper's gap rests on its baselines as much "
        "as on the method; nothing here says what L2R would reach after its longer training on larger images."
    ),
}
