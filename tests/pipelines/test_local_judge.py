"""Local judges and cascades on a run of the rehearsal teacher, with an encoder of random weights that is made here."""

import doctest
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipelines.errors import UserError
from pipelines.files import file_hash
from pipelines.generate.stage import generate
from pipelines.judges.local import limits, model
from pipelines.judges.local.cascade import Cascade, settled
from pipelines.judges.local.limits import NOTHING, decides, errors_of, limits_of, most_errors, sample_size
from pipelines.judges.local.model import Score, digest_of, load_local_judge
from pipelines.judges.patterns import UNSCORED, PatternVerdict
from pipelines.judges.stage import judge, rows_of
from pipelines.prompts.stage import start
from pipelines.records import LABELS, PATTERNS, Judgement, from_table
from pipelines.rehearsal.truth import truth_of
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from pipelines.settings.judge import Judge
from pipelines.settings.options import Options, configured
from tests.commands import command


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sentence-transformers: a BERT of one small layer, with the tokenizer of the package's model."""
    import torch
    from transformers import BertConfig, BertModel

    from training.local_judge.encoder import bundled_encoder

    folder = tmp_path_factory.mktemp("encoder")
    shutil.copy(bundled_encoder() / "tokenizer.json", folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """400 responses to harmful prompts, judged by the rehearsal judge."""
    options = Options(harmful=50, benign=2, seed=3, teacher="rehearsal", variants=("direct",), sets=("samples=8",))
    run = start(tmp_path_factory.mktemp("home") / "runs", "big", configured(options)).run
    generate(run)
    judge(changed(run, "rehearsal-judge"))
    return run


def changed(run: RunFolder, *judges: str, sets: tuple[str, ...] = ()) -> RunFolder:
    from pipelines.settings.changes import change

    change(run, Options(judges=judges, sets=sets))
    return run


@pytest.fixture(scope="session")
def distilled(big: RunFolder, encoder: Path) -> Path:
    home = big.path.parents[1]
    done = command(["judge", "distill", "big", "--out", "local", "--encoder", str(encoder)], home)
    assert done.returncode == 0, done.stderr
    assert "recall at 1 %" in done.stdout
    return home / "local"


@pytest.fixture
def copy(big: RunFolder, tmp_path: Path) -> RunFolder:
    shutil.copytree(big.path, tmp_path / "runs" / "big")
    return RunFolder.open(tmp_path / "runs", "big")


def test_distilled_folder_has_figures_card_and_plot_and_is_no_pickle(distilled: Path) -> None:
    facts = json.loads((distilled / "judge.json").read_text(encoding="utf-8"))
    assert facts["labels"] == list(PATTERNS)
    assert facts["origin"]["rows"] == 400
    assert facts["origin"]["prompts"] == 50
    for label in PATTERNS:
        measured = facts["measures"][label]
        assert sum(point["rows"] for point in measured["reliability"]) == 400
        for at in measured["recall"].values():
            assert at["low"] <= at["recall"] <= at["high"]
            assert at["false_positives"] <= 0.05 * at["negatives"]
    # What a judge that knows nothing cannot reach.
    assert facts["measures"]["lack_of_safety_awareness"]["recall"]["0.05"]["recall"] > 0.7
    card = (distilled / "README.md").read_text(encoding="utf-8")
    assert digest_of(distilled)[:12] in card
    assert "rehearsal teacher" in card
    names = {path.name for path in distilled.iterdir()}
    assert names == {
        "README.md", "judge.json", "judge.safetensors", "tokenizer.json", "reliability.svg", "reliability.png"
    }  # fmt: skip


def test_too_few_rows_are_counted_and_nothing_is_written(judged: RunFolder) -> None:
    home = judged.path.parents[1]
    refused = command(["judge", "distill", "small", "--out", "local"], home)
    assert refused.returncode == 2
    assert "a model that judges the patterns" in refused.stderr
    judge(changed(judged, "rehearsal-judge"))
    few = command(["judge", "distill", "small", "--out", "local"], home)
    assert few.returncode == 2
    assert re.search(r"weak_vacillation: \d+ rows of \d+ prompts with it, and it takes 30 of 15", few.stderr)
    assert not (home / "local").exists()


def test_folder_that_is_there_is_not_written_over(distilled: Path, big: RunFolder) -> None:
    with pytest.raises(UserError, match="is there already"):
        from training.local_judge.distill import distil

        distil(big, distilled)


def test_panel_takes_a_local_judge_by_its_folder(copy: RunFolder, distilled: Path) -> None:
    home = copy.path.parents[1]
    mine = Path(shutil.copytree(distilled, home / "mine"))
    done = command(["judge", "big", "--judge", "local:mine", "--judge", "rules"], home)
    assert done.returncode == 0, done.stderr
    config = load_config(copy)
    assert config.judging.judges == ("mine", "rules")
    assert config.judges["mine"].digest == digest_of(mine)
    own = [item for item in from_table(Judgement, copy.read("judgements")) if item.judge == "mine"]
    truth = {row.response.response_id: truth_of(row.response.reasoning, row.response.answer) for row in rows_of(copy)}
    harmful = [item for item in own if not item.reason and item.compliance is None]
    assert len(harmful) == 400
    right = sum(item.strong_vacillation == truth[item.response_id].labels["strong_vacillation"] for item in harmful)  # type: ignore[union-attr]
    assert right >= 0.9 * 400
    for item in harmful:
        assert item.requests == 0
        assert item.overthinking == (item.strong_vacillation or item.weak_vacillation or item.harmful_additions)
        assert not (item.overthinking and item.lack_of_safety_awareness)
        # Every label that is set quotes a sentence, with its place.
        assert {span["label"] for span in json.loads(item.spans) if span["part"]} == {
            label for label in PATTERNS if getattr(item, label)
        }
    # The run goes on by the version that it began with.
    facts = json.loads((mine / "judge.json").read_text(encoding="utf-8"))
    (mine / "judge.json").write_text(json.dumps(facts | {"origin": {}}), encoding="utf-8")
    refused = command(["judge", "big"], home)
    assert refused.returncode == 2
    assert "has changed" in refused.stderr
    assert "Traceback" not in refused.stderr


def _tensors(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        tensors = load_file(folder / "judge.safetensors")
        change(tensors)
        save_file(tensors, folder / "judge.safetensors")
        _renamed(folder, {})

    return spoil


def _renamed(folder: Path, changes: dict[str, Any]) -> None:
    """Change judge.json, with digests that fit."""
    facts = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
    sums = {name: file_hash(folder / name) for name in ("judge.safetensors", "tokenizer.json")}
    (folder / "judge.json").write_text(json.dumps(facts | {"sha256": sums} | changes), encoding="utf-8")


def _tokens(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    _renamed(folder, {})


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "not finite": (_tensors(lambda found: found["row"].__setitem__((0, 0), np.nan)), "not finite"),
    "too few columns": (
        _tensors(lambda found: found.update(sentence=found["sentence"][:, :-1].copy())),
        "does not fit",
    ),
    "another type": (_tensors(lambda found: found.update(combine=found["combine"].astype(np.float64))), "does not fit"),
    "one more tensor": (_tensors(lambda found: found.update(more=found["combine"].copy())), "'more'"),
    "one tensor less": (_tensors(lambda found: found.__delitem__("foretell")), "does not fit"),
    "pickle": (lambda folder: (folder / "judge.safetensors").write_bytes(b"\x80\x04K\x01.") and None, "sha256 differs"),
    "no tokenizer": (_tokens, "no local judge that can be read"),
    "file missing": (lambda folder: (folder / "tokenizer.json").unlink(), "it has no tokenizer.json"),
    "other labels": (lambda folder: _renamed(folder, {"labels": ["evil"]}), "labels must be among"),
    "other format": (lambda folder: _renamed(folder, {"format": "x"}), "has format 'x'"),
    "other dimensions": (lambda folder: _renamed(folder, {"dimensions": 7}), "does not fit"),
    "unknown key": (lambda folder: _renamed(folder, {"code": "x"}), "code"),
}


@pytest.mark.parametrize("spoil", SPOILT)
def test_folder_from_outside_is_read_strictly(spoil: str, distilled: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(distilled, tmp_path / "judge"))
    change, words = SPOILT[spoil]
    change(folder)
    with pytest.raises(UserError, match=re.escape(words)) as caught:
        load_local_judge(folder, digest_of(folder))
    assert "\n" not in str(caught.value)


def test_folder_that_changes_while_it_is_read_is_not_taken_for_its_version(
    distilled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(distilled, tmp_path / "judge"))
    digest = digest_of(folder)
    check = model._check

    def replaced(*read: Any) -> None:
        _renamed(folder, {"origin": {}})
        check(*read)

    monkeypatch.setattr(model, "_check", replaced)
    with pytest.raises(UserError, match="has changed"):
        load_local_judge(folder, digest)


def test_cascade_asks_less_says_so_and_goes_on_after_a_stop(copy: RunFolder, distilled: Path) -> None:
    home = copy.path.parents[1]
    words = ["judge", "big", "--judge", f"cascade:{distilled},rehearsal-judge"]
    wide = ["--set", "judges.cascade-rehearsal-judge.lost=0.1", "--set", "judges.cascade-rehearsal-judge.sure=0.8"]
    changed(copy, *words[3:])
    (copy.path / "ledger.sqlite").unlink()
    stopped = command(["judge", "big", *wide, "--max-tokens", "30000"], home)
    assert stopped.returncode == 1, stopped.stderr
    done = command(["judge", "big"], home)
    assert done.returncode == 0, done.stderr
    stage = copy.stage("judge")
    assert stage is not None
    facts = stage["cascades"]["cascade-rehearsal-judge"]
    assert facts["rows"] == 400
    assert facts["decided"] > 50
    assert f"{facts['spared']} spared" in done.stdout
    own = [
        item for item in from_table(Judgement, copy.read("judgements")) if not item.reason and item.compliance is None
    ]
    assert sum(item.requests == 0 for item in own) == facts["decided"] == facts["spared"]
    assert sum(item.requests for item in own) <= facts["asked"]
    before = copy.read("judgements")
    again = command(["judge", "big"], home)
    assert again.returncode == 0
    assert copy.read("judgements") == before
    command(["check", "big"], home)
    command(["report", "big"], home)
    page = (copy.path / "report.html").read_text(encoding="utf-8")
    assert f"a local judge decided {facts['decided']} of 400 responses" in page


def test_what_is_no_cascade_is_one_line(copy: RunFolder, distilled: Path) -> None:
    home = copy.path.parents[1]
    for name, words in {
        "cascade:rehearsal-judge": "is no cascade",
        f"cascade:{distilled},rehearsal-shield": "is none",
        f"cascade:{distilled},o4": "Unknown judge of a cascade 'o4'",
        "local:nowhere": "it has no judge.json",
    }.items():
        refused = command(["judge", "big", "--judge", name], home)
        assert refused.returncode == 2, name
        assert words in refused.stderr
        assert "Traceback" not in refused.stderr


class Knowing:
    """Stands in for a local judge that knows the truth, so that only drift makes it wrong."""

    record = SimpleNamespace(labels=PATTERNS)

    def scores(self, responses: list[tuple[str, str]]) -> list[tuple[None, dict[str, Score]]]:
        found = []
        for pair in responses:
            truth = truth_of(*pair)
            assert truth is not None
            found.append((None, {label: Score(0.9 if truth.labels[label] else 0.1, None) for label in PATTERNS}))
        return found


@pytest.mark.parametrize("drifts", [True, False])
def test_drift_is_noticed_and_stops_the_saving(drifts: bool, big: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the rows is another model's; of these the LLM says the opposite of what the local judge finds."""
    monkeypatch.setattr("pipelines.judges.local.cascade.local_judge_of", lambda entry: Knowing())
    entry = Judge(kind="patterns", teacher="t", folder="f", digest="d", lost=0.2)
    rows = [row for row in rows_of(big) if row.kind == "harmful"]
    rows = [
        replace(row, response=replace(row.response, model="new")) if number % 3 == 0 else row
        for number, row in enumerate(rows)
    ]
    cascade = Cascade("one", entry, rows, seed=0)
    for row in filter(cascade.drew, rows):
        truth = truth_of(row.response.reasoning, row.response.answer)
        assert truth is not None
        wrong = drifts and row.response.model == "new"
        cascade.learn(row, PatternVerdict({**UNSCORED, **{one: truth.labels[one] != wrong for one in PATTERNS}}))
    facts = cascade.facts()
    assert list(facts.left) == (["new, en"] if drifts else [])
    assert (facts.clean, facts.flagged) == (0.5, pytest.approx(0.5))
    assert not facts.reason


def test_bound_holds_in_as_many_runs_as_it_says() -> None:
    """Scores that say little, so that limits matter: seeded, so that a run repeats exactly."""
    chance = np.random.default_rng(0)
    rows, bound, sure, broken = 4000, 0.05, 0.9, 0
    runs = 200
    for _ in range(runs):
        truth = chance.random((rows, 5)) < 0.1
        probabilities = np.clip(chance.normal(np.where(truth, 0.75, 0.2), 0.15), 0, 1)
        size = sample_size(rows, float(truth.any(axis=1).mean()), bound, sure)
        found = limits_of(probabilities[:size], truth[:size], bound, sure)
        assert decides(probabilities, found).any()
        errors = errors_of(probabilities, truth, found)
        broken += errors.missed > bound * errors.flagged
    # At 0.1 a share above 0.16 has a chance of 1 in 300.
    assert 0.02 < broken / runs < 0.16
    assert most_errors(229, 0.01, 0.9) == -1
    assert limits_of(probabilities[:20], truth[:20], 0.01, 0.9) == NOTHING
    assert sample_size(300, 0.5, 0.01, 0.9) == sample_size(0, 0.5, 0.01, 0.9) == 0
    assert doctest.testmod(limits).failed == 0


def test_verdicts_that_differ_are_settled_by_most() -> None:
    def verdict(*labels: str) -> PatternVerdict:
        return PatternVerdict({**dict.fromkeys(LABELS, False), **dict.fromkeys(labels, True)})

    weak, none, lacks = verdict("weak_vacillation", "overthinking"), verdict(), verdict("lack_of_safety_awareness")
    assert settled([weak, none]) is None
    found = settled([weak, none, none, none])
    assert found is not None
    assert not any(found.labels.values())
    found = settled([weak, none, weak, none, weak])
    assert found is not None
    assert found.labels["overthinking"]
    assert found.labels["weak_vacillation"]
    found = settled([lacks, lacks, lacks])
    assert found is not None
    assert found.labels["lack_of_safety_awareness"]
