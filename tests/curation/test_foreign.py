"""Datasets that somebody else made: read by their columns, checked like our own, refused rows kept with a reason."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cards.release.build import build_release
from curation.datasets.imported import import_dataset
from curation.datasets.media import media_of
from curation.quality.checks import check
from pipelines.errors import UserError
from pipelines.judges.stage import judge
from pipelines.records import Prompt, Response, from_table
from pipelines.repairs.stage import repair
from pipelines.runs import RunFolder
from pipelines.sources import Source
from saferthoughts.cli.app import app

REFUSAL = "Sorry, I can't help with that."
USER = {"role": "user", "content": "Q"}
ANSWER = {"role": "assistant", "content": REFUSAL}


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
                    {"role": "user", "content": "Q"},
                    {"role": "model", "content": f"<think>Hm.</think>{REFUSAL}"},
                ]
            },
            {},
        ),
        ({"messages": [USER, {"role": "bot", "content": REFUSAL, "thinking": "Hm."}]}, {}),
        ({"messages": [USER, {"role": "assistant", "content": REFUSAL, "reasoning_content": "Hm."}]}, {}),
        ({"messages": [USER, {"role": "assistant", "content": REFUSAL, "reasoning": "Hm."}]}, {}),
        (
            {
                "messages": [
                    {"role": "human", "content": [{"type": "text", "text": "Q"}]},
                    {
                        "role": "assistant",
                        "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": REFUSAL}],
                    },
                ]
            },
            {},
        ),
        ({"prompt": [USER], "completion": [{"role": "assistant", "content": f"<think>Hm.</think>{REFUSAL}"}]}, {}),
        ({"prompt": [USER], "completion": f"<think>Hm.</think>{REFUSAL}"}, {}),
        ({"prompt": "Q", "chosen": [USER, {**ANSWER, "thoughts": "Hm.", "finish_reason": "stop"}], "rejected": []}, {}),
        ({"messages": {"role": ["user", "assistant"], "content": ["Q", f"<think>Hm.</think>{REFUSAL}"]}}, {}),
        ({"messages": json.dumps([USER, {**ANSWER, "reasoning_details": [{"text": "Hm."}]}])}, {}),
        ({"messages": [USER, {"speaker": "ai", "text": None, "refusal": REFUSAL, "thinking": "Hm."}]}, {}),
        ({"instruction": "Q", "input": "<noinput>", "output": f"<think>Hm.</think>{REFUSAL}", "history": []}, {}),
        ({"": 0, "prompt": "Q", "response": f"<think>Hm.</think>{REFUSAL}", "kind": None, "category": 0}, {}),
        (
            {
                "conversations": [
                    {"from": "human", "value": "Q"},
                    {"from": "gpt", "value": f"<think>Hm.</think>{REFUSAL}"},
                ]
            },
            {},
        ),
        # Turns as JSON, an answer with its reasoning, a preference set without its prompt, other names.
        (
            {"prompt": json.dumps([USER]), "completion": json.dumps([{**ANSWER, "reasoning_content": "Hm."}])},
            {},
        ),
        ({"question": "Q", "answer": f"<think>Hm.</think>{REFUSAL}"}, {}),
        ({"chosen": [USER, {**ANSWER, "thinking": "Hm."}], "rejected": [USER, ANSWER]}, {}),
        ({"problem": "Q", "deepseek_reasoning": "Hm.", "deepseek_solution": REFUSAL}, {}),
        ({"Question": "Q", "Complex_CoT": "Hm.", "Response": REFUSAL}, {}),
        ({"prompt": "Q", "response": f"<think>Hm.</think>{REFUSAL}", "reasoning": None}, {}),
        ({"messages": [{"role": "system", "content": None}, USER, {**ANSWER, "thinking": "Hm."}]}, {}),
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


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "system", "content": "S"}, USER, ANSWER]},
        {"system": "S", "messages": [USER, ANSWER]},
        {"system": "S", "prompt": "Q", "response": REFUSAL},
        {"prompt": [{"role": "developer", "content": "S"}, USER], "completion": [ANSWER]},
    ],
)
def test_a_system_turn_is_kept_in_front_of_the_question(tmp_path: Path, row: dict[str, Any]) -> None:
    run = read(tmp_path / "runs", rows(tmp_path / "d.jsonl", row))
    (prompt,) = from_table(Prompt, run.read("prompts"))
    assert (prompt.text, prompt.behaviour) == ("S\n\nQ", "Q")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([USER, ANSWER, USER, ANSWER], "messages has 2 questions, and a row holds one"),
        ([USER, ANSWER, USER], "messages ends on a turn of the user, which nobody answered"),
        ([USER, ANSWER, ANSWER], "messages is not system, user, assistant, but user, assistant, assistant"),
        ([ANSWER, USER, ANSWER], "messages is not system, user, assistant, but assistant, user, assistant"),
        ([USER, {"role": "tool", "content": "x"}, ANSWER], "messages has a turn of the role 'tool'"),
        ([USER, {**ANSWER, "tool_calls": [{"id": "1"}]}], "a turn has tool_calls"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, ANSWER],
            "the user's turn has a part of the type 'image_url'",
        ),
        ([USER, {"role": "assistant", "content": None}], "the assistant's turn is NoneType, not text"),
        ([USER], "messages has no turn of a user and of an assistant"),
        ([{"role": "user", "content": " "}, ANSWER], "the question is empty"),
        ([{"content": "Q"}, ANSWER], "messages has a turn without a role; it has content"),
        ("[USER", "messages is a text that begins like JSON and is none"),
    ],
)
def test_a_conversation_that_is_not_one_question_is_refused_by_its_reason(
    tmp_path: Path, messages: list[Any], reason: str
) -> None:
    with pytest.raises(UserError, match="None of the 1 rows") as refused:
        read(tmp_path / "runs", rows(tmp_path / "d.jsonl", {"messages": messages}))
    assert reason in str(refused.value)


def test_rows_that_cannot_be_used_are_kept_with_their_reason(tmp_path: Path) -> None:
    good = {"prompt": "Q", "response": REFUSAL}
    source = rows(
        tmp_path / "d.jsonl",
        good,
        good,
        {"prompt": None, "response": "x"},
        {"prompt": "R", "response": "y", "kind": "odd"},
        {"prompt": "R", "response": "y", "history": [["S", "z"]]},
        {"prompt": "R", "response": "y", "category": "\ud83d"},
        {"prompt": "<image>\nR", "response": "y"},
        {"prompt": "R", "response": "y", "Images": [{"path": "a.png"}]},
        {"prompt": "R\n<|audio_pad|>", "response": "y"},
    )
    run = read(tmp_path / "runs", source)
    assert run.read("responses").num_rows == 1
    assert [(row["row"], row["error"]) for row in run.read("failed").to_pylist()] == [
        (2, "the same prompt and response as an earlier row"),
        (3, "'prompt' is NoneType, not text"),
        (4, "kind is 'odd': it must be harmful or benign (--kind for all rows)"),
        (5, "it has a history, and a row holds one question: the answer belongs to all of it"),
        (6, "a name in it holds half of a surrogate pair"),
        (7, "the question holds <image>, a placeholder, and a row holds text only"),
        (8, "it has 'Images', and a row holds text only"),
        (9, "the question holds <|audio_pad|>, a placeholder, and a row holds text only"),
    ]


@pytest.mark.parametrize(
    "question",
    ["Where does <video> belong in HTML?", "Mend:\n<video>\n<source>\n</video>", "<audio> tag: how?", "R <image> R"],
)
def test_a_placeholders_name_in_a_sentence_or_in_code_is_text(question: str) -> None:
    assert media_of({"image": None, "images": [], "video": {"bytes": None}}, question) == ""


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
    ("mapping", "kind", "expected"),
    [
        ({"reponse": "a"}, "harmful", "Unknown field in --map 'reponse'. Did you mean 'response'"),
        ({"response": "b"}, "harmful", r"Unknown column of .*d\.jsonl 'b'"),
        ({}, "harmful", "say which is the prompt and which the response"),
        ({"prompt": "a", "response": "a"}, "odd", "Unknown kind 'odd'"),
        ({"prompt": "a", "response": "a"}, None, "None of the 1 rows"),
    ],
)
def test_bad_mappings_are_told_in_one_line(
    tmp_path: Path, mapping: dict[str, str], kind: str | None, expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        read(tmp_path / "runs", rows(tmp_path / "d.jsonl", {"a": "text"}), mapping, kind)
    assert not (tmp_path / "runs" / "foreign").exists()


def test_a_generated_run_is_not_written_over(judged: RunFolder, tmp_path: Path) -> None:
    source = rows(tmp_path / "d.jsonl", {"prompt": "Q", "response": REFUSAL})
    before = judged.table_path("responses").read_bytes()
    with pytest.raises(UserError, match="is a run that was generated"):
        import_dataset(judged.path.parent, judged.name, source, {}, "harmful")
    assert judged.table_path("responses").read_bytes() == before


def test_the_input_of_alpaca_is_part_of_the_prompt(tmp_path: Path) -> None:
    values = [{"instruction": "Make it kind.", "input": f"Text {n}", "output": REFUSAL} for n in range(3)]
    run = read(tmp_path / "runs", rows(tmp_path / "alpaca.jsonl", *values))
    prompts = from_table(Prompt, run.read("prompts"))
    assert {prompt.text for prompt in prompts} == {f"Make it kind.\n\nText {n}" for n in range(3)}


def test_a_table_is_read_as_the_same_rows_in_lines(tmp_path: Path) -> None:
    answer = [{**ANSWER, "tool_calls": None}]
    values = [
        {"question": f"Q{n}", "response": answer, "category": ["a", "b"], "source": "s", "n": n} for n in range(3)
    ]
    lines = read(tmp_path / "runs", rows(tmp_path / "d.jsonl", *values))
    kept = [lines.read(name) for name in ("prompts", "responses")]
    pq.write_table(pa.Table.from_pylist(values), tmp_path / "d.parquet")
    datasets.Dataset.from_list(values).save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": datasets.Dataset.from_list(values)}).save_to_disk(tmp_path / "splits")
    for name in ("d.parquet", "saved", "splits"):
        table = import_dataset(tmp_path / "runs", name, Source(hub=str(tmp_path / name)), {}, "harmful")
        assert [table.read(one) for one in ("prompts", "responses")] == kept
        assert table.manifest()["stages"]["import"]["unread"] == ["n"]
    assert {prompt.category for prompt in from_table(Prompt, lines.read("prompts"))} == {"a, b"}


def test_a_look_says_what_is_understood_not_read_and_refused(tmp_path: Path) -> None:
    good = {"Question": "How do bees sleep?", "chosen": f"<think>Hm.</think>{REFUSAL}", "rejected": "no"}
    rows(tmp_path / "d.jsonl", good, {**good, "Question": ""}, {**good, "Question": 7}, good)
    done = CliRunner().invoke(app, ["dataset", "look", str(tmp_path / "d.jsonl")])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[1:] == [
        "  prompt: column Question",
        "  response: column chosen",
        "  kind: no column; give --kind harmful or --kind benign",
        "  not read: rejected",
        "  refused: 1 (the first is row 2): the question is empty",
        "  refused: 1 (the first is row 3): 'Question' is int, not text",
        "  refused: 1 (the first is row 4): the same prompt and response as an earlier row",
        "prompt (uncategorised): How do bees sleep?",
        "  reasoning: Hm.",
        f"  answer: {REFUSAL}",
    ]
    assert "1 of 4 rows can be used" in done.stdout.splitlines()[0]
    rows(tmp_path / "none.jsonl", {**good, "Question": 7})
    done = CliRunner().invoke(app, ["dataset", "look", str(tmp_path / "none.jsonl")])
    assert (done.exit_code, "Next:" in done.output) == (1, False), done.output
    assert "No row of" in str(done.exception) + done.output
