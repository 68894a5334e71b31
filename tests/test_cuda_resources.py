"""What the compiler made of the CUDA kernels, read out of the extension: no spills, tensor cores, loads of 16 bytes."""

import re
from functools import cache

import pytest
from rich.console import Console

from bench import ahead_of_time
from fastrw.ops import extension

OPS = ["gram_dot", "grouped_gram_dot", "conv_dot", "norm_dot", "norm_instance", "embedding_dot", "rectify_normalize"]


@cache
def kernels():
    """Takes over 10 s, in whichever test asks first: cuobjdump takes the whole extension apart."""
    if extension.reason is not None or extension.build_info()["cuda"] is None:
        pytest.skip("needs the extension with CUDA code in it")
    if set(ahead_of_time.toolkit()) != {"cuobjdump", "nvdisasm"}:
        pytest.skip("needs cuobjdump and nvdisasm, of a CUDA toolkit or of Triton")
    found = list(ahead_of_time.cuda(OPS, Console(quiet=True)))
    assert {kernel["op"] for kernel in found} == set(OPS)
    return found


def named(*words):
    """The kernels whose template arguments have these words, and the others."""
    has = [kernel for kernel in kernels() if all(re.search(rf"\b{word}\b", kernel["kernel"]) for word in words)]
    return has, [kernel for kernel in kernels() if kernel not in has]


def test_no_kernel_spills():
    assert [kernel for kernel in kernels() if kernel["spilled_bytes"]] == []


def test_a_processor_has_room_for_every_block():
    for kernel in kernels():
        threads = 1024 if "rectify_normalize_kernel" in kernel["kernel"] else 256
        assert kernel["registers"] * threads <= 65536, kernel
        assert kernel["shared_bytes"] <= 48 * 1024, kernel


def test_products_are_on_tensor_cores_where_they_may_be():
    matrix, others = named("Matrix")
    assert {re.search(r"<(\w+)", kernel["kernel"])[1] for kernel in matrix} == {"float", "__half", "__nv_bfloat16"}
    assert [kernel for kernel in matrix if kernel["matrix"] != ["HMMA"] or kernel["registers"] > 128] == []
    assert [kernel for kernel in others if kernel["matrix"]] == []


def test_aligned_rows_are_loaded_16_bytes_at_a_time():
    flagged = r"gram_dot_kernel|<[^>]*?(?<!false, )\btrue"  # the first flag of a kernel says that rows are aligned
    aligned = {(str(x["capability"]), x["kernel"]) for x in kernels() if re.search(flagged, x["kernel"])}
    wide = {(target, function) for target, function, code in machine_code() if "LDG.E.128" in code}
    assert len(aligned) > 10
    assert aligned - wide == set()


def machine_code():
    """(capability, kernel, its machine code)"""
    from fastrw import _C

    for part in ahead_of_time.machine_code(_C.__file__).split("arch = sm_")[1:]:
        for code in part.split("Function : ")[1:]:
            yield re.match(r"\d+", part)[0], ahead_of_time.readable(code.split()[0]), code
