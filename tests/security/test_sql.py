"""A query reads the run's tables: it writes nothing, reaches nothing else, and ends."""

import os
import sqlite3
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.quality.checks import check
from curation.sql.fence import reading
from curation.sql.query import query
from pipelines.errors import UserError
from pipelines.runs import RunFolder
from pipelines.settings.changes import change
from pipelines.settings.options import Options
from service.rows.columns import filter_of
from service.rows.words import query_of
from tests.security.commands import Command

RUN, OUT = "{run}", "{out}"
WRITES = [
    "COPY responses TO '{out}/a.csv'",
    "COPY (SELECT 1) TO '{run}/responses.parquet' (FORMAT parquet)",
    "COPY responses FROM '{run}/responses.parquet'",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "COPY (SELECT 1) TO '{out}' (FORMAT parquet, PARTITION_BY (a))",
    "copy\n(select 1)\nto\n'{out}/b.csv'",
    "/* SELECT */ COPY (SELECT 1) TO '{out}/c.csv'",
    "-- SELECT 1\nCOPY (SELECT 1) TO '{out}/d.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{run}/responses.parquet' (FORMAT parquet)",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}/e.csv'",
    "EXPLAIN COPY (SELECT 1) TO '{out}/f.csv'",
    "explain /* */ analyze copy (select 1) to '{out}/g.csv'",
    "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{out}/h.csv'",
    "EXPLAIN (ANALYZE, FORMAT json) COPY (SELECT 1) TO '{out}/i.csv'",
    "EXPLAIN ANALYZE SELECT 1",
    "EXPLAIN ANALYZE INSERT INTO responses SELECT * FROM responses",
    "EXPLAIN ANALYZE CREATE TABLE t AS SELECT 1",
    "EXPLAIN ANALYZE ATTACH '{out}/x.db'",
    "EXPLAIN SELECT 1; COPY (SELECT 1) TO '{out}/j.csv'",
    "EXPLAIN ANALYZE EXPORT DATABASE '{out}/k'",
    "EXPORT DATABASE '{out}/l'",
    "IMPORT DATABASE '{out}'",
    "ATTACH '{out}/m.db'",
    "ATTACH '{out}/n.db' AS n (TYPE sqlite)",
    "ATTACH ':memory:' AS o",
    "ATTACH 'https://127.0.0.1:1/a.db'",
    "DETACH memory",
    "USE memory",
    "CREATE TABLE t AS SELECT 1",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW responses AS SELECT 1",
    "CREATE MACRO f(a) AS a",
    "CREATE SEQUENCE s",
    "CREATE SCHEMA s",
    "CREATE INDEX i ON responses(response_id)",
    "CREATE TYPE mood AS ENUM ('a')",
    "CREATE SECRET s (TYPE s3, KEY_ID 'a', SECRET 'b')",
    "CREATE PERSISTENT SECRET s IN local_file (TYPE s3)",
    "DROP VIEW responses",
    "DROP SECRET s",
    "ALTER VIEW responses RENAME TO r",
    "INSERT INTO responses VALUES (1)",
    "INSERT INTO responses SELECT * FROM responses RETURNING *",
    "UPDATE responses SET answer = ''",
    "DELETE FROM responses",
    "TRUNCATE responses",
    "MERGE INTO responses USING prompts ON true WHEN MATCHED THEN DELETE",
    "WITH x AS (INSERT INTO responses VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM responses RETURNING *) SELECT * FROM x",
    "WITH x AS (UPDATE responses SET answer = '' RETURNING *) SELECT * FROM x",
    "SELECT * FROM (WITH x AS (DELETE FROM responses RETURNING *) SELECT * FROM x)",
    "EXPLAIN WITH x AS (DELETE FROM responses RETURNING *) SELECT * FROM x",
    "INSTALL httpfs",
    "FORCE INSTALL httpfs FROM 'http://127.0.0.1:1'",
    "LOAD httpfs",
    "LOAD '{out}/evil.duckdb_extension'",
    "UPDATE EXTENSIONS",
    "PRAGMA database_list",
    "PRAGMA enable_profiling='json'",
    "PRAGMA profiling_output='{out}/p.json'",
    "PRAGMA temp_directory='{out}'",
    "PRAGMA add_parquet_key('k', '0123456789112345')",
    "PRAGMA import_database('{out}')",
    "PRAGMA copy_database('a', 'b')",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET allowed_paths = ['/']",
    "SET GLOBAL allowed_directories = ['/']",
    "SET VARIABLE a = 1",
    "SET python_enable_replacements = true",
    "SET log_query_path = '{out}/q.log'",
    "RESET enable_external_access",
    "RESET ALL",
    "CALL pragma_version()",
    "CALL enable_logging(storage='file', storage_path='{out}')",
    "CALL checkpoint()",
    "CHECKPOINT",
    "FORCE CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "BEGIN TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "COMMENT ON VIEW responses IS 'x'",
    "COPY FROM DATABASE a TO b",
    "PIVOT responses ON variant USING count(*)",
]
READS = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_csv_auto('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_text('{run}/run.yaml')",
    "SELECT * FROM read_text('{run}/responses.parquet')",
    "SELECT * FROM read_blob('/proc/self/environ')",
    "SELECT * FROM read_json('{run}/manifest.json')",
    "SELECT * FROM read_ndjson_objects('/etc/hosts')",
    "SELECT * FROM read_parquet('{run}/../other/responses.parquet')",
    "SELECT * FROM read_parquet('https://127.0.0.1:1/x.parquet')",
    "SELECT * FROM parquet_scan('{run}/responses.parquet')",
    "SELECT * FROM parquet_metadata('{run}/responses.parquet')",
    "SELECT * FROM parquet_file_metadata('/etc/passwd')",
    "SELECT * FROM parquet_bloom_probe('/etc/passwd', 'a', 1)",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '{run}/responses.parquet'",
    'SELECT * FROM "/proc/self/environ"',
    "SELECT * FROM 'https://127.0.0.1:1/x.csv'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    "SELECT * FROM 'file:///etc/passwd'",
    "FROM '*.csv'",
    "TABLE '/etc/passwd'",
    "DESCRIBE '/etc/passwd'",
    "DESCRIBE SELECT * FROM read_csv('/etc/passwd')",
    "SUMMARIZE '/etc/passwd'",
    "SUMMARIZE SELECT * FROM read_text('/etc/passwd')",
    "EXPLAIN SELECT * FROM read_text('/etc/passwd')",
    "SELECT (SELECT count(*) FROM read_text('/etc/passwd'))",
    "SELECT 1 WHERE EXISTS (FROM read_text('/etc/passwd'))",
    "WITH a AS (FROM read_text('/etc/passwd')) SELECT 1",
    "VALUES ((SELECT content FROM read_text('/etc/passwd')))",
    "SELECT 1 UNION ALL SELECT size FROM read_blob('/etc/passwd')",
    "SELECT list_transform([1], lambda x: (SELECT content FROM read_text('/etc/passwd')))",
    "SELECT 1 ORDER BY (SELECT content FROM read_text('/etc/passwd'))",
    "SELECT 1 QUALIFY (SELECT true FROM read_text('/etc/passwd'))",
    "FROM responses LATERAL JOIN (FROM read_text('/etc/passwd')) ON true",
    "FROM responses, read_text(responses.answer)",
    "FROM responses POSITIONAL JOIN '/etc/passwd'",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('responses')",
    "SELECT * FROM json_execute_serialized_sql('')",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM arrow_scan_dumb(1, 2, 3)",
    "SELECT * FROM pandas_scan(4096)",
    "SELECT * FROM python_map_function()",
    "SELECT * FROM seq_scan()",
    "SELECT * FROM create_external_resource('a')",
    "SELECT * FROM enable_logging(storage='file')",
    "SELECT * FROM enable_profiling('json')",
    "SELECT * FROM checkpoint()",
    "SELECT * FROM force_checkpoint('memory')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM which_secret('s3://a', 's3')",
    "SELECT * FROM duckdb_logs()",
    "SELECT * FROM duckdb_extensions()",
    "SELECT * FROM duckdb_databases()",
    "SELECT * FROM duckdb_temporary_files()",
    "SELECT * FROM duckdb_memory()",
    "SELECT * FROM test_all_types()",
    "SELECT getenv('HOME')",
    "SELECT current_setting('temp_directory')",
    "SELECT CURRENT_SETTING('allowed_paths')",
    "SELECT getvariable('a')",
    "SELECT write_log('x')",
    "SELECT nextval('s')",
    "SELECT sleep_ms(10000000)",
    "SELECT \"current_setting\"('temp_directory')",
    "SELECT main.current_setting('temp_directory')",
    "SELECT system.main.current_setting('temp_directory')",
    "SELECT ('temp_directory').current_setting()",
    "SELECT * FROM \"READ_TEXT\"('/etc/passwd')",
    "SELECT * FROM system.main.read_text('/etc/passwd')",
    "SELECT * FROM read_text\u00a0('/etc/passwd')",
    "SELECT * FROM/**/read_text/**/('/etc/passwd')",
    "SELECT * FROM ｒead_text('/etc/passwd')",
    'SELECT * FROM "\u202etxt.dwssap"',
    "SELECT 1; SELECT 2",
    "SELECT 1;;SELECT 2",
    "SELECT 1; -- x\n COPY (SELECT 1) TO '{out}/z.csv'",
    "SELECT '\ud800'",
    "SELECT 1\x00; DROP VIEW responses",
    "",
    ";",
    "   ",
    "-- nothing",
    "/* open",
    "nonsense",
    "SELECT",
    "SELECT " + "(" * 3_000 + "1" + ")" * 3_000,
    "SELECT " + "1+" * 150_000 + "1",
    "SELECT 1 -- " + "x" * 250_000,
]
# What is a query like any other, and no way out.
FINE = [
    "SELECT count(*) FROM responses",
    "VALUES (1)",
    "FROM range(3)",
    "WITH a AS (SELECT 1 AS b) FROM a",
    "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r WHERE a < 3) FROM r",
    "DESCRIBE responses",
    "SUMMARIZE SELECT input_tokens FROM responses",
    "SHOW TABLES",
    "EXPLAIN SELECT 1",
    "explain -- why\n (select 1)",
    "SELECT 1; -- done",
    "(SELECT 1)",
    "FROM information_schema.tables SELECT count(*)",
    "SELECT sum(length(answer)) FROM responses WHERE answer LIKE '%read_text(''/etc/passwd'')%'",
    "SELECT unnest([1, 2]), list_transform([1], lambda x: x + 1), regexp_matches('a', 'a')",
    "FROM duckdb_columns() SELECT column_name LIMIT 1",
]
# Passes the fence, and must end by itself, by DuckDB's limits or by the process's.
BOMBS = {
    "recursion": "WITH RECURSIVE r AS (SELECT 1 AS a UNION ALL SELECT a + 1 FROM r) SELECT count(*) FROM r",
    "one value": "SELECT repeat(repeat('a', 60000), 60000)",
    "series": "SELECT count(*) FROM range(1000000000000) a, range(1000000000000) b",
    "distance": "SELECT levenshtein(repeat('a', 1000000), repeat('b', 1000000))",
}
UNKNOWN = [
    "SELECT read_text('/etc/passwd')",
    "SELECT * FROM run",
    "SELECT * FROM self",
    "SELECT nothing FROM responses",
    "SELECT nosuch(1)",
]


