"""The first lines of a run's report: how much is released, what is wrong with it, what it took, who looked; and the
contents of any report.

Reads the report's figures (`curation/report/data.py`); writes nothing.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

LOOK = Path(__file__).parent
"""The folder of look.css, which reports share."""
_MARKED = r'<h(?P<level>[{levels}])>(?P<title>.+?)</h[{levels}]>|<div class="scroll">|<figure>'


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


def with_contents(page: str, levels: str = "2") -> str:
    """The page with a list of its sections in place of the mark `<!-- contents -->` and an anchor at each; what scrolls
    inside itself, tables and figures, can be reached by the keyboard, and is named by its section.

    Args:
        page: A page whose headings, `<div class="scroll">` and `<figure>` have no attributes yet.
        levels: The digits of the headings that are listed.
    """
    links: list[Markup] = []
    here = ""

    def marked(found: re.Match[str]) -> str:
        nonlocal here
        if found["level"] is None:
            named = f' aria-labelledby="{here}"' if here else ""
            return f'{found[0][:-1]} tabindex="0"{named}' + ("" if found[0] == "<figure>" else ' role="group"') + ">"
        here = f"section-{len(links)}"
        title = Markup(found["title"]).striptags()
        links.append(Markup('<a class="level{}" href="#{}">{}</a>').format(found["level"], here, title))
        return f'<h{found["level"]} id="{here}">{found["title"]}</h{found["level"]}>'

    page = re.sub(_MARKED.format(levels=levels), marked, page)
    return page.replace("<!-- contents -->", f'<nav aria-label="Contents">{" ".join(links)}</nav>', 1)
