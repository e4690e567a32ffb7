"""How a row is asked for again: one request for each strategy, from templates of our own, a template a fault.

instruct   the variant's own request, after a note that names the faults and quotes the evidence
resample   the variant's own request, once more
edit       the reasoning is rewritten, the answer stays
escalate   the request of the next stricter variant: default, realsafe, improved
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import jinja2

from pipelines.config import RunConfig
from pipelines.judges.panel import Row
from pipelines.repairs import CLOSING, EDIT_OPENING, OPENING
from pipelines.variant import Message, Variant

_FOLDER = Path(__file__).parent
_JINJA = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=False,
)
# Not jinja's own `tojson`, which escapes for HTML: a teacher would read \u0027 for an apostrophe.
_JINJA.filters["quoted"] = lambda span: json.dumps(span, ensure_ascii=False)
# From the laxest to the strictest; a variant that is none of them is asked again as it is.
LADDER = ("default", "realsafe", "improved")


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
    template = _JINJA.get_template("request.md.jinja")
    note = template.render(opening=OPENING, closing=CLOSING, flags=flags, evidence=evidence).strip()
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
    system = _JINJA.get_template("edit.md.jinja").render(opening=EDIT_OPENING, flags=flags).strip()
    user = f"Rewrite this reasoning.\n\n{json.dumps(document, ensure_ascii=False)}"
    return [Message(role="system", content=system), Message(role="user", content=user)]
