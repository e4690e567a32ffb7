"""Asking for one answer at a time, ledger first: what generation, judging and repair are made of.

An answer is written to the ledger before it is passed on. A request that the teacher refuses for good is remembered
there and not sent again, once the same teacher has answered another: a refusal of everything is a wrong setting.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipelines.prompts.variant import Message
from pipelines.runner.outcomes import Control, Ending, NotAttempted, Tally
from pipelines.teachers.client import TeacherClient, TeacherError
from pipelines.teachers.group_commit import GroupCommit
from pipelines.teachers.ledger import Ledger, request_key
from pipelines.teachers.limits import Budget
from pipelines.teachers.reply import Reply

# So many malformed requests without a single answer are taken for a wrong setting, not for odd rows.
REFUSALS_TO_STOP = 20

# Called with the tally after each request, and with the error of one that failed.
Progress = Callable[[Tally, str], None]


class RefusedBefore(TeacherError):
    """An earlier call was refused this request for good; it is not sent again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, permanent=True)


class Asker:
    """Asks a run's teachers; use from one event loop.

    `stage` is the one that notes in the ledger what it asks for; "" for generation, whose plan says so.
    """

    def __init__(
        self,
        stage: str,
        ledger: Ledger,
        kept: GroupCommit,
        clients: Mapping[str, TeacherClient],
        budget: Budget,
        control: Control,
        progress: Progress,
    ) -> None:
        self.stage = stage
        self.tally = Tally()
        self._ledger, self._kept, self._clients, self._budget = ledger, kept, clients, budget
        self._control, self._progress = control, progress
        self._refused = 0
        self._answering: set[str] = set()
        self._unproven: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)

    def key(self, teacher: str, messages: Sequence[Message], fields: Mapping[str, Any], sample: int) -> str:
        """The ledger's key of a request."""
        return request_key(self._clients[teacher].teacher.model, messages, fields, sample)

    async def ask(
        self,
        teacher: str,
        messages: Sequence[Message],
        fields: Mapping[str, Any],
        sample: int,
        optional: bool = False,
        key: str = "",
    ) -> Reply:
        """The answer to one request, from the ledger where it was given before.

        Args:
            teacher: Which client is asked.
            messages: The chat.
            fields: The request's other fields; with model, messages and sample they are its key.
            sample: Which answer of the same request this is.
            optional: A refusal of the request as malformed is expected, and not held against the teacher.
            key: The request's key, where it is known.

        Raises:
            TeacherError: it finally failed, now or for good in an earlier call.
            NotAttempted: nothing more is asked in this call.
        """
        client = self._clients[teacher]
        key = key or self.key(teacher, messages, fields, sample)
        if self.stage:
            self._kept.use(self.stage, key)
        if (known := self.known(key)) is not None:
            return known
        async with client.gate:
            if self._control.ending is not None:
                raise NotAttempted("the run was stopped")
            if not await self._budget.admit():
                self._control.end(Ending("budget"))
                raise NotAttempted("the budget is spent")
            reply: Reply | None = None
            try:
                reply = await client.ask(messages, fields)
                group = self._kept.put(key, client.teacher.model, reply)
            except TeacherError as failure:
                if not (optional and failure.refused):
                    self._failed(teacher, key, failure)
                raise
            finally:
                self._budget.settle(reply)
        # The place is free again meanwhile.
        await group.on_disk()
        self._answered(teacher, reply)
        return reply

    def can_ask(self, teacher: str) -> bool:
        """Whether there is a server to ask in this call."""
        return teacher in self._clients

    def earlier_failure(self, key: str) -> str | None:
        """Why a request failed that another transport made in this call."""
        return self._ledger.failure(key)

    def known(self, key: str) -> Reply | None:
        """The answer that the ledger has, or a borrowed one.

        Raises:
            RefusedBefore: an earlier call was refused this request for good.
        """
        reply, refusal = self._ledger.known(key)
        if reply is None and refusal is not None:
            raise RefusedBefore(refusal)
        return reply

    def row_ended(self) -> None:
        """Count a row."""
        self.tally.rows += 1
        self._progress(self.tally, "")

    def _answered(self, teacher: str, reply: Reply) -> None:
        self.tally.answered += 1
        self.tally.cost += reply.cost or 0.0
        self.tally.tokens += reply.input_tokens + reply.output_tokens
        self._answering.add(teacher)
        for key, reason in self._unproven.pop(teacher, ()):
            self._ledger.refuse(key, reason)
        self._progress(self.tally, "")

    def _failed(self, teacher: str, key: str, failure: TeacherError) -> None:
        self._refused += failure.refused
        self.tally.failed += 1
        fatal = failure.fatal or (not self._answering and self._refused >= REFUSALS_TO_STOP)
        self._ledger.fail(key, str(failure), fatal)
        if failure.permanent:
            if teacher in self._answering:
                self._ledger.refuse(key, str(failure))
            else:
                self._unproven[teacher].append((key, str(failure)))
        if fatal:
            self._control.end(Ending("fatal", str(failure)))
        self._progress(self.tally, str(failure))
