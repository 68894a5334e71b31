"""Every type of node that fastrw has a rule for: torch makes it, it saves what is read of it (names that are torch's
own internals), and its tangent is the transpose of what it sends."""

import pytest
import torch
import torch.nn.functional as F

from fastrw.graph.saved import names
from fastrw.graph.sending import send
from fastrw.nodes import registry
from fastrw.nodes.generic import transposed
from fastrw.nodes.lazy import formed
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
# node -> what makes it, the shapes of what it takes
MADE = {
    "AddmmBackward0": (lambda b, m, n: torch.addmm(b, m, n, alpha=0.5, beta=2), [(3,), rows, (4, 3)]),
    "MmBackward0": (torch.mm, [rows, (4, 3)]),
    "MvBackward0": (torch.mv, [rows, (4,)]),
    "BmmBackward0": (torch.bmm, [(2, 3, 4), (2, 4, 5)]),
    "BaddbmmBackward0": (lambda b, m, n: torch.baddbmm(b, m, n, alpha=0.5, beta=2), [(2, 1, 5), (2, 3, 4), (2, 4, 5)]),
    "ConvolutionBackward0": (lambda t, k, c: F.conv2d(t, k, c, 2, 1), [x, w, b]),
    "NativeLayerNormBackward0": (lambda t, g, c: F.layer_norm(t, (6, 6), g, c), [x, (6, 6), (6, 6)]),
    "NativeGroupNormBackward0": (lambda t, g, c: F.group_norm(t, 2, g, c), [x, channels, channels]),
    "NativeBatchNormBackward0": (lambda t, g, c: F.batch_norm(t, None, None, g, c, True), [x, channels, channels]),
    "EmbeddingBackward0": (lambda t: F.embedding(idx, t, padding_idx=2), [(6, 3)]),
    "EmbeddingBagBackward0": (bag("mean"), [(6, 3)]),
    "ScaledDotProductFlashAttentionForCpuBackward0": (attention(), [heads] * 3),
    "AddBackward0": (lambda s, t: torch.add(s, t, alpha=0.5), [rows, (4,)]),
    "SubBackward0": (lambda s, t: torch.sub(s, t, alpha=0.5), [rows, rows]),
    "MulBackward0": (torch.mul, [rows, (4,)]),
    "ReluBackward0": (F.relu, [rows]),
    "ViewBackward0": (lambda t: t.view(4, 7), [rows]),
    "UnsafeViewBackward0": (lambda t: torch.ops.aten._unsafe_view(t, [4, 7]), [rows]),
    "UnsqueezeBackward0": (lambda t: t.unsqueeze(1), [rows]),
    "SqueezeBackward1": (lambda t: t.squeeze(1), [(3, 1, 2)]),
    "CloneBackward0": (torch.clone, [rows]),
    "ToCopyBackward0": (lambda t: t.to(torch.float32), [rows]),
    "TBackward0": (torch.t, [rows]),
    "TransposeBackward0": (lambda t: t.transpose(1, -1), [x]),
    "PermuteBackward0": (lambda t: t.permute(1, 3, 0, 2), [x]),
    "ExpandBackward0": (lambda t: t.expand(5, 7, 4), [rows]),
    "FlipBackward0": (lambda t: t.flip(0, 1), [rows]),
    "RepeatBackward0": (lambda t: t.repeat(2, 1, 3), [rows]),
    "MeanBackward0": (torch.mean, [rows]),
    "MeanBackward1": (lambda t: t.mean((-1, 1)), [x]),
    "SumBackward0": (torch.sum, [rows]),
    "SumBackward1": (lambda t: t.sum(-1, keepdim=True), [x]),
    "MaxPool2DWithIndicesBackward0": (lambda t: F.max_pool2d(t, 2), [x]),
    "AvgPool2DBackward0": (lambda t: F.avg_pool2d(t, 3, 2, 1, count_include_pad=False), [x]),
    "ClampBackward0": (lambda t: t.clamp(min=torch.zeros(4).double()), [rows]),
    "ClampBackward1": (lambda t: t.clamp(-0.5, 1.0), [rows]),
}
UNARY = {
    "Abs": torch.abs, "ClampMax": lambda t: t.clamp_max(0.3),
    "ClampMin": lambda t: t.clamp_min(0.3), "Cos": torch.cos, "Elu": F.elu, "Erf": torch.erf, "Exp": torch.exp,
    "Gelu": lambda t: F.gelu(t, approximate="tanh"), "Hardshrink": F.hardshrink, "Hardsigmoid": F.hardsigmoid,
    "Hardswish": F.hardswish, "Hardtanh": F.hardtanh, "LeakyRelu": F.leaky_relu, "Log": torch.log,
    "LogSigmoid": F.logsigmoid, "Mish": F.mish, "Neg": torch.neg, "Reciprocal": torch.reciprocal, "Rsqrt": torch.rsqrt,
    "Sigmoid": torch.sigmoid, "Silu": F.silu, "Sin": torch.sin, "Softplus": F.softplus, "Softshrink": F.softshrink,
    "Sqrt": torch.sqrt, "Tanh": torch.tanh, "Threshold": lambda t: F.threshold(t, 0.1, 2.0),
}  # fmt: skip
MADE |= {f"{name}Backward0": (f, [rows]) for name, f in UNARY.items()}
MORE = {
    "convolution, transposed": (lambda t, k, c: F.conv_transpose2d(t, k, c, 2, 1, 1), [x, torch.Size((4, 3, 3, 3)), b]),
    "convolution, 'valid'": (lambda t, k, c: F.conv2d(t, k, c, padding="valid"), [x, w, b]),
    "batch norm that stands": (running, [x, channels, channels]),
    "bag, sum": (bag("sum"), [torch.Size((6, 3))]),
    "bag, max": (bag("max"), [torch.Size((6, 3))]),
    "attention, grouped queries": (attention(enable_gqa=True), [(2, 4, 5, 4), (2, 2, 5, 4), (2, 2, 5, 4)]),
    "attention, causal": (attention(is_causal=True), [heads] * 3),
    "attention, masked": (attention(attn_mask=torch.randn(5, 5).double()), [heads] * 3),
    "celu": (lambda t: F.celu(t, 0.7), [rows]),  # torch rounds 1 / alpha to float32: no formula says that
    "maximum": (torch.maximum, [rows, rows]),
    "softmax": (lambda t: t.softmax(1), [rows]),
    "cat": (lambda s, t: torch.cat([s, t], 1), [rows, rows]),
    "index": (lambda t: t[idx], [rows]),
    "clamp by tensors": (lambda t, low: t.clamp(min=low), [rows, rows]),
}
CASES = {**MADE, **MORE}


