"""Every type of node that fastrw has a rule for: torch makes it, it saves what is read of it (names that are torch's
own internals), and its tangent is the transpose of what it sends."""

import pytest
import torch
import torch.nn.functional as F

from fastrw.graph.saved import names
from fastrw.graph.sending import send
from fastrw.nodes import registry
from fastrw.nodes.generic import transposed
from fastrw.nodes.waiting import formed
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from tests.on_graph import apart, exact, joined

x, w, b = torch.Size((5, 4, 6, 6)), torch.Size((3, 4, 3, 3)), torch.Size((3,))
channels = torch.Size((4,))
rows, idx = torch.Size((7, 4)), torch.tensor([0, 2, 2, 5, 1, 1])


def bag(mode):
    offsets = torch.tensor([0, 2, 2, 5])
    return lambda t: F.embedding_bag(idx, t, offsets, mode=mode)


def attention(**options):
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, **options)


def running(t, g, c):
    return F.batch_norm(t, torch.linspace(-1, 1, 4).double(), torch.linspace(0.5, 2, 4).double(), g, c, False)


heads = torch.Size((2, 3, 5, 4))
# node -> what makes it, the shapes of what it takes, what is read of it
MADE = {
    "AddmmBackward0": (torch.addmm, [torch.Size((3,)), rows, torch.Size((4, 3))], "mat1 mat2 alpha beta"),
    "MmBackward0": (torch.mm, [rows, torch.Size((4, 3))], "self mat2"),
    "BmmBackward0": (torch.bmm, [torch.Size((2, 3, 4)), torch.Size((2, 4, 5))], "self mat2"),
    "ConvolutionBackward0": (
        lambda t, k, c: F.conv2d(t, k, c, 2, 1), [x, w, b],
        "input weight stride padding dilation transposed output_padding groups",
    ),
    "NativeLayerNormBackward0": (lambda t, g, c: F.layer_norm(t, (6, 6), g, c), [x, x[2:], x[2:]],
                                 "input weight result1 result2"),
    "NativeGroupNormBackward0": (lambda t, g, c: F.group_norm(t, 2, g, c), [x, channels, channels],
                                 "input weight result1 result2 group"),
    "NativeBatchNormBackward0": (lambda t, g, c: F.batch_norm(t, None, None, g, c, True), [x, channels, channels],
                                 "input weight result1 result2 running_mean running_var training eps"),
    "EmbeddingBackward0": (lambda t: F.embedding(idx, t, padding_idx=2), [torch.Size((6, 3))],
                           "indices padding_idx scale_grad_by_freq sparse"),
    "EmbeddingBagBackward0": (bag("mean"), [torch.Size((6, 3))],
                              "indices offsets result1 result2 result3 mode per_sample_weights padding_idx"),
    "ScaledDotProductFlashAttentionForCpuBackward0": (
        attention(), [heads] * 3, "query key value attn_mask is_causal dropout_p scale",
    ),
    "AddBackward0": (lambda s, t: torch.add(s, t, alpha=0.5), [rows, rows[1:]], "alpha"),
    "SubBackward0": (lambda s, t: torch.sub(s, t, alpha=0.5), [rows, rows], "alpha"),
    "MulBackward0": (torch.mul, [rows, rows[1:]], "self other"),
    "ReluBackward0": (F.relu, [rows], "result"),
    "ViewBackward0": (lambda t: t.view(4, 7), [rows], ""),
    "UnsafeViewBackward0": (lambda t: torch.ops.aten._unsafe_view(t, [4, 7]), [rows], ""),
    "UnsqueezeBackward0": (lambda t: t.unsqueeze(1), [rows], ""),
    "SqueezeBackward1": (lambda t: t.squeeze(1), [torch.Size((3, 1, 2))], ""),
    "CloneBackward0": (torch.clone, [rows], ""),
    "ToCopyBackward0": (lambda t: t.to(torch.float32).double(), [rows], ""),
    "TBackward0": (torch.t, [rows], ""),
    "TransposeBackward0": (lambda t: t.transpose(1, -1), [x], "dim0 dim1"),
    "PermuteBackward0": (lambda t: t.permute(1, 3, 0, 2), [x], "dims"),
    "ExpandBackward0": (lambda t: t.expand(5, 7, 4), [rows], ""),
    "MeanBackward0": (torch.mean, [rows], ""),
    "MeanBackward1": (lambda t: t.mean((-1, 1)), [x], "dim keepdim"),
    "SumBackward0": (torch.sum, [rows], ""),
    "SumBackward1": (lambda t: t.sum(-1, keepdim=True), [x], "dim keepdim"),
    "MaxPool2DWithIndicesBackward0": (lambda t: F.max_pool2d(t, 2), [x], "result1"),
    "AvgPool2DBackward0": (lambda t: F.avg_pool2d(t, 3, 2, 1, count_include_pad=False), [x],
                           "kernel_size stride padding ceil_mode count_include_pad divisor_override"),
}  # fmt: skip
UNARY = {
    "Hardsigmoid": F.hardsigmoid, "Hardswish": F.hardswish, "Hardtanh": F.hardtanh, "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh, "Gelu": F.gelu, "Silu": F.silu, "Mish": F.mish, "Elu": F.elu,
    "LeakyRelu": F.leaky_relu, "Softplus": F.softplus,
    "LogSigmoid": F.logsigmoid, "Exp": torch.exp, "Sin": torch.sin, "Cos": torch.cos, "Erf": torch.erf,
    "Abs": torch.abs,
    "Neg": torch.neg, "Hardshrink": F.hardshrink, "Softshrink": F.softshrink,
}  # fmt: skip
MORE = {
    "convolution, transposed": (lambda t, k, c: F.conv_transpose2d(t, k, c, 2, 1, 1), [x, torch.Size((4, 3, 3, 3)), b]),
    "convolution, 'valid'": (lambda t, k, c: F.conv2d(t, k, c, padding="valid"), [x, w, b]),
    "batch norm that stands": (running, [x, channels, channels]),
    "bag, sum": (bag("sum"), [torch.Size((6, 3))]),
    "bag, max": (bag("max"), [torch.Size((6, 3))]),
    "attention, causal": (attention(is_causal=True), [heads] * 3),
    "attention, masked": (attention(attn_mask=torch.randn(5, 5).double()), [heads] * 3),
    "maximum": (torch.maximum, [rows, rows]),
    "softmax": (lambda t: t.softmax(1), [rows]),
    "cat": (lambda s, t: torch.cat([s, t], 1), [rows, rows]),
    "index": (lambda t: t[idx], [rows]),
    "clamp by tensors": (lambda t, low: t.clamp(min=low), [rows, rows]),
}
CASES = {
    **{name: (f, shapes) for name, (f, shapes, _) in MADE.items()},
    **{name: (f, [rows]) for name, f in UNARY.items()},
    **MORE,
}


