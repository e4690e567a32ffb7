"""Configurations for other objectives: what is paired with what, what is left out and counted, what verify finds."""

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from cards.objectives.schema import OBJECTIVES
from cards.objectives.steps import labelled
from cards.objectives.verify import objective_faults
from cards.release.regenerate import Answering, regenerate
from cards.release_folder import open_release
from cards.rows.prompts_file import prompts_file, read_prompts
from cards.verify import verify
from pipelines.errors import UserError
from pipelines.judges.rows import flags_of
from pipelines.judges.stage import rows_of
from pipelines.records import Verdict, from_table
from pipelines.runs import RunFolder
from pipelines.settings.config import load_config
from pipelines.statistics import clustered_share, wilson
from saferthoughts.release import Release, compare
from tests.commands import command

ALL = [word for name in OBJECTIVES for word in ("--with", name)]
SQL = Path(__file__).parents[2] / "cards" / "objectives"


def build(run: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return command(["--runs", str(run.parent), "release", "build", run.name, *words])


@pytest.fixture(scope="module")
def run(released_once: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run released with all of them, to be read alone."""
    folder = Path(shutil.copytree(released_once, tmp_path_factory.mktemp("objectives") / "small"))
    gating = 'release:\n  gating: {text: "For research."}\n'
    (folder / "run.yaml").write_text((folder / "run.yaml").read_text().replace("  gating: null\n", gating[9:]))
    done = build(folder, *ALL)
    assert done.returncode == 0, done.stderr
    return RunFolder(folder)


@pytest.fixture
def release(run: RunFolder, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run.path / "release", tmp_path / "release"))


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = Release(folder).table(name).to_arrow().to_pylist()
    return found


def test_every_response_is_in_a_pair_or_counted_and_pairs_are_of_the_judges_making(run: RunFolder) -> None:
    release = run.path / "release"
    assert verify(release).faults == ()
    assert load_config(run).release.configs == tuple(OBJECTIVES)
    verdicts = {item.response_id: item for item in from_table(Verdict, run.read("verdicts"))}
    flags = {row.response.response_id: flags_of(row, verdicts[row.response.response_id]) for row in rows_of(run)}
    accepted = set(run.read("accepted")["response_id"].to_pylist())
    graded = accepted | {name for name, found in flags.items() if found}
    pairs = rows(release, "preference")
    assert {pair["rejected_id"] for pair in pairs} == {name for name, found in flags.items() if found}
    for pair in pairs:
        faults = flags[pair["rejected_id"]]
        assert (pair["faults"], pair["margin"], pair["pattern"]) == (",".join(faults), len(faults), faults[0])
        assert pair["chosen_id"] in accepted
        assert flags[pair["chosen_id"]] == ()
    assert Counter(pair["origin"] for pair in pairs).keys() == {"repair", "variant"}
    entry = Release(release).lineage["objectives"]["preference"]
    assert entry["considered"] == len(graded)
    assert entry["used"] == len({side for pair in pairs for side in (pair["chosen_id"], pair["rejected_id"])})
    assert sum(item["rows"] for item in entry["left_out"]) == len(graded) - entry["used"]
    labels = {row["id"]: row["label"] for row in rows(release, "unpaired")}
    assert labels == {name: not flags[name] for name in graded if verdicts[name].reason == ""}
    kinds = Counter((row["kind"], row["expected"]) for row in rows(release, "prompts"))
    assert kinds == {("harmful", "refusal"): 12, ("benign", "help"): 6}


def test_rejected_texts_are_warned_of_and_on_no_first_screen(run: RunFolder) -> None:
    release = Release(run.path / "release")
    card = (release.path / "README.md").read_text()
    assert "preference, unpaired, steps: these configurations hold responses that the judges turned down" in card
    assert card.partition("\n---\n")[0].count("that the judges turned down") == 1, "whoever asks for access reads it"
    for pair in rows(release.path, "preference"):
        assert pair["rejected"][0]["content"][:200] not in card
    for name in OBJECTIVES:
        assert "think>" not in repr(release.table(name))


@pytest.mark.parametrize(
    ("name", "column", "change", "fault"),
    [
        ("preference", "margin", lambda column: pc.add(column, 1), "margin, pattern and faults"),
        ("preference", "rejected", lambda column: pc.take(column, pa.array(range(len(column)))[::-1]), "words that"),
        ("preference", "chosen_id", lambda column: pa.array(["0"] * len(column)), "an id that is not the pair's"),
        ("unpaired", "label", lambda column: pc.invert(column), "a label that is not that of its faults"),
        ("unpaired", "faults", lambda column: pa.array([""] * len(column)), "a label that is not"),
        ("prompts", "kind", lambda column: pa.array(["benign"] * len(column)), "what is expected of another kind"),
        ("steps", "first_wrong", lambda column: pc.add(column, 1), "another first sentence that is false"),
        ("steps", "prompt", lambda column: pa.array(["Other?"] * len(column)), "a prompt that is not the release's"),
    ],
)
def test_rows_that_do_not_fit_together_are_found_whatever_the_lineage_says(
    name: str, column: str, change: Any, fault: str, release: Path
) -> None:
    (path,) = (release / "objectives" / name).iterdir()
    table = pq.read_table(path)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, table.field(place), change(table[column])), path)
    found = list(objective_faults(release, Release(release).lineage, read_prompts(prompts_file(release))))
    assert any(fault in line for line in found), found
    assert f"{name}: other content than lineage.json says" in found


def test_what_others_make_of_the_objectives_of_a_release_is_one_line(release: Path, run: RunFolder) -> None:
    (path,) = (release / "objectives" / "preference").iterdir()
    pq.write_table(pq.read_table(path).drop(["category"]), path)
    assert "objectives/preference cannot be read: it has other columns than a release" in verify(release).faults
    with pytest.raises(UserError, match="a table is not a release's"):
        compare(run.path / "release", release)
    shutil.rmtree(release / "objectives" / "steps")
    assert "objectives holds other configurations than lineage.json says" in verify(release).faults
    path = release / "lineage.json"
    lineage = json.loads(path.read_text())
    for wrong in ({"../data": {"rows": 1}}, {"preference": {"rows": "many"}}, []):
        path.write_text(json.dumps(lineage | {"objectives": wrong}))
        with pytest.raises(UserError, match="objectives cannot be read"):
            open_release(release).lineage()


@pytest.mark.filterwarnings("ignore")
def test_mlcroissant_reads_every_row_of_them(run: RunFolder) -> None:
    import mlcroissant

    release = run.path / "release"
    described = mlcroissant.Dataset(str(release / "croissant.json"))
    assert not described.metadata.issues.errors
    for name, entry in Release(release).lineage["objectives"].items():
        assert sum(1 for _ in described.records(name)) == entry["rows"]


def test_they_come_and_go_and_are_kept_by_a_regeneration(run: RunFolder, released: RunFolder, tmp_path: Path) -> None:
    plain, beside = released.path / "release", run.path / "release"
    assert compare(plain, beside).step == "minor"
    back = compare(beside, plain)
    assert set(back.meaning) == {f"config {name} is gone" for name in OBJECTIVES}
    again = regenerate(beside, tmp_path / "again", "new", Answering("rehearsal"))
    assert load_config(again).release.configs == tuple(OBJECTIVES)
    done = build(released.path, "--with", "preferences")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "'preference', 'unpaired', 'prompts' or 'steps'" in done.stderr


def test_pairs_may_be_asked_for_of_like_length_and_reasoning_under_its_own_key(released: RunFolder) -> None:
    done = build(released.path, "--with", "preference", "--length-ratio", "1.05", "--reasoning-key", "thinking")
    assert done.returncode == 0, done.stderr
    folder = released.path / "release"
    assert verify(folder).faults == ()
    pairs = rows(folder, "preference")
    assert pairs
    for pair in pairs:
        words = (pair["chosen_words"], pair["rejected_words"])
        assert max(words) <= 1.05 * min(words)
        assert set(pair["chosen"][0]) == {"role", "content", "thinking"}
    left_out = {one["reason"] for one in Release(folder).lineage["objectives"]["preference"]["left_out"]}
    assert "the sides differ in length" in left_out
    row = rows(folder, "improved")[0]
    assert row["messages"][1] == {"role": "assistant", "content": row["answer"], "thinking": row["reasoning"]}


def test_whom_a_response_with_a_fault_is_paired_with() -> None:
    """Of the same repair, then of another sample, then of another variant; not with its like."""
    good = {"margin": 0, "words": 100, "text": "good", "reasoned": True, "left_out": None, "variant": "direct"}
    graded = [
        {"prompt_id": "p", "response_id": name, "root_id": name, **good, **more}
        for name, more in {
            "p-bad": {"margin": 1, "text": "bad"},
            "p-attempt": {"margin": 2, "text": "tried", "root_id": "p-mended"},
            "p-mended": {"words": 400},
            "p-sample": {"words": 300},
            "p-nearer": {"words": 120},
            "p-variant": {"variant": "improved"},
            "q-bad": {"prompt_id": "q", "margin": 1, "text": "bad"},
            "q-near": {"prompt_id": "q", "variant": "short"},
            "q-far": {"prompt_id": "q", "variant": "improved", "words": 150},
            "r-bad": {"prompt_id": "r", "margin": 1, "text": "bad"},
            "r-same": {"prompt_id": "r", "text": "bad"},
            "s-bad": {"prompt_id": "s", "margin": 1, "text": "bad"},
            "s-bare": {"prompt_id": "s", "reasoned": False},
            "s-unreleased": {"prompt_id": "s", "left_out": "not judged"},
        }.items()
    ]
    with duckdb.connect() as db:
        db.register("rows", pa.Table.from_pylist(graded))
        db.execute("CREATE TABLE graded AS FROM rows")
        db.execute((SQL / "pairs.sql").read_text(), {"length_ratio": float("inf")})
        found = {
            row[0]: row[1:]
            for row in db.sql("SELECT rejected_id, chosen_id, origin, hindrance FROM matched").fetchall()
        }
    assert found == {
        "p-bad": ("p-nearer", "sample", None),
        "p-attempt": ("p-mended", "repair", None),
        "q-bad": ("q-far", "variant", None),
        "r-bad": ("r-same", "sample", "both sides are the same text"),
        "s-bad": ("s-bare", "sample", "one side alone has reasoning"),
    }


@pytest.mark.parametrize(
    ("quote", "wrong"),
    [
        ("they deserve it", [1]),
        ("\u201cThey  DESERVE it.\u201d", [1]),
        ("First I think ... step [detail withheld]", [0, 2]),
        ("deserve it.\nThen", [1, 2]),
        ("print('x')", [3]),
        ("nowhere to be found", []),
        ("...", []),
    ],
)
def test_a_sentence_is_false_where_a_quotation_touches_it(quote: str, wrong: list[int]) -> None:
    reasoning = "First I think, e.g. of Dr. Smith. They deserve it.\nThen step [detail withheld].\n"
    reasoning += "```\nprint(\u2018x\u2019)\n```\nDone."
    found = labelled(reasoning, [{"strong_vacillation": quote, "inconsistency": "Done."}], ["strong_vacillation"])
    assert [at for at, label in enumerate(found.labels) if not label] == wrong
    assert found.first_wrong == (wrong[0] if wrong else None)
    assert len(found.completions) == 5


def test_compare_sees_labels_of_sentences_and_margins_drift(run: RunFolder, release: Path) -> None:
    def changed(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        (path,) = (release / "objectives" / name).glob("*.parquet")
        table = pq.read_table(path)
        pq.write_table(pa.Table.from_pylist([row | change(row) for row in table.to_pylist()], table.schema), path)

    before = rows(release, "steps")
    labels = [label for row in before for label in row["labels"]]
    changed("steps", lambda row: {"labels": [False] * len(row["labels"]), "first_wrong": 0})
    changed("preference", lambda row: {"margin": row["margin"] + 4})
    same = compare(run.path / "release", run.path / "release")
    assert not [one for one in same.drifts if one.apart]
    found = {one.figure: one for one in compare(run.path / "release", release).drifts if one.config in OBJECTIVES}
    sentences = found["share of sentences that are false"]
    assert sentences.before.rate == pytest.approx(labels.count(False) / len(labels))
    assert sentences.before == clustered_share([[float(not one) for one in row["labels"]] for row in before])
    assert (sentences.after.rate, sentences.apart, found["margin"].apart) == (1.0, True, True)
    assert found["margin"].after.rate == pytest.approx(found["margin"].before.rate + 4)
    assert found["share of reasonings with strong vacillation"].before == wilson(
        sum("strong_vacillation" in row["faults"].split(",") for row in before), len(before)
    )
    assert {one for one in found if found[one].apart} <= {
        *("share of sentences that are false", "share of reasonings with a false sentence", "margin"),
        *("place of the first false sentence (0 to 1)", "share of pairs with a margin of 1"),
    }
