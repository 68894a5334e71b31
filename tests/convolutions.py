"""Arguments of the convolution kernels' launch tests."""

from tests.op_cases.draw import Draw

LAYERS = {  # C and O of a group, groups, then size, kernel, stride, padding, dilation of each dimension
    "3x3": (20, 40, 1, ((9, 3, 1, 1, 1), (7, 3, 1, 1, 1))),
    "aligned": (16, 24, 2, ((6, 3, 2, 1, 1), (5, 3, 1, 1, 1))),
    "stem": (3, 17, 1, ((11, 5, 2, 2, 1), (9, 3, 2, 0, 1))),
    "1x1": (24, 8, 1, ((5, 1, 2, 0, 1), (4, 1, 1, 0, 1))),
    "depthwise": (1, 1, 5, ((6, 3, 1, 1, 1), (6, 3, 1, 1, 1))),
    "dilated": (2, 3, 2, ((9, 3, 2, 3, 2), (8, 2, 1, 0, 3))),
    "one dimension": (4, 9, 1, ((30, 7, 2, 3, 1),)),
    "three dimensions": (2, 3, 2, ((5, 3, 2, 1, 1), (4, 2, 1, 1, 1), (3, 1, 1, 0, 1))),
    "one place": (8, 8, 1, ((1, 1, 1, 0, 1),)),
}


def arguments(n, layer, dtype, layout="plain", other=None):
    """x, g, V, v_b, kernel, stride, padding, dilation, groups."""
    C, O, groups, axes = LAYERS[layer] if isinstance(layer, str) else layer
    sizes, kernel, stride, padding, dilation = map(list, zip(*axes, strict=True))
    out = [(s + 2 * p - d * (k - 1) - 1) // t + 1 for s, k, t, p, d in axes]
    draw, others = Draw(dtype, layout), Draw(other or dtype, layout, seed=1)
    x, g = draw.normal(n, C * groups, *sizes), draw.normal(n, O * groups, *out)
    V, v_b = others.normal(O * groups, C, *kernel), others.normal(O * groups)
    return x, g, V, v_b, kernel, stride, padding, dilation, groups
