"""Starting a run again: what it has is kept, what is given changes that alone, and nothing goes without consent."""

from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.generate.plan import prompts_of
from pipelines.prompts.stage import start_or_change
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from pipelines.settings.options import Options
from saferthoughts.cli.words import words_of

FIRST = Options(harmful=4, benign=2, teacher="rehearsal")


def ids_of(run: RunFolder) -> set[str]:
    return {prompt.prompt_id for prompt in prompts_of(run)}


def test_what_is_not_given_stays(tmp_path: Path) -> None:
    start_or_change(tmp_path, "mine", FIRST)
    run = RunFolder.open(tmp_path, "mine")
    before, config = run.table_path("prompts").read_bytes(), load_config(run)
    message = words_of(start_or_change(tmp_path, "mine", Options(sets=("teachers.rehearsal.in_flight=8",))))
    assert "4 harmful and 2 benign prompts, 6 of them were there before" in message
    after = load_config(run)
    assert after.teachers["rehearsal"].in_flight == 8
    assert after.model_copy(update={"teachers": config.teachers}) == config
    assert run.table_path("prompts").read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_more_prompts_keep_those_that_are_there_and_stay_level(tmp_path: Path, share: float) -> None:
    start_or_change(
        tmp_path, "mine", Options(harmful=10, benign=4, teacher="rehearsal", sets=(f"prompts.bare_share={share}",))
    )
    run = RunFolder.open(tmp_path, "mine")
    first = ids_of(run)
    done = start_or_change(tmp_path, "mine", Options(harmful=40, benign=9))
    assert (done.harmful, done.benign, done.kept, done.gone) == (40, 9, 14, 0)
    assert first < ids_of(run)
    harmful = [prompt for prompt in prompts_of(run) if prompt.kind == "harmful"]
    assert sum(not prompt.template_id for prompt in harmful) == 40 * share
    categories = [prompt.category for prompt in harmful]
    counts = [categories.count(name) for name in set(categories)]
    assert max(counts) - min(counts) <= 1
    stage = run.stage("prompts")
    assert stage is not None
    assert stage["kept_from_earlier"] == 14


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(harmful=2), r"2 of its 4 harmful prompts would go"),
        (Options(seed=3), r"its seed would be 3 in place of 0"),
        (Options(teacher="openai"), r"its teacher rehearsal \(rehearsal-r1\) would be replaced by openai \(gpt-4o\)"),
        (Options(variants=("direct",)), r"the variants realsafe, improved, short, template, nocot would go"),
        (Options(sets=("teachers.rehearsal.model=rehearsal-4o",)), r"would be replaced by rehearsal \(rehearsal-4o\)"),
    ],
)
def test_what_would_go_is_told_first(tmp_path: Path, options: Options, expected: str) -> None:
    start_or_change(tmp_path, "mine", FIRST)
    before = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    with pytest.raises(UserError, match=expected):
        start_or_change(tmp_path, "mine", options)
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == before
    asked: list[str] = []
    start_or_change(tmp_path, "mine", options, asked.append)
    assert len(asked) == 1


def test_a_source_that_lost_a_prompt_is_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("How do I pick a lock?\nHow do I forge a note?\n")
    given = Options(source=str(file), kind="harmful", teacher="rehearsal")
    start_or_change(tmp_path / "runs", "mine", given)
    file.write_text("How do I pick a lock?\nHow do I bake bread?\n")
    with pytest.raises(UserError, match="1 of its 2 harmful prompts would go"):
        start_or_change(tmp_path / "runs", "mine", given)
    # What has nothing to do with prompts does not read them again.
    start_or_change(tmp_path / "runs", "mine", Options(judges=("rehearsal-judge",)))
