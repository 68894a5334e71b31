"""Recommenders of deepctr_torch, each with its own regularisation; TabNet; the tabular models of
rtdl_revisiting_models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import rtdl_revisiting_models as R
import torch
import torch.nn.functional as F
from pytorch_tabnet.tab_network import TabNet, TabNetPretraining
from torch import Tensor, nn

from ..case import LAYERWISE, TANGENT, Case

with mock.patch("threading.Thread.start"):  # the package asks for its newest version in a thread, and prints
    import deepctr_torch.models as D
    from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat

CASES: list[Case] = []
LENGTH = 4  # of a history
CLASSES = 3


def nothing(model: nn.Module) -> None: ...


def add(name: str, model: Callable[[], nn.Module], data: Callable, losses: Callable, expect=LAYERWISE, *,
        change: Callable = nothing) -> None:  # fmt: skip
    CASES.append(Case(name, model, data, expect, change, kwargs={"losses_fn": losses}))


# recommenders: one matrix of numbers, with the categories among them

COLUMNS = [SparseFeat("user", 7, 4), SparseFeat("item", 9, 4), SparseFeat("place", 5, 4), DenseFeat("age", 1),
           VarLenSparseFeat(SparseFeat("words", 8, 4), LENGTH, "mean")]  # fmt: skip
HISTORY = [SparseFeat("user", 7, 4), SparseFeat("item", 9, 4), DenseFeat("age", 1),
           VarLenSparseFeat(SparseFeat("hist_item", 9, 4, embedding_name="item"), LENGTH,
                            length_name="seq_length")]  # fmt: skip


def clicks(n: int = 8) -> tuple[Tensor, Tensor]:
    """In the order of COLUMNS; 0 pads the words."""
    words = torch.randint(1, 8, (n, LENGTH)) * (torch.arange(LENGTH) < torch.randint(1, LENGTH + 1, (n, 1)))
    columns = [*(torch.randint(size, (n,)) for size in (7, 9, 5)), torch.randn(n)]
    return torch.cat([torch.stack(columns, 1), words], 1), torch.rand(n).round()


def visits(n: int = 8) -> tuple[Tensor, Tensor]:
    """In the order of HISTORY, with its length."""
    lengths = torch.randint(1, LENGTH + 1, (n, 1))
    items = torch.randint(1, 9, (n, LENGTH)) * (torch.arange(LENGTH) < lengths)
    columns = [torch.randint(7, (n, 1)), torch.randint(1, 9, (n, 1)), torch.randn(n, 1), items, lengths]
    return torch.cat([c.float() for c in columns], 1), torch.rand(n).round()


@contextmanager
def by_default(dtype: torch.dtype) -> Iterator[None]:
    """The models create tensors of the default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def regularised(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """The loss that `fit` sums, for each example and task."""
    x, y = batch
    with by_default(x.dtype):
        losses = F.binary_cross_entropy(z := model(x), y[:, None].expand_as(z), reduction="none").sum(1)
        return losses + model.get_regularization_loss() + model.aux_loss


def ranks(name: str, make: Callable[[], nn.Module], data=clicks, expect=LAYERWISE) -> None:
    def larger(model: nn.Module) -> None:
        """The weights that deepctr starts from are too small to show an error."""
        for p in model.parameters():
            nn.init.normal_(p, std=0.3)

    add(name, make, data, regularised, expect, change=larger)


DEEP = {"dnn_hidden_units": (8, 6), "l2_reg_linear": 1e-2, "l2_reg_embedding": 1e-2}
ONE_SIDED = {"dnn_hidden_units": (8, 6), "l2_reg_embedding": 1e-2}  # no linear part


def deep(kind: type[nn.Module], name: str = "", expect=LAYERWISE, columns=COLUMNS, **options) -> None:
    ranks(name or kind.__name__, lambda: kind(COLUMNS, columns, **DEEP | options), expect=expect)


deep(D.DeepFM, l2_reg_dnn=1e-3)
deep(D.DeepFM, "DeepFM_dropout", dnn_dropout=0.2)
deep(D.DeepFM, "DeepFM_BatchNorm", TANGENT, dnn_use_bn=True)
deep(D.WDL)
deep(D.xDeepFM, cin_layer_size=(6, 4))
ranks("AutoInt", lambda: D.AutoInt(COLUMNS, COLUMNS, **ONE_SIDED, att_head_num=2))
deep(D.DCN, cross_num=2)
deep(D.DCN, "DCN_matrix", cross_num=2, cross_parameterization="matrix")
deep(D.DCNMix, low_rank=2, num_experts=2)
deep(D.NFM)
deep(D.FiBiNET, bilinear_type="interaction")
deep(D.FiBiNET, "FiBiNET_each", bilinear_type="each")
deep(D.IFM)
deep(D.DIFM)
deep(D.ONN)
deep(D.CCPM, columns=COLUMNS[:3], conv_kernel_width=(3, 2), conv_filters=(2, 2))
ranks("AFN", lambda: D.AFN(COLUMNS, COLUMNS[:3], ltl_hidden_size=8, afn_dnn_hidden_units=(8, 6)), expect=TANGENT)
ranks("AFM", lambda: D.AFM(COLUMNS, COLUMNS[:3], l2_reg_embedding=1e-2))
ranks("MLR", lambda: D.MLR(COLUMNS, region_num=3))
ranks("PNN", lambda: D.PNN(COLUMNS, **ONE_SIDED))
ranks("PNN_outer", lambda: D.PNN(COLUMNS, **ONE_SIDED, use_inner=False, use_outter=True))
# the activation of the attention is Dice, which has a BatchNorm
ranks("DIN", lambda: D.DIN(HISTORY, ["item"], **ONE_SIDED), visits, TANGENT)
ranks("DIN_sigmoid", lambda: D.DIN(HISTORY, ["item"], **ONE_SIDED, att_activation="sigmoid"), visits)
ranks("DIEN_GRU", lambda: D.DIEN(HISTORY, ["item"], **ONE_SIDED), visits)
ranks("DIEN_AUGRU", lambda: D.DIEN(HISTORY, ["item"], **ONE_SIDED, gru_type="AUGRU"), visits)
TASKS = {"task_types": ("binary", "binary"), "task_names": ("click", "buy"), "tower_dnn_hidden_units": (4,)}
ranks("ESMM", lambda: D.ESMM(COLUMNS, tower_dnn_hidden_units=(4,)))
ranks("SharedBottom", lambda: D.SharedBottom(COLUMNS, (6,), **TASKS))
ranks("MMOE", lambda: D.MMOE(COLUMNS, 2, (6,), (4,), **TASKS))
ranks("PLE", lambda: D.PLE(COLUMNS, 1, 1, 2, (6,), (4,), **TASKS))


# rows of numbers and categories

CATEGORIES = [4, 3]


def mixed(n: int = 8) -> tuple[tuple[Tensor, Tensor], Tensor]:
    numbers, categories = torch.randn(n, 5), torch.stack([torch.randint(size, (n,)) for size in CATEGORIES], 1)
    return (numbers, categories), torch.randint(CLASSES, (n,))


def rows(n: int = 8) -> tuple[Tensor, Tensor]:
    """One matrix: the last column is a category."""
    return torch.cat([torch.randn(n, 5), torch.randint(4, (n, 1))], 1), torch.randint(CLASSES, (n,))


def by_class(model: nn.Module, batch) -> Tensor:
    x, y = batch
    return F.cross_entropy(model(*x) if isinstance(x, tuple) else model(x), y, reduction="none")


def numbers(n: int = 8) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 5), torch.randint(CLASSES, (n,))


