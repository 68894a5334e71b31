"""FSR: learning to reweight without clean data (Zhang & Pfister 2021, "Learning Fast Sample Re-weighting Without
Reward Data"). Training examples that are learned well, equally many of each class, stand in for the clean set.

May import api and whatever api may import; only demo and cli may import it."""

from fastrw.fsr.dictionary import ProxyDictionary
from fastrw.fsr.fsr import FSR
from fastrw.fsr.indexed import Indexed
from fastrw.fsr.presets import TABLE_4, Preset
from fastrw.fsr.pushers import (
    PUSHERS,
    AreaUnderMargin,
    ForgettingEvents,
    MaxMargin,
    MetaMargin,
    NegativeLoss,
    Pusher,
    Visit,
)
from fastrw.fsr.soft_labels import MixUp, Relabel
from fastrw.fsr.statistics import EpochReport, FSRStep

__all__ = [
    "FSR",
    "PUSHERS",
    "TABLE_4",
    "AreaUnderMargin",
    "EpochReport",
    "FSRStep",
    "ForgettingEvents",
    "Indexed",
    "MaxMargin",
    "MetaMargin",
    "MixUp",
    "NegativeLoss",
    "Preset",
    "ProxyDictionary",
    "Pusher",
    "Relabel",
    "Visit",
]
