"""How much a run of the tests goes through: pytest --tier quick | usual | every.

quick: each op, backend, method and command once, in the tests that are marked so. usual: every kind of thing, but of
long lists a part. every: all of it. `tests/conftest.py` sets the tier before it collects.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations

TIERS = {"quick": "each op, backend, method and command once", "usual": "every kind", "every": "all there is"}
tier = "usual"


def some(items: Iterable, count: int) -> list:
    """So many of the items, spread over them: all in the longest tier, the first alone in the shortest."""
    items = list(items)
    if tier == "quick":
        return items[:1]
    if tier == "every" or count >= len(items):
        return items
    return [items[i * (len(items) - 1) // max(count - 1, 1)] for i in range(count)]


def covering(rows: Iterable[Sequence], together: int = 1) -> list[Sequence]:
    """Rows (of parametrize) in which every `together` values that some row has side by side still are so.

    1 keeps each value of each column, 2 each pair. The longest tier keeps all rows, the shortest the first.
    """
    rows = list(rows)
    if tier == "quick":
        return rows[:1]
    if tier == "every":
        return rows
    # a diagonal through the product, so that rows with several new values come first
    order = sorted(range(len(rows)), key=lambda i: (i * 0.6180339887498949) % 1)
    seen: set = set()
    kept = []
    for i in order:
        found = set(combinations(enumerate(map(repr, rows[i])), together)) - seen
        if found:
            kept.append(i)
            seen |= found
    return [rows[i] for i in sorted(kept)]
