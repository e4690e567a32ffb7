"""Prompt sets as they are read: a folder of our own shape, a file of ready prompts, or files of others by their part.

Reads `pipelines/prompts/bundled/` (the set "bundled"), a user's folder of the same shape, or one file of ready prompts:

    harmful.yaml    list of {id, category, text}, with `source` and `license` where they are known
    benign.yaml     the same; a user's folder may leave out one of these two
    templates.yaml  list of {id, text}, one `{behaviour}` slot in each text; a user's folder may leave it out
    any file of rows (`pipelines/row_files.py`) a column of `FIELDS["prompt"]`, in whatever case, or the one that is
                                                named, or a conversation of one question; optional columns kind
                                                (harmful, benign), category, id, source, license; HarmBench's
                                                ContextString goes in front of its behaviour
    anything.txt                                one prompt a line

or, for `prompts --harmful-file PLACE --templates-file PLACE --benign-file PLACE`, sets as they are published
(`published.py`). Writes nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple, replace
from pathlib import Path

from pipelines.errors import UserError, unknown
from pipelines.prompts.prompt_sets import KINDS, NO_CATEGORY, SLOT, UNKNOWN_LICENSE, PromptPool, Request, Template
from pipelines.prompts.published import KIND_WORDS, kind_of_row, name_of, rows_at, slot_of
from pipelines.prompts.turns import question_of
from pipelines.records import Kind, content_id
from pipelines.row_files import READERS, Row, optional_text, read_rows, text, yaml_rows

# What each field is called in files; where one has several of them, the first in this order.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "prompt": (
        *("prompt", "text", "query", "question", "behaviour", "goal", "behavior", "forbidden_prompt", "instruction"),
        *("adversarial", "vanilla"),
    ),
    "messages": ("messages", "conversations", "conversation"),
    "context": ("contextstring",),
    "category": ("category", "semanticcategory"),
    "id": ("id", "behaviorid"),
    **{name: (name,) for name in ("kind", "source", "license")},
}
_IN_FOLDERS = {"prompt": "text", **{name: name for name in ("category", "id", "source", "license")}}
_FOLDER_FILES = ("harmful.yaml", "benign.yaml", "templates.yaml")
BUNDLED = Path(__file__).parent / "bundled"
BUNDLED_SOURCE, BUNDLED_LICENSE = "saferthoughts bundled", "Apache-2.0"


def load_pool(
    name_or_path: str | Path, kind: str | None = None, columns: Mapping[str, str] | None = None
) -> PromptPool:
    """Load a prompt set.

    Args:
        name_or_path: "bundled", a folder, or a file; see the module's docstring for their shapes.
        kind: the kind of every row of a file that names none. A kind in a row wins.
        columns: Field to column, for fields of a file whose columns have other names than `FIELDS` has.

    Raises:
        UserError: no such set; a file that is empty, cannot be read, or has a bad row (named with its line); a text
            that stands as harmful and as benign.
    """
    if kind is not None and kind not in KINDS:
        raise unknown("kind", kind, KINDS)
    path = Path(name_or_path)
    if str(name_or_path) != "bundled" and path.is_file():
        return _file_pool(path, kind, columns or {})
    if kind is not None:
        raise UserError(
            f"A kind ('{kind}') is for a file of prompts; '{name_or_path}' has its own. Leave the kind out."
        )
    if str(name_or_path) == "bundled":
        return _folder_pool("bundled", BUNDLED, BUNDLED_SOURCE, BUNDLED_LICENSE)
    if path.is_dir():
        return _folder_pool(path.resolve().name, path, path.resolve().name, UNKNOWN_LICENSE)
    raise UserError(
        f"There is no prompt set '{name_or_path}'. Give 'bundled', a folder with harmful.yaml, benign.yaml and "
        f"templates.yaml, or a file of prompts ({', '.join(READERS)})."
    )


def _folder_pool(name: str, folder: Path, source: str, license_: str) -> PromptPool:
    try:
        found = sorted(path.name for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    except OSError as error:
        raise UserError(f"{folder} cannot be opened: {error.strerror}.") from error
    for file in found:
        # A misspelt name would otherwise leave a part of the set out without a word.
        if file not in _FOLDER_FILES:
            raise UserError(f"{folder}: {unknown('file', file, _FOLDER_FILES)}")
    if not {"harmful.yaml", "benign.yaml"} & set(found):
        raise UserError(f"{folder} holds neither harmful.yaml nor benign.yaml. A prompt set needs one of them.")
    requests = {
        kind: [
            _request(row, _IN_FOLDERS, source, license_)
            for row in yaml_rows(folder / f"{kind}.yaml", ("id", "category", "text"), ("source", "license"))
        ]
        for kind in KINDS
        if f"{kind}.yaml" in found
    }
    templates: tuple[Template, ...] = ()
    if "templates.yaml" in found:
        templates = _templates(folder / "templates.yaml")
    return _pool(name, folder, requests.get("harmful", []), requests.get("benign", []), templates)


def _file_pool(path: Path, kind: str | None, mapping: Mapping[str, str]) -> PromptPool:
    rows = read_rows(path, {*(name for names in FIELDS.values() for name in names), *mapping.values()})
    there = dict.fromkeys(name for row in rows for name in row.values)
    columns = _columns(rows[0].where, there, mapping)
    parts: dict[str, list[Request]] = {name: [] for name in KINDS}
    for row in rows:
        row_kind = row.values.get(columns.get("kind", "")) or kind or kind_of_row(row)
        row_kind = KIND_WORDS.get(str(row_kind).strip().lower(), row_kind)
        if row_kind is None:
            raise UserError(f"{row.where}: no kind. Add a column 'kind' (harmful, benign), or give one for all rows.")
        if row_kind not in KINDS:
            raise UserError(f"{row.where}: {unknown('kind', str(row_kind), KINDS)}")
        parts[row_kind].append(_request(row, columns, path.name, UNKNOWN_LICENSE))
    pool = _pool(path.stem, path, parts["harmful"], parts["benign"], ())
    return replace(pool, unread=tuple(name for name in there if name not in columns.values()))


def _columns(where: str, there: Iterable[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """Field to column: as named, or by the first of its usual names that a file has, in whatever case."""
    for field, column in mapping.items():
        if field not in FIELDS:
            raise unknown("field in --map", field, FIELDS)
        if column not in there:
            raise unknown(f"column of {where}", column, list(there))
    lower = {str(name).lower(): name for name in there if name not in mapping.values()}
    found = {field: next((lower[name] for name in names if name in lower), None) for field, names in FIELDS.items()}
    columns = {**{field: name for field, name in found.items() if name is not None}, **mapping}
    if not {"prompt", "messages"} & columns.keys():
        raise UserError(
            f"{where}: no column of prompts among: {', '.join(map(str, there)) or '(none)'}. Name it one of: "
            f"{', '.join(FIELDS['prompt'])}; or say which it is: --map prompt=COLUMN."
        )
    return columns


PARTS = ("harmful", "benign", "templates")
_TEMPLATES = ("template", "text", "prompt", "jailbreak", "content")


def load_files(files: Mapping[str, str], columns: Mapping[str, str]) -> PromptPool:
    """Load a prompt set from places of its parts, as others publish them.

    Args:
        files: A place for each of `PARTS`; harmful or benign at least. Of a set that holds both kinds and says which,
            those of the part's kind are taken.
        columns: Field to column, for all of them, or "harmful.prompt" for one.

    Raises:
        UserError: as `load_pool`, or of a set no row has the part's kind.
    """
    for field in columns:
        if "." in field and field.partition(".")[0] not in PARTS:
            raise unknown("part in --map", field.partition(".")[0], PARTS)
    parts: dict[str, list[Request]] = {"harmful": [], "benign": []}
    unread: list[str] = []
    for kind in KINDS:
        if kind in files:
            parts[kind], left = _part(files[kind], kind, _of_part(columns, kind))
            unread += left
    taken = {item.id for item in parts["harmful"]}
    if taken & {item.id for item in parts["benign"]}:
        # Two sets may number their rows alike.
        parts["benign"] = [replace(item, id=f"{item.source.partition(': ')[0]}/{item.id}") for item in parts["benign"]]
    templates = _template_rows(files["templates"], _of_part(columns, "templates")) if "templates" in files else ()
    name = "+".join(name_of(files[part]) for part in PARTS if part in files)
    pool = _pool(name, Path(name), parts["harmful"], parts["benign"], templates)
    return replace(pool, unread=tuple(dict.fromkeys(unread)))


def _of_part(columns: Mapping[str, str], part: str) -> dict[str, str]:
    own = {field.partition(".")[2]: column for field, column in columns.items() if field.startswith(f"{part}.")}
    return {**{field: column for field, column in columns.items() if "." not in field}, **own}


def _part(place: str, kind: Kind, mapping: Mapping[str, str]) -> tuple[list[Request], list[str]]:
    """The requests of one kind at a place, and the columns that are not read."""
    rows = [row for row in rows_at(place) if kind_of_row(row) in (None, kind)]
    name = name_of(place)
    if not rows:
        raise UserError(f"{name}: every row says that it is not {kind}. Give a set of {kind} prompts.")
    there = dict.fromkeys(column for row in rows for column in row.values)
    columns = _columns(rows[0].where, there, mapping)
    found = []
    for row in rows:
        request = _request(row, columns, "", UNKNOWN_LICENSE)
        found.append(replace(request, source=f"{name}: {request.source}" if request.source else name))
    return found, [column for column in there if column not in columns.values()]


def _template_rows(place: str, mapping: Mapping[str, str]) -> tuple[Template, ...]:
    rows = rows_at(place)
    lower = {str(name).lower(): str(name) for name in rows[0].values}
    column = mapping.get("text") or next((lower[name] for name in _TEMPLATES if name in lower), None)
    if column is None or column not in rows[0].values:
        raise unknown(
            f"column of {name_of(place)} (--map templates.text=COLUMN)", column or "text", list(lower.values())
        )
    found: dict[str, Template] = {}
    for row in rows:
        words = text(row, column)
        words = words.replace(slot_of(words, row.where), SLOT)
        if words == SLOT:
            raise UserError(f"{row.where}: the template is only its slot. Bare requests need no template.")
        found.setdefault(words, Template(optional_text(row, lower.get("id", "")) or content_id(words), words))
    if len({item.id for item in found.values()}) < len(found):
        raise UserError(f"{name_of(place)}: two templates have one id. Give each its own.")
    return tuple(found.values())


def _pool(
    name: str, where: Path, harmful: list[Request], benign: list[Request], templates: tuple[Template, ...]
) -> PromptPool:
    """Drop duplicates, count them, and hold what a pool promises: a text has one kind, an id one text."""
    behaviours, look_alikes = _unique(harmful), _unique(benign)
    both = {item.text for item in behaviours} & {item.text for item in look_alikes}
    if both:
        raise UserError(f"{where}: '{_short(min(both))}' stands as harmful and as benign. Keep one of the two.")
    ids = Counter(item.id for item in behaviours + look_alikes)
    for item_id, count in ids.items():
        if count > 1:
            raise UserError(f"{where}: id '{item_id}' stands for {count} different prompts. Give each its own.")
    dropped = len(harmful) + len(benign) - len(behaviours) - len(look_alikes)
    return PromptPool(name, behaviours, look_alikes, templates, dropped)


def _unique(items: Iterable[Request]) -> tuple[Request, ...]:
    """Each text once, at its first place; of several with that text the one that sorts first, whatever their order."""
    kept: dict[str, Request] = {}
    for item in items:
        other = kept.setdefault(item.text, item)
        if other is not item:
            kept[item.text] = min(other, item, key=astuple)
    return tuple(kept.values())


def _request(row: Row, columns: Mapping[str, str], source: str, license_: str) -> Request:
    def optional(field: str) -> str:
        return optional_text(row, columns.get(field, ""))

    if columns.get("prompt", "").lower() == "adversarial" and not row.values.get(columns["prompt"]):
        # WildJailbreak's rows have the request as it is where they have no jailbreak of it.
        row = Row(row.where, {**row.values, columns["prompt"]: row.values.get("vanilla")})
    if "prompt" in columns and not isinstance(row.values.get(columns["prompt"]), list):
        request = text(row, columns["prompt"])
    else:
        request = _asked(row, columns.get("prompt") or columns["messages"])
    if context := optional("context"):
        # As HarmBench puts them together.
        request = f"{context}\n\n---\n\n{request}"
    return Request(
        id=optional("id") or content_id(request),
        category=optional("category") or NO_CATEGORY,
        text=request,
        source=optional("source") or source,
        license=optional("license") or license_,
    )


def _asked(row: Row, column: str) -> str:
    try:
        return question_of(row.values.get(column)).strip()
    except ValueError as error:
        raise UserError(f"{row.where}: '{column}': {error}. Put it right or take the row out.") from error


def _templates(path: Path) -> tuple[Template, ...]:
    templates: list[Template] = []
    for row in yaml_rows(path, ("id", "text")):
        template = Template(text(row, "id"), text(row, "text"))
        slots = template.text.count(SLOT)
        if slots != 1:
            raise UserError(f"{row.where}: template '{template.id}' has {slots} slots {SLOT}. It needs exactly one.")
        if not template.fill("").strip():
            raise UserError(f"{row.where}: template '{template.id}' is only its slot. Bare requests need no template.")
        if any(template.id == other.id or template.text == other.text for other in templates):
            raise UserError(f"{row.where}: template '{template.id}' stands twice, by id or by text. Keep one.")
        templates.append(template)
    return tuple(templates)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."
