"""The least FLOPs of each variant of a step over those of a plain step: a floor for its ratio.

Counted on the model itself: P a plain step, F its forward, W its weight gradient (as much as the products with
parameters in F), so P - F is a backward and P - F - W one that stops at the layers' outputs. A tangent has one term
for each term of the gradient, so riding on a recorded forward it costs P - F. An element-wise op counts as nothing."""

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bench.models import Batch, losses

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def floors(model: nn.Module, batch: Batch, val_batch: Batch) -> dict[str, float]:
    """Ratio to a plain step, by what serves the step. Runs one step and leaves `.grad` empty."""
    n, share = len(batch[1]), len(val_batch[1]) / len(batch[1])
    rows: list[tuple[int, int, int]] = []  # r, p, q of each use of a layer

    def see(layer: nn.Module, _inputs: tuple, output: Tensor) -> None:
        q = layer.weight.shape[0]
        rows.append((output.numel() // q, layer.weight.numel() // q, q))

    hooks = [layer.register_forward_hook(see) for layer in model.modules() if isinstance(layer, LAYERS)]
    forward, step = FlopCounterMode(display=False), FlopCounterMode(display=False)
    try:
        with step:
            with forward:
                loss = losses(model, batch).mean()
            loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad()
    plain, once = step.get_total_flops(), forward.get_total_flops()
    backward, weight_gradient = plain - once, sum(2 * r * p * q for r, p, q in rows)
    # the cheaper of gram (r x k, k validation rows) and project (a product like the forward's, and V before it)
    scores = sum(min(2 * r * r * share * (p + q), (1 + share) * 2 * r * p * q) for r, p, q in rows)
    layerwise = plain + backward - weight_gradient + share * (plain - weight_gradient) + scores
    # one pass: V and the update, or (instance form, gram) the score with them; every weight positive
    made = sum(min((1 + share) * 2 * r * p * q, 2 * r * p * q + 2 * r * r * share * (p + q)) for r, p, q in rows)
    tangent = plain + backward + share * plain
    size = sum(p.numel() for p in model.parameters())
    per_example = plain + share * plain + 4 * n * size  # dot and combine
    # the engine runs layers again, each by itself, then backward twice, one of them without products for parameters
    engine = (1 + share) * (once + weight_gradient + backward + backward) + 2 * (n * (1 + share)) ** 2 * size
    work = {
        "forward": once,
        "plain": plain,
        "layerwise, assembled": (1 + share) * (plain - weight_gradient) + made,
        "layerwise, backward": layerwise,
        "tangent, backward": tangent,
        "params=last": plain + share * once,
        "layerwise": layerwise,
        "tangent": tangent,
        "double_backward": tangent + backward,
        "torch.func.jvp": tangent + once,
        "vmap(grad)": per_example,
        "Opacus": per_example + weight_gradient,  # autograd's own weight gradient besides
        "TorchJD": engine,
        "TorchOpt": tangent + backward,
    }
    return {name: float(flops / plain) for name, flops in work.items()}
