"""Prompt sets: harmful behaviours, jailbreak templates to put them in, benign look-alikes; and the draw of a run.

Reads `pipelines/prompts/bundled/` (the set "bundled"), a user's folder of the same shape, or one file of ready prompts:

    harmful.yaml    list of {id, category, text}, with `source` and `license` where they are known
    benign.yaml     the same; a user's folder may leave out one of these two
    templates.yaml  list of {id, text}, one `{behaviour}` slot in each text; a user's folder may leave it out
    any file of rows (`pipelines/row_files.py`) a column prompt, text, query, question, behaviour, goal, behavior,
                                                forbidden_prompt or instruction, in whatever case, or the one that is
                                                named, or a conversation of one question; optional columns kind
                                                (harmful, benign), category, id, source, license; HarmBench's
                                                ContextString goes in front of its behaviour
    anything.txt                                one prompt a line

Writes nothing: the stage does (`saferthoughts prompts NAME`). From Python:

    draw(load_pool("bundled"), harmful=60, benign=40, seed=0, bare_share=0.3)
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import get_args

from pipelines.errors import UserError, unknown
from pipelines.prompts.turns import question_of
from pipelines.records import Kind, Prompt, content_id
from pipelines.row_files import READERS, Row, optional_text, read_rows, text, yaml_rows

BUNDLED = Path(__file__).parent / "bundled"
BUNDLED_SOURCE, BUNDLED_LICENSE = "saferthoughts bundled", "Apache-2.0"
UNKNOWN_LICENSE = "unknown"
NO_CATEGORY = "uncategorised"
SLOT = "{behaviour}"
KINDS: tuple[Kind, ...] = get_args(Kind)
_FOLDER_FILES = ("harmful.yaml", "benign.yaml", "templates.yaml")
# What each field is called in files; where one has several of them, the first in this order.
FIELDS: Mapping[str, tuple[str, ...]] = {
    "prompt": (
        *("prompt", "text", "query", "question", "behaviour", "goal", "behavior", "forbidden_prompt", "instruction"),
    ),
    "messages": ("messages", "conversations", "conversation"),
    "context": ("contextstring",),
    "category": ("category", "semanticcategory"),
    "id": ("id", "behaviorid"),
    **{name: (name,) for name in ("kind", "source", "license")},
}
_IN_FOLDERS = {"prompt": "text", **{name: name for name in ("category", "id", "source", "license")}}


@dataclass(frozen=True, slots=True)
class Request:
    """One bare request, harmful or benign, with where it comes from. `id` is unique in its pool, and so is `text`."""

    id: str
    category: str
    text: str
    source: str
    license: str


@dataclass(frozen=True, slots=True)
class Template:
    """One jailbreak template. `text` holds `SLOT` exactly once and words of its own beside it."""

    id: str
    text: str

    def fill(self, behaviour: str) -> str:
        """The behaviour in its slot. Plain replacement, since both texts may hold braces of their own."""
        return self.text.replace(SLOT, behaviour)


@dataclass(frozen=True, slots=True)
class PromptPool:
    """All that a run may draw from. `duplicates` counts the requests that stood more than once and were dropped;
    `unread` are a file's columns of which nothing is made."""

    name: str
    behaviours: tuple[Request, ...]
    benign: tuple[Request, ...]
    templates: tuple[Template, ...]
    duplicates: int = 0
    unread: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """The sources of all requests, each once, joined by "; "."""
        return "; ".join(sorted({item.source for item in self.behaviours + self.benign}))

    @property
    def license(self) -> str:
        """The licenses of all requests, each once, joined by "; "."""
        return "; ".join(sorted({item.license for item in self.behaviours + self.benign}))

    @property
    def content_hash(self) -> str:
        """16 hex digits over the texts of the three parts, whatever their order in the files."""
        parts = (self.behaviours, self.benign, self.templates)
        return content_id(*(sorted(item.text for item in part) for part in parts))


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


def draw(pool: PromptPool, harmful: int | None, benign: int | None, seed: int, bare_share: float) -> list[Prompt]:
    """Draw the prompts of a run: behaviours in templates, bare behaviours, benign requests.

    Counts differ by at most one between categories (as far as the smaller ones last), between templates, and between
    the behaviours of a category. The same pool, whatever the order in its files, gives the same draw; what is picked
    follows ranks by content hash, so that prompts added to one category leave most picks as they were.

    Args:
        pool: what to draw from.
        harmful: how many harmful prompts; None for every behaviour in every template, and bare too where `bare_share`
            is above 0 (bare alone where it is 1).
        benign: how many benign prompts; None for all.
        seed: another seed, another draw.
        bare_share: share of the harmful draws that are bare, 0 to 1, rounded to whole prompts. A pool without
            templates has only bare ones, whatever the share.

    Returns:
        Prompts sorted by `prompt_id`, none twice.

    Raises:
        UserError: more is asked for than there is, or a number is out of bounds.
    """
    if not 0 <= bare_share <= 1:
        raise UserError(f"bare_share is {bare_share}, but a share lies between 0 and 1.")
    for asked, name in ((harmful, "harmful"), (benign, "benign")):
        if asked is not None and asked < 0:
            raise UserError(f"Asked for {asked} {name} prompts. Give 0 or more, or leave it out for all of them.")
    if benign is not None and benign > len(pool.benign):
        raise UserError(
            f"Asked for {benign} benign prompts, but '{pool.name}' has {len(pool.benign)}. Ask for fewer or add some."
        )
    bare, templated = _split_harmful(pool, harmful, bare_share)
    prompts = _draw_harmful(pool, bare, templated, seed)
    prompts += _draw_benign(pool, len(pool.benign) if benign is None else benign, seed)
    return sorted(prompts, key=lambda prompt: prompt.prompt_id)


