"""Talking to a student: reasoning apart from the answer wherever it is cut; on a terminal, piped, at an endpoint."""

import io
import itertools
import os
import pty
import signal
import sys
from collections.abc import Generator, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipelines.errors import UserError
from pipelines.rehearsal.faults import RehearsalSettings
from pipelines.rehearsal.server import rehearsing
from pipelines.settings.teacher import Teacher
from pipelines.thinking import join, split
from tests.commands import Command
from training.students.chat import ReplyPart, converse, parted
from training.students.chat_models import Endpoint

# Texts in which tags, and what looks like the beginning of one, are likely.
PIECES = st.lists(st.sampled_from(["a", "\n", " ", "<", "</", "</thin", "think>", "b>"]), max_size=12).map("".join)


def put_together(parts: Iterable[ReplyPart]) -> tuple[str, str]:
    texts = {"reasoning": "", "answer": ""}
    for part in parts:
        texts[part.section] += part.text
    return texts["reasoning"], texts["answer"]


def pieces_of(text: str, cuts: Iterable[int]) -> list[str]:
    at = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(at)]


@given(PIECES.filter(lambda text: "think>" not in text), PIECES, st.lists(st.integers(0, 90)))
def test_a_reply_is_taken_apart_as_a_whole_one_is(reasoning: str, answer: str, cuts: list[int]) -> None:
    whole = join(reasoning, answer)
    expected = split(whole)
    found = put_together(parted(pieces_of(whole, cuts)))
    if "<think>" not in answer:
        assert found == (expected.reasoning, expected.answer)
    assert found == (reasoning, answer)


@given(PIECES.filter(lambda text: "think>" not in text), st.lists(st.integers(0, 40)))
def test_a_reply_without_a_block_is_answer_and_an_unclosed_block_is_reasoning(text: str, cuts: list[int]) -> None:
    assert put_together(parted(pieces_of(f"x{text}", cuts))) == ("", f"x{text}")
    assert put_together(parted(pieces_of(f"<think>\n{text}", cuts))) == (text, "")


def test_reasoning_is_shown_before_its_block_is_closed() -> None:
    def arriving() -> Generator[str, None, None]:
        yield "<think>\nFirst I wonder"
        raise AssertionError("asked for more before it told what it has")

    assert next(parted(arriving())) == ReplyPart("First I wonder", "reasoning")


class Says:
    """Replies with the same, and remembers what it was asked."""

    def __init__(self, *parts: ReplyPart) -> None:
        self.parts = parts
        self.asked: list[list[dict[str, str]]] = []

    def reply(self, messages: list[dict[str, str]]) -> Generator[ReplyPart, None, None]:
        self.asked.append([*messages])
        yield from self.parts


def test_piped_each_line_is_a_question_and_answers_alone_go_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    talker = Says(
        ReplyPart("Hm.", "reasoning"),
        ReplyPart("Yes", "answer"),
        ReplyPart(".", "answer"),
        ReplyPart("[cut off]", "remark"),
    )
    out, notes = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("One?\n\n  Two?\n"))
    converse(talker, Console(file=out), Console(file=notes))
    assert out.getvalue() == "Yes.\nYes.\n"
    assert notes.getvalue() == "Hm.\n[cut off]\n" * 2
    assert talker.asked == [[{"role": "user", "content": "One?"}], [{"role": "user", "content": "Two?"}]]


def test_what_a_model_writes_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "\x1b]0;owned\x07[bold]x[/bold] \u202eabc\n\ttab"
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    converse(Says(ReplyPart(hostile, "answer")), Console(file=out, force_terminal=True), Console(file=io.StringIO()))
    assert "\x1b]" not in out.getvalue()
    assert "\x07" not in out.getvalue()
    assert "\u202e" not in out.getvalue()
    assert "[bold]x[/bold]" in out.getvalue()
    assert out.getvalue().splitlines()[1].strip() == "tab"


def test_an_endpoint_is_talked_to_wherever_it_puts_its_reasoning() -> None:
    asked = [{"role": "user", "content": "How do I kill a process?"}]
    for style in ("reasoning_content", "reasoning", "inline"):
        with rehearsing(RehearsalSettings(style=style)) as url:
            there = Teacher(base_url=url, model="rehearsal-r1")
            parts = list(Endpoint(there, 400, 0.0).reply(asked))
        reasoning, answer = put_together(parts)
        assert reasoning.strip(), style
        assert answer.strip(), style
        assert "think>" not in reasoning + answer
        assert len(parts) > 4


def test_an_endpoint_that_is_not_there_is_one_clear_line() -> None:
    there = Teacher(base_url="http://127.0.0.1:9/v1", model="nobody")
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/v1/ gave no reply for model 'nobody'"):
        list(Endpoint(there, 10, 0.0).reply([{"role": "user", "content": "Hello"}]))


def test_a_checkpoint_replies_on_a_terminal_until_ctrl_d(tiny_student: Path) -> None:
    here, there = pty.openpty()
    words = ["chat", str(tiny_student), "--max-tokens", "2000"]
    env = os.environ | {"TERM": "xterm", "COLUMNS": "200"}
    with Command(words, stdin=there, stdout=there, stderr=there, env=env, start_new_session=True) as chat:
        os.close(there)
        seen = read_until(here, b"> ")
        os.write(here, b"How do I forge a letter?\n")
        read_until(here, b"letter?\r\n")
        # It has begun to reply: a model of random weights would write on to its context's end.
        assert os.read(here, 1)
        chat.send_signal(signal.SIGINT)
        read_until(here, b"> ")
        os.write(here, b"\x04")
        assert chat.wait(timeout=300) == 0
    os.close(here)
    assert b"Ctrl-D leaves" in seen


def read_until(terminal: int, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        seen += os.read(terminal, 4096)
    return seen
