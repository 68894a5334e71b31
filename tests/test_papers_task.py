"""The papers' experiments: how classes are thinned and labels flipped, and what a trial's examples share."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.papers import sources
from bench.papers.task import LOOK_ALIKE, class_counts, flip_labels, make_task
from bench.papers.training import Training, crop_and_flip
from fastrw.ops.tolerance import SCORE_GOAL, relative_error


@given(
    kind=st.sampled_from(["none", "bias", "long_tail"]), ratio=st.floats(0.2, 0.95),
    available=st.lists(st.integers(20, 500), min_size=3, max_size=10), total=st.none() | st.integers(30, 3000),
)  # fmt: skip
@settings(deadline=None, max_examples=100)
def test_class_counts_keep_to_what_there_is(kind, ratio, available, total):
    available = np.array(available)
    counts = class_counts(kind, 1 / ratio if kind == "long_tail" else ratio, available, total)
    assert (counts <= available).all() and (counts >= 1).all()
    assert total is None or counts.sum() <= total + len(available)


def test_class_counts_have_the_shares_asked_for():
    many = np.full(10, 5000)
    assert class_counts("pair", 200, many[:2], 5000).tolist() == [24, 4975]
    assert class_counts("bias", 0.9, many, 2000).tolist() == [1800] + [22] * 9
    tail = class_counts("long_tail", 50, many, None)
    assert tail[0] == 5000 and tail[-1] == 100 and (np.diff(tail) < 0).all()
    assert np.allclose(tail[1:] / tail[:-1], 50 ** (-1 / 9), atol=0.01)
    assert class_counts("pair", 200, np.array([136, 136]), 5000, least=5).tolist() == [5, 136]


@given(kind=st.sampled_from(["uniform", "background", "asymmetric"]), share=st.floats(0, 0.9), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=60)
def test_flips_are_of_the_kind_and_share_asked_for(kind, share, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 10, 500)
    before = y.copy()
    seen = flip_labels(rng, y, 10, kind, share, background=3)
    assert (y == before).all() and seen.min() >= 0 and seen.max() < 10
    wrong = seen != y
    if kind == "uniform":
        assert wrong.sum() == round(share * 500)
    elif kind == "background":
        assert (seen[wrong] == 3).all() and not wrong[y == 3].any()
        assert all(wrong[y == k].sum() == round(share * (y == k).sum()) for k in range(10) if k != 3)
    else:
        assert all(LOOK_ALIKE[label] == to for label, to in zip(y[wrong], seen[wrong], strict=True))
        assert all(wrong[y == k].sum() == round(share * (y == k).sum()) for k in LOOK_ALIKE)


BASE = Training("cifar10", train=200, held=50, clean=3, noise="uniform", flip=0.4)


def test_methods_of_a_seed_train_on_the_same_examples():
    images = sources.images("cifar10", None)
    one, two, other = (make_task(images, replace(BASE, method=m, seed=s)) for m, s in
                       (("plain", 0), ("l2r", 0), ("plain", 1)))  # fmt: skip
    for x, y in ((one.x, two.x), (one.x_clean, two.x_clean)):
        assert relative_error(x, y) <= SCORE_GOAL[torch.float32]
    assert torch.equal(one.y, two.y) and torch.equal(one.y_clean, two.y_clean)
    assert not torch.equal(one.y, other.y)


@pytest.mark.parametrize("inside", [False, True])
def test_clean_examples_are_balanced_and_right(inside):
    images = sources.images("cifar10", None)
    task = make_task(images, replace(BASE, clean_in_training=inside))
    assert torch.bincount(task.y_clean).tolist() == [3] * 10
    rows = {tuple(row) for row in task.x.flatten(1).tolist()}
    assert sum(tuple(row) in rows for row in task.x_clean.flatten(1).tolist()) == (30 if inside else 0)
    assert not any(tuple(row) in rows for row in task.x_held.flatten(1).tolist())
    assert (task.y != task.true).sum() == round(0.4 * len(task.y)) and (task.y_held != task.true_held).any()


def test_pairs_become_classes_0_and_1():
    trial = Training("mnist", pair=(4, 9), imbalance="pair", ratio=10, train=5000, clean=5, clean_in_training=True)
    task = make_task(sources.images("mnist", None), trial)
    few, many = torch.bincount(task.y).tolist()
    assert task.classes == 2 and few == many // 10 and set(task.y_test.tolist()) == {0, 1}
    assert torch.bincount(task.y_clean).tolist() == [5, 5]


def test_crops_are_of_the_padded_image_or_of_its_mirror():
    x = torch.arange(2 * 3 * 6 * 6, dtype=torch.float32).reshape(2, 3, 6, 6) + 1
    padded = torch.nn.functional.pad(x, (2,) * 4)
    torch.manual_seed(0)
    for _ in range(20):
        for image, whole in zip(crop_and_flip(x, pad=2), padded, strict=True):
            crops = [whole[:, i : i + 6, j : j + 6] for i in range(5) for j in range(5)]
            assert any(torch.equal(image, crop) or torch.equal(image, crop.flip(2)) for crop in crops)