def _state(run: RunFolder) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.path.iterdir() if path.is_file()}


def test_there_are_as_many_probes_as_are_spoken_of() -> None:
    assert len({*WRITES, *READS, *UNKNOWN, *BOMBS.values()}) >= 101 + 20


@pytest.mark.parametrize("text", [*WRITES, *READS], ids=lambda text: text[:60].encode("ascii", "replace").decode())
def test_a_probe_is_refused_before_it_runs(text: str, tmp_path: Path) -> None:
    filled = text.replace(RUN, str(tmp_path)).replace(OUT, str(tmp_path))
    run = RunFolder(tmp_path)
    with pytest.raises(UserError) as caught:
        query(run, filled)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mine.sql").write_text(filled, encoding="utf-8", errors="surrogatepass")
    from curation.quality.checks import _rejected_apart

    with pytest.raises(UserError, match=r"mine\.sql"):
        _rejected_apart(run, {"mine": tmp_path / "own" / "mine.sql"})
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


@pytest.mark.parametrize("text", FINE)
def test_what_only_reads_is_let_through(text: str) -> None:
    assert reading(text).endswith(text[-8:])


def test_what_is_let_through_gives_its_rows(judged: RunFolder) -> None:
    rows = pq.read_metadata(judged.table_path("responses")).num_rows
    union = " UNION ALL ".join(f"SELECT count(*) FROM ({text})" for text in ("FROM responses", *FINE[1:5]))  # noqa: S608
    assert query(judged, union).column(0).to_pylist() == [rows, 1, 3, 1, 3]
    assert query(judged, "EXPLAIN SELECT 1").num_rows >= 1
    assert "response_id" in query(judged, "DESCRIBE responses").column(0).to_pylist()


