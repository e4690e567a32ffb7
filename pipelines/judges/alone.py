"""Whether rules alone judged a run, and how that is put into words. Reads a configuration; writes nothing."""

from pipelines.settings.config import RunConfig

RULES_ALONE = (
    "Judged by rules alone: they find a part of the patterns, and nobody looked for unsafe text. "
    "Name models with --judge, e.g. --judge o3 --judge reasoningshield."
)


def rules_alone(config: RunConfig) -> bool:
    """Whether a run with real teachers, or with rows from elsewhere, has no model among its judges."""
    rehearsed = any(teacher.embedded for teacher in config.teachers.values())
    return not rehearsed and all(config.judges[name].kind == "rules" for name in config.judging.judges)
