"""PEFT's adapters on a causal language model, BERT and ViT, with and without a task type."""

from __future__ import annotations

from typing import Any

import peft
import torch
import torch.nn.functional as F
import transformers as T
from torch import Tensor, nn

from ..case import LAYERWISE, Case
from .hf_vision import CLASSES, IMAGE, SIZES, WORDS, pixels

CASES: list[Case] = []
TEXT = SIZES | {"vocab_size": WORDS, "max_position_embeddings": 32}


def causal() -> nn.Module:
    return T.LlamaForCausalLM(T.LlamaConfig(**TEXT, pad_token_id=0))


def bert() -> nn.Module:
    dropouts = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return T.BertForSequenceClassification(T.BertConfig(**TEXT, **dropouts, num_labels=CLASSES))


def vit() -> nn.Module:
    return T.ViTForImageClassification(T.ViTConfig(**IMAGE, **SIZES, num_labels=CLASSES))


def texts(n: int) -> dict[str, Tensor]:
    words = torch.randint(3, WORDS, (n, 6))
    return {"input_ids": words, "attention_mask": torch.ones_like(words), "labels": words}


def sentences(n: int) -> dict[str, Tensor]:
    return texts(n) | {"labels": torch.randint(CLASSES, (n,))}


def next_word(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Virtual tokens come first."""
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    logits = model(**inputs).logits[:, -batch["labels"].shape[1] :]
    return F.cross_entropy(logits[:, :-1].mT, batch["labels"][:, 1:], reduction="none").mean(1)


def by_class(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    inputs = {k: v for k, v in batch.items() if k != "labels"}
    return F.cross_entropy(model(**inputs).logits, batch["labels"], reduction="none")


def shaken(model: nn.Module) -> None:
    """Adapters start at 0 in part: then most gradients would be 0."""
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad and p.is_floating_point():
                p.add_(0.1 * torch.randn_like(p))


CAUSAL = causal, texts, next_word, ["q_proj", "v_proj", "down_proj"], "CAUSAL_LM"
BERT = bert, sentences, by_class, ["query", "value"], "SEQ_CLS"
VIT = vit, pixels, by_class, ["query", "value", "q_proj", "v_proj"], None


def add(name: str, on: tuple, config: type, task: bool = True, targets: bool = True, **options: Any) -> None:
    """on: a base model; task: with its task type; targets: with its layers to adapt."""
    base, data, losses, layers, task_type = on
    if task and task_type:
        options["task_type"] = task_type
    if targets:
        options["target_modules"] = layers

    def model() -> nn.Module:
        return peft.get_peft_model(base(), config(**options))

    CASES.append(Case(name, model, data, LAYERWISE, shaken, (5,), (3,), kwargs={"losses_fn": losses}))


lora = {"r": 2, "lora_alpha": 4}
for label, on in (("causal", CAUSAL), ("BERT", BERT), ("ViT", VIT)):
    add(f"LoRA {label}", on, peft.LoraConfig, **lora)
    add(f"DoRA {label}", on, peft.LoraConfig, use_dora=True, **lora)
    add(f"IA3 {label}", on, peft.IA3Config, feedforward_modules=[])
    add(f"LoHa {label}", on, peft.LoHaConfig, task=False, r=2)
    add(f"VeRA {label}", on, peft.VeraConfig, r=2)
add("LoRA causal without task", CAUSAL, peft.LoraConfig, task=False, **lora)
add("LoRA BERT without task", BERT, peft.LoraConfig, task=False, **lora)
add("rsLoRA", CAUSAL, peft.LoraConfig, use_rslora=True, lora_dropout=0.2, **lora)
add("LoRA with biases", VIT, peft.LoraConfig, **lora | {"bias": "all"})
add("LoRA on embeddings", CAUSAL, peft.LoraConfig, targets=False, target_modules=["embed_tokens", "q_proj"], **lora)
add("LoRA with a saved head", VIT, peft.LoraConfig, modules_to_save=["classifier"], **lora)
add("AdaLoRA", CAUSAL, peft.AdaLoraConfig, init_r=3, target_r=2, total_step=10)
add("LoKr", CAUSAL, peft.LoKrConfig, task=False, r=2)
add("LoKr ViT", VIT, peft.LoKrConfig, task=False, r=2, decompose_both=True)
add("OFT", CAUSAL, peft.OFTConfig, task=False, oft_block_size=4, r=0)
add("BOFT", VIT, peft.BOFTConfig, task=False, boft_block_size=4)
add("HRA", CAUSAL, peft.HRAConfig, task=False, r=2)
add("FourierFT", CAUSAL, peft.FourierFTConfig, n_frequency=6)
add("LN tuning", CAUSAL, peft.LNTuningConfig, targets=False, target_modules=["input_layernorm", "norm"])
add("VB-LoRA", CAUSAL, peft.VBLoRAConfig, num_vectors=6, vector_length=4, topk=2, r=2)
add("prompt tuning", CAUSAL, peft.PromptTuningConfig, targets=False, num_virtual_tokens=3)
add("prompt tuning BERT", BERT, peft.PromptTuningConfig, targets=False, num_virtual_tokens=3)
add("prefix tuning", CAUSAL, peft.PrefixTuningConfig, targets=False, num_virtual_tokens=3, prefix_projection=True,
    encoder_hidden_size=8)  # fmt: skip
add("p-tuning", CAUSAL, peft.PromptEncoderConfig, targets=False, num_virtual_tokens=3, encoder_hidden_size=8)
