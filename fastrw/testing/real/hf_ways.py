"""Ways to run a model of text: precision, checkpointing, dropout, padding, packing, compilation, frozen parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..case import TANGENT, Case
from .hf_heads import classes
from .hf_seq2seq import own as own_seq2seq
from .hf_seq2seq import translations
from .hf_small import LENGTH, add, causal, hidden, made, next_token, same_token, tokens

CASES: list[Case] = []
lm, mlm, head = (partial(add, CASES, data) for data in (causal, hidden, classes))
float32 = {"dtype": torch.float32}


def in_bfloat16(losses: Callable) -> Callable:
    def rule(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return losses(model, batch)

    return rule


# precision
for kind in ("GPT2LMHeadModel", "LlamaForCausalLM", "MambaForCausalLM", "BloomForCausalLM"):
    lm(kind, "autocast", kwargs={"losses_fn": in_bfloat16(next_token)}, case=float32)
mlm("BertForMaskedLM", "autocast", kwargs={"losses_fn": in_bfloat16(same_token)}, case=float32)
add(CASES, translations, "T5ForConditionalGeneration", "autocast", decoder_start_token_id=1,
    kwargs={"losses_fn": in_bfloat16(own_seq2seq)}, case=float32)  # fmt: skip
for kind in ("GPT2LMHeadModel", "LlamaForCausalLM"):
    lm(kind, "bfloat16", case={"dtype": torch.bfloat16}, kwargs={"losses_fn": next_token})


# checkpointing
def checkpointed(reentrant: bool, model: nn.Module) -> None:
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})


again = {"change": partial(checkpointed, False)}
for kind in ("GPT2LMHeadModel", "LlamaForCausalLM", "OPTForCausalLM"):
    lm(kind, "checkpointed", case=again)
mlm("BertForMaskedLM", "checkpointed", case=again)
add(CASES, translations, "T5ForConditionalGeneration", "checkpointed", decoder_start_token_id=1,
    kwargs={"losses_fn": own_seq2seq}, case=again)  # fmt: skip
for kind in ("GPT2LMHeadModel", "LlamaForCausalLM"):
    lm(kind, "reentrant", case={"change": partial(checkpointed, True)}, expect=frozenset())

# attention
for form in ("eager", "sdpa"):
    for kind in ("GPT2LMHeadModel", "LlamaForCausalLM", "GPTNeoXForCausalLM"):
        lm(kind, form, attn_implementation=form)
    mlm("BertForMaskedLM", form, attn_implementation=form)
for kind in ("GPT2LMHeadModel", "LlamaForCausalLM", "OPTForCausalLM"):
    add(CASES, partial(causal, left=True), kind, "padded on the left")

# random numbers, also those that leave out a layer
draws = {"draws": True}
lm("GPT2LMHeadModel", "dropout", resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, kwargs={"losses_fn": next_token},
   case=draws)  # fmt: skip
mlm("BertForMaskedLM", "dropout", hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, case=draws,
    kwargs={"losses_fn": same_token})  # fmt: skip
add(CASES, translations, "T5ForConditionalGeneration", "dropout", decoder_start_token_id=1, dropout_rate=0.1,
    kwargs={"losses_fn": own_seq2seq}, case=draws)  # fmt: skip
lm("OPTForCausalLM", "layerdrop", layerdrop=0.5, num_hidden_layers=4, kwargs={"losses_fn": next_token}, case=draws)
add(CASES, translations, "BartForConditionalGeneration", "layerdrop", encoder_layerdrop=0.5, decoder_layerdrop=0.5,
    kwargs={"losses_fn": own_seq2seq}, case=draws)  # fmt: skip
head("BertForSequenceClassification", "evaluation mode", hidden_dropout_prob=0.1, num_labels=3,
     case={"change": lambda model: model.eval()})  # fmt: skip


# several documents in one row: positions begin again with each, and without a cache each sees itself alone
def packed_rows(n: int = 7) -> dict[str, Tensor]:
    """Each example is a row of two documents."""
    drawn, first = tokens(n), torch.randint(2, LENGTH - 2, (n, 1))
    place = torch.arange(LENGTH)
    return {"input_ids": drawn, "labels": drawn, "position_ids": torch.where(place < first, place, place - first)}


def packed_documents(n: int = 7) -> dict[str, Tensor]:
    """Each example is a document; all are in one row."""
    lengths = torch.randint(2, 6, (n,))
    place = torch.cat([torch.arange(length) for length in lengths.tolist()])[None]
    return {"input_ids": tokens(1, place.shape[1]), "position_ids": place}


def of_documents(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    logits, inputs = model(**batch, use_cache=False).logits[0, :-1], batch["input_ids"][0]
    document = (batch["position_ids"][0] == 0).cumsum(0) - 1
    losses = F.cross_entropy(logits, inputs[1:], reduction="none")
    inside = document[1:] == document[:-1]
    sums = losses.new_zeros(int(document[-1]) + 1).index_add(0, document[1:], losses * inside)
    return sums / document.bincount()


for kind in ("LlamaForCausalLM", "Qwen2ForCausalLM"):
    add(CASES, packed_rows, kind, "packed", use_cache=False)
    for form in ("eager", "sdpa"):
        add(CASES, packed_documents, kind, f"documents, {form}", kwargs={"losses_fn": of_documents},
            attn_implementation=form)  # fmt: skip


# some of the parameters
def frozen(words: tuple[str, ...], model: nn.Module) -> None:
    """Only those with one of these words in their names are trained."""
    for name, p in model.named_parameters():
        p.requires_grad_(any(word in name for word in words))


lm("LlamaForCausalLM", "last", kwargs={"params": "last", "losses_fn": next_token})
head("BertForSequenceClassification", "last", kwargs={"params": "last"}, num_labels=3)
head("BertForSequenceClassification", "only the head", case={"change": partial(frozen, ("classifier",))}, num_labels=3)
mlm("BertForMaskedLM", "only biases", case={"change": partial(frozen, ("bias",))})
lm("GPT2LMHeadModel", "upper block", case={"change": partial(frozen, ("h.1.", "ln_f"))})
lm("LlamaForCausalLM", "scores of attention", kwargs={"params": ["*self_attn*"], "losses_fn": next_token})


# experts
def with_balance(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    out = model(**{k: v for k, v in batch.items() if k != "labels"}, output_router_logits=True)
    return next_token(lambda **_: out, batch) + 0.02 * out.aux_loss


# how the tokens of the whole batch are shared among the experts is part of each loss
for kind in ("MixtralForCausalLM", "Qwen3MoeForCausalLM"):
    lm(kind, "balanced", kwargs={"losses_fn": with_balance}, expect=TANGENT, num_hidden_layers=1)
for kind in ("MixtralForCausalLM", "GptOssForCausalLM"):
    lm(kind, "grouped_mm", experts_implementation="grouped_mm", case=float32, num_hidden_layers=1)
# an expert's room is that of the whole batch: which tokens are left out depends on the others
add(CASES, translations, "NllbMoeForConditionalGeneration", "little room", kwargs={"losses_fn": own_seq2seq},
    encoder_sparse_step=1, decoder_sparse_step=1, expert_capacity=4, encoder_layers=1, decoder_layers=1,
    num_hidden_layers=1)  # fmt: skip

# compiled
for kind, data, losses in (("GPT2LMHeadModel", causal, next_token), ("BertForMaskedLM", hidden, same_token)):
    CASES.append(Case(f"{kind} compiled", lambda kind=kind: torch.compile(made(kind, {}), backend="aot_eager"), data,
                      kwargs={"losses_fn": losses}))  # fmt: skip
