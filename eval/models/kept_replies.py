"""Attackers' replies that no student changes, asked for once by all evaluations that share a folder of runs.

    <folder>/ledger.sqlite   replies whose prompt could be read, as `pipelines/teachers/ledger.py` keeps a run's
    <folder>/asking          empty; a process that asks for a reply holds a lock on the byte that its key names

A reply belongs to the attacker (model, address as its entry names it, fields of its own), its decoding, what it was
asked, and the epoch. Of several processes that want the same, one asks and the others wait for its reply; when it fails
or dies, the next one asks. Used by `eval/scorers/rewrites.py`; attacks that learn from the student's answers (PAIR,
Crescendo) ask by themselves.
"""

import fcntl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import anyio
from inspect_ai.dataset import Sample

from pipelines.teachers.ledger import Ledger, request_key
from pipelines.teachers.reply import Reply

if TYPE_CHECKING:
    from eval.models.inspect_models import Role

# Under the folder of runs.
FOLDER = ".attacker"
_LEDGER = "ledger.sqlite"
# In a sample's metadata: whether its prompt was asked for now, or kept from before.
WRITTEN, ASKED, KEPT = "attack", "asked", "kept"
# What of an attacker's entry decides its reply.
_DECIDES = {"model", "base_url", "base_urls", "embedded", "serve", "extra_body", "reasoning_style"}
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Rewriting:
    """What an attacker is asked for a question, of its text and the sample's metadata; `settings` as tasks have them:
    the attacker's decoding, and `tries`: how often it is asked until its reply can be read."""

    asked: Callable[[str, Mapping[str, Any]], str]
    settings: Mapping[str, Any]

    @property
    def decoding(self) -> dict[str, Any]:
        """The settings without `tries`."""
        return {key: value for key, value in self.settings.items() if key != "tries"}

    def key(self, role: "Role", text: str, metadata: Mapping[str, Any], epoch: int) -> str:
        """The key of one reply: 16 hex digits."""
        who = role.teacher.model_dump(mode="json", include=_DECIDES)
        own = role.sampling.model_dump(exclude_none=True) if role.sampling else {}
        asked = {"role": "user", "content": self.asked(text, metadata)}
        return request_key(role.teacher.model, [asked, who], {**own, **self.decoding}, epoch)


class KeptReplies:
    """One process's connection to the kept replies; `keeping` opens it."""

    def __init__(self, ledger: Ledger, asking: BinaryIO, role: "Role") -> None:
        self.role = role
        self._ledger, self._asking = ledger, asking
        # A process's own locks on the file do not exclude each other.
        self._here: dict[str, anyio.Lock] = {}

    async def reply(
        self, key: str, good: Callable[[Reply], bool], ask: Callable[[], Awaitable[Reply | None]]
    ) -> tuple[Reply | None, bool]:
        """A reply, and whether it was kept already.

        Args:
            key: As `Rewriting.key` makes it.
            good: Whether a kept reply can be read; if not, it is asked for anew.
            ask: Asks for it; None, or an exception, is not kept.

        Raises:
            LedgerError: the file cannot be read or written.
        """
        async with self._alone(key):
            found = self._ledger.get(key)
            if found is not None and good(found):
                return found, True
            reply = await ask()
            if reply is not None:
                self._ledger.put(key, self.role.teacher.model, reply)
            return reply, False

    @asynccontextmanager
    async def _alone(self, key: str) -> AsyncIterator[None]:
        """Nobody else asks for the key while the block runs. The kernel lets go of a lock when its process is gone."""
        at = int(key, 16) >> 2
        async with self._here.setdefault(key, anyio.Lock()):
            while True:
                try:
                    fcntl.lockf(self._asking, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
                    break
                except BlockingIOError:
                    await anyio.sleep(_POLL_S)
            try:
                yield
            finally:
                fcntl.lockf(self._asking, fcntl.LOCK_UN, 1, at)


@contextmanager
def keeping(folder: Path, role: "Role") -> Iterator[KeptReplies]:
    """The replies that a folder keeps of an attacker.

    Raises:
        LedgerError: they cannot be opened or written.
    """
    with closing(Ledger(folder / _LEDGER)) as ledger, (folder / "asking").open("ab") as asking:
        yield KeptReplies(ledger, asking, role)


def count_kept(folder: Path, role: "Role", rewriting: Rewriting, samples: list[Sample], epochs: int) -> tuple[int, int]:
    """How many replies a task takes, and how many of these are kept.

    Raises:
        LedgerError: the file cannot be read.
    """
    wanted = {
        rewriting.key(role, str(sample.input), sample.metadata or {}, epoch)
        for sample in samples
        for epoch in range(1, epochs + 1)
    }
    if not (folder / _LEDGER).exists():
        return len(wanted), 0
    with Ledger.reading(folder / _LEDGER) as ledger:
        return len(wanted), len(wanted & set(ledger.every_key()))
