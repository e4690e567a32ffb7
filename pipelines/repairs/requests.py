"""How a row is asked for again: one request for each strategy, from templates of our own, a template a fault.

instruct   the variant's own request, after a note that names the faults and quotes the evidence
resample   the variant's own request, once more
edit       the reasoning is rewritten, the answer stays
escalate   the request of the next stricter variant: direct, realsafe, improved
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from pipelines.judges.rows import Row
from pipelines.prompts.variant import Message, Variant
from pipelines.repairs import CLOSING, EDIT_OPENING, OPENING
from pipelines.settings.config import RunConfig
from pipelines.templates import template_of

_FOLDER = Path(__file__).parent
# From the laxest to the strictest; a variant that is none of them is asked again as it is.
LADDER = ("direct", "realsafe", "improved")


def template_hashes() -> dict[str, str]:
    """sha256 of every template, for the lineage."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(_FOLDER.glob("*.jinja"))}


def repair_messages(
    strategy: str, config: RunConfig, row: Row, flags: Sequence[str], evidence: Mapping[str, str], attempt: int
) -> list[Message]:
    """The chat that asks for a row again.

    Args:
        strategy: One of the four above.
        config: The run's configuration, for the variant as it words it.
        row: The attempt that was flagged.
        flags: What is wrong with it.
        evidence: Quoted spans of it by flag.
        attempt: Which attempt is asked for, from 1.
    """
    name = row.response.variant
    if strategy == "edit":
        return _edit(row, flags)
    if strategy == "escalate" and name in LADDER:
        name = LADDER[min(LADDER.index(name) + attempt, len(LADDER) - 1)]
    entry = config.variant(name)
    messages = entry.messages(row.query)
    if strategy != "instruct":
        return messages
    return _noted(entry, messages, flags, evidence)


def _noted(entry: Variant, messages: list[Message], flags: Sequence[str], evidence: Mapping[str, str]) -> list[Message]:
    faults = [(_fault(flag), evidence.get(flag)) for flag in flags]
    note = _rendered("request", opening=OPENING, closing=CLOSING, faults=faults)
    first, *rest = messages
    if entry.placement == "system":
        return [Message(role="system", content=f"{first['content']}\n\n{note}"), *rest]
    return [Message(role=first["role"], content=f"{note}\n\n{first['content']}"), *rest]


def _edit(row: Row, flags: Sequence[str]) -> list[Message]:
    document = {
        "query": row.query,
        "reasoning": row.response.reasoning,
        "answer": row.response.answer,
        "flags": list(flags),
    }
    system = _rendered("edit", opening=EDIT_OPENING, faults=[_fault(flag) for flag in flags])
    user = f"Rewrite this reasoning.\n\n{json.dumps(document, ensure_ascii=False)}"
    return [Message(role="system", content=system), Message(role="user", content=user)]


def _fault(flag: str) -> str:
    """What is said of one fault; a text without variables."""
    return (_FOLDER / f"{flag}.md.jinja").read_text(encoding="utf-8").rstrip("\n")


def _rendered(name: str, **values: Any) -> str:
    path = _FOLDER / f"{name}.md.jinja"
    return (
        template_of(path.read_text(encoding="utf-8"), tuple(values), str(path), trimmed=True).render(**values).strip()
    )
