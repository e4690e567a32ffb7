"""Whoever follows a guide gets what it says: its files, commands and Python are taken as they stand there, in order."""

from itertools import chain
from pathlib import Path

import pytest

from tests.docs.conftest import QUICKSTART
from tests.docs.pages import REFERENCE, File, goes_on_from, names, parts
from tests.docs.reading import Reader, Surroundings

TO_RUN = [
    page
    for page in names()
    if page != QUICKSTART and any(isinstance(part, File) or part.not_run is None for part in parts(page))
    if page not in REFERENCE
]
# The pages that one reader follows in one clone, by the first of them.
JOURNEYS = {page: [page] for page in TO_RUN if goes_on_from(page) is None}
for later in TO_RUN:
    if earlier := goes_on_from(later):
        JOURNEYS[earlier].append(later)


@pytest.mark.parametrize("pages", [pytest.param(pages, id=Path(first).stem) for first, pages in JOURNEYS.items()])
def test_a_guide_does_what_it_says(pages: list[str], clone: Path, around: Surroundings) -> None:
    reader = Reader(clone, around, warm=True)
    try:
        done = [reader.follow(part) for part in chain.from_iterable(map(parts, pages))]
    finally:
        reader.close()
    assert any(done), "nothing on these pages was done"


def test_the_quickstart_ends_with_a_release(begun: Path) -> None:
    assert (begun / "runs" / "mine" / "release" / "README.md").exists()
