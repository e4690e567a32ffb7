"""This project's generation as a user runs it: Distilabel pipeline, ledger, tables and manifest.

python -m benchmarks.contenders.with_saferthoughts RUN_FOLDER, which `prepare` has made.
"""

import sys
from pathlib import Path

from pipelines.errors import UserError
from pipelines.generate.stage import generate
from pipelines.records import Prompt, content_id, to_table
from pipelines.runs import RunFolder
from pipelines.settings.config import RunConfig, save_config
from pipelines.settings.resolving import resolve
from pipelines.settings.teacher import Teacher

TEACHER = "loopback"


def prepare(prompts: list[str], url: str, in_flight: int, folder: Path) -> RunFolder:
    """Make a run that puts each prompt once, as it is and in the given order, to the server at `url`."""
    teachers = {TEACHER: Teacher(model="latency", base_url=url, in_flight=in_flight)}
    config = RunConfig.model_validate({"variants": ["direct"], "roles": {"reasoning": TEACHER, "general": TEACHER}})
    run = RunFolder.create(folder, "run")
    save_config(run, resolve(config, teachers))
    rows = [
        Prompt(content_id(text), "benign", f"request-{number}", "", "", text, text, "benchmark", "apache-2.0")
        for number, text in enumerate(prompts)
    ]
    run.write("prompts", to_table(Prompt, rows))
    return run


def _main(path: Path) -> None:
    try:
        done = generate(RunFolder.open(path.parent, path.name))
    except UserError as error:
        sys.exit(str(error))
    if done.failed:
        sys.exit(f"{done.failed} answers are missing: {done.failures.reasons[0][0]}")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
