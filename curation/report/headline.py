"""The first lines of a run's report: how much is released, what is wrong with it, what it took, who looked.

Reads the report's figures (`curation/report/data.py`); writes nothing.
"""

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

_SECTION = re.compile(r"<h2>(.+?)</h2>")


def headline_of(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the first lines; None for each that nobody measured.

    Returns:
        `answered`, `accepted` and `released` count rows; `config` is the configuration that `unsafe` and `patterns`
        are of, each with shares `before` and `after` repair; `requests` and `cost` (US dollars) are those of all
        stages; `votes` are people's.
    """
    funnel = figures["funnel"] or []
    baselines = {one["variant"] for one in figures["baselines"]}
    of = {(one["config"], one["label"]): one for one in figures["patterns"]}
    judged = [one["config"] for one in funnel if one["config"] not in baselines and (one["config"], "unsafe") in of]
    config = "improved" if "improved" in judged else next(iter(judged), None)
    costs = [one["cost"] for one in figures["costs"] or [] if one["cost"] is not None]

    def total(column: str) -> int | None:
        known = [one[column] for one in funnel if one.get(column) is not None]
        return sum(known) if known else None

    return {
        "answered": total("answered"),
        "accepted": total("accepted"),
        "released": total("released"),
        "config": config,
        "unsafe": of.get((config, "unsafe")),
        "patterns": of.get((config, "any_pattern")),
        "requests": sum(one["requests"] for one in figures["costs"] or []) or None,
        "cost": sum(costs) if costs else None,
        "votes": (figures["people"] or {}).get("votes"),
    }


def with_contents(page: str) -> str:
    """The page with a list of its sections in place of the mark `<!-- contents -->`, and an anchor at each."""
    titles = [Markup(found).striptags() for found in _SECTION.findall(page)]
    numbers = iter(range(len(titles)))
    page = _SECTION.sub(lambda found: f'<h2 id="section-{next(numbers)}">{found[1]}</h2>', page)
    links = (Markup('<a href="#section-{}">{}</a>').format(number, title) for number, title in enumerate(titles))
    return page.replace("<!-- contents -->", f'<nav aria-label="Contents">{" ".join(links)}</nav>', 1)
