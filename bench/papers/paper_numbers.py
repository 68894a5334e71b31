"""What the papers report, in per cent of test images unless said otherwise: typed from their tables and sentences."""

# Ren et al. 2018, "Learning to Reweight Examples for Robust Deep Learning"; ± is their 95 % confidence interval
L2R_UNIFORM = {  # Table 1, CIFAR-10, 40 % uniform flips, WRN-28-10
    "baseline": "67.97 ± 0.62", "random": "86.06 ± 0.32", "clean only": "46.64 ± 3.90", "baseline + FT": "78.66 ± 0.44",
    "random + FT": "86.55 ± 0.24", "L2R": "86.92 ± 0.19",
}  # fmt: skip
L2R_BACKGROUND = {  # Table 2, CIFAR-10, 40 % flips to one class, ResNet-32
    "baseline": "59.54 ± 2.16", "baseline + ES": "64.96 ± 1.19", "random": "69.51 ± 1.36", "weighted": "79.17 ± 1.36",
    "clean only": "15.90 ± 3.32", "baseline + FT": "82.82 ± 0.93", "baseline + ES + FT": "85.19 ± 0.46",
    "weighted + FT": "85.98 ± 0.47", "L2R": "86.73 ± 0.48",
}  # fmt: skip

# Zhang & Pfister 2021, "Learning Fast Sample Re-weighting Without Reward Data"
FSR_UNIFORM = {  # Table 1, CIFAR-10: method -> noise ratio -> accuracy
    "L2R": {0.2: "90.0 ± 0.4", 0.4: "86.9 ± 0.2", 0.8: "73.0 ± 0.8"},
    "FSR": {0.2: "95.1 ± 0.1", 0.4: "93.7 ± 0.1", 0.8: "82.8 ± 0.3"},
}
FSR_ASYMMETRIC = {  # Table 3, CIFAR-10
    "L2R": {0.2: "92.4 ± 0.1", 0.4: "90.8 ± 0.3"},
    "FSR": {0.2: "95.0 ± 0.1", 0.4: "93.6 ± 0.3"},
}
FSR_LONG_TAIL = {  # Table 6, CIFAR-10: method -> imbalance -> accuracy
    "plain": {10: "86.39", 50: "74.81", 200: "65.68"},
    "L2R": {10: "85.19", 50: "78.93", 200: "66.51"},
    "FSR": {10: "87.40", 50: "79.17", 200: "67.76"},
    "FSR, deferred": {10: "88.15", 50: "79.78", 200: "66.15"},
}
FSR_NOISY_TAIL = {  # Table 7, CIFAR-10: (noise, imbalance) -> accuracy of FSR
    (0.2, 10): "85.7", (0.2, 50): "77.4", (0.2, 200): "65.5", (0.4, 10): "81.6", (0.4, 50): "69.8", (0.4, 200): "49.5",
}  # fmt: skip
FSR_COST = {"time": "1.47 to 1.87", "memory": "1.019 to 1.34"}  # section 5.4, FSR beside supervised training
L2R_COST = {"time": "4.19 to 5.43", "memory": "1.54 to 3.70"}  # the same section, L2R as they measured it

# Patil et al., "Reimplementation of Learning to Reweight Examples" (arXiv 2405.06859)
LESIONS = {"plain": "14.07", "weighted sampling": "16.69", "L2R": "65.56"}  # balanced accuracy, HAM10000
REIMPLEMENTATION_COST = "about 3"  # training time beside ordinary training
