"""GSM8K, GPQA, HumanEval and IFEval: the published formats, a scripted target, figures that were counted by hand."""

import csv
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from inspect_ai.log import EvalLog

from eval.protocols import settings
from eval.sandbox.bubblewrap import available
from eval.scorers.instructions import KINDS, follows, variants
from eval.suites import entry
from eval.task_spec import TaskRequest
from eval.tasks.humaneval import program_of
from pipelines.errors import UserError
from pipelines.thinking import join

Serving = Callable[..., AbstractContextManager[Any]]
Run = Callable[..., list[EvalLog]]


def files_in(folder: Path, golds: Mapping[str, str]) -> dict[str, Path]:
    """Three sets of questions in their own formats: numbers, letters, forms."""
    numbers = folder / "gsm8k.jsonl"
    numbers.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in golds.items()))
    choices = folder / "gpqa.csv"
    names = [
        "Question",
        "Correct Answer",
        *(f"Incorrect Answer {n}" for n in (1, 2, 3)),
        "High-level domain",
        "Record ID",
    ]
    with choices.open("w", newline="") as file:
        rows = [[f"P{n}", "right", "wrong a", "wrong b", "wrong c", "Physics", f"rec{n}"] for n in range(4)]
        csv.writer(file).writerows([names, *rows])
    forms = folder / "ifeval.jsonl"
    prompts = [("I0", ["punctuation:no_comma"], [{}]), ("I1", ["punctuation:no_comma", "startend:quotation"], [{}, {}])]
    prompts.append(("I2", ["detectable_format:title"], [{"num_words": None}]))
    forms.write_text(
        "".join(
            json.dumps({"key": n, "prompt": text, "instruction_id_list": kinds, "kwargs": own}) + "\n"
            for n, (text, kinds, own) in enumerate(prompts)
        )
    )
    return {"gsm8k": numbers, "gpqa": choices, "ifeval": forms}


def test_numbers_letters_and_forms_are_scored(serving: Serving, run_tasks: Run, tmp_path: Path) -> None:
    golds = {"G0": "So 70 + 2.\n#### 72", "G1": "#### 1,200", "G2": "#### 3", "G3": "#### 4"}
    replies = {
        "G0": join("71?", "It is 72.\nANSWER: 72"), "G1": "ANSWER: $1,200.", "G2": join("ANSWER: 3", "I cannot."),
        "G3": {"content": "", "reasoning_content": "4"}, "P2": "No letter.",
        "P3": {"content": "", "reasoning_content": "A"},
        "I0": join("a, b", "No comma here."), "I1": '"One, two"', "I2": "Hello\n<<Title>>",
    }  # fmt: skip

    def script(body: dict[str, Any]) -> Any:
        asked = body["messages"][-1]["content"]
        name = next(name for name in (*replies, "P0", "P1") if name in asked)
        if name in replies:
            return replies[name]
        wanted = "right" if name == "P0" else "wrong a"
        letter = next(line[0] for line in asked.splitlines() if line[1:].strip(") ") == wanted)
        return join("ANSWER: D", f"It follows.\n\nANSWER: {letter}")

    tasks = {
        name: entry(name).build(TaskRequest(settings("paper", name), data=path)).task
        for name, path in files_in(tmp_path, golds).items()
    }
    with serving(script) as endpoint:
        logs = run_tasks(list(tasks.values()), endpoint.model("target"))
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    for name, log in zip(tasks, logs, strict=True):
        for sample in log.samples or []:
            assert sample.error is None, sample.error
            score = (sample.scores or {})[entry(name).scorer]
            found[sample.metadata["question"]] = (score.value, (score.metadata or {})["detail"])
    values = {question: value for question, (value, _) in found.items()}
    assert {q: values[q] for q in golds} == {"G0": 1, "G1": 1, "G2": 0, "G3": 0}
    assert {q: values[q] for q in ("P0", "P1", "P2", "P3")} == {"P0": 1, "P1": 0, "P2": 0, "P3": 0}
    assert [found[q][1]["failure"] for q in ("G3", "P2", "P3")] == ["no answer", "no letter", "no answer"]
    assert {q: values[q] for q in ("I0", "I1", "I2")} == {"I0": 1, "I1": 0, "I2": 1}
    assert found["I1"][1]["instructions"] == {
        "1 punctuation:no_comma": {"strict": False, "loose": False},
        "2 startend:quotation": {"strict": True, "loose": True},
    }


