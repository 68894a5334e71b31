"""What a reader should know beside the numbers, written after looking at them: by experiment and scale."""

NOTES = {
    ("l2r-imbalance", "cpu"): (
        "600 steps at a falling rate are about twice the learning of the paper's 8,000 at 0.001 (sum of the learning "
        "rates), yet too few for its 2 %: L2R's first steps go to finding a balance, and its error still falls at the "
        "end. With momentum the weights of a step answer to gradients that the next ten steps still carry on: the "
        "network swings from one class to the other, and where it stands at the end is chance (bars from the best seed "
        "to the worst). The paper trains without momentum."
    ),
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
    ("fsr-uniform", "cpu"): (
        "FSR's premise does not hold at this scale: the dictionary has about as many wrong labels as the training set. "
        "The meta-margin is how much a step lowers an example's loss, and a network that learns 2,000 images by heart "
        "in ten epochs lowers most the losses that are highest, those of wrong labels. The paper counts on networks "
        "that resist wrong labels for many epochs (augmentation, weight decay, 128 epochs of 50,000 images), and none "
        "of that is here. So these trials test the machinery, not the method; --scale paper is the method's setting."
    ),
    ("every", "cpu"): (
        "The steps between are plain ones, and the network learns wrong labels in them: with weights at every other "
        "step almost half of the gain over plain training is lost. Where time must be saved, a cheaper exact step "
        "(`overhead`) is worth more than a rarer one."
    ),
    ("fsr-cost", "cpu"): (
        "The reward batch is twice the training batch, and each step runs its forward; `FSR(refresh=k)` does so at one "
        "step in k. L2R has as many clean as training images here, twice the forward of a plain step; what it costs "
        "with ten is under `overhead` and in the README."
    ),
    ("fsr-pushers", "cpu"): (
        "The pushers that prefer what is already well recognised fill the dictionary with right labels; meta-margin "
        "prefers what a step helps most, and that is wrong labels as long as the network learns them. One seed: a "
        "difference of a point or two between pushers may be chance, the purities are not."
    ),
}
