"""The ledger commands: what was spent, everything as a file, and what is not needed any more."""

import json
from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.errors import UserError
from pipelines.generate.stage import generate
from pipelines.progress import plain_console
from pipelines.records import Prompt, from_table, to_table
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config, save_config
from pipelines.teachers.ledger import Ledger
from saferthoughts.cli.ledgers import ledger_table
from saferthoughts.ledgers import Pruning, export_ledger, prune_ledger, spending


def shown(run: RunFolder) -> str:
    console = plain_console(width=160, record=True, file=StringIO())
    console.print(ledger_table(spending(run)))
    return console.export_text()


def test_show_adds_up_answers_by_model_and_lists_failures(judged: RunFolder) -> None:
    ledger = Ledger(judged.path / "ledger.sqlite")
    ledger.fail("k", "HTTP 500: [red]boom[/red]", fatal=False)
    ledger.close()
    text = shown(judged)
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert rows["rehearsal-r1"][1] == str(12 * 3 + 6)
    assert rows["rehearsal-4o"][1] == str(12 * 2)
    assert "HTTP 500: [red]boom[/red]" in text


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_export_writes_every_answer(judged: RunFolder, tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"answers{ending}"
    assert export_ledger(judged, file) == 66
    if ending == ".jsonl":
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    else:
        rows = pq.read_table(file).to_pylist()
    assert len({row["key"] for row in rows}) == 66
    assert all(row["content"] for row in rows)


def test_export_to_another_format_is_refused(judged: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in neither \.jsonl nor \.parquet"):
        export_ledger(judged, tmp_path / "answers.xlsx")
    assert not (tmp_path / "answers.xlsx").exists()


def test_prune_deletes_only_what_the_plan_does_not_ask_for(judged: RunFolder) -> None:
    prompts = from_table(Prompt, judged.read("prompts"))
    gone = next(prompt for prompt in prompts if prompt.kind == "harmful")
    judged.write("prompts", to_table(Prompt, [prompt for prompt in prompts if prompt != gone]))
    assert prune_ledger(judged, dry_run=True) == Pruning(5, 61)
    assert prune_ledger(judged, dry_run=False) == Pruning(5, 61)
    assert generate(judged).asked == 0


def test_a_wording_of_ones_own_is_asked_with_and_never_trained_on(judged: RunFolder) -> None:
    config = load_config(judged)
    wording = "Answer as a careful librarian would.\n\nQuestion: {{ query }}"
    save_config(judged, config.model_copy(update={"instructions": {"realsafe": wording}}))
    assert generate(judged).asked == 12
    prompts = from_table(Prompt, judged.read("prompts"))
    assert not any("librarian" in prompt.text for prompt in prompts)
