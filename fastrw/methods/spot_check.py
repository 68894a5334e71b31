"""The guard behind every fast method: before a method is trusted with a model, a few of its scores are held against
one `autograd.grad` per example on the very same batch. A rule that is wrong is refused here, not believed."""

import torch

from fastrw import old_graph as graph
from fastrw.errors import Refused
from fastrw.isolation import State
from fastrw.methods.common import Scored, as_score, validation_gradient
from fastrw.problem import Problem

EXAMPLES = 5
# A wrong rule errs by far more; rounding by far less. Half precision is judged by what its products can carry.
RELATIVE = {torch.float64: 1e-7, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}
# Sums of products are rounded at the scale of the factors, |grad f_i| |V|, however small the sum: so many eps of them.
ROUNDINGS = {torch.float64: 64, torch.float32: 64, torch.float16: 4, torch.bfloat16: 4}


def coarsest(*tensors: torch.Tensor) -> torch.dtype:
    """The dtype that limits what can be asked of numbers made from these: the coarsest that they, or anything that
    their graphs pass through, are in."""
    return max(graph.dtypes(*tensors) & {*RELATIVE}, key=list(RELATIVE).index, default=torch.float32)


def spot_check(problem: Problem, state: State, scored: Scored, name: str) -> bool:
    """Raises Refused where a score of `scored` is not that of its example's own gradient.

    Returns whether this batch could tell: one whose numbers are not finite, or all 0, vouches for nothing. Leaves
    buffers and random states as it found them.
    """
    after = State(problem)
    state.rewind()
    V = validation_gradient(problem, state)
    losses = problem.losses(problem.batch)
    after.rewind()
    wanted, dtype = list(V), coarsest(losses, *V)
    finite = losses.detach().isfinite().nonzero().flatten().tolist()
    picked = sorted({finite[round(j * (len(finite) - 1) / (EXAMPLES - 1))] for j in range(EXAMPLES)}) if finite else []
    if not picked or not V:
        return False
    norm_V = torch.stack([as_score(v).norm() for v in V.values()]).norm()
    truth, noise = [], []
    for i in picked:
        grads = torch.autograd.grad(losses[i], wanted, retain_graph=True, allow_unused=True)
        pairs = [(as_score(g), as_score(V[p])) for p, g in zip(wanted, grads, strict=True) if g is not None]
        zero = scored.scores.new_zeros(())
        truth.append(sum(((g * v).sum() for g, v in pairs), zero))
        noise.append(sum((g.norm() ** 2 for g, _ in pairs), zero).sqrt() * norm_V)
    truth, noise, found = torch.stack(truth).detach(), torch.stack(noise).detach(), scored.scores[picked]
    if not bool(truth.isfinite().all()) or not bool(truth.any()):
        return False
    rounding = ROUNDINGS[dtype] * torch.finfo(dtype).eps * noise
    excess = (found - truth).abs() - RELATIVE[dtype] * truth.norm() - rounding
    if not bool((excess <= 0).all()):
        worst = int(excess.nan_to_num(torch.inf).argmax())
        raise Refused(
            f"fastrw.{name}: scores must equal one gradient per example, got {found[worst]:.6g} where example "
            f"{picked[worst]} has {truth[worst]:.6g}"
        )
    return True


def gradient_check(problem: Problem, state: State, w: torch.Tensor, found: dict, name: str) -> None:
    """Raises Refused where `found` is not the gradient of sum_i w_i f_i, by one ordinary backward."""
    after = State(problem)
    state.rewind()
    losses = problem.losses(problem.batch)
    after.rewind()
    params = list(problem.params.values())
    kept = torch.where(w == 0, 0, w.to(losses.dtype) * losses)
    grads = torch.autograd.grad(kept.sum(), params, allow_unused=True)
    limit = RELATIVE[coarsest(losses, *params)]
    error = norm = w.new_zeros(())
    for p, g in zip(params, grads, strict=True):
        if g is not None or p in found:
            g, ours = (torch.zeros_like(p) if t is None else t.to_dense() for t in (g, found.get(p)))
            error, norm = error + (as_score(ours) - as_score(g)).norm() ** 2, norm + as_score(g).norm() ** 2
    if bool(error.sqrt() > limit * norm.sqrt()):
        raise Refused(
            f"fastrw.{name}: the gradient must be that of the weighted losses, got a relative error of "
            f"{(error / norm).sqrt().item():.1e}"
        )
