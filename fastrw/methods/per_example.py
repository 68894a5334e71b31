"""One `autograd.grad` per example from one forward: exact for everything that has a gradient, at n backward passes."""

import torch

from fastrw.isolation import State
from fastrw.methods.common import Options, Scored, as_score, validation_gradient
from fastrw.problem import Problem


def scores(problem: Problem, state: State, options: Options) -> Scored:
    """s_i = <V, grad f_i>, example by example. Source: Ren et al. 2018, Eq. 7 at epsilon = 0."""
    V = validation_gradient(problem, state)
    losses = problem.losses(problem.batch)
    wanted = list(V)
    s = []
    for i, loss in enumerate(losses):
        keep = options.keep_graph or i + 1 < len(losses)
        grads = torch.autograd.grad(loss, wanted, retain_graph=keep, allow_unused=True)
        s.append(sum(as_score(g).mul(as_score(V[p])).sum() for p, g in zip(wanted, grads, strict=True) if g is not None)
                 + torch.zeros((), dtype=as_score(loss).dtype, device=losses.device))  # fmt: skip
    return Scored(torch.stack(s).detach(), losses)