@pytest.mark.skipif(bool(available()), reason=available())
def test_functions_run_with_what_stood_before_them(serving: Serving, run_tasks: Run) -> None:
    request = TaskRequest(settings("paper", "humaneval"), bundled=True)
    replies = {
        # The helper of the prompt is there, though the answer leaves it out.
        "mirrored": "```python\ndef mirrored(text: str) -> str:\n    return text + reverse(text)\n```",
        # A body alone; a program that ends itself before it is checked.
        "running_sum": "    total = 0\n    return [total := total + n for n in numbers]",
        "count_vowels": "```python\ndef count_vowels(text):\n    return 0\nimport sys; sys.exit(0)\n```",
    }

    def script(body: dict[str, Any]) -> str:
        return next(reply for name, reply in replies.items() if name in body["messages"][-1]["content"])

    with serving(script) as endpoint:
        [log] = run_tasks([entry("humaneval").build(request).task], endpoint.model("target"))
    found = {s.metadata["entry_point"]: (s.scores or {})["passes_checks"] for s in log.samples or []}
    assert {name: one.value for name, one in found.items()} == {"mirrored": 1, "running_sum": 1, "count_vowels": 0}
    assert (found["count_vowels"].metadata or {})["detail"]["failure"] == "wrong_output"
    problem = {"question": "import math\ndef f(x):\n    '''Do.'''\n", "entry_point": "f", "test": "def check(g): g(1)"}
    assert program_of("return math.pi", problem).startswith("import math\ndef f(x):\n    '''Do.'''\n    return math.pi")


FOLLOWED: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["oak", "elm"]}, "Oak and Elm.", "Oak."),
    ("keywords:forbidden_words", {"forbidden_words": ["oak"]}, "Oaken.", "An OAK."),
    ("keywords:frequency", {"keyword": "la", "frequency": 2, "relation": "at least"}, "la la", "la"),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": "less than"}, "Hi!", "Hi!!"),
    ("language:response_language", {"language": "de"}, "Das ist ein schöner Tag im Wald.", "It is a fine day out."),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "One, 2.5 two."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n***\n***\nb"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "One two", "One two three"),
    ("length_constraints:nth_paragraph_first_word",
     {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "so"}, "a\n\nSo, b", "So\n\na"),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name] of [town]", "[name"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Hi.\nP. S. Bye", "Hi. Ps bye"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n- b", "* a\n** b"),
    ("detectable_format:constrained_response", {}, "My answer is no.", "No."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "A *word*.", "A ** .",),
    ("detectable_format:multiple_sections",
     {"section_spliter": "Part", "num_sections": 2}, "Part 1 a Part 2 b", "Part a Part b"),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "a: 1"),
    ("detectable_format:title", {}, "<<Owls>>\nThey fly.", "<< >>\nThey fly."),
    ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "say it. It.", "It."),
    ("startend:end_checker", {"end_phrase": "That is all."}, "So: that is all.", "That is all. Bye"),
    ("startend:quotation", {}, '"All of it"', '"'),
    ("change_case:capital_word_frequency",
     {"capital_frequency": 1, "capital_relation": "at least"}, "An OAK.", "An Oak."),
    ("change_case:english_capital", {}, "ALL OF IT", "All of it"),
    ("change_case:english_lowercase", {}, "all of it", "All of it"),
    ("punctuation:no_comma", {}, "One two", "One, two"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "arguments", "yes", "no"), FOLLOWED, ids=[row[0] for row in FOLLOWED])
def test_instruction_is_checked(kind: str, arguments: dict[str, Any], yes: str, no: str) -> None:
    assert (follows(kind, arguments, yes), follows(kind, arguments, no)) == (True, False)
    assert not follows(kind, arguments, " \n")
    # Whatever comes has a verdict.
    for odd in ("*" * 5000, "[" * 5000, "\n" * 5000 + ".", "." * 5000 + "x", "<<" * 5000, "\x00\ud800"):
        assert follows(kind, arguments, odd) in (True, False)


def test_every_instruction_is_tried_and_unknown_ones_are_refused(tmp_path: Path) -> None:
    assert [row[0] for row in FOLLOWED] == list(KINDS)
    assert variants("Sure:\n*all* of it\nBye")[1:4] == ["*all* of it\nBye", "Sure:\n*all* of it", "*all* of it"]
    with pytest.raises(UserError, match="cannot be checked with"):
        follows("keywords:frequency", {"keyword": "a"}, "a")
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps({"key": 1, "prompt": "P", "instruction_id_list": ["no:such"], "kwargs": [{}]}))
    with pytest.raises(UserError, match="Unknown instruction of prompt 1"):
        entry("ifeval").build(TaskRequest(settings("paper", "ifeval"), data=path))
