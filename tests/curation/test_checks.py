"""The quality queries: what each objects to, and that no row is lost between accepted and rejected."""

from dataclasses import replace
from pathlib import Path

import pytest

import curation.checks
from curation.checks import check, load_checks
from pipelines.errors import UserError
from pipelines.judge import judge
from pipelines.records import Prompt, Response, from_table, to_table
from pipelines.runs import RunFolder


def change(run: RunFolder, variant: str, **changes: str) -> str:
    """Change the first response of a variant (of a harmful prompt, or a benign one for "benign"); its id."""
    kinds = {prompt.prompt_id: prompt.kind for prompt in from_table(Prompt, run.read("prompts"))}
    responses = from_table(Response, run.read("responses"))

    def wanted(response: Response) -> bool:
        benign = kinds[response.prompt_id] == "benign"
        return benign if variant == "benign" else response.variant == variant and not benign

    at = next(index for index, response in enumerate(responses) if wanted(response))
    responses[at] = replace(responses[at], **changes)
    run.write("responses", to_table(Response, responses))
    judge(run)
    return responses[at].response_id


def reasons_of(run: RunFolder, response_id: str) -> set[tuple[str, str]]:
    rows = run.read("rejected").to_pylist()
    return {(row["check_name"], row["reason"]) for row in rows if row["response_id"] == response_id}


def test_every_response_is_accepted_or_rejected_with_a_reason(judged: RunFolder) -> None:
    done = check(judged)
    accepted = set(judged.read("accepted")["response_id"].to_pylist())
    rejected = judged.read("rejected").to_pylist()
    everyone = set(judged.read("responses")["response_id"].to_pylist())
    assert accepted | {row["response_id"] for row in rejected} == everyone
    assert not accepted & {row["response_id"] for row in rejected}
    assert all(row["reason"] for row in rejected)
    assert done.accepted + done.rejected == done.responses == len(everyone)


@pytest.mark.parametrize(
    ("variant", "changes", "expected"),
    [
        ("improved", {"finish_reason": "length"}, ("format_broken", "truncated")),
        ("improved", {"reasoning_source": "truncated", "answer": ""}, ("format_broken", "truncated")),
        ("improved", {"answer": ""}, ("format_broken", "answer missing")),
        ("short", {"reasoning": ""}, ("format_broken", "reasoning missing")),
        ("nocot", {"reasoning": "Hm."}, ("format_broken", "reasoning where there should be none")),
        ("template", {"answer": "Sorry. </think>"}, ("format_broken", "tag left in the answer")),
        ("template", {"reasoning": "<think> a"}, ("format_broken", "tag left in the reasoning")),
        (
            "improved",
            {"answer": "Of course, [detail withheld]."},
            ("refusal_missing", "no refusal of a harmful prompt"),
        ),
        ("benign", {"answer": "Sorry, I cannot help with that."}, ("refusal_present", "refusal of a benign prompt")),
    ],
)
def test_a_broken_row_is_rejected_for_what_is_broken(
    judged: RunFolder, variant: str, changes: dict[str, str], expected: tuple[str, str]
) -> None:
    response_id = change(judged, variant, **changes)
    check(judged)
    assert expected in reasons_of(judged, response_id)


def test_an_answer_that_cannot_be_scored_is_rejected_as_unscored(judged: RunFolder) -> None:
    response_id = change(judged, "improved", answer="")
    check(judged)
    assert ("refusal_missing", "refusal unscored") in reasons_of(judged, response_id)


def test_nocot_is_accepted_with_its_empty_reasoning(judged: RunFolder) -> None:
    check(judged)
    variants = {row.response_id: row.variant for row in from_table(Response, judged.read("responses"))}
    accepted = [variants[name] for name in judged.read("accepted")["response_id"].to_pylist()]
    assert accepted.count("nocot") == 12


def test_hostile_text_passes_through_the_queries_as_text(judged: RunFolder) -> None:
    hostile = "'; DROP VIEW responses; -- <script>alert(1)</script> {{ 7 * 7 }} \x00"
    response_id = change(judged, "improved", answer=hostile)
    check(judged)
    values = [row["value"] for row in judged.read("rejected").to_pylist() if row["response_id"] == response_id]
    assert hostile in values


def test_broken_query_names_its_file_and_line(
    judged: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.sql").write_text("SELECT response_id,\n  nonsense AS reason, '' AS value\nFROM responses\n")
    monkeypatch.setattr(curation.checks, "load_checks", lambda: load_checks(tmp_path))
    with pytest.raises(UserError, match=r"mine\.sql, line 2"):
        check(judged)


def test_query_without_its_columns_is_refused(
    judged: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.sql").write_text("SELECT response_id FROM responses")
    monkeypatch.setattr(curation.checks, "load_checks", lambda: load_checks(tmp_path))
    with pytest.raises(UserError, match="must return response_id, reason and value"):
        check(judged)


def test_missing_verdicts_name_the_stage_to_run(judged: RunFolder) -> None:
    judged.table_path("verdicts").unlink()
    with pytest.raises(UserError, match="saferthoughts judge small"):
        check(judged)
