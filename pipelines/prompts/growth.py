"""More or fewer prompts for a run that has some: as many as can stay do, and so does what was paid for their answers.

Reads and writes nothing; `pipelines/prompts/stage.py` calls it. A fresh draw of a larger number is level over
templates, but shares only a part of its prompts with a smaller one.
"""

from collections import Counter
from collections.abc import Collection, Sequence

from pipelines.prompts.prompt_sets import PromptPool, Request, Template, draw, filled
from pipelines.records import Kind, Prompt, content_id
from pipelines.settings.config import RunConfig


def drawn_or_grown(
    pool: PromptPool, after: RunConfig, before: RunConfig | None, present: Collection[Prompt]
) -> list[Prompt]:
    """The prompts of a run: a fresh draw, or those that it has with further ones where only more are asked for.

    Raises:
        UserError: there are not as many.
    """
    wanted = after.prompts
    fresh = draw(pool, wanted.harmful, wanted.benign, after.seed, wanted.bare_share)
    if before is None or after.seed != before.seed or _apart(before) != _apart(after):
        return fresh
    grown: list[Prompt] = []
    for kind in ("harmful", "benign"):
        kept = [prompt for prompt in present if prompt.kind == kind]
        mine = [prompt for prompt in fresh if prompt.kind == kind]
        grown += _resized(_combinations(pool, kind), kept, mine, after.seed)
    return sorted(grown, key=lambda prompt: prompt.prompt_id)


def _apart(config: RunConfig) -> object:
    return config.prompts.model_copy(update={"harmful": None, "benign": None})


Combination = tuple[Request, Template | None, Prompt]


def _resized(combinations: list[Combination], kept: list[Prompt], fresh: list[Prompt], seed: int) -> list[Prompt]:
    """As many prompts as `fresh` has, and as many of them bare: `kept` and further ones, or a part of `kept`."""
    known = {prompt.prompt_id for prompt in kept}
    if not known <= {prompt.prompt_id for _, _, prompt in combinations}:
        return fresh
    found: list[Prompt] = []
    if len(kept) <= len(fresh):
        found = list(kept)
    else:
        combinations = [one for one in combinations if one[2].prompt_id in known]
    for bare in (True, False):
        candidates = [one for one in combinations if (one[1] is None) == bare]
        count = sum((not prompt.template_id) == bare for prompt in fresh)
        count -= sum((not prompt.template_id) == bare for prompt in found)
        if not 0 <= count <= len(candidates):
            return fresh
        found += _further(candidates, found, count, seed)
    return found


def _combinations(pool: PromptPool, kind: Kind) -> list[Combination]:
    if kind == "benign":
        return [(item, None, filled(kind, item)) for item in pool.benign]
    templates: list[Template | None] = [None, *pool.templates]
    return [(item, template, filled(kind, item, template)) for item in pool.behaviours for template in templates]


def _further(combinations: Sequence[Combination], found: Sequence[Prompt], count: int, seed: int) -> list[Prompt]:
    """`count` prompts more, each of the category that has least, its template and behaviour used least."""
    taken = {prompt.prompt_id for prompt in found}
    categories = Counter(prompt.category for prompt in found)
    templates = Counter(prompt.template_id for prompt in found)
    behaviours = Counter(prompt.behaviour_id for prompt in found)
    left: dict[str, dict[str, list[tuple[str, Prompt]]]] = {}
    for item, template, prompt in combinations:
        if prompt.prompt_id not in taken:
            rank = content_id(seed, item.text, template.text if template else "")
            left.setdefault(prompt.category, {}).setdefault(prompt.template_id, []).append((rank, prompt))
    order = {name: content_id(seed, name) for name in [*left, *(name for of in left.values() for name in of)]}
    chosen = []
    for _ in range(count):
        category = min(left, key=lambda name: (categories[name], order[name]))
        within = left[category]
        template_id = min(within, key=lambda name: (templates[name], order[name]))
        pick = min(within[template_id], key=lambda pair: (behaviours[pair[1].behaviour_id], pair[0]))
        within[template_id].remove(pick)
        if not within[template_id]:
            del within[template_id]
        if not within:
            del left[category]
        prompt = pick[1]
        chosen.append(prompt)
        categories[prompt.category] += 1
        templates[prompt.template_id] += 1
        behaviours[prompt.behaviour_id] += 1
    return chosen
