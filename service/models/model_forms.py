"""The page's forms of trainings and evaluations as API requests. Empty fields are omitted."""

from pipelines.settings.parts import validated
from service.models.model_shapes import EvaluationWanted, PushWanted, Question, TrainingSettings, TrainingWanted
from service.page.forms import Form

_ROWS = "rows."


def training_in(form: Form) -> TrainingWanted:
    """The training of a form.

    Raises:
        UserError: a field does not fit.
    """
    values: dict[str, object] = {**_filled(form, "recipe", "name", "objective", "student", "release")}
    mixture: object = form.text("mixture").strip()
    if not mixture:
        counts = {field.removeprefix(_ROWS): form.text(field).strip() for field in form.names(_ROWS)}
        mixture = {config: count for config, count in counts.items() if count not in ("", "0")}
    if mixture:
        values["mixture"] = mixture
    values["settings"] = _filled(form, *TrainingSettings.model_fields)
    values["replace"] = bool(form.text("replace"))
    return validated(TrainingWanted, values, "the form")


def evaluation_in(form: Form) -> EvaluationWanted:
    """The evaluation of a form; what is measured is RUN/STUDENT, or a teacher as :NAME.

    Raises:
        UserError: a field does not fit.
    """
    fields = ("name", "suite", "protocol", "limit", "score", "guard", "judge", "attacker", "release")
    values: dict[str, object] = {**_filled(form, *fields)}
    measured = form.text("measured")
    if measured.startswith(":"):
        values["teacher"] = measured[1:]
    else:
        values["run"], _, student = measured.partition("/")
        values["student"] = student or "model"
    base, _, variant = form.text("row").partition(" | ")
    values |= {"base": base, "variant": variant, "tasks": form.texts("tasks"), "replace": bool(form.text("replace"))}
    return validated(EvaluationWanted, values, "the form")


def question_in(form: Form) -> Question:
    """The question of a form.

    Raises:
        UserError: a field does not fit.
    """
    values = {**_filled(form, "text", "max_tokens"), "beside_base": bool(form.text("beside_base"))}
    return validated(Question, values, "the form")


def push_in(form: Form) -> PushWanted:
    """Where a student is to go.

    Raises:
        UserError: a field does not fit.
    """
    return validated(PushWanted, {**_filled(form, "repo"), "private": bool(form.text("private"))}, "the form")


def _filled(form: Form, *names: str) -> dict[str, str]:
    return {name: value for name in names if (value := form.text(name).strip())}
