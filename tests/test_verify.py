"""fastrw.verify and `python -m fastrw verify`: they agree with the oracle and catch a method that is slightly off."""

import json
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fastrw
from fastrw.api import evaluate
from fastrw.api.options import METHODS
from fastrw.api.verify import VerifyRow
from fastrw.cli import main
from fastrw.ops.tolerance import SCORE_GOAL, relative_error
from fastrw.testing import cases, real
from tests import oracle


def made(name, dtype=torch.float32):
    (case,) = cases(name)
    return case.make(dtype)


def rows_of(report):
    return {(row.method, row.backend): row for row in report.rows}


@pytest.fixture
def bent(monkeypatch):
    """A tangent method off by half a thousandth: above its bound, yet too little for a look at a few scores."""

    def run(request, *args):
        answer = engine(request, *args)
        if request.options.method == "tangent":
            answer.scores *= 1.0005
        return answer

    engine = evaluate.engine.run
    monkeypatch.setattr(evaluate.engine, "run", run)


def test_every_method_and_backend_is_a_row():
    report = fastrw.verify(*made("mlp"))
    served = {key for key, row in rows_of(report).items() if not row.refused}
    assert {
        ("layerwise", "reference"),
        ("tangent", "torch"),
        ("double_backward", "torch"),
        ("per_example", "torch"),
    } <= served
    assert {row.method for row in report.rows} == {*METHODS}
    assert report.ok and all(row.bound == SCORE_GOAL[torch.float32] for row in report.rows)
    assert "float64" in report.reference


def test_its_reference_is_the_oracle(monkeypatch):
    """The errors it reports are those against the tests' own truth."""
    references = []

    def judge(s, reference):
        references.append(reference)
        return relative_error(s, reference)

    monkeypatch.setattr(sys.modules["fastrw.api.verify"], "relative_error", judge)
    for name in ("lenet", "resnet_batchnorm_training", "tied_embeddings", "parameter_hook_scales", "params_pattern"):
        (case,) = cases(name)
        references.clear()
        fastrw.verify(*case.make(), **case.kwargs)
        truth = oracle.scores(*case.make(torch.float64), **case.kwargs)
        assert len(references) > 1  # the drift and a row at least
        assert all(relative_error(reference, truth) <= SCORE_GOAL[torch.float64] for reference in references)


def test_a_bent_method_is_caught(bent):
    with pytest.raises(fastrw.VerificationError, match="tangent") as caught:
        fastrw.verify(*made("lenet"))
    assert isinstance(caught.value, AssertionError)
    assert {row.method for row in caught.value.report.rows if not row.ok} == {"tangent"}
    assert "WRONG" in str(caught.value)


@pytest.mark.parametrize("error", (float("nan"), float("inf"), 2e-5))
def test_errors_beyond_the_bound_are_not_ok(error):
    assert not VerifyRow("layerwise", "cpp", error, 1e-5).ok
    assert VerifyRow("layerwise", "cpp", 1e-5, 1e-5).ok


def test_a_refusal_is_no_failure():
    report = fastrw.verify(*made("resnet_batchnorm_training"))
    (row,) = (row for row in report.rows if row.method == "layerwise")
    assert row.refused and row.error is None and row.ok
    assert row.refused in str(report)


def test_double_precision_has_its_own_goal():
    assert {row.bound for row in fastrw.verify(*made("mlp", torch.float64)).rows} == {SCORE_GOAL[torch.float64]}


def test_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        report = fastrw.verify(*made("lenet"))
    assert report.ok and all(row.bound > SCORE_GOAL[torch.float32] for row in report.rows)


def test_random_draws_are_judged_in_their_own_dtype():
    report = fastrw.verify(*made("dropout"))
    assert report.ok and "random" in report.reference


def test_own_losses_and_parameters():
    model, batch, val_batch = made("mlp")
    losses_fn = lambda model, batch: F.cross_entropy(model(batch[0]), batch[1], reduction="none")  # noqa: E731
    assert fastrw.verify(model, batch, val_batch, losses_fn=losses_fn, params=[model[0].weight]).ok


def test_models_that_a_plain_deep_copy_refuses():
    """Tensors with a graph, left on a module by its last forward."""
    model, batch, val_batch = made("weight_norm_by_pre_hook")
    model(batch[0])
    assert fastrw.verify(model, batch, val_batch).ok


def test_a_model_that_is_another_in_float64_is_not_judged():
    class Sly(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (2 if x.dtype == torch.float64 else 1)

    _, batch, val_batch = made("mlp")
    with pytest.raises(ValueError, match=r"fastrw.verify: .* nearly the same"):
        fastrw.verify(Sly(6, 4), batch, val_batch)


def test_nothing_moves():
    model, batch, val_batch = made("resnet_batchnorm_training")
    before, rng = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    fastrw.verify(model, batch, val_batch)
    assert all(torch.equal(v, before[k]) and v.dtype == before[k].dtype for k, v in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state()) and all(p.grad is None for p in model.parameters())


def test_bad_input_names_verify():
    with pytest.raises(ValueError, match=r"^fastrw.verify: .*reduction"):
        fastrw.verify(*made("mlp"), loss_fn=F.cross_entropy)


def test_command_shows_a_table(capsys):
    assert main(["verify", "--models", "resnet_*norm"]) == 0
    text = capsys.readouterr().out
    assert "resnet_groupnorm" in text and "resnet_instancenorm" in text and "double" in text
    assert "wrong:" not in text


@pytest.mark.quick
def test_command_speaks_json(capsys):
    assert main(["verify", "--models", "mlp", "--dtype", "float64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and {"model", "method", "backend", "error", "bound", "refused", "ok"} <= found["rows"][0].keys()
    assert all(row["bound"] == SCORE_GOAL[torch.float64] for row in found["rows"])


def test_command_fails_on_a_bent_method(bent, capsys):
    assert main(["verify", "--models", "lenet"]) == 1
    assert "wrong: lenet by tangent" in capsys.readouterr().out
    assert main(["verify", "--models", "lenet", "--json"]) == 1
    assert not json.loads(capsys.readouterr().out)["ok"]


def test_command_on_no_model(capsys):
    assert main(["verify", "--models", "perceptron"]) == 2
    assert "'perceptron'" in capsys.readouterr().err


def test_real_models_by_family(capsys, monkeypatch):
    monkeypatch.setattr(real, "missing", lambda family: ["transformers"])
    assert main(["verify", "--models", "hf"]) == 2
    assert 'hf needs transformers: pip install "fastrw[models]"' in capsys.readouterr().err
    monkeypatch.setattr(real, "missing", lambda family: [])
    monkeypatch.setattr(real, "cases", lambda family: [*cases("mlp"), *cases("resnet_batchnorm_training")])
    assert main(["verify", "--models", "timm", "--markdown"]) == 0
    head, _, *rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.strip().splitlines()]
    assert [cell.strip() for cell in head[:3]] == ["family", "model", "method"]
    assert [cell.strip() for cell in rows[0][:3]] == ["timm", "mlp", "layerwise"]
    assert [cell.strip() for cell in rows[1][:3]] == ["timm", "resnet_batchnorm_training", "tangent"]
    assert "mixes the batch dimension" in rows[1][4]
    assert main(["verify", "--models", "hf", "--json"]) == 0  # every family of Hugging Face
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] and {row["family"] for row in found["rows"]} == {f for f in real.FAMILIES if f.startswith("hf_")}
