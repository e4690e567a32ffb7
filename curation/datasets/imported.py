"""Import of a third-party dataset as a run, so that it can be checked like one of ours.

Reads any conversational dataset (a file, a folder or a repository on the Hub), or a release of this project; writes a
run folder with run.yaml, prompts, responses and failed, the rows that could not be read with their reasons. Run it with
`saferthoughts check RUN --dataset PATH_OR_REPO --map answer=completion`. Nothing of it was generated here, so a run
made like this cannot be repaired.

Columns go by name, or by --map FIELD=COLUMN. Fields: messages (a conversation of one question and its answer, see
`curation/datasets/turns.py`), prompt, response (reasoning and answer in one text, or as lists of turns), reasoning,
answer, system (what stands in front of the question), kind, category, variant.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.datasets.sources import Source, read_source
from curation.datasets.turns import Exchange, exchange, sound
from pipelines.errors import UserError, unknown
from pipelines.prompts.prompt_sets import KINDS, UNKNOWN_LICENSE
from pipelines.prompts.variant import load_variants
from pipelines.prompts.variant import variant as load_variant
from pipelines.records import Prompt, Response, content_id, to_table
from pipelines.runs import RunFolder, file_hash
from pipelines.settings.config import Roles, RunConfig, load_config, save_config
from pipelines.settings.old_names import current_name, first_name
from pipelines.settings.resolving import resolve
from pipelines.settings.teacher import load_teachers
from pipelines.teachers.finish_reasons import STOP
from pipelines.thinking import Thought, split

TEACHER = "dataset"
# Where a dataset calls a field by another name, the first of these that it has.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation"),
    "prompt": ("prompt", "query", "question", "instruction", "text"),
    "response": ("response", "completion", "output"),
    "reasoning": ("reasoning", "thinking", "thought"),
    "answer": ("answer", "reply"),
    "system": ("system", "system_prompt"),
    "kind": ("kind",),
    "category": ("category",),
    "variant": ("variant",),
}
_REFUSED = pa.schema([("row", pa.int64()), ("error", pa.string())])


def import_dataset(
    runs: Path, name: str, source: Source, mapping: Mapping[str, str], kind: str | None, variant: str = "direct"
) -> RunFolder:
    """Make the run.

    Args:
        runs: Folder of the runs.
        name: The new run's name.
        source: Where the rows are. A release of ours is taken whole, a variant a configuration.
        mapping: Field to column, for fields whose column has another name.
        kind: "harmful" or "benign", for rows that do not say.
        variant: Whose shape the rows are checked for, where they do not say.

    Raises:
        UserError: nothing can be read there, a field or column is unknown, or no row has a prompt and a response.
    """
    for field in mapping:
        if field not in FIELDS:
            raise unknown("field in --map", field, FIELDS)
    load_variant(variant)
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    prompts: dict[str, Prompt] = {}
    responses: dict[str, Response] = {}
    refused: list[dict[str, Any]] = []
    number = 0
    for rows, part in _parts(source):
        columns = _columns({name: None for row in rows for name in row}, mapping, source.hub)
        for row in rows:
            number += 1
            try:
                prompt, response = _read(row, columns, part or variant, kind, _public_name(source))
            except ValueError as error:
                refused.append({"row": number, "error": str(error)})
                continue
            if response.response_id in responses:
                refused.append({"row": number, "error": "the same prompt and response as an earlier row"})
                continue
            prompts.setdefault(prompt.prompt_id, prompt)
            responses[response.response_id] = response
    if not responses:
        raise UserError(f"None of the {number} rows of {source.hub} could be read; the first: {refused[0]['error']}.")
    if number != len(responses) + len(refused):
        raise RuntimeError(f"{number} rows were read, {len(responses)} kept and {len(refused)} refused")
    return _written(runs, name, source, prompts, responses, refused)


def _public_name(source: Source) -> str:
    """What a dataset is called on cards and in rows: no path of this machine."""
    path = Path(source.hub)
    return path.resolve().name if path.exists() else source.hub


def _parts(source: Source) -> list[tuple[list[dict[str, Any]], str | None]]:
    """The rows, a part for each configuration of a release, with the variant that it is."""
    folder = Path(source.hub)
    if _is_release(source):
        names = sorted(path.name for path in (folder / "data").iterdir() if path.name != "metadata")
        return [
            (read_source(source.model_copy(update={"config": name})), None if name == "benign" else name)
            for name in names
        ]
    return [(read_source(source), None)]


def _is_release(source: Source) -> bool:
    """Whether the source is a complete SaferThoughts release, which describes every row."""
    folder = Path(source.hub)
    return source.config is None and (folder / "lineage.json").exists() and (folder / "data").is_dir()


def _columns(row: Mapping[str, Any], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    for column in mapping.values():
        if column not in row:
            raise unknown(f"column of {where}", column, list(row))
    found = {
        field: next((name for name in names if name in row and name not in mapping.values()), "")
        for field, names in FIELDS.items()
    }
    columns = {**{field: name for field, name in found.items() if name}, **mapping}
    # What was named counts before what was found.
    if "messages" in columns and ("messages" in mapping or not {"prompt", "response", "answer"} & set(mapping)):
        return {field: name for field, name in columns.items() if field not in ("prompt", "response")}
    columns.pop("messages", None)
    if "prompt" not in columns or not {"response", "answer"} & set(columns):
        raise UserError(
            f"{where} has the columns {', '.join(row)}: say which is the prompt and which the response, "
            "e.g. --map prompt=instruction --map response=output (or --map messages=conversation)."
        )
    return columns


def _read(
    row: Mapping[str, Any], columns: Mapping[str, str], variant: str, kind: str | None, where: str
) -> tuple[Prompt, Response]:
    """Read one row; ValueError gives the reason why it cannot be used."""
    behaviour, text, thought = _asked_and_answered(row, columns)
    reasoning, answer, found = thought.reasoning, thought.answer, str(thought.source)
    if "reasoning" in columns and "answer" in columns:
        reasoning, answer, found = _text(row, columns["reasoning"]), _text(row, columns["answer"]), "reasoning"
    elif "reasoning" in columns and not reasoning:
        reasoning, found = _text(row, columns["reasoning"]), "reasoning"
    elif "response" not in columns and "messages" not in columns:
        answer = _text(row, columns["answer"])
    if not behaviour.strip():
        raise ValueError("the question is empty")
    row_kind = row.get(columns.get("kind", ""), kind)
    if row_kind not in KINDS:
        raise ValueError(f"kind is {row_kind!r}: it must be harmful or benign (--kind for all rows)")
    name = current_name(str(row.get(columns.get("variant", "")) or variant))
    if name not in load_variants():
        raise ValueError(f"there is no variant {name!r}")
    prompt = Prompt(
        prompt_id=content_id(text, row_kind),
        kind=row_kind,
        behaviour_id=str(row.get("behaviour_id") or content_id(behaviour)),
        template_id=str(row.get("template_id") or ""),
        category=str(row.get(columns.get("category", "")) or "uncategorised"),
        behaviour=behaviour,
        text=text,
        source=str(row.get("source") or where),
        source_license=str(row.get("source_license") or UNKNOWN_LICENSE),
    )
    # The text that this tool writes, and no other: an empty thought alone proves nothing.
    fixed = not reasoning and bool(answer) and answer == load_variants()[name].fixed_answer
    response = Response(
        response_id=content_id(prompt.prompt_id, first_name(name), reasoning, answer),
        prompt_id=prompt.prompt_id,
        variant=name,
        teacher="" if fixed else TEACHER,
        model=str(row.get("teacher") or row.get("model") or ""),
        sampling="{}",
        sample=0,
        attempt=0,
        parent_id="",
        reasoning=reasoning,
        answer=answer,
        reasoning_source="fixed" if fixed else found,
        finish_reason=STOP if fixed else str(row.get("finish_reason") or "unknown"),
        input_tokens=0,
        output_tokens=0,
        latency_s=0.0,
        cost=None,
        request_key="",
    )
    return prompt, response


def _asked_and_answered(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[str, str, Thought]:
    """The question, the question with its system text in front, and the response."""
    response = row.get(columns["response"]) if "response" in columns else None
    if "messages" in columns:
        found = exchange(row[columns["messages"]])
    elif isinstance(row.get(columns["prompt"]), list):
        found = exchange(row[columns["prompt"]], row.get(columns["answer"]) if response is None else response)
    else:
        reply = _text(row, columns["response"]) if "response" in columns else ""
        found = Exchange("", _text(row, columns["prompt"]), split(reply))
    system = row.get(columns.get("system", ""))
    parts = [sound(system, "'system'") if system else "", found.system, found.question]
    return found.question, "\n\n".join(part for part in parts if part.strip()), found.thought


def _text(row: Mapping[str, Any], column: str) -> str:
    return sound(row.get(column), f"'{column}'")


def _written(
    runs: Path,
    name: str,
    source: Source,
    prompts: Mapping[str, Prompt],
    responses: Mapping[str, Response],
    refused: list[dict[str, Any]],
) -> RunFolder:
    run = RunFolder.create(runs, name)
    if run.stage("generate") is not None and run.stage("import") is None:
        raise UserError(f"{run.path} is a run that was generated. Check a dataset under another name.")
    used = {item.variant for item in responses.values()}
    # Read again, a dataset keeps its run's judges and thresholds.
    config = load_config(run) if (run.path / "run.yaml").exists() else RunConfig()
    release = config.release
    if any(prompt.source_license == UNKNOWN_LICENSE for prompt in prompts.values()):
        # No licence of ours is put on rows of others; whoever builds a release states one.
        release = release.model_copy(update={"license": UNKNOWN_LICENSE, "license_text": None})
    changes = {
        "release": release,
        "variants": tuple(name for name in load_variants() if name in used),
        "roles": Roles(reasoning=TEACHER, general=TEACHER),
    }
    save_config(run, resolve(config.model_copy(update=changes), load_teachers(), asks=False))
    run.write("prompts", to_table(Prompt, sorted(prompts.values(), key=lambda item: item.prompt_id)))
    run.write("responses", to_table(Response, sorted(responses.values(), key=lambda item: item.response_id)))
    run.write("failed", pa.Table.from_pylist(refused, schema=_REFUSED))
    for stale in ("repairs", "duplicates", "contamination", "selected"):
        run.table_path(stale).unlink(missing_ok=True)
    harmful = sum(item.kind == "harmful" for item in prompts.values())
    pool = {
        "name": _public_name(source),
        "source": _public_name(source),
        "license": "; ".join(sorted({prompt.source_license for prompt in prompts.values()})),
        "sha256": content_id(sorted(prompts)),
        "behaviours": len({item.behaviour_id for item in prompts.values()}),
        "templates": len({item.template_id for item in prompts.values()} - {""}),
        "duplicates_dropped": 0,
    }
    counts = {"planned": len(responses) + len(refused), "kept": len(responses), "failed": len(refused), "asked": 0}
    run.record("import", source=source.model_dump(mode="json"), release=_is_release(source), counts=counts)
    run.record("prompts", pool=pool, counts={"harmful": harmful, "benign": len(prompts) - harmful})
    run.record(
        "generate",
        outputs={f"{table}.parquet": file_hash(run.table_path(table)) for table in ("responses", "failed")},
        counts=counts,
    )
    return run
