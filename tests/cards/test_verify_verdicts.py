"""A released row whose own verdict speaks against it is objected to, unless the card says why it is there."""

from dataclasses import replace
from pathlib import Path

import pytest

from cards.release.build import build_release
from cards.verify import verify
from curation.quality.checks import check
from pipelines.records import Verdict, from_table, to_table
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config, save_config


def released(run: RunFolder, **verdict: object) -> Path:
    """A release of the run in which one accepted row's verdict was changed after the checks."""
    check(run)
    accepted = set(run.read("accepted")["response_id"].to_pylist())
    verdicts = from_table(Verdict, run.read("verdicts"))
    chosen = next(one.response_id for one in verdicts if one.response_id in accepted and not one.reason)
    changed = [replace(one, **verdict) if one.response_id == chosen else one for one in verdicts]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("cards.release.build.require_fresh", lambda *tables: None)
        run.write("verdicts", to_table(Verdict, changed))
        return build_release(run).folder


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ({"safety": "unsafe"}, "1 rows whose own verdict says unsafe"),
        ({"inconsistency": True}, "1 rows whose own verdict has a pattern"),
        ({"reason": "judge: no JSON"}, "1 rows have no verdict that could be read"),
    ],
)
def test_a_released_row_that_its_verdict_speaks_against_is_found(
    judged: RunFolder, verdict: dict[str, object], words: str
) -> None:
    faults = verify(released(judged, **verdict)).faults
    assert any(words in fault for fault in faults), faults


def test_rows_that_the_card_explains_are_no_fault(judged: RunFolder) -> None:
    config = load_config(judged)
    names = tuple(
        path.stem
        for path in (Path(__file__).parents[2] / "curation" / "quality").glob("*.sql")
        if path.stem not in ("unsafe", "unscored")
    )
    checks = config.checks.model_copy(update={"only": names, "flagged": False})
    save_config(judged, config.model_copy(update={"checks": checks}))
    folder = released(judged, safety="unsafe", inconsistency=True)
    assert verify(folder).faults == ()
    card = (folder / "README.md").read_text()
    assert "Left out by whoever made this release: unsafe, unscored." in card
    assert "Rows whose verdict has a pattern are kept on purpose" in card
