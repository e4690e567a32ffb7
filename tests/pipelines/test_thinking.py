"""The splitter and the joiner: no character of reasoning or answer is lost, whichever way a server sends them."""

import pyarrow as pa
from hypothesis import assume, given
from hypothesis import strategies as st

from pipelines.thinking import Thought, join, join_columns, split

free_of_tags = st.text().filter(lambda text: "<think>" not in text and "</think>" not in text)


@given(free_of_tags, st.text())
def test_split_gives_back_what_join_put_together(reasoning: str, answer: str) -> None:
    # An answer that opens with a block of its own is read as more reasoning, whoever wrote it.
    assume(not answer.lstrip().startswith("<think>"))
    assert split(join(reasoning, answer)) == Thought(reasoning, answer, "inline")


@given(free_of_tags, free_of_tags)
def test_join_of_split_is_the_canonical_string_again(reasoning: str, answer: str) -> None:
    canonical = join(reasoning, answer)
    thought = split(canonical)
    assert join(thought.reasoning, thought.answer) == canonical


@given(free_of_tags, free_of_tags, free_of_tags)
def test_nested_tags_stay_inside_the_reasoning(before: str, inside: str, answer: str) -> None:
    reasoning = f"{before}<think>{inside}</think>."
    assert split(join(reasoning, answer)) == Thought(reasoning, answer, "inline")


@given(st.text(), st.text(min_size=1))
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
