"""The ops of fastrw, one file each: check, choose a backend, run.

May import errors and the kernels alone: an op knows tensors, no graph and no model. The letters are those of the
equations:
n train examples, m validation examples, r train rows, k validation rows, p in-features, q out-features,
a inputs, g output-gradients, V validation gradient.
"""

from .batch_norm_tangent import batch_norm_tangent
from .combine import combine
from .conv_dot import conv_dot
from .conv_instance import conv_instance
from .conv_outer import conv_outer
from .conv_tangent import conv_tangent
from .embedding_dot import embedding_dot
from .gram_dot import gram_dot
from .grouped_gram_dot import grouped_gram_dot
from .instance_dot import instance_dot
from .norm_dot import norm_dot
from .norm_instance import norm_instance
from .project_dot import project_dot
from .rectify_normalize import rectify_normalize
from .relu_tangent import relu_tangent
from .weighted_outer import weighted_outer

__all__ = [
    "batch_norm_tangent",
    "combine",
    "conv_dot",
    "conv_instance",
    "conv_outer",
    "conv_tangent",
    "embedding_dot",
    "gram_dot",
    "grouped_gram_dot",
    "instance_dot",
    "norm_dot",
    "norm_instance",
    "project_dot",
    "rectify_normalize",
    "relu_tangent",
    "weighted_outer",
]
