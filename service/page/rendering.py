"""Pages from templates: everything escaped, figures in words.

Reads templates/*.html.jinja. No text of a run is ever taken for markup.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from pipelines.errors import visible_value
from service.models.charts import number

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    autoescape=True,
    finalize=visible_value,
)
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


def duration(seconds: float | None) -> str:
    """Seconds in words of the right size."""
    if seconds is None:
        return "not known yet"
    if seconds < _MINUTE_S:
        return f"{seconds:.0f} s"
    if seconds < _HOUR_S:
        return f"{seconds / _MINUTE_S:.0f} min"
    return f"{seconds / _HOUR_S:.1f} h" if seconds < _DAY_S else f"{seconds / _DAY_S:.1f} days"


def ago(moment: float | None) -> str:
    """How long ago a moment was."""
    return "never" if moment is None else f"{duration(max(time.time() - moment, 0))} ago"


def money(value: float | None) -> str:
    """US dollars."""
    return "no price known" if value is None else f"${value:,.2f}"


def words(label: str) -> str:
    """A column's or label's name as words."""
    return label.replace("_", " ")


_ENVIRONMENT.filters.update(duration=duration, ago=ago, money=money, words=words, figure=number)


def set_places(places: Sequence[object]) -> None:
    """Name the entries of the navigation, which every page shows."""
    _ENVIRONMENT.globals["places"] = list(places)


def render(template: str, /, **values: Any) -> str:
    """A page or a part of one."""
    return _ENVIRONMENT.get_template(f"{template}.html.jinja").render(**values)
