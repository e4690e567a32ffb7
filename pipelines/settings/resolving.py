"""The names in a configuration resolved: the entries of the teachers and judges that it uses become part of it.

Reads what `pipelines/settings/config.py` reads; writes nothing.
"""

from pipelines.errors import UserError, unknown
from pipelines.settings.config import RunConfig, paired_with
from pipelines.settings.judge import Judge, load_judges
from pipelines.settings.teacher import Teacher


def resolve(config: RunConfig, teachers: dict[str, Teacher], asks: bool = True) -> RunConfig:
    """The same configuration with the entries of the teachers and judges it uses, every name in it checked.

    Args:
        config: As it was read.
        teachers: The entries that are known beside its own.
        asks: Whether the run generates; an imported dataset asks judges alone.

    Raises:
        UserError: an unknown variant, teacher or judge, or no teacher.
    """
    names = []
    for name in config.checks.variants:
        config.variant(name)
    for name in [*config.variants, config.benign_variant, *config.instructions, *config.repair.variants]:
        config.variant(name)
        teacher = config.teacher_of(name) if asks else None
        if teacher is not None:
            names.append(teacher)
    known = {**teachers, **config.teachers}
    for teacher in names:
        if teacher not in known:
            raise unknown("teacher", teacher, known)
    judges, asked = _judges_of(config, {**teachers, **config.judge_teachers})
    used = {name: known[name] for name in sorted(set(names))}
    general = config.roles.general or paired_with(config.roles.reasoning)
    roles = config.roles.model_copy(update={"general": general})
    return config.model_copy(update={"teachers": used, "judges": judges, "judge_teachers": asked, "roles": roles})


def _judges_of(config: RunConfig, teachers: dict[str, Teacher]) -> tuple[dict[str, Judge], dict[str, Teacher]]:
    """The entries of the judges that the configuration names or brings along, and of the teachers that they ask."""
    known = {**load_judges(), **config.judges}
    judges = dict(config.judges)
    for name in config.judging.judges:
        if name not in known:
            raise unknown("judge", name, known)
        judges[name] = known[name]
    asked = {}
    for name, judge in judges.items():
        if judge.teacher is None:
            continue
        if judge.teacher not in teachers:
            raise unknown(f"teacher of judge '{name}'", judge.teacher, teachers)
        asked[judge.teacher] = teachers[judge.teacher]
        if asked[judge.teacher].transport == "batch" and name in config.judging.judges:
            raise UserError(f"Judge '{name}' asks '{judge.teacher}', which answers in batches; judges cannot wait.")
    return judges, asked
