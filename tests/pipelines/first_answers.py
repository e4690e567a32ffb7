"""First questions as answered before, for tests of what follows them."""

from pipelines.runner.preflight import first_key
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from pipelines.teachers.ledger import PREFLIGHT, Ledger
from pipelines.teachers.reply import Reply


def answer_first(run: RunFolder) -> None:
    """Put an answer of each teacher and judge of a run into its ledger."""
    config = load_config(run)
    entries = list(config.teachers.values())
    for judge in config.judges.values():
        if judge.teacher is not None:
            entries.append(config.judge_teachers[judge.teacher].model_copy(update={"sampling": judge.sampling}))
    ledger = Ledger(run.path / "ledger.sqlite")
    for entry in entries:
        reply = Reply("75 minutes.", None, "From 14:50 to 16:05.", "stop", 27, 30, None, 0.1)
        for url in entry.urls:
            ledger.put(first_key(entry, url), entry.model, reply)
            ledger.use(PREFLIGHT, first_key(entry, url))
    ledger.close()
