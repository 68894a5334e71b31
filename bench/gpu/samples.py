"""Ops called one by one without pytest, for tools that watch a process: compute-sanitizer, ncu.

python -m bench.gpu.samples --device cuda --backend triton --op gram_dot norm_dot   every layout and dtype, each judged
python -m bench.gpu.samples --device cuda --pick gram_dot triton "vit qkv" bfloat16   one case, for a profiler

A line a call; exit status 1 where a result is wrong."""

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace

import torch
from torch import Tensor

BACKENDS = ("cuda", "triton", "cpp", "reference")
TERMS = 1000  # of a sum in a sample, at most


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.samples", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), required=True)
    parser.add_argument("--op", nargs="+", default=[])
    parser.add_argument("--backend", choices=BACKENDS, default="cuda")
    parser.add_argument("--few", action="store_true", help="the self-test's sample alone, in one layout besides plain")
    parser.add_argument("--planted", action="store_true", help="one call on a tensor that ends too early, for the tool "
                        "to find")  # fmt: skip
    parser.add_argument("--pick", nargs=4, action="append", default=[], metavar=("OP", "BACKEND", "CASE", "DTYPE"))
    options = parser.parse_args(argv)
    if options.device == "cpu":
        import tests.interpreter  # noqa: F401  (before any kernel is imported)
    wrong = 0
    with torch.no_grad():
        for op in options.op if options.planted else ():
            plain = next(inputs(op, few=True))[2]
            below(op, *laid(plain, cut_short, options.device), backend=options.backend)
        for op in () if options.planted else options.op:
            found = list(check(op, options.backend, options.device, options.few))
            wrong += sum(found)
            print(f"done {op} {options.backend}: {len(found)} calls, {sum(found)} wrong", flush=True)
        for pick in options.pick:
            watched(*pick, options.device)
    return int(wrong > 0)


def check(op: str, backend: str, device: str, few: bool) -> Iterator[bool]:
    """Whether it is wrong, for each call; one that the backend refuses is none."""
    from bench.ops import Judge  # after the interpreter

    for about, case, plain, call in inputs(op, few):
        judge = Judge(op, case, plain)  # on the CPU: there the tool sees the kernels of the op alone
        for layout in list(LAYOUTS)[: 2 if few else None]:
            verdict = judge(backend, partial(call, *laid(plain, LAYOUTS[layout], device), backend=backend))
            why = verdict["why"] or f"error {verdict['error']:.1e}"
            wrong = verdict["red"] or "failed its self-test" in why
            print(f"{op} {backend} {about}, {layout}: {'WRONG: ' * wrong}{why}", flush=True)
            if wrong or verdict["why"] is None:
                yield wrong


def inputs(op: str, few: bool) -> Iterator[tuple[str, object, tuple, Callable]]:
    """What it is, as a case, its arguments and what is called with them: the self-test's sample in each dtype, and the
    case of the least work."""
    from bench.cases import CASES, Draw
    from fastrw import ops
    from fastrw.ops import backends

    entry = backends.get(op)
    sample = SimpleNamespace(spec=entry.backends["reference"].run, terms=TERMS)
    for dtype in (torch.float32, torch.bfloat16, torch.float16)[: 1 if few else None]:
        yield f"sample {dtype}", sample, entry.draw(torch.device("cpu"), dtype), partial(below, op)
    if not few:
        name, case = min(CASES[op].items(), key=lambda named: named[1].flops)
        for dtype in (torch.float32, torch.bfloat16):
            yield f"{name} {dtype}", case, case.make(Draw(dtype)), getattr(ops, op)


def below(op: str, *args, backend: str):
    """The op below its public word: there a sample's lists of tensors are one by one."""
    from fastrw.ops import backends

    return backends.choose(op, backend, *args).run(*args)


def watched(op: str, backend: str, name: str, dtype: str, device: str) -> None:
    """One case, compiled and warm, then once between the marks of a profiler that was told to wait for them."""
    from bench.cases import CASES, Draw
    from bench.ops import DTYPES, variants

    case = CASES[op][name]
    args = case.make(Draw(DTYPES[dtype], device))
    run = variants(op, case, args, [backend.partition(":")[0]], compiled=False)[backend]
    run()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
        torch.cuda._sleep(1)  # says where a pick begins: counters.SEPARATOR
    run()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
    print(f"done {op} {backend} {name} {dtype}", flush=True)


def laid(args, layout: Callable[[Tensor], Tensor], device: str):
    """The arguments on the device, each tensor in that layout."""
    if isinstance(args, (list, tuple)):
        return type(args)(laid(x, layout, device) for x in args)
    return layout(args.to(device)) if isinstance(args, Tensor) and args.ndim else args


def margin(x: Tensor) -> Tensor:
    """Inside a larger tensor, full of what must not be read: NaN, or an index far outside."""
    around = x.new_full([size + 2 for size in x.shape], stray(x))
    inside = around[tuple(slice(1, 1 + size) for size in x.shape)]
    return inside.copy_(x)


def offset(x: Tensor) -> Tensor:
    """From the second element of an allocation on, up to its last: no access of several elements is aligned."""
    return x.new_full([x.numel() + 1], stray(x))[1:].view(x.shape).copy_(x)


def transposed(x: Tensor) -> Tensor:
    order = list(reversed(range(x.ndim)))
    return x.permute(order).contiguous().permute(order)


def cut_short(x: Tensor) -> Tensor:
    """A tensor that says to be as large as x, on an allocation of half the size."""
    held = x.flatten()[: x.numel() // 2].clone()
    kept.append(held)
    storage = torch._C._construct_storage_from_data_pointer(held.data_ptr(), x.device, x.numel() * x.element_size())
    return x.new_empty(0).set_(storage, 0, x.shape, x.contiguous().stride())


kept: list[Tensor] = []


def stray(x: Tensor) -> float | int:
    return float("nan") if x.is_floating_point() else torch.iinfo(x.dtype).max


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": Tensor.clone,
    "margin": margin,
    "offset": offset,
    "transposed": transposed,
}


if __name__ == "__main__":
    sys.exit(main())
