"""`ReasoningLLM`: a reasoning model for anybody's Distilabel pipeline, asked as `saferthoughts generate` asks.

Reads `teachers.yaml`, and keys from the environment; writes the ledger that it is given. Importing it imports
distilabel, which takes a second.
"""

import asyncio
import tempfile
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from pipelines.errors import UserError, unknown
from pipelines.generate.imports import muted_imports
from pipelines.generate.plan import request_fields
from pipelines.runner.asker import Asker
from pipelines.runner.options import Caps, RequestOptions
from pipelines.runner.outcomes import Control, NotAttempted
from pipelines.runner.session import asking
from pipelines.runs import RunFolder
from pipelines.settings.parts import validated
from pipelines.settings.teacher import Teacher, load_teachers
from pipelines.teachers.client import TeacherError
from pipelines.teachers.launch import open_endpoints
from pipelines.teachers.reply import Reply
from pipelines.thinking import join, split

with muted_imports():
    from distilabel.mixins.runtime_parameters import RuntimeParameter
    from distilabel.models.llms import AsyncLLM

# The one teacher's name in the client and in messages.
_NAME = "teacher"


def entry_of(teacher: str | dict[str, Any]) -> Teacher:
    """A teacher's entry, by its name or as a mapping.

    Raises:
        UserError: no such name, an entry that does not fit, or a teacher that is not simply asked.
    """
    if isinstance(teacher, str):
        known = load_teachers()
        if teacher not in known:
            raise unknown("teacher", teacher, known)
        entry = known[teacher]
    else:
        entry = validated(Teacher, teacher, "teacher")
    if entry.serve is not None or entry.transport != "requests":
        raise UserError(
            "ReasoningLLM asks servers that are up. Start this one (saferthoughts teachers serve) and give an entry "
            "with its base_url."
        )
    return entry


class ReasoningLLM(AsyncLLM):  # type: ignore[misc]
    """A reasoning model behind the OpenAI protocol, with our ledger, limits, retries and parsers.

    A generation is reasoning and answer as one text, `<think>` first, or the answer alone where the server showed no
    reasoning. One that failed is None, and `error` says why; beside it comes `finish_reason`.

    Attributes:
        teacher: A name of `saferthoughts teachers list`, or an entry as teachers.yaml has it.
        ledger: The SQLite file that keeps the answers; what is in it is not asked again. "" keeps none.
        max_cost: US dollars that all calls with this ledger may cost.
        max_tokens: Tokens of input and output that they may take.

    Examples:
        >>> from pipelines.generate.reasoning_llm import ReasoningLLM
        >>> llm = ReasoningLLM(teacher="rehearsal")
        >>> llm.load()
        >>> [answer] = llm.generate([[{"role": "user", "content": "How do I keep bees?"}]])
        >>> answer["generations"][0].startswith("<think>")
        True
        >>> llm.unload()
    """

    teacher: str | dict[str, Any]
    ledger: str = ""
    max_cost: RuntimeParameter[float] | None = Field(default=None, description="US dollars that all calls may cost")
    max_tokens: RuntimeParameter[int] | None = Field(default=None, description="tokens that all calls may take")

    _entry: Teacher | None = PrivateAttr(default=None)
    _urls: list[str] = PrivateAttr(default_factory=list)
    _servers: Any = PrivateAttr(default_factory=lambda: ExitStack())
    _clients: Any = PrivateAttr(default_factory=lambda: AsyncExitStack())
    _asker: Any = PrivateAttr(default=None)

    @property
    def entry(self) -> Teacher:
        """The teacher's entry.

        Raises:
            UserError: as `entry_of`.
        """
        if self._entry is None:
            self._entry = entry_of(self.teacher)
        return self._entry

    @property
    def model_name(self) -> str:
        """The model's name at its server."""
        return self.entry.model

    def load(self) -> None:
        """Be ready to ask; starts the rehearsal teacher where that is the one."""
        super().load()
        folder = self._servers.enter_context(tempfile.TemporaryDirectory(prefix="saferthoughts-"))
        teachers = {_NAME: self.entry}
        self._urls = open_endpoints(RunFolder(Path(folder)), teachers, (), 0, self._servers)[_NAME]
        ledger = Path(self.ledger or f"{folder}/ledger.sqlite")
        options = RequestOptions(Caps(self.max_cost, self.max_tokens))
        self._asker = asking(ledger, "", teachers, {_NAME: self._urls}, options, Control(), lambda tally, error: None)

    def unload(self) -> None:
        """Close every connection, and stop what `load` started."""
        self.event_loop.run_until_complete(self._clients.aclose())
        self._servers.close()
        super().unload()

    async def agenerate(
        self,
        input: list[dict[str, Any]],
        num_generations: int = 1,
        temperature: float | None = None,
        top_p: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
    ) -> dict[str, Any]:
        """Ask for one or more answers to a chat.

        Args:
            input: The chat.
            num_generations: How many answers.
            temperature: In place of the entry's, as are those that follow.
            top_p: Likewise.
            max_tokens: Likewise.
            seed: Likewise; it moves on with each generation.

        Returns:
            As Distilabel has it: `generations`, `statistics`, and lists of `finish_reason` and `error`.
        """
        given = {"temperature": temperature, "top_p": top_p, "max_tokens": max_tokens, "seed": seed}
        changes = {name: value for name, value in given.items() if value is not None}
        entry = self.entry.model_copy(update={"sampling": self.entry.sampling.model_copy(update=changes)})
        if not isinstance(self._asker, Asker):
            # Connections belong to the loop that asks, which is not there before. No other task comes between: what
            # opens them awaits nothing.
            self._asker = await self._clients.enter_async_context(self._asker)
        answers = await asyncio.gather(
            *(self._answer(input, request_fields(entry, sample), sample) for sample in range(num_generations))
        )
        return {
            "generations": [answer["text"] for answer in answers],
            "statistics": {name: [answer[name] for answer in answers] for name in ("input_tokens", "output_tokens")},
            **{name: [answer[name] for answer in answers] for name in ("finish_reason", "error")},
        }

    async def _answer(self, messages: list[dict[str, Any]], fields: dict[str, Any], sample: int) -> dict[str, Any]:
        nothing = {"text": None, "input_tokens": 0, "output_tokens": 0, "finish_reason": None}
        try:
            reply: Reply = await self._asker.ask(_NAME, messages, fields, sample)
        except (TeacherError, NotAttempted) as error:
            return {**nothing, "error": str(error)}
        thought = split(reply.content, reply.reasoning_content, reply.reasoning, self.entry.reasoning_style)
        reasoning, answer = thought.reasoning.strip(), thought.answer.strip()
        return {
            "text": join(reasoning, answer) if reasoning else answer,
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
            "error": "",
            "finish_reason": reply.finish_reason,
        }
