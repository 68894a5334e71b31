"""FSR's Algorithm 1, literally and slowly: ω is a leaf, the virtual step keeps its graph, and autograd does the rest.

The model is `Sequential(body, head)`. Nothing of fastrw.fsr is used; what is drawn at random (which reward examples,
how examples are blended) is told from outside. Zhang & Pfister 2021, Algorithm 1 and Eq. 3-7.
"""

import copy

import torch
from torch import nn
from torch.func import functional_call


def made(norm=True, bias=True, dropout=0.0, classes=4, width=6, seed=0):
    """A small model in float64."""
    torch.manual_seed(seed)
    middle = [nn.BatchNorm1d(8)] if norm else []
    body = nn.Sequential(nn.Linear(width, 8), *middle, nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 7), nn.ReLU())
    return nn.Sequential(body, nn.Linear(7, classes, bias=bias)).double()


def data(size=60, classes=4, width=6, seed=0):
    """Inputs [N, width] and labels [N]; class c has more examples than class c + 1."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, width, dtype=torch.float64, generator=generator)
    y = (torch.rand(size, generator=generator) ** 2 * classes).long()
    y[:classes] = torch.arange(classes)
    return x, y


def cross_entropy(z, target, smoothing=0.0):
    """[n], from the definition."""
    C = z.shape[1]
    t = torch.eye(C, dtype=z.dtype)[target] if target.ndim == 1 else target
    t = (1 - smoothing) * t + smoothing / C
    return torch.stack([-(t_i * (z_i - z_i.logsumexp(0))).sum() for t_i, z_i in zip(t, z, strict=True)])


def weights(omega, normalize, variant):
    b = len(omega)
    if normalize == "rectify":
        raw = [max(float(o) - (1 / b if variant == "code" else 0.0), 0.0) for o in omega]
    else:
        low = min(map(float, omega))
        raw = [float(o) - low + 1 / b for o in omega]
    total = sum(raw)
    total = total + 1e-5 if variant == "code" else total or 1.0
    return torch.tensor([r / total for r in raw], dtype=omega.dtype)


class Algorithm1:
    """One run: its own model, optimizer, averages and dictionary."""

    def __init__(self, model, x, y, *, capacity=8, lr=0.05, momentum=0.9, decay=0.0, how="momentum", eta=0.1, alpha=1.0,
                 meta="head", normalize="rectify", variant="code", smoothing=0.0, warmup=0, lam=0.9, beta=None, p=2.0,
                 temperature=1.0):  # fmt: skip
        self.model, self.x, self.y, self.C = copy.deepcopy(model), x, y, model[1].out_features
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr, momentum=momentum, weight_decay=decay)
        self.meta = {k: p for k, p in self.model.named_parameters() if meta == "all" or k.startswith(meta_prefix(meta))}
        self.mu, self.decay = momentum if how == "momentum" else 0.0, decay
        self.eta, self.alpha, self.normalize, self.variant = eta, alpha, normalize, variant
        self.smoothing, self.warmup, self.lam, self.beta, self.p = smoothing, warmup, lam, beta, p
        self.temperature, self.capacity, self.epoch = temperature, capacity, 0
        self.P, self.labels_hat = {}, {}  # by example
        self.dictionary = None

    def run(self, values, x):
        """f(x; values), no buffer moved."""
        buffers = {k: b.clone() for k, b in self.model.named_buffers()}
        return functional_call(self.model, {**values, **buffers}, (x,))

    def step(self, index, reward, mixed=None, target=None, rng=None, features=None):
        """One iteration; returns what it found. `rng`: where every forward starts; `features`: stale, of the reward."""

        def run(values, x):
            if rng is not None:
                torch.set_rng_state(rng)
            return self.run(values, x)

        x, y = self.x[index], self.y[index]
        mixed, target = (x, y) if mixed is None else (mixed, target)
        b, theta = len(index), self.meta
        plain, trained = run(theta, x), run(theta, mixed)
        second = trained if self.variant == "code" else plain  # what is re-labelled
        f = cross_entropy(trained, target, self.smoothing)
        omega = torch.full((b,), 1 / b, dtype=f.dtype, requires_grad=True)
        inner = (omega * f).sum() + sum(self.decay / 2 * (t**2).sum() for t in theta.values())
        gradients = torch.autograd.grad(inner, list(theta.values()), create_graph=True)
        buffers = [self.optimizer.state[t].get("momentum_buffer") for t in theta.values()]
        hat = {
            k: t - self.eta * (g + (0 if m is None else self.mu * m))
            for (k, t), g, m in zip(theta.items(), gradients, buffers, strict=True)
        }
        before = f if self.variant == "code" else cross_entropy(plain, y)
        found = {"margin": before - cross_entropy(run(hat, x), y)}
        if self.epoch >= self.warmup:
            head = {k.removeprefix("1."): t for k, t in hat.items()}
            z = run(hat, self.x[reward]) if features is None else functional_call(self.model[1], head, (features,))
            reward_loss = cross_entropy(z, self.y[reward], self.smoothing).mean()
            regular = sum(self.decay / 2 * (t**2).sum() for t in hat.values())
            (slope,) = torch.autograd.grad(reward_loss + regular, omega, retain_graph=True)
            w = weights((omega - self.alpha * slope).detach(), self.normalize, self.variant)
            found |= {"scores": -slope, "reward_loss": reward_loss}
        else:
            w = torch.full((b,), 1 / b, dtype=f.dtype)
        total = (w * f).sum()
        if self.beta is not None and self.epoch >= self.warmup:
            terms = cross_entropy(second, self.second_labels(index, second))
            total = total + self.p * sum(t for i, t in zip(index, terms, strict=True) if int(i) in self.labels_hat) / b
        self.optimizer.zero_grad()
        total.backward()
        found |= {"weights": w, "losses": f, "total": total}
        for i, margin, z in zip(index.tolist(), found["margin"].tolist(), second.detach(), strict=True):
            self.P[i] = self.lam * self.P.get(i, 0.0) + (1 - self.lam) * margin
            if self.beta is not None:
                self.labels_hat[i] = self.beta * self.labels_hat.get(i, 0) + (1 - self.beta) * z
        if rng is not None:
            torch.set_rng_state(rng)
        with torch.no_grad():
            self.model(mixed)  # moves the running statistics once
        self.optimizer.step()
        return {k: v.detach() for k, v in found.items()}

    def second_labels(self, index, z):
        rows = [self.labels_hat.get(int(i), torch.zeros_like(z[0])) / self.temperature for i in index]
        return torch.stack([row.exp() / row.exp().sum() for row in rows])

    def end_epoch(self):
        """Eq. 4, class by class."""
        self.dictionary = set()
        for c in range(self.C):
            members = [i for i in range(len(self.y)) if self.y[i] == c]
            members.sort(key=lambda i: -self.P.get(i, -float("inf")))
            self.dictionary |= set(members[: self.capacity // self.C])
        self.epoch += 1


def meta_prefix(meta):
    return "1." if meta == "head" else meta.rstrip("*")
