"""The page's forms as API requests. Empty fields are omitted; one that does not fit is a `UserError`."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from pipelines.settings.parts import Part, validated
from service.http.shapes import Again, Budget, NewRun, PublishWanted, PulledAgain, ReviewWanted
from service.review.argilla import MOST_PEOPLE

# A name that the API takes and no run will have: an estimate needs none.
_NO_NAME = "estimate"


class Form:
    """The fields of a posted form."""

    def __init__(self, fields: Mapping[str, list[str]]) -> None:
        self._fields = fields

    @property
    def empty(self) -> bool:
        """Whether nothing was filled in yet."""
        return not self._fields

    def text(self, name: str, default: str = "") -> str:
        """A field's first value."""
        return self._fields.get(name, [default])[0]

    def texts(self, name: str) -> list[str]:
        """All values of a field, such as boxes that are ticked."""
        return [value for value in self._fields.get(name, []) if value]

    def names(self, begins: str) -> list[str]:
        """The names of fields that begin so."""
        return [name for name in self._fields if name.startswith(begins)]

    def ticked(self, name: str, value: str, default: bool) -> bool:
        """Whether a box is to be shown ticked."""
        return default if self.empty else value in self.texts(name)


def budget_in(form: Form) -> Budget:
    """The budget of a form."""
    return validated(Budget, _filled(form, "max_cost", "max_tokens"), "the budget")


def new_run_in(form: Form, named: bool = True) -> NewRun:
    """The new run of a form."""
    prompts = _filled(form, "harmful", "benign", "bare_share", "kind") | {"source": form.text("source", "bundled")}
    config: dict[str, Any] = _filled(form, "seed", "samples") | {"prompts": prompts}
    if variants := form.texts("variants"):
        config["variants"] = variants
    if roles := _filled(form, "reasoning", "general"):
        config["roles"] = roles
    if judges := form.texts("judges"):
        config["judging"] = {"judges": judges}
    if repair := _filled(form, "attempts", "strategy"):
        config["repair"] = repair
    if requires := _filled(form, "reviewed", "unsafe_upper_bound"):
        config["release"] = {"requires": requires}
    name = form.text("name").strip() if named else _NO_NAME
    budget = _filled(form, "max_cost", "max_tokens")
    return validated(NewRun, {"name": name, "config": config, "budget": budget}, "the form")


def again_in(form: Form, release: str) -> Again:
    """A release's recipe again."""
    values = _filled(form, "name", "teacher", "general_teacher") | {"release": release}
    return validated(Again, values, "the form")


def pulled_again_in(form: Form) -> PulledAgain:
    """The recipe of somebody else's release again."""
    judges = dict(part.partition("=")[::2] for part in form.text("judges").split())
    values = _filled(form, "name", "teacher", "general_teacher", "agreed") | {"judges": judges}
    return validated(PulledAgain, values, "the form")


def review_in(form: Form) -> ReviewWanted:
    """Which rows are to go to how many people."""
    values = _filled(form, "votes", "rows", "min_votes") | {"assist": bool(form.text("assist"))}
    return validated(ReviewWanted, values, "the form")


def people_in(form: Form) -> int:
    """How many people's accounts there are to be."""
    return validated(_People, _filled(form, "people"), "the form").people


class _People(Part):
    people: int = Field(default=2, ge=1, le=MOST_PEOPLE)


def publish_in(form: Form) -> PublishWanted:
    """Where a release is to go."""
    boxes = {name: bool(form.text(name)) for name in ("private", "gated", "dry_run")}
    return validated(PublishWanted, _filled(form, "repo") | boxes, "the form")


def _filled(form: Form, *names: str) -> dict[str, str]:
    return {name: value for name in names if (value := form.text(name).strip())}
