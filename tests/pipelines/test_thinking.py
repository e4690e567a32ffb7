"""The splitter and the joiner: no character of reasoning or answer is lost, whichever way a server sends them."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.reasoning_families import ANSWER_MARKS, FAMILIES, TAGS, Family
from pipelines.thinking import Thought, join, join_columns, split

free_of_tags = st.text().filter(lambda text: "<think>" not in text and "</think>" not in text)
# An answer that opens with a block of its own is read as more reasoning, and a mark around all of it goes.
answers = st.text().filter(lambda text: not text.lstrip().startswith(("<think>", *(mark for mark, _ in ANSWER_MARKS))))


@given(free_of_tags, answers)
def test_split_gives_back_what_join_put_together(reasoning: str, answer: str) -> None:
    assert split(join(reasoning, answer)) == Thought(reasoning, answer, "inline")


@given(free_of_tags, answers)
def test_join_of_split_is_the_canonical_string_again(reasoning: str, answer: str) -> None:
    canonical = join(reasoning, answer)
    thought = split(canonical)
    assert join(thought.reasoning, thought.answer) == canonical


@given(free_of_tags, free_of_tags, answers)
def test_nested_tags_stay_inside_the_reasoning(before: str, inside: str, answer: str) -> None:
    reasoning = f"{before}<think>{inside}</think>."
    assert split(join(reasoning, answer)) == Thought(reasoning, answer, "inline")


@given(answers, st.text(min_size=1))
def test_a_reasoning_field_wins_and_the_content_is_the_answer(content: str, reasoning: str) -> None:
    assert split(content, reasoning_content=reasoning) == Thought(reasoning, content, "reasoning_content")
    assert split(content, reasoning=reasoning) == Thought(reasoning, content, "reasoning")


@given(st.text(alphabet="ab \n</think>", max_size=60))
def test_split_never_invents_or_drops_a_letter(content: str) -> None:
    thought = split(content)
    letters = (thought.reasoning + thought.answer).replace("<think>", "").replace("</think>", "").split()
    assert "".join(letters) == "".join(content.replace("<think>", "").replace("</think>", "").split())


def test_missing_opener_is_read_as_reasoning() -> None:
    assert split("weighing\n</think>\n\nSorry.") == Thought("weighing", "Sorry.", "missing_opener")


@pytest.mark.parametrize("before", ["\u200b", "\ufeff \n", "\u00a0\n"])
def test_characters_without_width_before_a_block_are_no_answer(before: str) -> None:
    assert split(f"{before}<think>\nweighing\n</think>\n\nSorry.") == Thought("weighing", "Sorry.", "inline")


def test_truncated_block_is_all_reasoning_and_no_answer() -> None:
    assert split("<think>\nweighing and") == Thought("weighing and", "", "truncated")


def test_several_leading_blocks_are_one_reasoning() -> None:
    assert split("<think>a</think>\n<think>b</think>\n\nc") == Thought("a\n\nb", "c", "inline")


def test_empty_block_is_empty_reasoning() -> None:
    assert split("<think>\n\n</think>\n\nSorry.") == Thought("", "Sorry.", "inline")


def test_tag_in_the_middle_of_an_answer_stays_there() -> None:
    assert split("See <think>a</think>.") == Thought("", "See <think>a</think>.", "none")


def test_no_content_is_an_empty_answer() -> None:
    assert split(None) == Thought("", "", "none")


@given(st.lists(st.tuples(st.text(), st.text()), max_size=4))
def test_columns_are_joined_as_single_rows_are(pairs: list[tuple[str, str]]) -> None:
    columns = [pa.chunked_array([list(part)], pa.string()) for part in zip(*pairs, strict=True)] or [
        pa.chunked_array([[]], pa.string())
    ] * 2
    assert join_columns(*columns).to_pylist() == [join(*pair) for pair in pairs]


# Each family is one more case of the same property.
few = settings(max_examples=25)
TAGGED = [family for family in FAMILIES if not family.phrases]
free_of_marks = st.text().filter(
    lambda text: not any(mark in text for mark in (*TAGS, "assistantfinal")) and "Here" not in text
)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@few
@given(free_of_marks, free_of_marks)
def test_every_family_is_taken_apart(family: Family, reasoning: str, answer: str) -> None:
    text = f"{family.opener}\n{reasoning}\n{family.closer}\n\n{answer}"
    assert split(text) == Thought(reasoning, answer, "inline")


def test_reasoning_that_is_in_the_field_and_inline_is_kept_once() -> None:
    assert split("<think>\nHm. So\n</think>\n\nYes.", reasoning="Hm.\nSo ") == Thought("Hm.\nSo ", "Yes.", "reasoning")
    # Two thoughts are no repetition: the second stays where it is, and a check finds its tag.
    assert "<think>" in split("<think>\nNo.\n</think>\n\nYes.", reasoning_content="Hm.").answer


@pytest.mark.parametrize("family", TAGGED, ids=lambda family: family.name)
@few
@given(free_of_marks, free_of_marks)
def test_every_family_is_taken_apart_without_its_opener(family: Family, reasoning: str, answer: str) -> None:
    assert split(f"{reasoning}\n{family.closer}\n\n{answer}") == Thought(
        reasoning.removeprefix("\n"), answer, "missing_opener"
    )


@pytest.mark.parametrize("family", TAGGED, ids=lambda family: family.name)
@few
@given(free_of_marks)
def test_every_familys_thought_can_be_cut_off(family: Family, reasoning: str) -> None:
    assert split(f"{family.opener}\n{reasoning}") == Thought(reasoning.removesuffix("\n"), "", "truncated")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_case_and_place_are_the_familys(family: Family) -> None:
    if (other := family.opener.swapcase()) != family.opener:
        assert split(f"{other} text").source == "none"
    assert split(f"See {family.opener} text {family.closer} here.").source == "none"


@pytest.mark.parametrize("marks", ANSWER_MARKS, ids=lambda marks: marks[0])
@few
@given(free_of_marks, free_of_marks.filter(lambda text: text == text.strip()))
def test_a_mark_around_the_answer_goes(marks: tuple[str, str], reasoning: str, answer: str) -> None:
    opener, closer = marks
    whole = Thought(reasoning, answer, "inline")
    assert split(join(reasoning, f"{opener}\n{answer}\n{closer}")) == whole
    assert split(join(reasoning, f"{opener}\n{answer}")) == whole
    inside = f"Use {opener}{answer}{closer} twice."
    assert split(join(reasoning, inside)) == Thought(reasoning, inside, "inline")
    two = f"{opener}a{closer}{opener}b{closer}"
    assert split(join(reasoning, two)).answer == two


@given(free_of_marks.filter(str.strip), free_of_marks)
def test_harmonys_channels_are_taken_apart(reasoning: str, answer: str) -> None:
    final = f"<|channel|>final<|message|>{answer}"
    analysis = f"<|channel|>analysis<|message|>{reasoning}<|end|>"
    for start, end in (("", "<|return|>"), ("<|start|>assistant", "<|end|>"), ("assistant", "")):
        text = f"{start}{analysis}<|start|>assistant{final}{end}"
        assert split(text) == Thought(reasoning, answer, "inline")
    assert split(f"{reasoning}<|end|><|start|>assistant{final}<|return|>") == Thought(
        reasoning, answer, "missing_opener"
    )
    assert split(f"<|channel|>analysis<|message|>{reasoning}") == Thought(reasoning, "", "truncated")
    assert split(f"{final}<|return|>") == Thought("", answer, "none")


@given(free_of_marks, free_of_marks)
def test_harmony_without_its_tokens_is_taken_apart(reasoning: str, answer: str) -> None:
    assert split(f"analysisWe {reasoning}assistantfinal{answer}") == Thought(f"We {reasoning}", answer, "inline")
    assert split(f"We {reasoning}assistantfinal{answer}") == Thought(f"We {reasoning}", answer, "missing_opener")
    assert split(f"analysisWe {reasoning}") == Thought(f"We {reasoning}", "", "truncated")


def test_several_channels_are_one_reasoning() -> None:
    text = (
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json"
        "<|message|>{}<|call|><|start|>assistant<|channel|>final<|message|>b<|return|>"
    )
    assert split(text) == Thought("a\n\n{}", "b", "inline")


@pytest.mark.parametrize("answer", ["Analysis: all is well.", "analysis of it", "Here is my response: no.", "a </b> c"])
def test_an_ordinary_answer_stays_one(answer: str) -> None:
    assert split(answer) == Thought("", answer, "none")


@pytest.mark.parametrize(
    "text",
    [
        "**Thinking:** It harms. **Answer:** No.",
        "**Thought process**\n\nIt harms.\n\n**Final Answer:**\nNo.",
        "## Thinking\nIt harms.\n\n## Response\n\nNo.",
        "**\u601d\u8003\uff1a** It harms.\n**\u56de\u7b54\uff1a** No.",
        "<plan>It harms.</plan>\n\n<answer>No.</answer>",
        "<analysis>\nIt harms.\n</analysis><response>No.",
    ],
)
def test_marks_in_words_are_taken_apart_as_a_pair(text: str) -> None:
    found = split(text)
    assert (found.reasoning, found.answer.strip(), found.source) == ("It harms.", "No.", "inline")


@pytest.mark.parametrize(
    "text",
    [
        # What was asked for may be the plan itself.
        "<plan>1. Mix.\n2. Bake.</plan>\n\nEnjoy.",
        "<plan>a</plan><answer>b</answer> and <answer>c</answer>",
        "<plan>a</plan>",
        "**Reasoning:** 2 + 2\n\n**Answer:** 4",
        "Thought: I look it up.\nAnswer: 4",
        "**Thinking:** a **Answer:** b **Answer:** c",
        "**Thinking:** a",
        "**Thinking:**\n\n**Answer:** b",
        "**Thinking** is hard.\n\n**Answer:** yes",
        "Skills:\n\n**Thinking:** good\n\n**Answer:** fast",
    ],
)
def test_an_answers_own_words_are_no_thought(text: str) -> None:
    assert split(text) == Thought("", text, "none")
