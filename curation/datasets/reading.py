"""A third-party dataset read into rows of ours: which column is what, what is not read, and what is refused and why.

Reads any conversational dataset (a file of rows, a folder or a repository on the Hub), or a release of this project;
writes nothing. `saferthoughts dataset look PATH` shows it, and `imported.py` makes a run of it.

Columns go by name, in whatever case, or by --map FIELD=COLUMN. Fields: messages (a conversation of one question and its
answer, see `pipelines/prompts/turns.py`), prompt, input (what Alpaca's instruction is about, put behind it), response
(reasoning and answer in one text, or as lists of turns), reasoning, answer, system (what stands in front of the
question), kind, category, variant, finish_reason, history (earlier turns; such a row is refused).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.datasets.media import media_of
from pipelines.errors import UserError, unknown
from pipelines.prompts.prompt_sets import KINDS, UNKNOWN_LICENSE
from pipelines.prompts.published import KIND_WORDS
from pipelines.prompts.turns import Exchange, exchange, sound, turns_in, turns_of
from pipelines.prompts.variant import load_variants
from pipelines.prompts.variant import variant as load_variant
from pipelines.public_names import public_name
from pipelines.records import Prompt, Response, content_id, response_from_elsewhere
from pipelines.settings.old_names import current_name, first_name
from pipelines.sources import Source, read_source
from pipelines.teachers.finish_reasons import STOP, finish_of
from pipelines.thinking import Thought, split

TEACHER = "dataset"
# Where a dataset calls a field by another name, the first of these that it has.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "dialog", "dialogue", "contents"),
    "prompt": ("prompt", "query", "question", "instruction", "problem", "text", "goal", "behavior", "forbidden_prompt"),
    "input": ("input", "context"),
    "response": ("response", "completion", "output", "chosen"),
    "reasoning": (
        "reasoning",
        "reasoning_content",
        "reasoning_trace",
        "thinking",
        "thought",
        "thoughts",
        "cot",
        "complex_cot",
        "chain_of_thought",
        "deepseek_reasoning",
    ),
    "answer": ("answer", "reply", "deepseek_solution"),
    "system": ("system", "system_prompt"),
    "kind": ("kind",),
    "category": ("category",),
    "variant": ("variant",),
    "finish_reason": ("finish_reason", "stop_reason", "finishreason", "stopreason"),
    "history": ("history",),
}
# What Alpaca writes where an instruction is about nothing.
_NO_INPUT = ("<noinput>", "noinput")
# Columns that a row keeps as they are, by their own names.
_KEPT = ("behaviour_id", "template_id", "source", "source_license", "teacher", "model")


@dataclass(frozen=True, slots=True)
class DatasetRows:
    """What was made of a dataset of `count` rows.

    `columns` has the column of each field, `unread` the columns of which nothing was made, `refused` the number of each
    row that cannot be used, from 1, with the reason. Prompts and responses are by their ids.
    """

    count: int
    columns: Mapping[str, str]
    unread: tuple[str, ...]
    prompts: Mapping[str, Prompt]
    responses: Mapping[str, Response]
    refused: tuple[tuple[int, str], ...]


def read_dataset(
    source: Source, mapping: Mapping[str, str], kind: str | None, variant: str = "direct", most: int | None = None
) -> DatasetRows:
    """Read a dataset.

    Args:
        source: Where the rows are. A release of ours is taken whole, a variant a configuration.
        mapping: Field to column, for fields whose column has another name.
        kind: "harmful" or "benign", for rows that do not say.
        variant: Whose shape the rows are checked for, where they do not say.
        most: The first so many rows of a repository; all if None.

    Raises:
        UserError: nothing can be read there, a field or column is unknown, or no column is the prompt or the response.
    """
    for field in mapping:
        if field not in FIELDS:
            raise unknown("field in --map", field, FIELDS)
    load_variant(variant)
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    prompts: dict[str, Prompt] = {}
    responses: dict[str, Response] = {}
    refused: list[tuple[int, str]] = []
    columns: dict[str, str] = {}
    there: dict[str, None] = {}
    number = 0
    for rows, part in parts_of(source, most):
        names = dict.fromkeys(name for row in rows for name in row)
        columns = columns_of(names, mapping, source.hub)
        there |= names
        for row in rows:
            number += 1
            try:
                prompt, response = _read(row, columns, part or variant, kind, public_name(source.hub))
            except ValueError as error:
                refused.append((number, str(error)))
                continue
            if response.response_id in responses:
                refused.append((number, "the same prompt and response as an earlier row"))
                continue
            prompts.setdefault(prompt.prompt_id, prompt)
            responses[response.response_id] = response
    if number != len(responses) + len(refused):
        raise RuntimeError(f"{number} rows were read, {len(responses)} kept and {len(refused)} refused")
    unread = tuple(name for name in there if name not in (*columns.values(), *_KEPT))
    return DatasetRows(number, columns, unread, prompts, responses, tuple(refused))


def parts_of(source: Source, most: int | None) -> list[tuple[list[dict[str, Any]], str | None]]:
    """The rows, a part for each configuration of a release, with the variant that it is."""
    folder = Path(source.hub)
    if is_release(source):
        names = sorted(path.name for path in (folder / "data").iterdir() if path.name != "metadata")
        return [
            (read_source(source.model_copy(update={"config": name})), None if name == "benign" else name)
            for name in names
        ]
    return [(read_source(source, most), None)]


def is_release(source: Source) -> bool:
    """Whether the source is a complete SaferThoughts release, which describes every row."""
    folder = Path(source.hub)
    return source.config is None and (folder / "lineage.json").exists() and (folder / "data").is_dir()


def columns_of(there: Iterable[str], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    """The column of each field.

    Raises:
        UserError: a column that is named is not there, or none is the prompt or the response.
    """
    for column in mapping.values():
        if column not in there:
            raise unknown(f"column of {where}", column, list(there))
    lower = {name.lower(): name for name in there if name not in mapping.values()}
    found = {field: next((lower[name] for name in names if name in lower), "") for field, names in FIELDS.items()}
    if found["prompt"].lower() != "instruction":
        # Elsewhere the word means anything.
        found["input"] = ""
    columns = {**{field: name for field, name in found.items() if name}, **mapping}
    # What was named counts before what was found.
    if "messages" in columns and ("messages" in mapping or not {"prompt", "response", "answer"} & set(mapping)):
        return {field: name for field, name in columns.items() if field not in ("prompt", "input", "response")}
    columns.pop("messages", None)
    if "prompt" not in columns and found["response"].lower() == "chosen" and not mapping:
        # A preference set without its prompt has whole conversations.
        return {**columns, "messages": columns.pop("response")}
    if "prompt" not in columns or not {"response", "answer"} & set(columns):
        raise UserError(
            f"{where} has the columns {', '.join(there)}: say which is the prompt and which the response, "
            "e.g. --map prompt=instruction --map response=output (or --map messages=conversation). Prompts that nobody "
            "answered are for `saferthoughts run NAME --prompts FILE`."
        )
    return columns


def _read(
    row: Mapping[str, Any], columns: Mapping[str, str], variant: str, kind: str | None, where: str
) -> tuple[Prompt, Response]:
    """Read one row; ValueError gives the reason why it cannot be used."""
    behaviour, text, thought = _asked_and_answered(row, columns)
    beside = _given(row, columns, "reasoning")
    if beside is not None and "answer" in columns:
        # Each in its column: tags that are left in the answer are a fault.
        thought = Thought(sound(beside, f"'{columns['reasoning']}'"), _text(row, columns["answer"]), "reasoning")
    elif beside is not None and not thought.reasoning:
        thought = split(thought.answer, reasoning=sound(beside, f"'{columns['reasoning']}'"))
    reasoning, answer, found = thought.reasoning, thought.answer, str(thought.source)
    if not behaviour.strip():
        raise ValueError("the question is empty")
    if reason := media_of(row, behaviour):
        raise ValueError(reason)
    if _given(row, columns, "history"):
        raise ValueError("it has a history, and a row holds one question: the answer belongs to all of it")
    given_kind = _given(row, columns, "kind")
    row_kind = kind if given_kind is None else KIND_WORDS.get(str(given_kind).strip().lower(), given_kind)
    if row_kind not in KINDS:
        raise ValueError(f"kind is {row_kind!r}: it must be harmful or benign (--kind for all rows)")
    name = current_name(str(_given(row, columns, "variant") or variant))
    if name not in load_variants():
        raise ValueError(f"there is no variant {name!r}")
    prompt = Prompt(
        prompt_id=content_id(text, row_kind),
        kind=row_kind,
        behaviour_id=_listed(row.get("behaviour_id")) or content_id(behaviour),
        template_id=_listed(row.get("template_id")),
        category=_listed(_given(row, columns, "category")) or "uncategorised",
        behaviour=behaviour,
        text=text,
        source=_listed(row.get("source")) or where,
        source_license=_listed(row.get("source_license")) or UNKNOWN_LICENSE,
    )
    # The text that this tool writes, and no other: an empty thought alone proves nothing.
    fixed = not reasoning and bool(answer) and answer == load_variants()[name].fixed_answer
    response = response_from_elsewhere(
        content_id(prompt.prompt_id, first_name(name), reasoning, answer),
        prompt.prompt_id,
        name,
        reasoning,
        answer,
        teacher="" if fixed else TEACHER,
        model=_listed(row.get("teacher") or row.get("model")),
        reasoning_source="fixed" if fixed else found,
        finish_reason=STOP if fixed else finish_of(_given(row, columns, "finish_reason")) or "unknown",
    )
    return prompt, response


def _asked_and_answered(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, str, Thought]:
    """The question, the question with its system text in front, and the response."""
    if "messages" in columns:
        found = exchange(row[columns["messages"]])
        return _with_system(row, columns, found)
    # A column that holds the answer alone may hold its reasoning as well.
    column = columns["response"] if "response" in columns else columns["answer"]
    prompt, response = turns_in(row.get(columns["prompt"])), turns_in(row.get(column))
    if isinstance(prompt, list):
        found = exchange(prompt, response)
    elif isinstance(response, list):
        # The answer alone, or the whole conversation beside its question, as preference sets have it.
        whole = any(turn.role == "user" for turn in turns_of(response))
        before = [] if whole else [{"role": "user", "content": _text(row, columns["prompt"])}]
        found = exchange([*before, *response])
    else:
        reply = _text(row, column)
        asked = _text(row, columns["prompt"])
        about = _given(row, columns, "input")
        about = None if about in _NO_INPUT else about
        found = Exchange("", f"{asked}\n\n{sound(about, 'the input')}" if about else asked, split(reply))
    return _with_system(row, columns, found)


def _with_system(row: Mapping[str, Any], columns: Mapping[str, str], found: Exchange) -> tuple[str, str, Thought]:
    system = _given(row, columns, "system")
    parts = [sound(system, "'system'") if system else "", found.system, found.question]
    return found.question, "\n\n".join(part for part in parts if part.strip()), found.thought


def _text(row: Mapping[str, Any], column: str) -> str:
    return sound(row.get(column), f"'{column}'")


def _given(row: Mapping[str, Any], columns: Mapping[str, str], field: str) -> Any:
    """What a row says in a field; None where it says nothing: no such column, null, NaN, blank or an empty list."""
    value = row.get(columns[field]) if field in columns else None
    absent = value is None or value == [] or value != value or (isinstance(value, str) and not value.strip())
    return None if absent else value


def _listed(value: Any) -> str:
    """A category or a name as text: some datasets have several of a row."""
    values = value if isinstance(value, list) else [value]
    return sound(", ".join(str(one) for one in values if one is not None and one == one), "a name in it")
