"""A release's prompts and settings with another teacher. Reads a release; writes a run folder."""

from collections.abc import Mapping
from typing import Unpack

from pipelines.errors import UserError
from saferthoughts.release import Release, release_path
from saferthoughts.run import Run
from saferthoughts.settings import Agreement, AnsweringSettings, StoredPath, consent_of, path_of, runs_folder


def regenerate(
    release: Release | StoredPath,
    name: str,
    *,
    judges: Mapping[str, str] | None = None,
    runs: StoredPath | None = None,
    agree: Agreement = False,
    **who: Unpack[AnsweringSettings],
) -> Run:
    """Start a run like the one behind a release, with another teacher: same prompts, variants, judges and settings.

    >>> import saferthoughts as st
    >>> st.regenerate("runs/demo/release", "again", teacher="rehearsal", agree=True).config.variants
    ('direct', 'improved')

    Args:
        release: The release, its folder, or ORG/NAME@VERSION on the Hub.
        name: The new run's name.
        judges: Who judges in a judge's name: an entry by the judge's name.
        runs: The folder of run folders.
        agree: Whether what will be asked of whom is agreed to, or a function that is given it and raises where not.
        who: Who answers now; see `AnsweringSettings`.

    Raises:
        UserError: an unknown teacher, a judge without one, a run of that name, or no consent.
    """
    from cards.release.regenerate import Answering
    from cards.release.regenerate import regenerate as start_again
    from pipelines.settings.options import teacher_at

    place = who.get("base_url"), who.get("model"), who.get("api_key_env")
    if who.get("teacher") is None and not any(place):
        raise UserError(
            "Who answers now? Give --teacher NAME (see: saferthoughts teachers list), or --base-url and --model."
        )
    answering = Answering(
        who.get("teacher") or teacher_at(*place),
        who.get("general_teacher"),
        path_of(who.get("teachers")),
        who.get("teacher_name"),
        judges or {},
    )
    return Run(start_again(release_path(release), runs_folder(runs), name, answering, consent_of(agree, _refuse)))


def _refuse(text: str) -> None:
    raise UserError(f"{text}\nNothing was begun. Agree to what is shown with agree=True.")
