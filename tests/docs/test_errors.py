"""docs/errors.md is complete: every error that the product gives belongs to one of its sections."""

import re
from collections import Counter

import pytest

from docs.error_messages import PLACES, belonging, messages, sections
from pipelines.system_errors import _LINES
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")


def test_every_error_is_in_a_section() -> None:
    missing = [f"{one.file}:{one.line} (in {one.function}): {one.words}" for one in belonging(PAGE).get(None, [])]
    assert len(messages()) > 600
    assert missing == [], (
        "docs/errors.md does not have these errors. Add FILE or FILE:FUNCTION to the comment `from:` of the section "
        "that says what to do about it, or write a section:\n" + "\n".join(missing)
    )


def test_an_error_of_a_new_file_is_missed() -> None:
    without = PAGE.replace("cards/release/regenerate.py", "")
    assert {one.file for one in belonging(without)[None]} == {"cards/release/regenerate.py"}


def test_each_place_is_named_once_and_has_errors() -> None:
    named = [place for places in sections(PAGE).values() for place in places]
    assert [place for place, count in Counter(named).items() if count > 1] == []
    used = {next(place for place in one.places if place in named) for one in messages()}
    assert set(named) - used == set(), "places of docs/errors.md that have no error (any more)"


@pytest.mark.parametrize("part", re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:], ids=lambda part: part.split("\n")[0])
def test_a_section_shows_messages_of_its_own_and_says_what_to_do(part: str) -> None:
    heading, _, text = part.partition("\n")
    given = [one.words for one in belonging(PAGE)[heading]]
    shown = [line.rstrip("… ") for line in re.search(r"```text\n(.*?)```", text, re.DOTALL)[1].splitlines()]  # type: ignore[index]
    assert [line for line in shown if not any(line in words for words in given)] == []
    prose = PLACES.sub("", re.sub(r"```.*?```", "", text, flags=re.DOTALL)).partition("\n## ")[0]
    assert len(prose.split()) > 15


def test_what_the_system_says_is_on_the_page() -> None:
    assert [what for what, _ in _LINES.values() if what not in PAGE] == []
