from collections.abc import Iterator

from fastrw.kernels.norm_dot import CONFIGS, _norm_dot_kernel
from tests.builds.build import Build, build, units

# statistics along a, along b, V along a, a sum for each a
LAYER, GROUP, LAST = (True, False, False, False), (True, False, True, False), (False, True, False, False)
OTHERS = [(True, False, False, True), (True, True, False, True), (False, True, True, False), (True, True, True, False)]
FLAGS = ("ALONG_A", "ALONG_B", "V_ALONG_A", "EACH")


def builds() -> Iterator[Build]:
    """With a mean and both directions, which is the largest kernel; the layouts of layer norm and of group norm."""
    for config in CONFIGS["half"]:
        for layout in (LAYER, GROUP, LAST):
            yield _build(config, "bf16", layout)
    for config in CONFIGS["other"]:
        for layout in (LAYER, GROUP):
            yield _build(config, "fp32", layout)
        yield _build(config, "bf16", LAYER, aligned=False)
    for layout in OTHERS:
        yield _build(CONFIGS["half"][0], "bf16", layout)
    yield _build(CONFIGS["half"][0], "fp16", LAYER)
    yield _build(CONFIGS["other"][0], "fp32", LAYER, aligned=False)


def _build(config, dtype, layout, aligned=True) -> Build:
    pointers = dict.fromkeys(("x_ptr", "g_ptr"), dtype)
    pointers |= dict.fromkeys(("mean_ptr", "rstd_ptr", "gamma_ptr", "beta_ptr", "partial_ptr"), "fp32")
    flags = dict(zip(FLAGS, layout, strict=True))
    constants = {"MEAN": True, "GAMMA": True, "BETA": True, **flags, "UNIT": units(dtype, aligned)}
    about = {"dtype": dtype, **flags, "units": units(dtype, aligned)}
    return build(_norm_dot_kernel, config, pointers, constants, aligned=aligned, about=about)
