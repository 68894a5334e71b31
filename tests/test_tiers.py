"""The tiers of the tests: the shortest still meets every op, backend, method and command, the usual one every value."""

import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from fastrw.api.options import METHODS
from fastrw.cli import COMMANDS
from tests import tiers
from tests.op_cases import OF_CPU

ROWS = list(product("abcd", range(6), (True, False)))


@pytest.fixture
def usual(monkeypatch):
    monkeypatch.setattr(tiers, "tier", "usual")


def pairs(rows):
    return {(i, row[i], j, row[j]) for row in rows for i in range(3) for j in range(i)}


def test_few_rows_hold_every_value(usual):
    kept = tiers.covering(ROWS)
    assert [{*column} for column in zip(*kept, strict=True)] == [{*column} for column in zip(*ROWS, strict=True)]
    assert len(kept) < len(ROWS) / 3


def test_more_rows_hold_every_pair(usual):
    kept = tiers.covering(ROWS, 2)
    assert pairs(kept) == pairs(ROWS) and len(kept) < len(ROWS)


def test_some_are_spread_from_the_first_to_the_last(usual):
    assert tiers.some(range(10), 4) == [0, 3, 6, 9]
    assert tiers.some(range(2), 4) == [0, 1] and tiers.some(range(9), 1) == [0]


@pytest.mark.parametrize(("tier", "kept"), [("quick", 1), ("every", len(ROWS))])
def test_the_other_tiers_take_one_or_all(monkeypatch, tier, kept):
    monkeypatch.setattr(tiers, "tier", tier)
    assert len(tiers.covering(ROWS, 2)) == len(tiers.some(ROWS, 5)) == kept


@pytest.fixture(scope="module")
def quick():
    """The names of what the shortest tier collects."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "--tier", "quick"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_shortest_tier_meets_every_op_on_every_backend(quick):
    met = re.findall(r"test_every_size\[(\w+)-(\w+)-torch.float32\]", quick)
    assert {*met} == {*OF_CPU}


def test_the_shortest_tier_meets_every_method(quick):
    assert {*re.findall(r"test_every_method_serves_a_plain_model\[(\w+)\]", quick)} == {*METHODS}


def test_the_shortest_tier_meets_every_command(quick):
    files = {*re.findall(r"^tests/(\w+)\.py", quick, re.MULTILINE)}
    assert {f"test_{command}" for command in COMMANDS} - {"test_bench"} <= files
    assert files >= {"test_bench", "test_bench_ops", "test_bench_fsr", "test_bench_scaling", "test_papers_report"}
