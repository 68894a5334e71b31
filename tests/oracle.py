"""The oracle: one autograd.grad for each example, obviously correct, but slow. Everything else is judged by it.

    s_i = V . grad f_i,   V = grad of mean_j f^v_j          (Ren et al. 2018, Eq. 7 at epsilon = 0)

Both forward passes start from the same buffers and the same random state. The dtype is the model's: ask for float64
by making the model in float64. Nothing of the library is used here.
"""

import fnmatch
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map


def to_double(batch):
    """The float leaves in float64, the others as they are."""
    return tree_map(lambda x: x.double() if isinstance(x, torch.Tensor) and x.is_floating_point() else x, batch)


def default_loss(output, target):
    """Cross-entropy of each example; positions averaged over those whose label is not -100."""
    if isinstance(output, Mapping):
        output = output["logits"]
    elif not isinstance(output, torch.Tensor):
        output = output.logits
    if output.ndim == 3:  # [n, length, classes]; images are [n, classes, height, width]
        output = output.transpose(1, 2)
    rows = []
    for one, label in zip(output, target, strict=True):
        losses = F.cross_entropy(one[None], label[None], reduction="none").flatten()
        rows.append(losses[(label != -100).flatten()].mean())
    return torch.stack(rows)


def losses(model, batch, loss_fn=None, losses_fn=None):
    """f_i [n] by the public contract: what a batch may be and how the model is called."""
    if losses_fn is not None:
        return losses_fn(model, batch)
    if isinstance(batch, Mapping):
        inputs, target = {k: v for k, v in batch.items() if k != "labels"}, batch["labels"]
    else:
        inputs, target = batch
    if isinstance(inputs, Mapping):
        output = model(**inputs)
    elif isinstance(inputs, tuple | list):
        output = model(*inputs)
    else:
        output = model(inputs)
    return (loss_fn or default_loss)(output, target)


def selected(model, params=None):
    """The parameters that `params` names, by the public contract."""
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if params is None:
        return list(named.values())
    if params == "last":
        holders = [module for module in model.modules() if list(module.parameters(recurse=False))]
        return [p for p in holders[-1].parameters(recurse=False) if p.requires_grad]
    patterns = [params] if isinstance(params, str) else params
    return [p for name, p in named.items() if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def state(model):
    """Everything a forward may move: parameters (max_norm renormalises them), buffers and the random state."""
    tensors = [*model.parameters(), *model.buffers()]
    return tensors, [t.detach().clone() for t in tensors], torch.get_rng_state()


def put_back(saved):
    tensors, values, rng = saved
    for tensor, value in zip(tensors, values, strict=True):
        tensor.data.copy_(value)  # without a new version: graphs that are still needed stay usable
    torch.set_rng_state(rng)


def gradient(value, parameters):
    found = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g.to_dense() for p, g in zip(parameters, found, strict=True)]


def scores(model, batch, val_batch, *, loss_fn=None, losses_fn=None, params=None):
    """s [n]: for each example alone, its gradient from the joint forward, dotted with the validation gradient."""
    parameters, saved = selected(model, params), state(model)
    try:
        v = gradient(losses(model, val_batch, loss_fn, losses_fn).mean(), parameters)
        put_back(saved)
        each = losses(model, batch, loss_fn, losses_fn)
        return torch.stack(
            [sum((g.conj() * w).sum().real for g, w in zip(gradient(one, parameters), v, strict=True)) for one in each]
        ).detach()
    finally:
        put_back(saved)


def weights(s):
    """Eq. 8-9, with delta = 1 where no score is positive."""
    positive = torch.tensor([max(float(one), 0.0) for one in s], dtype=s.dtype)
    total = positive.sum()
    return positive / (total if total > 0 else 1.0)


def algorithm_1(model, batch, val_batch, *, loss_fn=None, losses_fn=None, params=None, lr=1e-3):
    """The paper's Algorithm 1, line by line: a step ahead by epsilon, the validation loss's derivative by epsilon.

    Its validation gradient is taken after a step of size 0 (epsilon is 0), so -d/d epsilon divided by lr is s. The
    attention takes torch's math backend, as the fused one has no second derivative.
    """
    parameters, saved = selected(model, params), state(model)
    names = {id(p): name for name, p in model.named_parameters()}
    try:
        with sdpa_kernel(SDPBackend.MATH):
            each = losses(model, batch, loss_fn, losses_fn)
            epsilon = torch.zeros(len(each), dtype=each.dtype, requires_grad=True)
            first = torch.autograd.grad((epsilon * each).sum(), parameters, create_graph=True, allow_unused=True)
            ahead = [p - lr * g if g is not None else p for p, g in zip(parameters, first, strict=True)]
            put_back(saved)
            there = {f"model.{names[id(p)]}": theta for p, theta in zip(parameters, ahead, strict=True)}
            f = Losses(model, loss_fn, losses_fn)
            value = torch.func.functional_call(f, there, (val_batch,)).mean()
            found = torch.autograd.grad(value, epsilon, allow_unused=True)[0]
        return torch.zeros_like(epsilon).detach() if found is None else -found / lr
    finally:
        put_back(saved)


class Losses(torch.nn.Module):
    """The losses as a module, so that functional_call can run model and losses with other parameters."""

    def __init__(self, model, loss_fn, losses_fn):
        super().__init__()
        self.model, self.how = model, (loss_fn, losses_fn)

    def forward(self, batch):
        return losses(self.model, batch, *self.how)