@pytest.mark.parametrize("text", UNKNOWN)
def test_neither_a_variable_of_the_program_nor_a_guess_is_a_table(judged: RunFolder, text: str) -> None:
    with pytest.raises(UserError, match="does not run"):
        query(judged, text)


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_stopped_and_the_run_is_whole(judged: RunFolder, name: str) -> None:
    before = _state(judged)
    with pytest.raises(UserError, match=r"was stopped|memory|does not run"):
        query(judged, BOMBS[name], seconds=2)
    assert _state(judged) == before


def test_a_query_whose_rows_are_without_end_is_stopped(judged: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"was stopped|gives more than|memory"):
        query(judged, "SELECT repeat('a', 1000) AS a FROM range(1000000000)", seconds=2)


def test_the_commands_write_nothing_by_explain_analyze(command: Command) -> None:
    """The third way out: EXPLAIN ANALYZE COPY replaced a table of the run."""
    run = RunFolder(command.run("small"))
    before = _state(run)
    target = run.path / "responses.parquet"
    for text in (
        f"EXPLAIN ANALYZE COPY (SELECT 1) TO '{target}' (FORMAT parquet)",
        "SELECT * FROM read_text('/etc/passwd')",
    ):
        done = command("sql", "small", text)
        assert done.code == 2, done.output
        assert "root:" not in done.output
    assert _state(run) == before
    done = command("sql", "small", "SELECT count(*) AS n FROM responses")
    assert done.code == 0, done.output


