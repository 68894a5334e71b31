"""Reweighter(capture=True): what no graph repeats (the state of Python, values taken from the host, what the user
changes) is refused, or is another graph."""

import pytest
import torch
from torch import nn

import fastrw
from fastrw.api import capture
from fastrw.api.repeated import Reads
from fastrw.graph.saved import address
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from tests.captured import assert_same_model, assert_same_step, both, graphs, model_and_batches
from tests.tape import Tape


class Holding(nn.Module):
    """Leaves something behind in each forward: `rule` says what."""

    def __init__(self, rule):
        super().__init__()
        self.linear, self.rule, self.kept = nn.Linear(4, 3), rule, {"mean": torch.zeros(())}
        self.count, self.total = 0, torch.zeros(3)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        y = self.linear(x)
        self.rule(self, y)
        return y + 0.5 * self.total.sum() + self.seen


def moving_average(m, y):
    m.kept = {"mean": 0.5 * m.kept["mean"] + y.detach().mean()}


def buffer_replaced(m, y):
    m.seen = m.seen + 1


def lists_what_it_saw(m, y):
    m.kept.setdefault("all", []).append(0)


HELD = {  # what is left behind -> is it refused?
    "a new tensor, as the balance of a mixture of experts": (
        lambda m, y: setattr(m, "kept", {"mean": y.detach().mean()}), None),
    "a write into a tensor": (lambda m, y: m.total.add_(1), None),
    "a write into a buffer": (lambda m, y: m.seen.add_(1), None),
    "a number": (lambda m, y: setattr(m, "count", m.count + 1), "'count'"),
    "a longer list": (lists_what_it_saw, "\"kept['all']\""),
    "a tensor made of the one before": (moving_average, "'kept'"),
    "a buffer in the place of another": (buffer_replaced, "'seen'"),
}  # fmt: skip


@pytest.mark.parametrize("what", HELD)
@pytest.mark.parametrize("update", ["auto", "backward"])
def test_what_a_forward_leaves_behind_is_repeated_or_refused(by_hand, what, update):
    rule, refused = HELD[what]
    torch.manual_seed(0)
    ways = both(Holding(rule).double(), update=update)
    batches = [[(torch.randn(n, 4).double(), torch.randint(3, (n,))) for n in (6, 4)] for _ in range(7)]
    try:
        for batch in batches:
            outs = []
            for _, step, optimizer in ways:
                optimizer.zero_grad()
                outs.append(step.backward(*batch))
                optimizer.step()
            assert_same_step(*outs)
            assert_same_model(ways[0][0], ways[1][0])
            assert torch.equal(ways[0][0].total, ways[1][0].total)
    except fastrw.Refused as refusal:
        assert refused is not None and f"got a forward that changes {refused}" in str(refusal)
    else:
        assert refused is None and len(graphs(ways[0][1])) == 1
        assert relative_error(ways[0][0].kept["mean"], ways[1][0].kept["mean"]) <= SCORE_GOAL[torch.float64]


class Tempered(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.activation, self.temperature = nn.Linear(4, 3), nn.ReLU(), 1.0

    def forward(self, x):
        return self.activation(self.linear(x) / self.temperature)


CHANGES = {
    "a number": lambda m: setattr(m, "temperature", m.temperature + 0.5),
    "a module": lambda m: setattr(m, "activation", nn.Tanh()),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_the_user_changes_in_the_model_is_not_repeated_as_it_was(by_hand, what):
    torch.manual_seed(0)
    ways = both(Tempered().double())
    for k in range(14):
        batch = [(torch.randn(n, 4).double(), torch.randint(3, (n,))) for n in (6, 4)]
        outs = []
        for m, step, optimizer in ways:
            if k == 5:
                CHANGES[what](m)
            optimizer.zero_grad()
            outs.append(step.backward(*batch))
            optimizer.step()
        assert_same_step(*outs)
        assert_same_model(ways[0][0], ways[1][0])
    assert Tape.made == 2


def test_numbers_in_a_batch_are_part_of_its_kind_and_do_not_gather(by_hand):
    def losses(model, batch):
        return batch[2] * nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")

    torch.manual_seed(0)
    ways = both(nn.Linear(4, 3).double(), losses_fn=losses)
    for k in range(capture.SEEN + 6):
        batch = [(torch.randn(n, 4).double(), torch.randint(3, (n,)), 0.5 + k) for n in (6, 4)]
        assert_same_step(*(step.backward(*batch) for _, step, _ in ways))
    assert len(ways[0][1]._graphs._kinds) < capture.SEEN


READS = {  # what is done with a tensor on the host -> is its value taken?
    "copied": (lambda t: t.to("meta"), False),
    "a view of it copied": (lambda t: t[1:].view(-1).to("meta"), False),
    "written": (lambda t: torch.empty(3, device="meta").copy_(t), False),
    "asked": (lambda t: t.is_pinned(), False),
    "computed with": (lambda t: t + 1, True),
    "a view of it computed with": (lambda t: t[1:].view(-1).sum(), True),
    "an element": (lambda t: t[0].item(), True),
    "a list": (lambda t: t.tolist(), True),
    "an array": (lambda t: t.numpy(), True),
    "lengths": (lambda t: nn.utils.rnn.pack_padded_sequence(torch.zeros(4, 3, 2), t, enforce_sorted=False), True),
}


@pytest.mark.parametrize("what", READS)
def test_what_python_takes_from_the_host_is_seen(what):
    use, taken = READS[what]
    t, other = torch.tensor([2, 3, 1]), torch.ones(3)
    with Reads({address(t)}) as reads:
        use(t)
        (other + 1).tolist()
    assert reads.from_host == taken


@pytest.mark.filterwarnings("ignore:fastrw. this model is scored by one backward pass per example")
def test_hooks_and_what_python_reads_are_part_of_what_a_graph_is_for(by_hand):
    model, batches = model_and_batches("cpu", *[(9, 4)] * 12, dtype=torch.float64, norm="batch")
    ways = both(model)
    for k, batch in enumerate(batches):
        if k == 4:
            for m, *_ in ways:
                m[0].register_forward_hook(lambda module, given, y: 2 * y)
        if k == 8:
            for m, *_ in ways:
                m[1].weight.register_hook(lambda g: 3 * g)
        outs = []
        try:
            for _, step, optimizer in ways:
                optimizer.zero_grad()
                outs.append(step.backward(*batch))
        except fastrw.Refused as refusal:
            assert k == 8 and "a captured step must be one backward" in str(refusal)
            return
        assert_same_step(*outs)
    raise AssertionError
