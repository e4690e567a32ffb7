"""Talking to a student: a line in, a reply out as it is written, its reasoning apart from its answer.

Reads lines from standard input; writes answers to standard output. On a terminal the reasoning stands dimmed before the
answer and a conversation goes on from line to line; piped, each line is a question of its own, answers alone go to
standard output and reasoning to standard error. Run it with `saferthoughts chat MODEL`. Who replies is in
`training.students.chat_models`; what they write is hostile text.
"""

import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal, Protocol

from rich.console import Console

from pipelines.thinking import CLOSE, OPEN
from training.students.terminal import harmless

Section = Literal["reasoning", "answer", "remark"]


@dataclass(frozen=True, slots=True)
class ReplyPart:
    """A piece of a reply as it arrives; a remark is ours, about the reply."""

    text: str
    section: Section


class Talker(Protocol):
    """Who replies."""

    def reply(self, messages: list[dict[str, str]]) -> Generator[ReplyPart, None, None]:
        """The reply to a conversation, piece by piece; closing the iterator ends it early."""
        ...


class Splitter:
    """Takes a reply apart while it arrives, wherever its pieces are cut.

    A block that is never closed is all reasoning; without one, all is answer. What is put together is what
    `pipelines.thinking.split` gives for a whole reply with one block.
    """

    def __init__(self) -> None:
        self._held = ""
        self._state: Literal["start", "reasoning", "gap", "answer"] = "start"

    def feed(self, chunk: str) -> Iterator[ReplyPart]:
        """Parts that are complete with the next piece of the reply."""
        self._held += chunk
        if self._state == "start":
            start = self._held.lstrip()
            if len(start) <= len(OPEN) and f"{OPEN}\n".startswith(start):
                return
            if start.startswith(OPEN):
                self._held, self._state = start.removeprefix(OPEN).removeprefix("\n"), "reasoning"
            else:
                self._state = "answer"
        if self._state == "reasoning":
            block, tag, after = self._held.partition(CLOSE)
            if not tag:
                ready = len(self._held) - _kept_back(self._held)
                yield from self._take(ready, "reasoning")
                return
            self._held = block.removesuffix("\n")
            yield from self._take(len(self._held), "reasoning")
            self._held, self._state = after, "gap"
        if self._state == "gap":
            if self._held in ("", "\n"):
                return
            self._held, self._state = self._held.removeprefix("\n").removeprefix("\n"), "answer"
        yield from self._take(len(self._held), "answer")

    def end(self) -> Iterator[ReplyPart]:
        """What was held back, when nothing more comes."""
        if self._state != "gap":
            yield from self._take(len(self._held), "reasoning" if self._state == "reasoning" else "answer")

    def _take(self, length: int, section: Section) -> Iterator[ReplyPart]:
        if length:
            yield ReplyPart(self._held[:length], section)
        self._held = self._held[length:]


def parted(chunks: Iterable[str]) -> Iterator[ReplyPart]:
    """A whole reply that arrives in pieces, taken apart."""
    splitter = Splitter()
    for chunk in chunks:
        yield from splitter.feed(chunk)
    yield from splitter.end()


def _kept_back(text: str) -> int:
    """How many characters at the end may be the beginning of a closing tag, with the line break that belongs to it."""
    end = f"\n{CLOSE}"
    lengths = range(min(len(text), len(end)), 0, -1)
    return next((n for n in lengths if end.startswith(text[-n:]) or CLOSE.startswith(text[-n:])), 0)


def converse(talker: Talker, out: Console, notes: Console) -> None:
    """Ask and reply until the input ends. Ctrl-C ends a reply, and at the prompt the conversation, as Ctrl-D does."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            if line.strip():
                _say(talker, [_asked(line)], out, notes)
        return
    # Imported for what it does to `input`: lines can be edited and called back.
    import readline  # noqa: F401

    notes.print("Ctrl-C ends a reply, /new begins anew, Ctrl-D leaves.", style="dim")
    messages: list[dict[str, str]] = []
    while True:
        try:
            line = input("> ")
        except (EOFError, KeyboardInterrupt):
            notes.print()
            return
        if line.strip() == "/new":
            messages = []
        elif line.strip():
            messages.append(_asked(line))
            answer = _say(talker, messages, out, notes)
            # As the families' templates have it: of earlier turns the answer stays, the reasoning does not.
            messages.append({"role": "assistant", "content": answer})


def _asked(line: str) -> dict[str, str]:
    return {"role": "user", "content": line.strip()}


def _say(talker: Talker, messages: list[dict[str, str]], out: Console, notes: Console) -> str:
    """Write a reply as it arrives; its answer."""
    answer, last = "", ""

    def close_section() -> None:
        if out.is_terminal:
            out.print("\n" if last else "")
        elif last in ("reasoning", "remark"):
            notes.print()

    with closing(talker.reply(messages)) as parts:
        try:
            for part in parts:
                if last and part.section != last:
                    close_section()
                last = part.section
                answer += part.text if last == "answer" else ""
                where = out if out.is_terminal or last == "answer" else notes
                style = "" if last == "answer" else "dim"
                where.print(harmless(part.text), end="", style=style, markup=False, highlight=False, soft_wrap=True)
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
    close_section()
    if not out.is_terminal:
        out.print()
    return answer
