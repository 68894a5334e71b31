"""Models of text with a head: classes, numbers, several labels, tokens, choices, answers."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..case import Case
from .hf_small import add, sentences, words

CASES: list[Case] = []


def classes(n: int = 7) -> dict[str, Tensor]:
    return sentences(n) | {"labels": torch.randint(0, 3, (n,))}


def numbers(n: int = 7, shape: tuple[int, ...] = ()) -> dict[str, Tensor]:
    return sentences(n) | {"labels": torch.randn(n, *shape)}


def several(n: int = 7) -> dict[str, Tensor]:
    """Each of three labels holds or not."""
    return sentences(n) | {"labels": torch.randint(0, 2, (n, 3)).float()}


def tagged(n: int = 7) -> dict[str, Tensor]:
    """A class for each token."""
    batch = sentences(n)
    labels = torch.randint(0, 3, batch["input_ids"].shape)
    return batch | {"labels": labels.where(batch["attention_mask"].bool(), -100)}


def choices(n: int = 7) -> dict[str, Tensor]:
    """One of four sentences."""
    batch = sentences(4 * n)
    return {k: v.view(n, 4, -1) for k, v in batch.items()} | {"labels": torch.randint(0, 4, (n,))}


def answers(n: int = 7) -> dict[str, Tensor]:
    """The first and the last token of an answer."""
    return sentences(n) | {"start_positions": torch.randint(0, 3, (n,)), "end_positions": torch.randint(0, 3, (n,))}


def of_answers(model, batch) -> Tensor:
    out = model(**{k: v for k, v in batch.items() if "positions" not in k})
    ends = ((out.start_logits, batch["start_positions"]), (out.end_logits, batch["end_positions"]))
    return sum(F.cross_entropy(logits, at, reduction="none") for logits, at in ends) / 2


classify = partial(add, CASES, classes, num_labels=3)
for kind in words("""
    BertForSequenceClassification RobertaForSequenceClassification DistilBertForSequenceClassification
    AlbertForSequenceClassification ElectraForSequenceClassification DebertaForSequenceClassification
    DebertaV2ForSequenceClassification MPNetForSequenceClassification ConvBertForSequenceClassification
    SqueezeBertForSequenceClassification XLNetForSequenceClassification XLMForSequenceClassification
    FlaubertForSequenceClassification ErnieForSequenceClassification ModernBertForSequenceClassification
    GPT2ForSequenceClassification OPTForSequenceClassification LlamaForSequenceClassification
    MistralForSequenceClassification Qwen2ForSequenceClassification BloomForSequenceClassification
    Phi3ForSequenceClassification
"""):
    classify(kind)
classify("FunnelForSequenceClassification", block_sizes=[1, 1], d_head=8)
for shape in ((), (1,)):
    add(
        CASES,
        partial(numbers, shape=shape),
        "BertForSequenceClassification",
        f"regression {['n', *shape]}",
        num_labels=1,
    )
add(CASES, several, "BertForSequenceClassification", "multi-label", num_labels=3,
    problem_type="multi_label_classification")  # fmt: skip
for kind in words("""
    BertForTokenClassification DistilBertForTokenClassification DebertaV2ForTokenClassification
    XLNetForTokenClassification GPT2ForTokenClassification BloomForTokenClassification LlamaForTokenClassification
"""):
    add(CASES, tagged, kind, num_labels=3)
for kind in words("""
    BertForMultipleChoice RobertaForMultipleChoice AlbertForMultipleChoice DistilBertForMultipleChoice
    ElectraForMultipleChoice XLNetForMultipleChoice
"""):
    add(CASES, choices, kind)
for kind in words("""
    BertForQuestionAnswering RobertaForQuestionAnswering DistilBertForQuestionAnswering LlamaForQuestionAnswering
    GPT2ForQuestionAnswering
"""):
    add(CASES, answers, kind, kwargs={"losses_fn": of_answers})
