"""norm_instance: the gradient of scale and shift of one affine norm, per example, in one pass."""

from torch import Tensor

from .backends import register
from .call import lean
from .norm_dot import STATISTICS, check_groups, sample


def norm_instance(
    x: Tensor,  # [n, S, C] inputs
    g: Tensor,  # [n, S, C] output-gradients
    mean: Tensor | None,  # [n, S, G] what was subtracted
    rstd: Tensor,  # [n, S, G] what it was multiplied by
    *,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:  # [n, C], [n, C]
    """dL_i/dgamma = sum_S g x_hat and dL_i/dbeta = sum_S g, x_hat = (x - mean) rstd

    Scores, validation gradient and weighted update of a norm follow from these two: <G_i, V>, their sum over validation
    examples, sum_i w_i G_i. x_hat is formed in registers and never written; layouts and statistics as in `norm_dot`.

    Args:
        x, g: [n, S, C]; read in place where channels or positions are adjacent in memory.
        mean: [n, S, G] or None (nothing is subtracted: RMS norm), rstd: [n, S, G], G a divisor of C, of the dtype of x
            or of the sums; strides of 0 where they do not vary.
        backend: "reference", "cpp" or "cuda". Dtypes, results, derivatives and errors: see `fastrw.ops`.

    Returns:
        gradients of gamma and of beta, each [n, C]

    Source: the per-example gradients of Ren et al. 2018, Eq. 7, for the parameters of one norm.
    """
    return lean("norm_instance", backend, x, g, mean, rstd)


register(
    "norm_instance",
    letters=STATISTICS,
    wide=("mean", "rstd"),
    rules=lambda x, g, mean, rstd: check_groups("norm_instance", x, rstd),
    outputs=("nC", "nC"),
    sample=lambda whole: sample(whole)[:4],
    order={
        "cpu": ("cpp",),  # 0.05 to 0.3 of the time of forming x_hat and the product
        "cuda": ("cuda",),  # bound by bytes: x and g once; not measured yet
    },
)
