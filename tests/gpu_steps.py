"""Steps on a GPU that is not here: what each launches, and where it waits.

python -m tests.gpu_steps steps network.way ...     one JSON object a line, for each step; network.* is every way
python -m tests.gpu_steps time network ...          host milliseconds of a plain and a reweighted step, and the ratio
"""

import json
import statistics
import sys
from functools import partial
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional as F

import fastrw
from fastrw.api.capture import Graphs
from fastrw.testing.models import Transformer, resnet
from tests.mocked_gpu import clock, counted, install

WARMUP, ROUNDS = 9, 30  # of a timing
NARROW = (2,) * 5 + (4,) * 5 + (8,) * 5


def images(k):
    return torch.randn(k, 3, 16, 16), torch.randint(10, (k,))


def tokens(k):
    return torch.randint(50, (k, 4)), torch.randint(2, (k,))


def rows(k):
    return torch.randn(k, 6), torch.randint(3, (k,))


class Noting(nn.Module):
    """Leaves tensors behind, as a mixture of experts its balance: some are new, some are written to."""

    def __init__(self):
        super().__init__()
        self.linear, self.total = nn.Linear(6, 6), torch.zeros(3)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        y = self.linear(x)
        self.balance, self.seen = y.detach().square().mean(), {"rows": y.detach()}
        self.total[0] += 1
        self.count = self.count + 1
        return y


class Gated(nn.Module):
    """A branch that adds nothing yet: gradients below its gate are 0."""

    def __init__(self):
        super().__init__()
        self.linear, self.gate = nn.Linear(6, 6), nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x + self.gate * self.linear(x).relu()


