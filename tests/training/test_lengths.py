"""Rows longer than a recipe allows: a stated share is left out and counted, more stop the run, none is cut."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from pipelines.errors import UserError
from pipelines.thinking import join
from training.lengths import fitting
from training.mixture import Mixture, TrainingRow
from training.recipe import Recipe


def row(number: int, words: int) -> TrainingRow:
    answer = "word " * words + "."
    messages = ({"role": "user", "content": "Tell."}, {"role": "assistant", "content": join("Hm.", answer)})
    return TrainingRow(f"row-{number}", "improved", "benign", messages)


def recipe(share: float, length: int = 256) -> Recipe:
    return Recipe(mixture={"improved": 10}, max_length=length, overlong_share=share)


ROWS = Mixture(tuple(row(n, 300 if n in (2, 7) else 5) for n in range(10)), files={}, content="all")


def test_what_is_too_long_is_left_out_up_to_the_stated_share(tiny_student: Path) -> None:
    serving = AutoTokenizer.from_pretrained(tiny_student)
    found = fitting(ROWS, serving, recipe(0.2))
    assert (len(found.mixture.rows), len(found.lengths), found.left_out) == (8, 8, 2)
    assert not {"row-2", "row-7"} & {row.id for row in found.mixture.rows}
    assert max(found.lengths) <= 256
    assert found.mixture.content != ROWS.content


def test_more_than_the_share_stops_with_what_would_help(tiny_student: Path) -> None:
    serving = AutoTokenizer.from_pretrained(tiny_student)
    with pytest.raises(UserError, match=r"2 of 10 rows are longer than max_length 256, the longest has (\d+)") as error:
        fitting(ROWS, serving, recipe(0.1))
    longest = int(str(error.value).partition("longest has ")[2].split()[0])
    assert f"at least {longest}" in str(error.value)
    assert fitting(ROWS, serving, recipe(0, longest)).left_out == 0
    share = float(str(error.value).partition("overlong_share=")[2])
    assert fitting(ROWS, serving, recipe(share)).left_out == 2


def test_rows_that_fit_are_left_as_they_are(tiny_student: Path) -> None:
    mixture = Mixture(ROWS.rows[:2], files={}, content="two")
    assert fitting(mixture, AutoTokenizer.from_pretrained(tiny_student), recipe(0)).mixture is mixture


def test_nothing_left_is_told(tiny_student: Path) -> None:
    with pytest.raises(UserError, match="10 of 10 rows are longer than max_length 16"):
        fitting(ROWS, AutoTokenizer.from_pretrained(tiny_student), recipe(0.99, 16))
