"""What a step costs the host on a GPU, in counts, which are the same on every machine; that uses which have one part
give the numbers of parts of their own; and that nothing waits."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
BOUNDS = {  # network -> launches, other kernels, dispatches of a step. Plain steps have 0 and:
    "resnet_gn": (10, 300, 800),  # 233, 528
    "resnet_bn": (65, 665, 1500),  # 264, 466
    "transformer": (3, 525, 1600),  # 543, 1673
}
# Where the weighted gradient may be spoilt by an example that is not finite, the scores are asked, once.
DEFERRED = ["Event.synchronize"]
REFUSED = {"_local_scalar_dense", "item", "nonzero", "equal"}  # by then, in checked steps too
ASKING_WAYS = {"update_backward", "last_backward", "hooked", "by_hand_backward", "joined_backward", "captured_backward"}
ASKING_NETWORKS = {"batch_norm", "derived", "gated", "noting"}
SCORES_ALONE = {"meta_weights", "weights", "plain"}
CASES = {
    "linear": ["*"],
    "convolution": ["reweighter", "update_backward", "not_finite"],
    "batch_norm": [
        "reweighter",
        "update_backward",
        "last",
        "hooked",
        "meta_weights",
        "by_hand",
        "captured",
        "captured_backward",
    ],
    "derived": ["reweighter", "joined", "not_finite", "captured"],
    "dropout": ["reweighter", "meta_weights"],
    "noting": ["reweighter", "update_backward", "meta_weights"],
    "gated": ["reweighter", "captured"],
    "picking": ["reweighter", "captured"],
}


def steps(count, *names):
    command = [sys.executable, "-m", "tests.gpu_steps", str(count), *names]
    run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def allowed(row):
    """The waits of a step that is not checked."""
    network, way = row["network"], row["way"]
    asks = way in ASKING_WAYS or (network in ASKING_NETWORKS and way not in SCORES_ALONE)
    return DEFERRED * ((network == "picking") + asks)


def is_checked(row):
    call, way = row["step"], row["way"]
    if way == "every":
        call = (call + 1) // 2 if call % 2 else 3  # of those with weights
    return call & (call - 1) == 0


def test_launches_and_dispatches_of_a_step():
    """Takes over 10 s: a process of its own, in which first steps measure."""
    for row in steps(3, *(f"{network}.reweighter" for network in BOUNDS)):
        found = row["launches"], row["kernels"], row["dispatches"]
        within = all(x <= bound for x, bound in zip(found, BOUNDS[row["network"]], strict=True))
        assert within or row["step"] < 3, row
        # the first has a part for each use, later ones one for many
        assert row["differs"] <= 1e-5, row


def test_nothing_waits_for_a_gpu_from_the_third_step_on():
    """Takes over 10 s: a process of its own, with steps of every kind."""
    for row in steps(7, *(f"{network}.{way}" for network in CASES for way in CASES[network])):
        waits = [wait.split(" at ")[0] for wait in row["waits"]]
        assert row["finite"], row
        spoilt = (row["network"], row["way"]) == ("derived", "not_finite")  # what such a batch spoils is done anew
        joins = row["network"] == "noting" and row["step"] == 5  # may the batches be joined? what it left is compared
        assert row["step"] < 3 or spoilt or joins or not REFUSED & {*waits}, row
        if row["way"] == "plain":
            assert not waits, row
        elif is_checked(row):
            assert row["step"] == 1 or len(waits) <= 9, row
        elif joins:
            assert len(waits) <= 2 + len(allowed(row)), row
        elif not spoilt:
            assert waits == allowed(row), row