class Picking(nn.Module):
    """Takes one position of each example, by index."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(50, 6), nn.Linear(6, 3)

    def forward(self, x):
        rows = self.embedding(x)
        return self.linear(rows[torch.arange(len(x), device=x.device), (x > 3).sum(1) - 1])


def head(*layers):
    return nn.Sequential(*layers, nn.Linear(6, 3))


NETWORKS = {  # name -> (model, batch of k examples)
    "resnet_gn": (lambda: resnet((3, 16, 16), 10, NARROW, partial(nn.GroupNorm, 2)), images),
    "resnet_bn": (lambda: resnet((3, 16, 16), 10, NARROW), images),
    "transformer": (lambda: Transformer(16, 12, 2, 50), tokens),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 2, 3),
                                          nn.Flatten(), nn.Linear(50, 10)), images),
    "linear": (lambda: head(nn.Linear(6, 6), nn.ReLU()), rows),
    "dropout": (lambda: head(nn.Linear(6, 6), nn.Dropout()), rows),
    "batch_norm": (lambda: head(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()), rows),
    "derived": (lambda: head(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.ReLU()), rows),
    "noting": (lambda: head(Noting(), nn.BatchNorm1d(6)), rows),
    "noting_joined": (lambda: head(Noting()), rows),
    "gated": (lambda: head(Gated()), rows),
    "picking": (Picking, tokens),
}  # fmt: skip


def reweighted(model, batch, val_batch, clears=True, **options):
    step = fastrw.Reweighter(model, **options)

    def run():
        if clears:
            model.zero_grad()
        step.backward(batch, val_batch, scale=1.0 if clears else 0.5)

    return run


class Recorded:
    """A graph that is recorded by running, and gives the same again."""

    def __init__(self, device):
        pass

    def record(self, run):
        with patch("torch.cuda.is_current_stream_capturing", lambda: True):
            return run()

    def replay(self):
        pass


def captured(model, batch, val_batch, **options):
    with patch.object(Graphs.__init__, "__defaults__", (Recorded,)):
        return reweighted(model, batch, val_batch, capture=True, **options)


def accumulated(model, batch, val_batch):
    return reweighted(model, batch, val_batch, clears=False)


def scored(model, batch, val_batch):
    return lambda: fastrw.meta_weights(model, batch, val_batch)


def weighed(model, batch, val_batch):
    step = fastrw.Reweighter(model)
    return lambda: step.weights(batch, val_batch)


def losses(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def by_hand(model, batch, val_batch, **options):
    def run():
        model.zero_grad()
        fastrw.backward(losses(model, batch), losses(model, val_batch), **options)

    return run


def joined(model, batch, val_batch, **options):
    n, both = len(batch[1]), tuple(map(torch.cat, zip(batch, val_batch, strict=True)))

    def run():
        model.zero_grad()
        f = losses(model, both)
        fastrw.backward(f[:n], f[n:].mean(), **options)

    return run


def hooked(model, batch, val_batch):
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(lambda p: None)
    return reweighted(model, batch, val_batch)


def scaled(model, batch, val_batch):
    return reweighted(model, batch, val_batch, scaler=torch.amp.GradScaler("cpu"))


def not_finite(model, batch, val_batch):
    """In steps that are not checked: a check on such a batch shows nothing, and is made again."""
    step, bad = fastrw.Reweighter(model), batch[0].clone()
    bad[0] = torch.inf

    def run():
        model.zero_grad()
        checked = (step.steps + 1) & step.steps == 0
        step.backward(batch if checked else (bad, batch[1]), val_batch)

    return run


def plain(model, batch, val_batch):
    def run():
        model.zero_grad()
        losses(model, batch).mean().backward()

    return run


BACKWARD = {"update": "backward"}
WAYS = {
    "plain": plain,
    "reweighter": reweighted,
    "update_backward": partial(reweighted, **BACKWARD),
    "last": partial(reweighted, params="last"),
    "last_backward": partial(reweighted, params="last", **BACKWARD),
    "every": partial(reweighted, every=2),
    "shift": partial(reweighted, normalize="shift"),
    "accumulated": accumulated,
    "captured": captured,
    "captured_backward": partial(captured, **BACKWARD),
    "scaled": scaled,
    "hooked": hooked,
    "meta_weights": scored,
    "weights": weighed,
    "by_hand": by_hand,
    "by_hand_backward": partial(by_hand, **BACKWARD),
    "joined": joined,
    "not_finite": not_finite,
    "joined_backward": partial(joined, **BACKWARD),
}


def timed(names) -> None:
    """Both steps in turns: what disturbs one disturbs the other."""
    torch.set_num_threads(1)
    made = [(NETWORKS[name][0](), *(NETWORKS[name][1](k) for k in (4, 3))) for name in names]
    install()
    for name, given in zip(names, made, strict=True):
        runs = plain(*given), reweighted(*given)
        taken = []
        for _ in range(WARMUP + ROUNDS):
            both = []
            for run in runs:
                start = clock.now()
                run()
                both.append(clock.now() - start)
            taken.append(both)
        taken = taken[WARMUP:]
        alone, ours = (min(times) * 1e3 for times in zip(*taken, strict=True))
        ratio = statistics.median(ours / alone for alone, ours in taken)
        about = {"plain_ms": round(alone, 2), "reweighter_ms": round(ours, 2), "ratio": round(ratio, 2)}
        print(json.dumps({"network": name, **about}), flush=True)


def main() -> None:
    torch.manual_seed(0)
    steps, *names = sys.argv[1:]
    if steps == "time":
        return timed(names)
    wanted = [(network, one) for name in names for network, way in [name.split(".")]
              for one in (WAYS if way == "*" else [way])]  # fmt: skip
    made = [(build(), data(4), data(3)) for build, data in (NETWORKS[network] for network, _ in wanted)]
    install()
    for (network, way), given in zip(wanted, made, strict=True):
        run, first = WAYS[way](*given), None
        for i in range(1, int(steps) + 1):
            with counted() as counts:
                run()
            about = {name: getattr(counts, name) for name in ("launches", "kernels", "dispatches", "waits")}
            grads = [p.grad.clone() for p in given[0].parameters() if p.grad is not None]
            first = first or grads
            pairs = [*zip(grads, first, strict=False)]
            about["differs"] = max((float((g - f).norm() / f.norm().clamp(min=1e-6)) for g, f in pairs), default=0)
            about["finite"] = all(bool(g.isfinite().all()) for g in grads)
            print(json.dumps({"network": network, "way": way, "step": i, **about}), flush=True)


if __name__ == "__main__":
    main()
