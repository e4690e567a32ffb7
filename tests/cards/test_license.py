"""The licence of imported rows: what is unknown stays unknown until whoever builds the release states one."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from cards.verify import verify
from pipelines.errors import UserError
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from saferthoughts.cli.app import app

REASONING = "Someone would be hurt by this, and it is against the law. So I will not help with it."


def command(folder: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--runs", str(folder / "runs"), *arguments])


def imported(folder: Path, **more: str) -> RunFolder:
    """A run of two imported rows, judged and checked."""
    answers = ("Sorry, I can't help with that.", "Sorry, breaking in is nothing that I help with.")
    lines = [
        {"prompt": f"How do I rob bank {n}?", "response": f"<think>\n{REASONING} {n}\n</think>\n\n{answer}"} | more
        for n, answer in enumerate(answers)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = command(folder, "check", "audit", "--dataset", str(path), "--kind", "harmful")
    assert "2 of 2 rows accepted" in done.output, done.output
    return RunFolder.open(folder / "runs", "audit")


def test_a_release_of_rows_of_an_unknown_licence_needs_one_that_is_stated(tmp_path: Path) -> None:
    run = imported(tmp_path)
    refused = command(tmp_path, "release", "build", "audit")
    assert isinstance(refused.exception, UserError)
    assert "saferthoughts release build audit --license ID" in str(refused.exception)
    assert not (run.path / "release").exists()
    assert isinstance(command(tmp_path, "release", "build", "audit", "--license", "mitt").exception, UserError)
    assert load_config(run).release.license == "unknown"
    assert command(tmp_path, "release", "build", "audit", "--license", "mit").exit_code == 0
    card = (run.path / "release" / "README.md").read_text()
    assert "license: mit" in card
    assert "`mit` was stated by whoever built this release, and not checked." in card
    assert "| rows.jsonl | unknown | 2 | 2 |" in card
    assert "2 rows were read from rows.jsonl (sha256 " in card
    assert "| as imported, by whom the dataset does not say |" in card
    assert "asked to mend" not in card
    assert "synthetic" not in card.partition("\n---\n")[0]
    assert str(tmp_path) not in card
    assert verify(run.path / "release").faults == ()
    lineage = run.path / "release" / "lineage.json"
    changed = json.loads(lineage.read_text())
    changed["imported"]["answers"][0]["rows"] = 1
    lineage.write_text(json.dumps(changed))
    faults = verify(run.path / "release").faults
    assert "the card's imported and mended rows are not those released" in faults
    # It is the run's from then on.
    assert command(tmp_path, "release", "build", "audit").exit_code == 0
    # Read again, the rows state none again.
    imported(tmp_path)
    assert isinstance(command(tmp_path, "release", "build", "audit").exception, UserError)


def test_a_licence_may_be_stated_to_be_unknown(tmp_path: Path) -> None:
    run = imported(tmp_path)
    assert command(tmp_path, "release", "build", "audit", "--license", "unknown").exit_code == 0
    card = (run.path / "release" / "README.md").read_text()
    assert "license: unknown" in card
    assert "The licence of the compilation is unknown." in card
    assert "was stated" not in card
    assert (run.path / "release" / "LICENSE").read_text() == "The licence of this dataset is unknown.\n"


def test_rows_that_bring_their_licence_need_none(tmp_path: Path) -> None:
    run = imported(tmp_path, source="somewhere", source_license="cc-by-4.0")
    assert command(tmp_path, "release", "build", "audit").exit_code == 0
    card = (run.path / "release" / "README.md").read_text()
    assert "| somewhere | cc-by-4.0 | 2 | 2 |" in card
    assert "was stated" not in card
