"""Algorithm 1 of Ren et al. 2018, literally: the gradient of the validation loss at the looked-ahead parameters with
respect to the example weights, through a backward pass that is itself differentiated. The reference: 3-4 x a step."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from fastrw.errors import Refused
from fastrw.isolation import State
from fastrw.methods.common import Options, Scored, as_score
from fastrw.problem import Problem


class _Losses(nn.Module):
    """The losses as a module, so that `functional_call` can put other parameter values in."""

    def __init__(self, problem: Problem):
        super().__init__()
        self.model = problem.model
        self._problem = problem

    def forward(self, batch) -> Tensor:
        return self._problem.losses(batch)


def scores(problem: Problem, state: State, options: Options) -> Scored:
    """epsilon = 0; theta_hat = theta - grad sum_i epsilon_i f_i; s = - d f^v(theta_hat) / d epsilon.

    Source: Ren et al. 2018, Algorithm 1, lines 4-10 with step size 1 (it cancels in Eq. 9).
    """
    module = _Losses(problem)
    params = {f"model.{name}": p for name, p in problem.params.items()}
    with sdpa_kernel(SDPBackend.MATH):  # the other attention kernels have no second derivative
        losses = problem.losses(problem.batch)
        epsilon = torch.zeros_like(losses, requires_grad=True)
        buffers_after = State(problem)
        try:
            grads = torch.autograd.grad(
                (epsilon * losses).sum(), list(params.values()), create_graph=True, allow_unused=True
            )
        except RuntimeError as error:
            raise _refusal(error) from error
        ahead = {k: p if g is None else p - g for (k, p), g in zip(params.items(), grads, strict=True)}
        state.rewind()
        val_loss = functional_call(module, ahead, (problem.val_batch,)).mean()
        try:
            (ds,) = torch.autograd.grad(val_loss, epsilon, allow_unused=True, retain_graph=options.keep_graph)
        except RuntimeError as error:
            raise _refusal(error) from error
    buffers_after.rewind()
    s = torch.zeros_like(losses) if ds is None else -ds
    return Scored(as_score(s.detach()), losses)


def _refusal(error: RuntimeError) -> Refused:
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    return Refused(f"fastrw.double_backward: the backward must be differentiable, got {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