def _split_harmful(pool: PromptPool, harmful: int | None, bare_share: float) -> tuple[int, int]:
    """How many bare and how many templated prompts to draw."""
    most_bare = len(pool.behaviours)
    most_templated = most_bare * len(pool.templates)
    share = bare_share if pool.templates else 1.0
    if harmful is None:
        return most_bare if share > 0 else 0, most_templated if share < 1 else 0
    bare = math.floor(harmful * share + 0.5)
    if bare > most_bare or harmful - bare > most_templated:
        raise UserError(
            f"Asked for {harmful} harmful prompts ({bare} bare, {harmful - bare} in templates), but '{pool.name}' has "
            f"{most_bare + most_templated} ({most_bare} bare, {most_templated} in templates). Ask for fewer, change "
            "bare_share, or add prompts."
        )
    return bare, harmful - bare


def _draw_harmful(pool: PromptPool, bare: int, templated: int, seed: int) -> list[Prompt]:
    groups = _by_category(pool.behaviours, seed)
    templates = sorted(pool.templates, key=lambda template: content_id(seed, template.text))
    bare_of = _level({name: len(group) for name, group in groups.items()}, bare)
    room = {name: len(group) * len(templates) for name, group in groups.items()}
    templated_of = _level(room, templated, bare_of)
    prompts = []
    turn = 0
    for name, group in groups.items():
        uses: Counter[str] = Counter()
        prompts += [filled("harmful", item) for item in _least_used(group, bare_of[name], uses, seed, "")]
        if not templates:
            continue
        # Every template gets the same number from this category; the remainder goes round all templates across
        # categories, which keeps templates level too.
        each, extra = divmod(templated_of[name], len(templates))
        for place, template in enumerate(templates):
            count = each + ((place - turn) % len(templates) < extra)
            chosen = _least_used(group, count, uses, seed, template.text)
            prompts += [filled("harmful", item, template) for item in chosen]
        turn = (turn + extra) % len(templates)
    return prompts


def _draw_benign(pool: PromptPool, count: int, seed: int) -> list[Prompt]:
    groups = _by_category(pool.benign, seed)
    counts = _level({name: len(group) for name, group in groups.items()}, count)
    chosen = (_least_used(group, counts[name], Counter(), seed, "") for name, group in groups.items())
    return [filled("benign", item) for items in chosen for item in items]


def _by_category(items: Iterable[Request], seed: int) -> dict[str, list[Request]]:
    """Requests by category; the seed orders the categories, and so says which of them get a remainder."""
    groups: dict[str, list[Request]] = {}
    for item in items:
        groups.setdefault(item.category, []).append(item)
    return {name: groups[name] for name in sorted(groups, key=lambda name: content_id(seed, name))}


def _level(room: Mapping[str, int], count: int, taken: Mapping[str, int] | None = None) -> dict[str, int]:
    """Share `count` out so that what each name has, `taken` included, is level as far as its room goes.

    The caller has checked that there is room for all of it.
    """
    given = dict.fromkeys(room, 0)
    heap = [((taken or {}).get(name, 0), place, name) for place, name in enumerate(room) if room[name]]
    heapq.heapify(heap)
    for _ in range(count):
        level, place, name = heapq.heappop(heap)
        given[name] += 1
        if given[name] < room[name]:
            heapq.heappush(heap, (level + 1, place, name))
    return given


def _least_used(group: Sequence[Request], count: int, uses: Counter[str], seed: int, wrapping: str) -> list[Request]:
    """Pick `count` requests, those used least first and by rank among equals, and count their use."""
    if not count:
        return []
    chosen = heapq.nsmallest(count, group, key=lambda item: (uses[item.id], content_id(seed, item.text, wrapping)))
    uses.update(item.id for item in chosen)
    return chosen


def filled(kind: Kind, item: Request, template: Template | None = None) -> Prompt:
    """The prompt of a request, in a template or bare."""
    return Prompt(
        prompt_id=content_id(item.text, template.text if template else ""),
        kind=kind,
        behaviour_id=item.id,
        template_id=template.id if template else "",
        category=item.category,
        behaviour=item.text,
        text=template.fill(item.text) if template else item.text,
        source=item.source,
        source_license=item.license,
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
        row_kind = row.values.get(columns.get("kind", "")) or kind
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
