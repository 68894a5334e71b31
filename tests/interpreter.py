"""Triton's CPU interpreter, repaired: import this before anything that imports Triton.

Where there is no GPU it switches the interpreter on. Triton's own computes bfloat16 products on bit patterns, truncates
float32 to bfloat16, ignores TF32, and reads and writes stray addresses without a word; kernels that are right fail in
it, and kernels that are wrong pass. Each repair below says which of these it is for.
"""

import importlib.util
import os

import numpy as np
import torch

INTERPRETED = importlib.util.find_spec("triton") is not None and not torch.cuda.is_available()
if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"
    import triton.language as tl
    import triton.runtime.interpreter as interpreter
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def _bits(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x, np.float32).view(np.uint32)


def _to_bfloat16(x: np.ndarray) -> np.ndarray:
    """Round to nearest even, as the hardware does; NaN stays NaN. The interpreter holds bfloat16 as uint16."""
    bits = _bits(x)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded).reshape(x.shape)


def _from_bfloat16(x: np.ndarray) -> np.ndarray:
    return (x.astype(np.uint32) << 16).view(np.float32)


def _to_tf32(x: np.ndarray) -> np.ndarray:
    """Keep 10 bits of the mantissa, rounded; infinities and NaN as they are."""
    rounded = ((_bits(x) + 0xFFF + ((_bits(x) >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)
    return np.where(np.isfinite(x), rounded.reshape(x.shape), x)


def _repair_products() -> None:
    """tl.dot multiplies what the hardware multiplies: bfloat16 values, and float32 rounded to TF32 where asked."""
    create_dot = InterpreterBuilder.create_dot

    def operand(x, precision):
        if x.dtype.scalar == tl.bfloat16:
            return TensorHandle(_from_bfloat16(x.data), tl.float32)
        if x.dtype.scalar == tl.float16:
            return TensorHandle(x.data.astype(np.float32), tl.float32)
        if x.dtype.scalar == tl.float32 and precision.name == "TF32":
            return TensorHandle(_to_tf32(x.data), tl.float32)
        return x

    def repaired(self, a, b, d, input_precision, max_num_imprecise_acc):
        a, b = operand(a, input_precision), operand(b, input_precision)
        return create_dot(self, a, b, d, input_precision, max_num_imprecise_acc)

    InterpreterBuilder.create_dot = repaired


def _repair_casts() -> None:
    """float32 -> bfloat16 rounds to nearest even."""
    convert = interpreter._convert_float

    def repaired(x, source, target, rounding_mode):
        if source == tl.float32 and target == tl.bfloat16:
            return _to_bfloat16(x)
        return convert(x, source, target, rounding_mode)

    interpreter._convert_float = repaired


def _repair_loop_bounds() -> None:
    """A scalar held as a one-element array serves as a bound of range()."""
    patch = interpreter._patch_lang_tensor

    def index(self):
        return int(np.asarray(self.handle.data).reshape(-1)[0])

    def repaired(tensor, *scope):
        patch(tensor, *scope)
        if scope:  # Triton 3.7 undoes its patches after a launch; 3.6 leaves them
            scope[0].set_attr(tensor, "__index__", index)
        else:
            tensor.__index__ = index

    interpreter._patch_lang_tensor = repaired


class StrayAccess(IndexError):
    """A kernel touched memory that belongs to no element of its arguments."""


_reach: dict[int, np.ndarray] = {}  # bytes of an element -> addresses of the running launch's elements, sorted


def _elements(x: torch.Tensor) -> np.ndarray:
    addresses = np.array([x.data_ptr()], np.uint64)
    for size, stride in zip(x.shape, x.stride(), strict=True):
        steps = np.arange(size, dtype=np.uint64) * np.uint64(stride * x.element_size())
        addresses = (addresses[:, None] + steps[None, :]).reshape(-1)
    return addresses


def _check(what: str, pointers, mask) -> None:
    lanes = np.broadcast_to(np.asarray(mask.data, bool), pointers.data.shape)
    wanted = pointers.data.astype(np.uint64)[lanes]
    width = pointers.get_element_ty().primitive_bitwidth // 8
    ours = _reach.get(width, wanted[:0])
    place = np.searchsorted(ours, wanted)
    stray = place == len(ours)
    stray[~stray] = ours[place[~stray]] != wanted[~stray]
    if stray.any():
        raise StrayAccess(f"{what} of {width} bytes at {stray.sum()} of {wanted.size} addresses outside every argument")


def _check_addresses() -> None:
    """Every load and store must meet an element of an argument: the margins of a view count as outside."""
    load, store = InterpreterBuilder.create_masked_load, InterpreterBuilder.create_masked_store
    execute = interpreter.GridExecutor.__call__

    def checked_load(self, pointers, mask, *rest):
        _check("load", pointers, mask)
        return load(self, pointers, mask, *rest)

    def checked_store(self, pointers, value, mask, *rest):
        _check("store", pointers, mask)
        return store(self, pointers, value, mask, *rest)

    def checked_execute(self, *args, **kwargs):
        tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
        _reach.clear()
        for width in {x.element_size() for x in tensors}:
            _reach[width] = np.sort(np.concatenate([_elements(x) for x in tensors if x.element_size() == width]))
        with np.errstate(all="ignore"):  # a GPU does not warn of inf - inf
            return execute(self, *args, **kwargs)

    InterpreterBuilder.create_masked_load = checked_load
    InterpreterBuilder.create_masked_store = checked_store
    interpreter.GridExecutor.__call__ = checked_execute


if INTERPRETED:
    _repair_products()
    _repair_casts()
    _repair_loop_bounds()
    _check_addresses()