def node_of(f, shapes):
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.double).requires_grad_() for shape in shapes]
    return f(*inputs).grad_fn, inputs


@pytest.mark.quick
@pytest.mark.parametrize("name", MADE)
def test_what_is_read_of_a_node_is_there(name):
    f, shapes, read = MADE[name]
    node, _ = node_of(f, shapes)
    if name == "ToCopyBackward0":
        assert {name} == {node.name(), node.next_functions[0][0].name()}
    assert node.name() == name and name in registry.TYPES
    assert {*read.split()} <= {*names(type(node))}


def test_every_rule_is_tried():
    """But for those of types that this machine cannot make, which are here by name."""
    others = {f"ScaledDotProduct{kind}AttentionBackward0" for kind in ("Flash", "Efficient", "Cudnn")}
    others |= {"CudnnBatchNormBackward0", "ReshapeAliasBackward0", "AliasBackward0", "DetachBackward0"}
    others |= {"SqueezeBackward0", "SqueezeBackward2"}
    rule = registry.TYPES["TanhBackward0"].tangent
    elementwise = {name for name, kind in registry.TYPES.items() if kind.tangent is rule}
    assert registry.TYPES.keys() - others - elementwise == MADE.keys() - elementwise


@pytest.mark.quick
@pytest.mark.parametrize("name", CASES)
def test_tangents_are_the_transpose_of_what_a_node_sends(name):
    """<what it sends for u, ts> = <u, tangent>, for any u: the gradient is what counts, not what the forward was."""
    f, shapes = CASES[name]
    for some in range(1, 1 << len(shapes)):  # every set of inputs that have a tangent
        node, inputs = node_of(f, shapes)
        if name == "ToCopyBackward0":
            node = node.next_functions[0][0]
        ts = {j: torch.randn_like(t).detach() for j, t in enumerate(inputs) if some >> j & 1}
        with torch.no_grad():
            found = {k: formed(t) for k, t in registry.tangent(node, ts, "auto").items()}
            for _ in range(3):
                us = [torch.randn(m.shape, dtype=m.dtype) * (k in found) for k, m in enumerate(node._input_metadata)]
                sent = sum(((g.double() * ts[j]).sum() for j, g in send(node, us) if j in ts), torch.zeros(()).double())
                ours = sum(((us[k].double() * t).sum() for k, t in found.items()), torch.zeros(()).double())
                goal = SCORE_GOAL[torch.float32 if name == "ToCopyBackward0" else torch.float64]
                scale = sum((us[k].double() * t).norm() for k, t in found.items())
                assert (sent - ours).abs() <= goal * scale


def test_a_node_without_a_rule_is_transposed():
    node, (t, _) = node_of(torch.mv, [rows, rows[1:]])
    d = torch.randn(4, dtype=torch.double)
    assert relative_error(transposed(node, {1: d})[0], t @ d) <= SCORE_GOAL[torch.float64]


def test_outputs_that_rules_do_not_know_of_are_transposed():
    """The statistics of a group norm have gradients too."""
    torch.manual_seed(0)
    layer, head = torch.nn.Linear(8, 8).double(), torch.nn.Linear(8, 3).double()

    def losses(model, batch):
        h = model[0](batch[0])
        y, mean, rstd = torch.native_group_norm(h, None, None, len(h), 8, 1, 2, 1e-5)
        return F.cross_entropy(
            model[1](y * rstd.sum(1, keepdim=True) + mean.sum(1, keepdim=True)), batch[1], reduction="none"
        )

    model = torch.nn.ModuleList([layer, head])
    for _ in range(2):
        batch, val_batch = ((torch.randn(n, 8).double(), torch.arange(n) % 3) for n in (6, 4))
        for made in (apart, joined):
            exact(*made(model, batch, val_batch, losses))
            exact(*made(model, batch, val_batch, losses), method="tangent")
