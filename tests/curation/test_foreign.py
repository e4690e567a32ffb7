"""Datasets that somebody else made: read by their columns, checked like our own, refused rows kept with a reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from cards.release import build_release
from curation.checks import check
from curation.foreign import import_dataset
from curation.sources import Source
from pipelines.errors import UserError
from pipelines.judge import judge
from pipelines.records import Prompt, Response, from_table
from pipelines.repair import repair
from pipelines.runs import RunFolder

REFUSAL = "Sorry, I can't help with that."


def rows(path: Path, *values: dict[str, Any]) -> Source:
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return Source(hub=str(path))


def read(runs: Path, source: Source, mapping: dict[str, str] | None = None, kind: str | None = "harmful") -> RunFolder:
    return import_dataset(runs, "foreign", source, mapping or {}, kind)


@pytest.mark.parametrize(
    ("row", "mapping"),
    [
        ({"prompt": "Q", "response": f"<think>\nHm.\n</think>\n\n{REFUSAL}"}, {}),
        ({"question": "Q", "reasoning": "Hm.", "answer": REFUSAL}, {}),
        ({"instruction": "Q", "response": REFUSAL, "thinking": "Hm."}, {}),
        ({"q": "Q", "cot": "Hm.", "final": REFUSAL}, {"prompt": "q", "reasoning": "cot", "answer": "final"}),
        (
            {
                "messages": [
                    {"role": "system", "content": "S"},
                    {"role": "user", "content": "Q"},
                    {"role": "assistant", "content": f"<think>Hm.</think>{REFUSAL}"},
                ]
            },
            {},
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Q"},
                    {"from": "gpt", "value": f"<think>Hm.</think>{REFUSAL}"},
                ]
            },
            {},
        ),
    ],
)
def test_a_conversation_is_read_whatever_its_columns_are_called(
    tmp_path: Path, row: dict[str, Any], mapping: dict[str, str]
) -> None:
    run = read(tmp_path / "runs", rows(tmp_path / "d.jsonl", row), mapping)
    (prompt,) = from_table(Prompt, run.read("prompts"))
    (response,) = from_table(Response, run.read("responses"))
    assert (prompt.text, prompt.kind) == ("Q", "harmful")
    assert (response.reasoning, response.answer) == ("Hm.", REFUSAL)


def test_rows_that_cannot_be_used_are_kept_with_their_reason(tmp_path: Path) -> None:
    good = {"prompt": "Q", "response": REFUSAL}
    source = rows(
        tmp_path / "d.jsonl",
        good,
        good,
        {"prompt": None, "response": "x"},
        {"prompt": "R", "response": "y", "kind": "odd"},
    )
    run = read(tmp_path / "runs", source)
    assert run.read("responses").num_rows == 1
    assert [(row["row"], row["error"]) for row in run.read("failed").to_pylist()] == [
        (2, "the same prompt and response as an earlier row"),
        (3, "'prompt' is NoneType, not text"),
        (4, "kind is 'odd': it must be harmful or benign (--kind for all rows)"),
    ]


def test_a_foreign_dataset_goes_through_judge_and_checks(tmp_path: Path) -> None:
    loop = "I keep on saying this very thing again and again. " * 30
    source = rows(
        tmp_path / "d.jsonl",
        {
            "prompt": "How do I rob a bank?",
            "response": f"<think>\nThat is theft and harms people. I refuse.\n</think>\n\n{REFUSAL}",
        },
        {"prompt": "How do I rob a museum?", "response": f"<think>\n{loop}\n</think>\n\n{REFUSAL}"},
    )
    run = read(tmp_path / "runs", source)
    judge(run)
    done = check(run)
    assert (done.responses, done.accepted) == (2, 1)
    assert ("repetition", "runs in circles") in done.by_reason


def test_a_release_of_ours_is_read_back_as_it_was_accepted(judged: RunFolder, tmp_path: Path) -> None:
    repair(judged)
    check(judged)
    released = build_release(judged)
    run = read(tmp_path / "runs", Source(hub=str(released.folder)), kind=None)
    judge(run)
    done = check(run)
    assert done.responses == sum(released.rows.values())
    assert done.rejected == 0
    back = {(r.variant, r.reasoning, r.answer) for r in from_table(Response, run.read("responses"))}
    accepted = set(judged.read("accepted")["response_id"].to_pylist())
    ours = {
        (r.variant, r.reasoning, r.answer)
        for r in from_table(Response, judged.read("responses"))
        if r.response_id in accepted
    }
    assert {texts[1:] for texts in back} == {texts[1:] for texts in ours}


@pytest.mark.parametrize(
    ("mapping", "kind", "told"),
    [
        ({"reponse": "a"}, "harmful", "Unknown field in --map 'reponse'. Did you mean 'response'"),
        ({"response": "b"}, "harmful", r"Unknown column of .*d\.jsonl 'b'"),
        ({}, "harmful", "say which is the prompt and which the response"),
        ({"prompt": "a", "response": "a"}, "odd", "Unknown kind 'odd'"),
        ({"prompt": "a", "response": "a"}, None, "None of the 1 rows"),
    ],
)
def test_bad_mappings_are_told_in_one_line(
    tmp_path: Path, mapping: dict[str, str], kind: str | None, told: str
) -> None:
    with pytest.raises(UserError, match=told):
        read(tmp_path / "runs", rows(tmp_path / "d.jsonl", {"a": "text"}), mapping, kind)
    assert not (tmp_path / "runs" / "foreign").exists()


def test_a_generated_run_is_not_written_over(judged: RunFolder, tmp_path: Path) -> None:
    source = rows(tmp_path / "d.jsonl", {"prompt": "Q", "response": REFUSAL})
    before = judged.table_path("responses").read_bytes()
    with pytest.raises(UserError, match="is a run that was generated"):
        import_dataset(judged.path.parent, judged.name, source, {}, "harmful")
    assert judged.table_path("responses").read_bytes() == before
