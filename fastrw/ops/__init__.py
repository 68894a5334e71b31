"""The ops of fastrw, one file each: what it takes and returns, its checks, its backends.

May import errors and the kernels alone: an op knows tensors, no graph and no model. The equations are those of
"Learning to Reweight Examples for Robust Deep Learning" (Ren et al. 2018), in these letters: n train examples,
m validation examples, r train rows, k validation rows, p in-features, q out-features, C and O channels, a and x inputs,
g output-gradients, V validation gradient, w weights of examples, s scores.

What holds for every op, where its own docstring says nothing else:

    Tensors are float32, float64, bfloat16 or float16, on one device, with any strides, and share one dtype. Beside
        those of 16 bits, what is no input, output or output-gradient (V, w, statistics, directions) may be float32, the
        dtype of the sums. Any size may be 0: an empty sum is 0.
    Convolutions have 1 to 3 dimensions after the channels. stride, padding and dilation are an integer a dimension and
        groups divides C and O, as in torch.nn.functional.conv2d. "cpp" serves 1 and 2 dimensions.
    backend: "auto" is the fastest that can serve, by measurement, else "reference". A backend asked for by name serves
        or raises; `python -m fastrw info` lists those of every op. float64 is served by reference and cpp only. See
        `fastrw.ops.backends`.
    Precision: float32 products on a GPU are TF32 where torch is told so: convolutions by torch.backends.cudnn (torch's
        default), products of matrices by torch.backends.cuda.matmul. Kernels take 16 bits by 32 exactly.
    Returns: tensors on the same device in the dtype in which sums are kept, float32 (float64 for float64 tensors).
        Differentiable in every floating point tensor, to any order, in reverse and forward mode, and under vmap.
    Raises:
        TypeError: an argument is of another type than its annotation.
        ValueError: a dtype, device, shape or number breaks a rule, or no backend has that name.
        fastrw.Refused: the backend asked for cannot serve these tensors; the text says why.
"""

from .batch_norm_tangent import batch_norm_tangent as batch_norm_tangent
from .combine import combine as combine
from .conv_dot import conv_dot as conv_dot
from .conv_gradients import conv_gradients as conv_gradients
from .conv_instance import conv_instance as conv_instance
from .conv_outer import conv_outer as conv_outer
from .conv_tangent import conv_tangent as conv_tangent
from .embedding_dot import embedding_dot as embedding_dot
from .gram_dot import gram_dot as gram_dot
from .grouped_combine import grouped_combine as grouped_combine
from .grouped_gram_dot import grouped_gram_dot as grouped_gram_dot
from .grouped_weighted_outer import grouped_weighted_outer as grouped_weighted_outer
from .joint_gram_dot import joint_gram_dot as joint_gram_dot
from .norm_dot import norm_dot as norm_dot
from .norm_instance import norm_instance as norm_instance
from .project_dot import project_dot as project_dot
from .rectify_normalize import rectify_normalize as rectify_normalize
from .weighted_outer import weighted_outer as weighted_outer
