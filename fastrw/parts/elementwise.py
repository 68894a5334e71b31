"""The part of a shift or a scale: its per-example gradient, g or g x, summed to the shape of the parameter."""

from __future__ import annotations

from torch import Tensor

from fastrw.parts.part import Instances, Owned, Part, Products
from fastrw.rules.elementwise import SCALES, SUBTRACTIONS
from fastrw.tape import Use


def elementwise(use: Use, g: Tensor, owned: Owned, products: Products) -> Part | None:
    given = dict(zip(("input", "other"), use.call.args, strict=False)) | use.call.kwargs
    sides = [name for name in ("input", "other") if id(given.get(name)) in use.directed]
    if len(sides) != 1 or owned.outer != 1 or len(g) != owned.n + owned.m:
        return None
    (side,) = sides
    parameter, x = given[side], given["other" if side == "input" else "input"]
    G = g
    if use.function in SCALES:
        G = g * (x.detach() if isinstance(x, Tensor) else x)
    elif side == "other":
        G = g * (-1 if use.function in SUBTRACTIONS else 1) * given.get("alpha", 1)
    elif use.function in SUBTRACTIONS and side == "input":
        G = g
    shape = [1] * (g.ndim - parameter.ndim) + list(parameter.shape)
    if shape[0] != 1 or G.shape != g.shape:  # it runs along the examples
        return None
    over = [dim for dim in range(1, g.ndim) if shape[dim] == 1 and g.shape[dim] != 1]
    G = G.sum(over, keepdim=True) if over else G
    return Instances(owned, {id(parameter): G.reshape(len(g), *parameter.shape)})