TRANSFORMER = {"n_cont_features": 5, "cat_cardinalities": CATEGORIES, "d_out": CLASSES, "n_blocks": 2, "d_block": 8,
               "attention_n_heads": 2, "attention_dropout": 0.2, "ffn_d_hidden_multiplier": 2, "ffn_dropout": 0.1,
               "residual_dropout": 0.1}  # fmt: skip
add("FTTransformer", lambda: R.FTTransformer(**TRANSFORMER), mixed, by_class)
add("FTTransformer_linformer", lambda: R.FTTransformer(**TRANSFORMER, linformer_kv_compression_ratio=0.5,
    linformer_kv_compression_sharing="headwise"), mixed, by_class)  # fmt: skip
add("MLP", lambda: R.MLP(d_in=5, d_out=CLASSES, n_blocks=2, d_block=8, dropout=0.1), numbers, by_class)
# BatchNorm in every block
add("ResNet", lambda: R.ResNet(d_in=5, d_out=CLASSES, n_blocks=2, d_block=8, d_hidden=None, d_hidden_multiplier=2.0,
    dropout1=0.1, dropout2=0.0), numbers, by_class, TANGENT)  # fmt: skip


def net(**options) -> TabNet:
    return TabNet(6, CLASSES, 4, 4, 2, cat_idxs=[5], cat_dims=[4], cat_emb_dim=[2], virtual_batch_size=4,
                  group_attention_matrix=torch.eye(6), **options)  # fmt: skip


def with_buffers(model: nn.Module) -> None:
    """Its matrices of groups are plain attributes, of one dtype."""
    for module in list(model.modules()):
        for name in ("group_attention_matrix", "embedding_group_matrix"):
            if isinstance(matrix := vars(module).get(name), Tensor):
                delattr(module, name)
                module.register_buffer(name, matrix)


def sparse(model: nn.Module, batch) -> Tensor:
    """With the regularisation that `fit` subtracts: the mean over the batch of the entropy of the attention."""
    z, sparsity = model(batch[0])
    return F.cross_entropy(z, batch[1], reduction="none") - 1e-3 * sparsity


def reconstructed(model: nn.Module, batch) -> Tensor:
    output, embedded, hidden = model(batch[0])
    return (((output - embedded) * hidden) ** 2).sum(1)


# BatchNorm over parts of the batch
add("TabNet", net, rows, sparse, TANGENT, change=with_buffers)
add("TabNet_entmax", lambda: net(mask_type="entmax"), rows, sparse, TANGENT, change=with_buffers)
add("TabNetPretraining", lambda: TabNetPretraining(5, n_d=4, n_a=4, n_steps=2, virtual_batch_size=4,
    group_attention_matrix=torch.eye(5)), numbers, reconstructed, TANGENT, change=with_buffers)  # fmt: skip
