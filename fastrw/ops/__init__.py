"""The ops of fastrw, one file each: check, choose a backend, run. The letters are those of the equations.

n train examples, m validation examples, r train rows, k validation rows, p in-features, q out-features,
a inputs, g output-gradients, V validation gradient.
"""

from .batch_norm_tangent import batch_norm_tangent
from .gram_dot import gram_dot
from .instance_dot import instance_dot
from .project_dot import project_dot
from .relu_tangent import relu_tangent
from .weighted_outer import weighted_outer

__all__ = ["batch_norm_tangent", "gram_dot", "instance_dot", "project_dot", "relu_tangent", "weighted_outer"]
