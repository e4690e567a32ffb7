"""Users' prompt sets: every format read the same, every bad file told in one line with its place."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from pipelines.errors import UserError
from pipelines.prompts.prompt_files import load_pool
from pipelines.prompts.prompt_sets import Request, draw
from pipelines.records import content_id

ROWS = [
    {"id": "1", "prompt": "Request, with a comma", "kind": "harmful", "category": "a", "license": "MIT"},
    {"id": "2", "prompt": "Two\nlines “quoted”", "kind": "benign", "category": "", "license": ""},
    {"id": "3", "prompt": "  Request, with a comma ", "kind": "harmful", "category": "a", "license": "MIT"},
]


def write_jsonl(path: Path) -> None:
    path.write_text("\n\n".join(json.dumps({**row, "id": int(row["id"])}) for row in ROWS), encoding="utf-8")


def write_csv(path: Path) -> None:
    pa_csv.write_csv(pa.Table.from_pylist(ROWS), path)


def write_parquet(path: Path) -> None:
    table = pa.Table.from_pylist([{**row, "id": int(row["id"]), "vector": [0.0]} for row in ROWS])
    pq.write_table(table, path)


def write_yaml(path: Path) -> None:
    path.write_text(json.dumps(ROWS), encoding="utf-8")


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet, write_yaml])
def test_file_of_prompts_is_read_the_same_in_every_format(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / f"my set[1].{write.__name__.removeprefix('write_')}"
    write(path)
    pool = load_pool(path)
    assert pool.behaviours == (Request("1", "a", "Request, with a comma", path.name, "MIT"),)
    assert pool.benign == (Request("2", "uncategorised", "Two\nlines “quoted”", path.name, "unknown"),)
    assert (pool.duplicates, pool.templates, pool.name) == (1, (), "my set[1]")
    assert (pool.source, pool.license) == (path.name, "MIT; unknown")
    assert [prompt.template_id for prompt in draw(pool, 1, 1, seed=0, bare_share=0)] == ["", ""]


def test_csv_of_many_blocks_keeps_line_breaks_in_prompts(tmp_path: Path) -> None:
    texts = [f"{number}\n" + "a line\n" * 6000 + "the end" for number in range(80)]
    pa_csv.write_csv(pa.table({"text": texts}), tmp_path / "long.csv")
    assert [item.text for item in load_pool(tmp_path / "long.csv", kind="benign").benign] == texts


def test_text_file_takes_its_kind_from_the_caller(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_bytes("\ufeffWhat is a zombie process?\r\n\r\nWhat is a\u2028bomb cyclone?\r\n".encode())
    pool = load_pool(str(path), kind="benign")
    assert [item.text for item in pool.benign] == ["What is a zombie process?", "What is a\u2028bomb cyclone?"]
    assert pool.benign[0].id == content_id("What is a zombie process?")
    with pytest.raises(UserError, match=r"questions.txt line 1: no kind\. Add a column 'kind' \(harmful, benign\)"):
        load_pool(path)


def test_user_folder_may_leave_out_parts(tmp_path: Path) -> None:
    (tmp_path / "harmful.yaml").write_text("- {id: a, category: c, text: A request, license: MIT, source: ours}\n")
    pool = load_pool(tmp_path)
    assert pool.behaviours == (Request("a", "c", "A request", "ours", "MIT"),)
    assert (pool.benign, pool.templates) == ((), ())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", "", r"a\.jsonl is empty"),
        ("a.csv", "", r"a\.csv is empty"),
        ("a.csv", "prompt,kind\n", r"a\.csv is empty"),
        ("a.txt", "\n \n", r"a\.txt is empty"),
        ("a.jsn", "[]", r"Unknown type of file '\.jsn'\. Did you mean '\.json'\?"),
        ("a.json", "[]", r"a\.json is empty"),
        ("a.json", '[{"text": "x"},\n{]', r"a\.json line 2 is not JSON"),
        ("a.json", '{"text": "x", "n": 1}', r"a\.json holds an object \(text, n\) and no single list of rows"),
        ("a.json", '"x"', r"a\.json holds a str, not a list"),
        ("a.json.gz", "[]", r"a\.json\.gz cannot be read as json"),
        ("a.arrow", "no", r"a\.arrow cannot be read as arrow"),
        ("a.jsonl", '{"text": "x", "kind": "benign"}\n{"text": ', r"a\.jsonl line 2 is not JSON"),
        ("a.jsonl", '["x", 1]', r"a\.jsonl row 1 holds a str, not an object"),
        ("a.jsonl", '["x"]\n["y"]', r"a\.jsonl line 1 holds a list, not an object"),
        ("a.jsonl", '{"text": "x\\u0000", "kind": "benign"}', r"line 1: 'text' holds a NUL character"),
        ("a.jsonl", '{"aim": "x"}', r"no column of prompts among: aim\. Name it one of: prompt, text, query"),
        ("a.jsonl", '{"text": {"a": "x"}, "kind": "benign"}', r"line 1: 'text' is not text but dict"),
        ("a.jsonl", '{"text": "x\\ud800", "kind": "benign"}', r"line 1: 'text' holds half of a surrogate pair"),
        ("a.jsonl", '{"text": "x", "kind": "bening"}', r"line 1: Unknown kind 'bening'\. Did you mean 'benign'\?"),
        ("a.csv", "text,kind\nx,benign\n ,benign\n", r"a\.csv row 2: 'text' is empty"),
        ("a.csv", "text,kind\nx,benign,more\n", r"a\.csv row 1 \(line 2\) has 3 fields, and the header 2"),
        ("a.csv", "text,kind,text\nx,benign,y\n", r"column 'text' stands twice"),
        ("a.csv", "text,kind\nx,benign\nx,harmful\n", "'x' stands as harmful and as benign"),
        ("a.csv", "text,kind,id\nx,benign,7\ny,benign,7\n", "id '7' stands for 2 different prompts"),
        ("a.parquet", "not parquet", r"a\.parquet cannot be read as parquet"),
        ("a.txt", b"\xff", r"a\.txt is not UTF-8 text"),
    ],
)
def test_bad_file_of_prompts_is_told_in_one_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as error:
        load_pool(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("harmful.yaml", "", r"harmful\.yaml is empty"),
        ("harmful.yaml", "id: a", r"harmful\.yaml holds a dict, not a list"),
        ("harmful.yaml", "- {id: a\n- b", r"harmful\.yaml line 2 is not YAML"),
        ("harmful.yaml", "# first\n- just words", r"harmful\.yaml line 2: the item is a str, not a mapping"),
        ("harmful.yaml", "- {id: a, text: b}", r"line 1: the item has no category\. It needs: id, category, text"),
        ("harmful.yaml", "- {id: a, category: c, text: b, licence: MIT}", r"Unknown key 'licence'\. Did you mean"),
        ("harmful.yaml", "- {id: a, category: c, text: 7}", r"line 1: 'text' is not text but int"),
        ("harmful.yaml", "- id: a\n  category: c\n  text: b\n  text: d", r"line 1: a key stands twice"),
        ("harmful.yaml", "- {id: a, category: c, text: 2026-13-45}", r"harmful\.yaml cannot be read: month"),
        ("harmfull.yaml", "[]", r"Unknown file 'harmfull\.yaml'\. Did you mean 'harmful\.yaml'\?"),
        ("templates.yaml", "- {id: t, text: 'No slot: {behavior}'}", r"'t' has 0 slots \{behaviour\}"),
        ("templates.yaml", "- {id: t, text: 'A {behaviour} and {behaviour}'}", r"'t' has 2 slots"),
        ("templates.yaml", "- {id: t, text: ' {behaviour} '}", r"'t' is only its slot"),
        ("templates.yaml", "- {id: t, text: 'A {behaviour}'}\n- {id: t, text: 'B {behaviour}'}", r"line 2.*twice"),
    ],
)
def test_bad_folder_of_prompts_is_told_with_its_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / "benign.yaml").write_text("- {id: z, category: c, text: A calm request}\n")
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_pool(tmp_path)
    assert "\n" not in str(error.value)


def test_unknown_prompt_set_is_told_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no prompt set 'bundeld'\. Give 'bundled', a folder with harmful\.yaml"):
        load_pool("bundeld")
    with pytest.raises(UserError, match=r"holds neither harmful\.yaml nor benign\.yaml"):
        load_pool(tmp_path)
    with pytest.raises(UserError, match="Unknown kind 'bad'"):
        load_pool("bundled", kind="bad")
    with pytest.raises(UserError, match=r"A kind \('benign'\) is for a file of prompts"):
        load_pool("bundled", kind="benign")