def test_a_folder_of_checks_is_shut_in_by_the_command(command: Command, tmp_path: Path) -> None:
    run = RunFolder(command.run("small"))
    own = tmp_path / "own"
    own.mkdir()
    (own / "steal.sql").write_text(
        "SELECT content AS response_id, '' AS reason, '' AS value FROM read_text('/etc/hosts')"
    )
    done = command("check", "small", "--checks", str(own))
    assert (done.code, "steal.sql" in done.output) == (2, True), done.output
    assert not run.table_path("accepted").exists()


def test_a_check_of_ones_own_still_checks(judged: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "all.sql").write_text("SELECT response_id, 'all' AS reason, '1' AS value FROM responses")
    change(judged, Options(also={"checks.folder": str(tmp_path / "own")}))
    done = check(judged)
    assert (done.accepted, done.rejected) == (0, done.responses)


@pytest.mark.parametrize(
    "text",
    [
        *("variant:eq:' OR 1=1 --", "variant:contains:%' UNION SELECT * FROM sqlite_master --"),
        *("variant:eq:x'; DROP TABLE rows; --", "prompt_id:eq:(SELECT load_extension('x'))"),
    ],
)
def test_a_filter_or_search_of_the_page_is_a_value_and_never_sql(text: str) -> None:
    assert filter_of(text).value == text.partition(":")[2].partition(":")[2]
    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE words USING fts5(prompt, reasoning, answer, content='')")
    db.execute("INSERT INTO words(rowid, answer) VALUES (1, ?)", [text])
    for words in (text, f'{text}" OR answer : x*', f"^{text} NEAR(a b) {{prompt}} : -"):
        query = query_of(words)
        assert db.execute("SELECT count(*) FROM words WHERE words MATCH ?", [query]).fetchone()[0] == (words == text)


@pytest.mark.parametrize("text", ["1=1 --:eq:1", "rowid; DROP TABLE rows:eq:1", "variant:eq OR 1=1:x", "sql:eq:1"])
def test_a_filter_names_columns_and_operators_from_lists(text: str) -> None:
    with pytest.raises(UserError, match="Unknown"):
        filter_of(text)


def test_no_process_is_left_behind(judged: RunFolder) -> None:
    with pytest.raises(UserError, match="was stopped"):
        query(judged, BOMBS["distance"], seconds=2)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if children.exists():
        for child in children.read_text().split():
            assert "curation.sql.apart" not in Path(f"/proc/{child}/cmdline").read_text()
