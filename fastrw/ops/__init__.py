"""The ops of fastrw, one file each: check, choose a backend, run. The letters are those of the equations.

n train examples, m validation examples, r train rows, k validation rows, p in-features, q out-features,
a inputs, g output-gradients, V validation gradient.
"""

from .gram_dot import gram_dot

__all__ = ["gram_dot"]
