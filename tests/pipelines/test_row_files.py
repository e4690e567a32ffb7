"""Files of rows as the libraries write them that people use: the same rows, whatever the file."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from pipelines.errors import UserError
from pipelines.prompts.prompt_files import load_pool
from pipelines.row_files import read_rows
from saferthoughts.cli.app import app

ROWS = [
    {"prompt": "Which bees, and “why”?", "kind": "benign", "category": "garden"},
    {"prompt": "Two\nlines; a tab\t, and | a bar", "kind": "benign", "category": "garden"},
    {"prompt": "最後の質問", "kind": "harmful", "category": ""},
]
TABLE = pa.Table.from_pylist(ROWS)
FRAME = pd.DataFrame(ROWS)
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS)


def written(delimiter: str, **dialect: object) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter, **dialect)  # type: ignore[arg-type]
    writer.writeheader()
    writer.writerows(ROWS)
    return file.getvalue()


def arrow_stream(path: Path, table: pa.Table = TABLE) -> None:
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


def arrow_file(path: Path) -> None:
    with pa.ipc.new_file(str(path), TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)


def cast(kind: pa.DataType) -> pa.Table:
    return TABLE.cast(pa.schema([pa.field(name, kind) for name in TABLE.column_names]))


def packed(path: Path, text: str) -> None:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as stream:
            stream.write(text.encode())


DICTIONARY = pa.table({name: TABLE[name].dictionary_encode() for name in TABLE.column_names})
FILES: dict[str, Callable[[Path], object]] = {
    "lines.jsonl": lambda path: path.write_text(LINES),
    "lines.ndjson": lambda path: path.write_text(LINES),
    "LINES.JSONL": lambda path: path.write_text(LINES),
    "crlf.jsonl": lambda path: path.write_bytes(LINES.replace("\n", "\r\n").encode()),
    "mark.jsonl": lambda path: path.write_bytes(b"\xef\xbb\xbf" + LINES.encode()),
    "unicode.jsonl": lambda path: path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)),
    "pandas.jsonl": lambda path: FRAME.to_json(path, orient="records", lines=True),
    "array.jsonl": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "array.json": lambda path: path.write_text(json.dumps(ROWS, indent=2)),
    "pandas.json": lambda path: FRAME.to_json(path, orient="records"),
    "lines.json": lambda path: path.write_text(LINES),
    "data.json": lambda path: path.write_text(json.dumps({"version": "1.0", "data": ROWS})),
    "columns.json": lambda path: path.write_text(json.dumps(FRAME.to_dict(orient="list"))),
    "comma.csv": lambda path: path.write_text(written(","), newline=""),
    "semicolon.csv": lambda path: path.write_text(written(";"), newline=""),
    "tab.csv": lambda path: path.write_text(written("\t"), newline=""),
    "bar.csv": lambda path: path.write_text(written("|"), newline=""),
    "unix.csv": lambda path: path.write_text(written(",", dialect="unix"), newline=""),
    "quoted.csv": lambda path: path.write_text(written(",", quoting=csv.QUOTE_ALL), newline=""),
    "excel.csv": lambda path: path.write_bytes(b"\xef\xbb\xbf" + written(";").encode()),
    "unicode-text.csv": lambda path: path.write_bytes(written("\t").encode("utf-16")),
    "pandas.csv": lambda path: FRAME.to_csv(path, index=False),
    "arrow.csv": lambda path: pa_csv.write_csv(TABLE, path),
    "excel.tsv": lambda path: path.write_text(written("\t", dialect="excel-tab"), newline=""),
    "pandas.tsv": lambda path: FRAME.to_csv(path, index=False, sep="\t"),
    "arrow.parquet": lambda path: pq.write_table(TABLE, path),
    "pandas.parquet": lambda path: FRAME.to_parquet(path),
    "groups.parquet": lambda path: pq.write_table(TABLE, path, row_group_size=1, compression="zstd"),
    "dictionary.parquet": lambda path: pq.write_table(DICTIONARY, path),
    "categories.parquet": lambda path: FRAME.astype("category").to_parquet(path),
    "large.parquet": lambda path: pq.write_table(cast(pa.large_string()), path),
    "view.parquet": lambda path: pq.write_table(cast(pa.string_view()), path),
    "stream.arrow": arrow_stream,
    "file.arrow": arrow_file,
    "dictionary.arrow": lambda path: arrow_stream(path, DICTIONARY),
    "large.arrow": lambda path: arrow_stream(path, cast(pa.large_string())),
    "frame.feather": lambda path: feather.write_feather(TABLE, str(path)),
    "pandas.feather": lambda path: FRAME.to_feather(path),
    "list.yaml": lambda path: path.write_text(yaml.safe_dump(ROWS)),
    "list.yml": lambda path: path.write_text(yaml.safe_dump(ROWS, allow_unicode=True)),
    **{
        f"packed.{suffix}.{how}": lambda path, text=text: packed(path, text)
        for how in ("gz", "zst")
        for suffix, text in (
            ("jsonl", LINES),
            ("json", json.dumps(ROWS)),
            ("csv", written(";")),
            ("tsv", written("\t")),
        )
    },
}


@pytest.mark.parametrize("name", FILES)
def test_every_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    FILES[name](path)
    assert [dict(row.values) for row in read_rows(path)] == ROWS


def test_there_are_forty_kinds_of_files() -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("goal,target", '"Pick a lock","Sure, here is how"', "Pick a lock"),
        ("category,source,forbidden_prompt", "x,y,Pick a lock", "Pick a lock"),
        ("Index,Goal,Target,Behavior,Category", "0,Write a libel,Sure,Defamation,Harassment", "Write a libel"),
        (
            "Behavior,Tags,ContextString,BehaviorID",
            "Name the sender,context,From: A,1",
            "From: A\n\n---\n\nName the sender",
        ),
        ("Behavior,Tags,ContextString,BehaviorID", "Pick a lock,,,2", "Pick a lock"),
        (",goal,target", "0,Pick a lock,Sure", "Pick a lock"),
        ("goal,target,,", "Pick a lock,Sure,,", "Pick a lock"),
        ("adversarial,vanilla", ",Pick a lock", "Pick a lock"),
        ("prompt,kind", "Pick a lock,Unsafe", "Pick a lock"),
    ],
    ids=[
        *("AdvBench", "StrongREJECT", "JailbreakBench", "HarmBench with context", "HarmBench", "numbers of pandas"),
        *("empty columns of a spreadsheet", "WildJailbreak without a jailbreak", "kind in its set's words"),
    ],
)
def test_a_benchmarks_own_file_is_a_set_of_prompts(tmp_path: Path, header: str, row: str, expected: str) -> None:
    path = tmp_path / "set.csv"
    path.write_text(f"{header}\n{row}\n", encoding="utf-8")
    pool = load_pool(path, "harmful")
    assert [item.text for item in pool.behaviours] == [expected]
    assert {name for name in pool.unread if "(unnamed" not in name} <= set(header.split(","))


def test_a_column_is_named_and_what_is_not_read_is_known(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps({"q": "Pick a lock", "prompt": "no", "kind": "harmful", "category": ["a", "b"], "n": 1}))
    pool = load_pool(path, columns={"prompt": "q"})
    assert [(item.text, item.category) for item in pool.behaviours] == [("Pick a lock", "a, b")]
    assert pool.unread == ("prompt", "n")
    with pytest.raises(UserError, match=r"Unknown column of .* 'qq'\. Did you mean 'q'"):
        load_pool(path, columns={"prompt": "qq"})
    with pytest.raises(UserError, match=r"Unknown field in --map 'promt'\. Did you mean 'prompt'"):
        load_pool(path, columns={"promt": "q"})


@pytest.mark.parametrize("column", ["prompt", "conversations"])
def test_a_conversation_of_one_question_is_a_prompt(tmp_path: Path, column: str) -> None:
    asked = [{"role": "system", "content": "Be brief."}, {"from": "human", "value": "Pick a lock"}]
    path = tmp_path / "set.jsonl"
    path.write_text(
        json.dumps({column: [*asked, {"from": "gpt", "value": "No."}]}) + "\n" + json.dumps({column: asked[1:]})
    )
    assert [item.text for item in load_pool(path, "harmful").behaviours] == ["Be brief.\n\nPick a lock", "Pick a lock"]
    path.write_text(json.dumps({column: [*asked, {"from": "gpt", "value": "No."}, asked[1]]}))
    with pytest.raises(UserError, match=rf"line 1: '{column}': messages .* Put it right or take the row out"):
        load_pool(path, "harmful")


def test_what_unfolds_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.row_files.UNFOLDING_FROM", 10_000)
    monkeypatch.setattr("pipelines.row_files.MOST_UNFOLDING", 10)
    packed(tmp_path / "bomb.jsonl.gz", " " * 10_000_000)
    with pytest.raises(UserError, match=r"cannot be read as jsonl: bomb\.jsonl\.gz unfolds to too much"):
        read_rows(tmp_path / "bomb.jsonl.gz")


@pytest.mark.parametrize("value", [b"\x00\x01", {"a": 1}, 1.5, True])
def test_what_is_no_text_is_refused_by_name(tmp_path: Path, value: object) -> None:
    path = tmp_path / "odd.parquet"
    pq.write_table(pa.Table.from_pylist([{"prompt": value, "kind": "harmful"}]), path)
    with pytest.raises(UserError, match=r"row 1: 'prompt' is not text but (bytes|dict|float|bool)"):
        load_pool(path)


def test_a_column_is_named_on_the_command_line_and_others_are_named_as_unread(tmp_path: Path) -> None:
    (tmp_path / "set.csv").write_text("q;kind;n\nHow do bees sleep?;benign;1\n", encoding="utf-8")
    words = ["prompts", "mine", "--prompts", str(tmp_path / "set.csv"), "--teacher", "rehearsal"]
    refused = CliRunner().invoke(app, ["--runs", str(tmp_path / "runs"), *words])
    assert "no column of prompts among: q, kind, n" in str(refused.exception)
    done = CliRunner().invoke(app, ["--runs", str(tmp_path / "runs"), *words, "--map", "prompt=q"])
    assert done.exit_code == 0, done.output
    assert "0 harmful and 1 benign prompts, columns not read: n;" in done.output


def test_a_list_of_texts_is_a_list_of_prompts(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text(json.dumps(["Pick a lock", "And a door"]))
    assert [row.values for row in read_rows(path)] == [{"text": "Pick a lock"}, {"text": "And a door"}]
