"""Transformers of x_transformers, one or two of its options each; conditional random fields of torchcrf; sentence
encoders of sentence_transformers, with its losses."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
import torchcrf
import x_transformers as X
from sentence_transformers import SentenceTransformer
from sentence_transformers import losses as L
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn

from ..case import LAYERWISE, TANGENT, Case

CASES: list[Case] = []
VOCABULARY, LENGTH, WIDTH, CLASSES = 30, 6, 12, 3


def add(name: str, model: Callable[[], nn.Module], data: Callable, losses: Callable, expect=LAYERWISE) -> None:
    CASES.append(Case(name, model, data, expect, kwargs={"losses_fn": losses}))


def texts(n: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, those that are no padding, a class of each text."""
    keep = torch.arange(LENGTH) < torch.randint(2, LENGTH + 1, (n, 1))
    return torch.randint(VOCABULARY, (n, LENGTH)), keep, torch.randint(CLASSES, (n,))


def by_next_token(model: nn.Module, batch) -> Tensor:
    tokens, keep, _ = batch
    z = model(tokens[:, :-1], mask=keep[:, :-1])
    losses = F.cross_entropy(z.transpose(1, 2), tokens[:, 1:], reduction="none")
    return (losses * keep[:, 1:]).sum(1) / keep[:, 1:].sum(1)


def by_class(model: nn.Module, batch) -> Tensor:
    return F.cross_entropy(model(batch[0], mask=batch[1]), batch[2], reduction="none")


def causal(name: str, wrapper: dict | None = None, layers: type = X.Decoder, losses=by_next_token, **options) -> None:
    def make() -> nn.Module:
        inner = layers(**{"dim": WIDTH, "depth": 1, "heads": 2, "attn_dim_head": 6, "verbose": False} | options)
        return X.TransformerWrapper(num_tokens=VOCABULARY, max_seq_len=LENGTH, attn_layers=inner, **wrapper or {})

    add(name, make, texts, losses)


causal("plain", depth=2)
causal("rotary", rotary_pos_emb=True)
causal("rotary_xpos", rotary_xpos=True, use_rmsnorm=True)
causal("alibi", alibi_pos_bias=True, use_simple_rmsnorm=True)
causal("data_dependent_alibi", attn_data_dependent_alibi=True)
causal("relative_positions", rel_pos_bias=True, use_scalenorm=True)
causal("contextual_positions", attn_use_cope=True, attn_qk_norm=True)
causal("dynamic_tanh", use_dynamic_tanh=True, use_layerscale=True, layerscale_init_value=0.5)
causal("memory_tokens", {"num_memory_tokens": 2}, attn_num_mem_kv=2)
causal("macaron", macaron=True, ff_relu_squared=True)
causal("sandwich", depth=2, sandwich_coef=1, sandwich_norm=True)
causal("gated", gate_residual=True, attn_gate_values=True, ff_glu=True, ff_swish=True)
causal("talking_heads", attn_pre_talking_heads=True, attn_post_talking_heads=True, attn_head_scale=True)
causal("sparse_attention", attn_sparse_topk=2)
causal("one_key_for_all_heads", attn_one_kv_head=True, attn_add_zero_kv=True)
causal("flash", attn_flash=True)
causal("residual_attention", depth=2, residual_attn=True, scale_residual=True, shift_tokens=1)
causal("residual_streams", num_residual_streams=2)
causal("value_residual", depth=2, add_value_residual=True, integrate_layers=True)
causal("selective", attn_selective=True)
causal("sigmoid_attention", attn_sigmoid=True)
causal("exponential_values", attn_laser=True, attn_softclamp_logits=True)
causal("dropout", {"emb_dropout": 0.1}, attn_dropout=0.1, ff_dropout=0.1)
causal("layer_dropout", depth=3, layer_dropout=0.3)
causal("shared_layers", {"tie_embedding": True, "l2norm_embed": True}, depth=2, weight_tie_layers=True)
causal("part_of_the_gradient", {"emb_frac_gradient": 0.1, "post_emb_norm": True})
causal("mixture_of_softmax", {"mixture_of_softmax": True})
causal("recycling", {"recycling": True})
causal("latent_attention", attn_use_latent_kv=True, attn_dim_latent_kv=4, attn_use_latent_q=True, attn_dim_latent_q=4)
CLASSIFIER = {"logits_dim": CLASSES}
causal("encoder_mean", CLASSIFIER | {"average_pool_embed": True}, X.Encoder, by_class, depth=2, unet_skips=True)
causal("encoder_cls", CLASSIFIER | {"use_cls_token": True}, X.Encoder, by_class, pre_and_post_norm=True)


def translated(model: nn.Module, batch) -> Tensor:
    tokens, keep, _ = batch
    z = model.decoder.net(tokens[:, :-1], context=model.encoder(tokens.flip(1), mask=keep, return_embeddings=True),
                          context_mask=keep)  # fmt: skip
    return F.cross_entropy(z.transpose(1, 2), tokens[:, 1:], reduction="none").mean(1)


SIDE = {"num_tokens": VOCABULARY, "depth": 1, "heads": 2, "max_seq_len": LENGTH}
SIDES = {f"{side}_{key}": value for side in ("enc", "dec") for key, value in SIDE.items()}
add("encoder_decoder", lambda: X.XTransformer(dim=WIDTH, tie_token_emb=True, **SIDES), texts, translated)


def images(n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 3, 8, 8), torch.randint(CLASSES, (n,))


