"""Every variant of one L2R step: fastrw's, other libraries', and those that one would write with torch alone.

A step is called with (model, batch, val_batch) and leaves sum_i w_i grad f_i in `.grad`, w by Eq. 8-9 of Ren et al.
(2018); it returns the scores s_i = grad f^v . grad f_i [n] and the name of what served, or raises."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import grad, jvp, vmap

import fastrw
from bench import compiled, peers
from bench.models import Batch, copied_buffers, losses, twice_differentiable, validation_gradient
from bench.twins import channels_last
from fastrw.api import capture
from fastrw.api.evaluate import evaluate
from fastrw.api.options import Options
from fastrw.api.problem import Problem
from fastrw.engine.weights import NORMALIZERS, rectify

Step = Callable[[nn.Module, Batch, Batch], tuple[Tensor, str]]


def plain(model: nn.Module, batch: Batch, _val_batch: Batch) -> tuple[Tensor, str]:
    """An ordinary step; it returns the losses in place of scores, so that it can be checked too."""
    f = losses(model, batch)
    f.mean().backward()
    return f.detach(), "plain"


def shared_forward(method: str, model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    """fastrw's scores, then an ordinary weighted backward through the forward that they were computed on."""
    answer, f = evaluate(Problem(model, batch, val_batch), Options(method), keep_graph=True)
    (rectify(answer.scores) * f).sum().backward()
    return answer.scores, answer.method


def served(out) -> tuple[Tensor, str]:
    return out.scores, f"{out.method}, {out.update}"


def reweighter(model: nn.Module, batch: Batch, val_batch: Batch, **options) -> tuple[Tensor, str]:
    """The step of fastrw.Reweighter."""
    return served(fastrw.Reweighter(model, **options).backward(batch, val_batch))


def by_hand(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    """fastrw.backward, with losses from one forward where no norm takes its statistics from the batch."""
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules()):
        val_loss = losses(model, val_batch).mean()
        return served(fastrw.backward(losses(model, batch), val_loss))
    n = len(batch[1])
    f = losses(model, tuple(map(torch.cat, zip(batch, val_batch, strict=True))))
    return served(fastrw.backward(f[:n], f[n:].mean()))


_captured: dict[nn.Module, fastrw.Reweighter] = {}  # of the model that was measured last


def captured(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    """The same, replayed as a CUDA graph from the first measured step on."""
    if model not in _captured:
        _captured.clear()
        _captured[model] = fastrw.Reweighter(model, capture=True)
        for _ in range(capture.WARMUP_STEPS):
            _captured[model].backward(batch, val_batch)
            model.zero_grad()
    return served(_captured[model].backward(batch, val_batch))


def drop_in(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    """What a user writes: the weights, then a weighted step with another forward."""
    weights, report = fastrw.meta_weights(model, batch, val_batch, return_report=True)
    (weights * losses(model, batch)).sum().backward()
    return report.scores, report.method


def double_backward(
    model: nn.Module, batch: Batch, val_batch: Batch, rate: float = 0.1, params: str | None = None,
    normalize: str = "rectify",
) -> tuple[Tensor, str]:  # fmt: skip
    """Algorithm 1, literally: epsilon, one SGD step kept differentiable, the validation loss at its end."""
    here = Problem(model, batch, val_batch, params=params).params
    with twice_differentiable():
        f = losses(model, batch)
        epsilon = torch.zeros_like(f, requires_grad=True)
        gradient = torch.autograd.grad((epsilon * f).sum(), list(here.values()), create_graph=True)
        ahead = {name: p - rate * d for (name, p), d in zip(here.items(), gradient, strict=True)}
        val_loss = losses(model, val_batch, {**ahead, **copied_buffers(model)}).mean()
        scores = -torch.autograd.grad(val_loss, epsilon, retain_graph=True)[0] / rate
    (NORMALIZERS[normalize](scores) * f).sum().backward()
    return scores, "double_backward"


def forward_mode(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    """torch.func.jvp of the losses along V, then a weighted step."""
    here = {name: p.detach() for name, p in model.named_parameters()}
    along = validation_gradient(model, val_batch)
    with torch.no_grad(), twice_differentiable():
        _, scores = jvp(lambda p: losses(model, batch, {**p, **copied_buffers(model)}), (here,), (along,))
    (rectify(scores) * losses(model, batch)).sum().backward()
    return scores, "torch.func.jvp"


def per_example(model: nn.Module, batch: Batch, val_batch: Batch) -> tuple[Tensor, str]:
    """vmap(grad): all n gradients in memory, dotted with V, then summed by weight."""
    here = {name: p.detach() for name, p in model.named_parameters()}
    along = validation_gradient(model, val_batch)

    def loss(at: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return losses(model, (x[None], y[None]), at).squeeze(0)

    gradients = vmap(grad(loss), (None, 0, 0))(here, *batch)
    scores = sum(g.flatten(1) @ along[name].flatten() for name, g in gradients.items())
    weights = rectify(scores).to(scores.dtype)
    for name, p in model.named_parameters():
        p.grad = torch.einsum("n,n...->...", weights, gradients[name])
    return scores, "vmap(grad)"


STEPS: dict[str, Step] = {
    "plain": plain,
    "Reweighter": reweighter,
    "fastrw.backward": by_hand,
    "all weights positive": partial(reweighter, normalize="shift"),
    "capture": captured,
    "update=backward": partial(reweighter, update="backward"),
    "params=last": partial(reweighter, params="last"),
    "layerwise": partial(shared_forward, "layerwise"),
    "tangent": partial(shared_forward, "tangent"),
    "auto": partial(shared_forward, "auto"),
    "meta_weights": drop_in,
    "plain, channels_last": channels_last(plain),
    "Reweighter, channels_last": channels_last(reweighter),
    compiled.PLAIN: compiled.plain,
    compiled.REWEIGHTER: compiled.reweighter,
    "torch.func.jvp": forward_mode,
    "vmap(grad)": per_example,
    "double_backward": double_backward,
    **peers.steps(),
}
# what a ratio is taken to, where it is not plain
BASE = {"Reweighter, channels_last": "plain, channels_last", compiled.REWEIGHTER: compiled.PLAIN}
WITHOUT_FASTRW = {"torch.func.jvp", "vmap(grad)", "double_backward", *peers.PEERS}

# what a step that is not the whole of Algorithm 1 is checked against
EXPECTED: dict[str, Step] = {
    "plain, channels_last": plain,
    compiled.PLAIN: plain,
    "params=last": partial(double_backward, params="last"),
    "all weights positive": partial(double_backward, normalize="shift"),
}
