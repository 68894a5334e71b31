"""What loss a model itself computes from a batch with labels (Hugging Face), found from one forward with labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fastrw.api.default_loss import Reading, logits_of, readings
from fastrw.errors import Refused
from fastrw.state.batches import examples, mapped
from fastrw.state.snapshot import State

WAY_OUT = "(give loss_fn or losses_fn, or call fastrw.backward with your own losses)"


class OfAnotherKind(Refused):
    """The model's own loss is none of the rules."""


def reading_of(model: nn.Module, batch: Mapping, state: State, prefix: str) -> tuple[Reading, bool]:
    """The reading that gives the model's own loss, and its gradient at the logits, on the first example whose loss is
    finite. A model that computes none is read as it says of itself. And does it hold for later batches? Not where no
    example has a finite loss, or where the model does not accept these labels.

    Raises Refused where the model's own loss is of another kind: weights would be those of another training."""
    for part in _parts(batch):
        computed = _own(model, part, state)
        if isinstance(computed, Exception) and part is not batch:  # so few examples are not accepted
            part, computed = batch, _own(model, batch, state)
        if computed is None or isinstance(computed, Exception):
            takes_none = computed is None or isinstance(computed, TypeError)
            return _without_own_loss(model, batch, prefix), takes_none
        own, output = computed
        if not bool(own.isfinite()) or (isinstance(output, Tensor) and bool(output.isnan().any())):
            continue
        if not isinstance(output, Tensor) or not output.is_floating_point():
            raise OfAnotherKind(
                f"{prefix}the default loss must be the model's own, got an output of {type(model).__name__} without "
                f"logits {WAY_OUT}"
            )
        found = _match(own, output, part["labels"])
        if found is None:
            raise OfAnotherKind(
                f"{prefix}the default loss must be the model's own, got {own.item():.6g} from {type(model).__name__}, "
                f"which is neither cross-entropy (of the same or the next position), nor squared error, nor binary "
                f"cross-entropy of its logits {tuple(output.shape)} and labels {tuple(part['labels'].shape)} {WAY_OUT}"
            )
        return Reading(found.loss, found.shift, not _same_without(model, part, output, state), found.dtype), True
    return Reading(), False


def _parts(batch: Mapping) -> Iterator[Mapping]:
    """Each example alone, twice (a BatchNorm needs two); then all of them."""
    n = examples(batch["labels"]) or 0

    def twice(i: int) -> Callable[[Any], Any]:
        return lambda t: t[[i, i]] if isinstance(t, Tensor) and t.shape[:1] == (n,) else t

    yield from (mapped(twice(i), batch) for i in range(n))
    yield batch


def _own(model: nn.Module, batch: Mapping, state: State) -> tuple[Tensor, Any] | Exception | None:
    """The loss that the model itself computes, and its logits; None if it computes none; or what it raised (TypeError:
    it takes no labels)."""
    try:
        with torch.enable_grad():
            output = model(**batch)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return error
    finally:
        state.rewind()
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if not isinstance(loss, Tensor) or not loss.is_floating_point():
        return None
    return loss.mean(), logits_of(output)


def _match(own: Tensor, output: Tensor, labels: Tensor) -> Reading | None:
    """The reading with the value and the gradient of the model's own loss. Values alone may agree by accident: shifted
    or not, where all logits are 0."""
    half = {own.dtype, output.dtype} & {torch.float16, torch.bfloat16}
    limit = 5e-2 if half else 1e-4
    (gradient,) = torch.autograd.grad(own, [output], allow_unused=True) if _reaches(own, output) else (None,)
    logits, found = output.detach().requires_grad_(), []
    with torch.enable_grad():
        for reading, losses, counts in readings(logits, labels, torch.promote_types(own.dtype, output.dtype)):
            ours = (losses * counts).sum() / counts.sum()
            if not bool((ours - own).abs() <= limit * own.abs().clamp(min=1)):
                continue
            if gradient is not None:
                (g,) = torch.autograd.grad(ours, logits, retain_graph=True)
                if not bool((g - gradient).norm() <= 10 * limit * gradient.norm()):
                    continue
            found.append(reading)
    return found[0] if len(found) == 1 or (found and gradient is not None) else None


def _reaches(own: Tensor, output: Tensor) -> bool:
    return own.requires_grad and output.requires_grad


def _same_without(model: nn.Module, batch: Mapping, output: Tensor, state: State) -> bool:
    """Are the logits the same when the labels are withheld? An encoder-decoder takes its inputs from them."""
    try:
        with torch.enable_grad():  # as above: without it, a forward may take another path
            other = logits_of(model(**{k: v for k, v in batch.items() if k != "labels"}))
    except Exception:  # it needs labels
        return False
    finally:
        state.rewind()
    if not isinstance(other, Tensor) or other.shape != output.shape:
        return False
    limit = torch.finfo(output.dtype).eps ** 0.5
    return bool((other - output.detach()).norm() <= limit * output.detach().norm())


def _without_own_loss(model: nn.Module, batch: Mapping, prefix: str) -> Reading:
    """Of a model that computes no loss from labels."""
    labels = batch["labels"]
    if not isinstance(labels, Tensor) or labels.ndim < 2 or labels.is_floating_point():
        return Reading()
    if is_causal(model):
        return Reading(shift=True)
    for name, value in batch.items():
        if name != "labels" and isinstance(value, Tensor) and value.shape == labels.shape:
            kept = labels != -100
            if value.dtype == labels.dtype and bool((value == labels)[kept].all()) and bool(kept.any()):
                raise OfAnotherKind(
                    f"{prefix}it must be clear which position predicts a label, got labels that are {name!r} and a "
                    f"{type(model).__name__} that computes no loss from them {WAY_OUT}"
                )
    return Reading()


def is_causal(model: nn.Module) -> bool:
    """Does the model say of itself that its logits predict the next label? Wrappers are looked through."""
    modules = [*model.modules()]
    if any(getattr(getattr(m, "config", None), "is_encoder_decoder", False) for m in modules):
        return False  # its labels are shifted when they become inputs
    return any(
        "ForCausalLM" in (getattr(m, "loss_type", None) or "")
        or type(m).__name__.endswith(("ForCausalLM", "LMHeadModel"))
        for m in modules
    )
