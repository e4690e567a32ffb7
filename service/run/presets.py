"""What the form of a new run begins with: the configuration's defaults, or a preset's figures.

Defaults are `RunConfig`'s, the study's figures those of `study run table1`; nothing is typed twice.
"""

from pathlib import Path
from typing import Any

from pipelines.errors import UserError, unknown
from pipelines.file_marks import KeptWhileUnchanged, folder_mark
from pipelines.prompts.prompt_files import load_pool
from pipelines.prompts.prompt_sets import most_prompts
from pipelines.settings.config import RunConfig, Selection
from saferthoughts.studies.spec import load_study
from service.app_state import BUNDLED, AppState
from service.page.forms import Form

PRESETS = {
    "try": "Try it out (rehearsal teacher, no model)",
    "mine": "100 prompts of mine",
    "study": "The study's size, variants and judge",
}
_MINE = 100
_TRY = {"harmful": 12, "benign": 6, "judges": ("rehearsal-judge", "rehearsal-shield"), "reasoning": "rehearsal"}
_kept: KeptWhileUnchanged[tuple[int, int]] = KeptWhileUnchanged(64)


def begun(state: AppState, preset: str | None, source: str | None, kind: str | None) -> tuple[Form, str]:
    """A form filled in, and a line on what does not fit yet.

    Args:
        state: The service's parts.
        preset: One of `PRESETS`; None for the defaults alone.
        source: A prompt set's name; a set of the user's own, where there is one and the preset is for it.
        kind: Of prompts whose file names none.

    Raises:
        UserError: no such preset or set.
    """
    if preset is not None and preset not in PRESETS:
        raise unknown("preset", preset[:80], PRESETS)
    own = [name for name in state.prompt_sets() if name != BUNDLED]
    source = source or (own[0] if own and preset in ("mine", "study") else BUNDLED)
    default = RunConfig()
    values: dict[str, Any] = {
        "source": source,
        "kind": kind or "",
        "bare_share": default.prompts.bare_share,
        "seed": default.seed,
        "samples": default.samples,
        "variants": default.variants,
        "judges": default.judging.judges,
        "attempts": default.repair.attempts,
        "strategy": default.repair.strategy,
    }
    place, message = state.prompt_source(source), ""
    try:
        harmful, benign = _most(place, kind or None, default.prompts.bare_share)
        values |= {"harmful": harmful, "benign": benign, **_figures(preset, harmful, benign)}
        if preset == "study" and (values["harmful"] > harmful or values["benign"] > benign):
            message = (
                f"The set '{source}' has {harmful} harmful and {benign} benign prompts, fewer than the study drew."
            )
        elif preset == "mine" and not own:
            message = "There is no prompt set of yours yet: the service takes some with --prompts FOLDER."
    except UserError as error:
        message = str(error).replace(place, source)
    fields = {
        name: list(map(str, value)) if isinstance(value, tuple) else [str(value)] for name, value in values.items()
    }
    return Form(fields), message


def _figures(preset: str | None, harmful: int, benign: int) -> dict[str, Any]:
    if preset == "try":
        return _TRY
    if preset == "mine":
        share = Selection().benign / Selection().harmful
        return {"harmful": min(harmful, _MINE), "benign": min(benign, round(_MINE * share))}
    if preset == "study":
        run = load_study("table1").runs["r1"]
        return {
            "harmful": run["harmful"],
            "benign": run["benign"],
            "variants": tuple(run["variant"]),
            "judges": tuple(run["judge"]),
            "reasoning": run["teacher"],
            "general": run["general-teacher"],
            "attempts": run["set"]["repair.attempts"],
        }
    return {}


def _most(place: str, kind: str | None, bare_share: float) -> tuple[int, int]:
    def read() -> tuple[int, int]:
        return most_prompts(load_pool(place, kind), bare_share)

    return _kept.get((place, kind, bare_share), lambda: folder_mark(Path(place)), read)
