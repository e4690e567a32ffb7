"""Asking for one answer at a time, ledger first: what judging and repair are made of, where one question leads to the
next.

Generation knows all its requests beforehand and dispatches them itself (`dispatch.py`); both keep the same rules.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.ledger import Ledger, Reply, request_key
from pipelines.limits import Budget
from pipelines.teachers import TeacherClient, TeacherError
from pipelines.variant import Message

# So many malformed requests without a single answer are taken for a wrong setting, not for odd rows.
REFUSALS_TO_STOP = 20


class Halted(Exception):
    """No further request is made in this call: the budget is spent, it was stopped, or every request would fail."""


class Asker:
    """Asks a run's teachers; use from one event loop. `stage` is the one that the requests are made for."""

    def __init__(self, stage: str, ledger: Ledger, clients: Mapping[str, TeacherClient], budget: Budget) -> None:
        self.stage = stage
        self.halt = asyncio.Event()
        self.spent = False
        self._ledger, self._clients, self._budget = ledger, clients, budget
        self._answered = self._refused = 0

    def key(self, teacher: str, messages: Sequence[Message], fields: dict[str, Any], sample: int) -> str:
        """The ledger's key of a request."""
        return request_key(self._clients[teacher].teacher.model, messages, fields, sample)

    async def ask(
        self, teacher: str, messages: Sequence[Message], fields: dict[str, Any], sample: int, optional: bool = False
    ) -> Reply:
        """The answer to one request, from the ledger where it was given before.

        Args:
            teacher: Which client is asked.
            messages: The chat.
            fields: The request's other fields; with model, messages and sample they are its key.
            sample: Which answer of the same request this is.
            optional: A refusal of the request as malformed is expected, and not held against the teacher.

        Raises:
            TeacherError: it finally failed.
            Halted: nothing more is asked in this call.
        """
        client = self._clients[teacher]
        key = self.key(teacher, messages, fields, sample)
        self._ledger.use(self.stage, key)
        if (known := self._ledger.get(key)) is not None:
            return known
        async with client.gate:
            if self.halt.is_set() or self.spent:
                raise Halted
            if not await self._budget.admit():
                self.spent = True
                self._ledger.set_note("stopped", "budget")
                raise Halted
            reply: Reply | None = None
            try:
                reply = await client.ask(messages, fields)
                self._ledger.put(key, client.teacher.model, reply)
                self._answered += 1
            except TeacherError as failure:
                if not (optional and failure.refused):
                    self._failed(key, failure)
                raise
            finally:
                await self._budget.settle(reply)
        return reply

    def note(self, name: str, value: str) -> None:
        """Leave word for the process that waits."""
        self._ledger.set_note(name, value)

    def _failed(self, key: str, failure: TeacherError) -> None:
        self._refused += failure.refused
        fatal = failure.fatal or (self._answered == 0 and self._refused >= REFUSALS_TO_STOP)
        self._ledger.fail(key, str(failure), fatal)
        if fatal:
            self.halt.set()
