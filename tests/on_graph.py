"""Losses made by any code, and what `fastrw.backward` has to give for them: one autograd.grad an example on one
graph."""

import torch
import torch.nn.functional as F

import fastrw


def leaves_of(loss):
    """Every tensor that a backward would fill."""
    found, stack, seen = [], [loss.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        stack += [child for child, _ in node.next_functions]
    return found


def dense(g, like):
    return torch.zeros_like(like) if g is None else g.to_dense()


def dot(a, b):
    a, b = (torch.view_as_real(t) if t.is_complex() else t for t in (a, b))
    return (a.double() * b.double()).sum()


def truth(losses, val_loss, params=None):
    """Scores, weights and {leaf: sum_i w_i grad f_i}; the graphs stay."""
    leaves = leaves_of(losses)
    chosen = leaves if params is None else params

    def grads(loss, of):
        found = torch.autograd.grad(loss, of, retain_graph=True, allow_unused=True)
        return [dense(g, p) for g, p in zip(found, of, strict=True)]

    V = grads(val_loss, chosen)
    s = torch.stack([sum(dot(g, v) for g, v in zip(grads(f, chosen), V, strict=True)) for f in losses])
    w = s.clamp(min=0)
    w = w / w.sum() if bool(w.sum() > 0) else w
    each = [grads(f, leaves) for f in losses]
    weighted = [sum(wi.to(p.real.dtype) * g[k] for wi, g in zip(w, each, strict=True)) for k, p in enumerate(leaves)]
    return s, w, dict(zip(leaves, weighted, strict=True))


def relative(found, expected):
    found, expected = (t.detach().to_dense() for t in (found, expected))
    return ((found - expected).norm() / (expected.norm() if expected.norm() > 0 else 1)).item()


def exact(losses, val_loss, params=None, goal=1e-10, **kwargs):
    """Calls fastrw.backward on the graphs; asserts that all of it is right; what it returned."""
    s, w, weighted = truth(losses, val_loss, params)
    for leaf in weighted:
        leaf.grad = None
    out = fastrw.backward(losses, val_loss, params, **kwargs)
    assert relative(out.scores.double(), s) <= goal
    assert relative(out.weights.double(), w) <= goal * 100
    scale = sum(g.norm() ** 2 for g in weighted.values()).sqrt() or 1
    for leaf, g in weighted.items():
        assert ((dense(leaf.grad, leaf) - g).norm() / scale).item() <= goal, tuple(leaf.shape)
    return out


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def joined(model, batch, val_batch, losses=cross_entropy):
    """(losses, val_loss) of one forward of both batches."""
    n = len(batch[1])
    f = losses(model, [torch.cat(pair) for pair in zip(batch, val_batch, strict=True)])
    return f[:n], f[n:].mean()


def apart(model, batch, val_batch, losses=cross_entropy):
    """(losses, val_loss) of two forwards."""
    val_loss = losses(model, val_batch).mean()
    return losses(model, batch), val_loss
