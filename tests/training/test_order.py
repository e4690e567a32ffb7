"""The order of rows: each once, the same for a seed and an epoch, and grouped so that little is padding."""

from hypothesis import given
from hypothesis import strategies as st

from training.trainer.sampler import SeededOrder

lengths_of_rows = st.lists(st.integers(1, 2000), min_size=1, max_size=120)


def padding(order: list[int], lengths: list[int], at_once: int) -> float:
    """The share of positions that hold no token."""
    steps = [order[start : start + at_once] for start in range(0, len(order), at_once)]
    held = sum(max(lengths[row] for row in step) * len(step) for step in steps)
    return 1 - sum(lengths) / held


@given(lengths_of_rows, st.integers(1, 16), st.booleans())
def test_every_row_comes_once_an_epoch(lengths: list[int], at_once: int, grouped: bool) -> None:
    order = list(SeededOrder(lengths, at_once, seed=1, grouped=grouped))
    assert sorted(order) == list(range(len(lengths)))
    assert list(SeededOrder(lengths, at_once, seed=1, grouped=grouped)) == order


@given(lengths_of_rows, st.integers(1, 16))
def test_the_longest_row_comes_in_the_first_step(lengths: list[int], at_once: int) -> None:
    first = list(SeededOrder(lengths, at_once, seed=3, grouped=True))[:at_once]
    assert max(lengths[row] for row in first) == max(lengths)


def test_few_rows_are_grouped_too_and_epochs_differ() -> None:
    lengths = [100 + at for at in range(80)] + [1400 + at for at in range(8)]
    order = SeededOrder(lengths, 8, seed=0, grouped=True)
    once = list(order)
    order.set_epoch(1)
    again = list(order)
    assert again != once
    alone = padding(list(SeededOrder(lengths, 8, seed=0, grouped=False)), lengths, 8)
    assert max(padding(once, lengths, 8), padding(again, lengths, 8)) < 0.35 < alone
