"""A release's prompts and settings with another teacher. Reads a release; writes a run folder."""

from collections.abc import Callable, Mapping

from pipelines.errors import UserError
from saferthoughts.release import Release, release_path
from saferthoughts.run import Run
from saferthoughts.settings import Agreement, StoredPath, path_of, runs_folder


def regenerate(
    release: Release | StoredPath,
    name: str,
    *,
    teacher: str | None = None,
    general_teacher: str | None = None,
    teachers: StoredPath | None = None,
    base_url: str | None = None,
    model: str | None = None,
    api_key_env: str | None = None,
    teacher_name: str | None = None,
    judges: Mapping[str, str] | None = None,
    runs: StoredPath | None = None,
    agree: Agreement = False,
) -> Run:
    """Start a run like the one behind a release, with another teacher: same prompts, variants, judges and settings.

    >>> import saferthoughts as st
    >>> st.regenerate("runs/demo/release", "again", teacher="rehearsal", agree=True).config.variants
    ('direct', 'improved')

    Args:
        release: The release, its folder, or ORG/NAME@VERSION on the Hub.
        name: The new run's name.
        teacher: Who answers now: a name of `saferthoughts teachers list`.
        general_teacher: Who answers the variants of a general model instead.
        teachers: A teachers.yaml of your own.
        base_url: An endpoint, in place of a named teacher.
        model: The model to ask for there.
        api_key_env: The environment variable with its key.
        teacher_name: What that teacher is called.
        judges: Who judges in a judge's name: an entry by the judge's name.
        runs: The folder of run folders.
        agree: Whether what will be asked of whom is agreed to, or a function that is given it and raises where not.

    Raises:
        UserError: an unknown teacher, a judge without one, a run of that name, or no consent.
    """
    from cards.regenerate import Answering
    from cards.regenerate import regenerate as start_again
    from pipelines.settings.options import teacher_at

    if teacher is None and not (base_url or model or api_key_env):
        raise UserError(
            "Who answers now? Give --teacher NAME (see: saferthoughts teachers list), or --base-url and --model."
        )
    entry = teacher or teacher_at(base_url, model, api_key_env)
    who = Answering(entry, general_teacher, path_of(teachers), teacher_name, judges or {})
    done = start_again(release_path(release), runs_folder(runs), name, who, _shown_to(agree))
    return Run(done.run)


def _shown_to(agree: Agreement) -> Callable[[str], None] | None:
    def refuse(text: str) -> None:
        raise UserError(f"{text}\nNothing was begun. Agree to what is shown with agree=True.")

    if callable(agree):
        return agree
    return None if agree else refuse