def node_of(f, shapes):
    torch.manual_seed(0)
    inputs = [torch.randn(shape, dtype=torch.double) for shape in shapes]
    if f in (torch.log, torch.sqrt, torch.rsqrt):
        inputs = [t.abs() + 0.1 for t in inputs]
    inputs = [t.requires_grad_() for t in inputs]
    return f(*inputs).grad_fn, inputs


@pytest.mark.quick
@pytest.mark.parametrize("name", registry.TYPES)
def test_what_is_read_of_a_node_is_there(name):
    """torch's own names: on nodes that this machine cannot make, too."""
    kind = getattr(torch._C._functions, name)
    alias = {"eps": "epsilon"} if name.startswith("Cudnn") else {}
    assert {alias.get(one, one) for one in registry.TYPES[name].reads.split()} <= {*names(kind)}


@pytest.mark.quick
def test_every_type_is_tried():
    """But for those of types that this machine cannot make, which are here by name."""
    others = {f"ScaledDotProduct{kind}AttentionBackward0" for kind in ("Flash", "Efficient", "Cudnn")}
    others |= {"CudnnBatchNormBackward0", "ReshapeAliasBackward0", "AliasBackward0"}
    others |= {"SqueezeBackward0", "SqueezeBackward2"}
    assert registry.TYPES.keys() - others == MADE.keys()
    for name, (f, shapes) in MADE.items():
        assert node_of(f, shapes)[0].name() == name


@pytest.mark.quick
@pytest.mark.parametrize("name", CASES)
def test_tangents_are_the_transpose_of_what_a_node_sends(name):
    """<what it sends for u, ts> = <u, tangent>, for any u: the gradient is what counts, not what the forward was."""
    f, shapes = CASES[name]
    for some in range(1, 1 << len(shapes)):  # every set of inputs that have a tangent
        node, inputs = node_of(f, shapes)
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


def test_a_node_without_a_formula_is_transposed():
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
