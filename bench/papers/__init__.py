"""The experiments of three papers on example weights, as small configs, one runner and one report.

Ren et al. 2018 (Learning to Reweight Examples), Zhang & Pfister 2021 (FSR), and a reimplementation of the first
(Patil et al., arXiv 2405.06859). `python -m bench.papers --help` tells the rest.
"""
