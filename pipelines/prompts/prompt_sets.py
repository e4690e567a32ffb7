"""Prompt sets: harmful behaviours, jailbreak templates to put them in, benign look-alikes; and the draw of a run.

Reads and writes nothing: `prompt_files.py` reads a pool, and the stage writes the draw (`saferthoughts prompts NAME`).
From Python:

    draw(load_pool("bundled"), harmful=60, benign=40, seed=0, bare_share=0.3)
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from pipelines.errors import UserError
from pipelines.records import Kind, Prompt, content_id

UNKNOWN_LICENSE = "unknown"
NO_CATEGORY = "uncategorised"
SLOT = "{behaviour}"
KINDS: tuple[Kind, ...] = get_args(Kind)


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


def most_prompts(pool: PromptPool, bare_share: float) -> tuple[int, int]:
    """How many harmful and benign prompts `draw` takes of a pool where neither number is given."""
    return sum(_split_harmful(pool, None, bare_share)), len(pool.benign)


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