def by_image(model: nn.Module, batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


add("vision", lambda: X.ViTransformerWrapper(image_size=8, patch_size=4, num_classes=CLASSES, num_register_tokens=2,
    attn_layers=X.Encoder(dim=WIDTH, depth=2, heads=2, verbose=False)), images, by_image)  # fmt: skip


def series(n: int = 6) -> tuple[Tensor, Tensor]:
    return torch.randn(n, LENGTH, 4), torch.randn(n, LENGTH, 2)


add("continuous", lambda: X.ContinuousTransformerWrapper(dim_in=4, dim_out=2, max_seq_len=LENGTH,
    attn_layers=X.Decoder(dim=WIDTH, depth=1, heads=2, verbose=False)), series,
    lambda model, batch: (model(batch[0]) - batch[1]).square().mean((1, 2)))  # fmt: skip


# conditional random fields


class Tagger(nn.Module):
    def __init__(self, encoder: nn.Module, width: int):
        super().__init__()
        self.table, self.encoder, self.head = nn.Embedding(VOCABULARY, WIDTH), encoder, nn.Linear(width, CLASSES)
        self.crf = torchcrf.CRF(CLASSES, batch_first=True)

    def forward(self, tokens: Tensor, keep: Tensor) -> Tensor:
        h = self.encoder(self.table(tokens))
        return self.head(h[0] if isinstance(h, tuple) else h)


def by_tags(model: Tagger, batch) -> Tensor:
    tokens, keep, _ = batch
    return -model.crf(model(tokens, keep), tokens % CLASSES, mask=keep, reduction="none")


add("CRF", lambda: Tagger(nn.Tanh(), WIDTH), texts, by_tags)
add("CRF_LSTM", lambda: Tagger(nn.LSTM(WIDTH, 5, bidirectional=True, batch_first=True), 10), texts, by_tags)
add("CRF_transformer", lambda: Tagger(X.Encoder(dim=WIDTH, depth=1, heads=2, verbose=False), WIDTH), texts, by_tags)


# sentence encoders: the losses compare the sentences of a batch, or of one example


class Words(nn.Module):
    """The first module of a sentence encoder."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.encoder = nn.TransformerEncoderLayer(WIDTH, 2, 16, dropout=0.1, batch_first=True)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        keep = features["attention_mask"] > 0
        h = self.encoder(self.table(features["input_ids"]), src_key_padding_mask=~keep)
        return features | {"token_embeddings": h}


def encoder(pooling: str = "mean") -> nn.Module:
    layers = [Pooling(WIDTH, pooling), Dense(WIDTH, 8), Normalize()]
    return SentenceTransformer(modules=[Words(), *layers], device="cpu")


def sentences(k: int) -> Callable:
    """n tuples of k sentences: tokens and masks [n, k, length]; a label of each tuple."""

    def data(n: int = 5) -> tuple[Tensor, Tensor, Tensor]:
        keep = torch.arange(LENGTH) < torch.randint(2, LENGTH + 1, (n, k, 1))
        return torch.randint(VOCABULARY, (n, k, LENGTH)), keep.long(), torch.rand(n)

    return data


def embedded(model: nn.Module, batch) -> list[Tensor]:
    """k tensors [n, width]."""
    tokens, keep, _ = batch
    found = model({"input_ids": tokens.flatten(0, 1), "attention_mask": keep.flatten(0, 1)})["sentence_embedding"]
    return list(found.unflatten(0, tokens.shape[:2]).unbind(1))


def among_all(loss: Callable) -> Callable:
    """Of each anchor, among the sentences of the whole batch."""

    def losses(model: nn.Module, batch) -> Tensor:
        anchors, *others = embedded(model, batch)
        rule = loss(model)
        return torch.stack([rule.compute_loss_from_embeddings([anchors[i : i + 1], *(o.roll(-i, 0) for o in others)],
                                                              None) for i in range(len(anchors))])  # fmt: skip

    return losses


def alone(loss: Callable, label: Callable[[Tensor], Tensor] = lambda y: y) -> Callable:
    """Of each tuple alone."""

    def losses(model: nn.Module, batch) -> Tensor:
        columns, rule = embedded(model, batch), loss(model)
        return torch.stack([rule.compute_loss_from_embeddings([c[i : i + 1] for c in columns],
                                                              label(batch[2])[i : i + 1])
                            for i in range(len(batch[2]))])  # fmt: skip

    return losses


def pairs_of_each(model: nn.Module, batch) -> Tensor:
    """CoSENT ranks pairs: here the first sentence of each example with its others."""
    first, *others = embedded(model, batch)
    rule, others = L.CoSENTLoss(model), torch.stack(others, 1)
    labels = torch.arange(others.shape[1])
    return torch.stack([rule.compute_loss_from_embeddings([a.expand_as(b), b], labels)
                        for a, b in zip(first, others, strict=True)])  # fmt: skip


# the loss of each anchor depends on the sentences of all: their gradients belong to no single example
for name, pooling, k in (("MultipleNegativesRanking", "mean", 2), ("MultipleNegativesRanking_hard", "max", 3)):
    add(
        name, lambda pooling=pooling: encoder(pooling), sentences(k), among_all(L.MultipleNegativesRankingLoss), TANGENT
    )
add("CosineSimilarity", lambda: encoder("cls"), sentences(2), alone(L.CosineSimilarityLoss))
add("Contrastive", encoder, sentences(2), alone(L.ContrastiveLoss, lambda y: y.round().long()))
add("Triplet", encoder, sentences(3), alone(L.TripletLoss))
# the backward of logcumsumexp computes with logarithms of gradients, which hides to whom they belong
add("CoSENT", encoder, sentences(4), pairs_of_each, TANGENT)
