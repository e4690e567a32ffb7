"""`import saferthoughts as st`: its examples, what it gives back, and the places it can be called from."""

import asyncio
import doctest
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import saferthoughts as st
from pipelines.runs import RunFolder
from tests.pipelines.conftest import scripted as scripted
from tests.training.conftest import tiny_student as tiny_student
from training.students.chat import ReplyPart

RUN: dict[str, Any] = {"teacher": "rehearsal", "harmful": 2, "benign": 1, "variants": ["direct"]}
# In this order: each goes on with the run that the first one makes.
EXAMPLES = ("run.Run", "tables.Table", "release.Release", "regeneration.regenerate", "evaluation.evaluate")
EXAMPLES += ("training.train",)
LIGHT = """
import sys
import saferthoughts as st
print(sorted(name for name in ("pyarrow", "pydantic", "pandas", "rich", "duckdb", "inspect_ai") if name in sys.modules))
assert set(st.__all__) <= set(dir(st)), set(st.__all__) - set(dir(st))
for name in st.__all__:
    getattr(st, name)
"""


def test_importing_it_loads_nothing_heavy_and_every_name_is_there() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert (Path(st.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'Runn'"):
        st.Runn  # noqa: B018


def test_reading_a_release_needs_nothing_that_only_unix_has(released: RunFolder) -> None:
    code = (
        "import sys\nsys.modules |= {name: None for name in ('fcntl', 'resource', 'pwd', 'termios')}\n"
        "import saferthoughts as st\nrelease = st.load_release(sys.argv[1])\n"
        "print(release.version, len(release.table('improved')))"
    )
    words = [sys.executable, "-c", code, str(released.path / "release")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "1.0.0 12\n"), done.stderr


def test_the_examples_of_the_docstrings_are_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_student: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for name in EXAMPLES:
        module, attribute = name.split(".")
        shown = getattr(__import__(f"saferthoughts.{module}", fromlist=["x"]), attribute)
        [example] = doctest.DocTestFinder(recurse=False).find(shown, name, globs={"checkpoint": tiny_student})
        assert example.examples, name
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0


@pytest.mark.parametrize("where", ["in a running loop", "in a worker thread", "in a loop of a worker thread"])
def test_stages_work_wherever_they_are_called(tmp_path: Path, where: str, scripted: Any) -> None:
    def stages() -> list[Any]:
        # At an endpoint of its own, so that the first question is asked as well.
        with scripted(lambda body: "<think>I weigh it.</think>Sorry, I will not help with that.") as own:
            options = {"base_url": own.url, "model": "x", "harmful": 2, "benign": 1, "variants": ["direct"]}
            run = st.Run.create("mine", runs=tmp_path, judges=["rehearsal-judge"], **options)
            return [run.generate().kept, run.judge().responses, run.repair(attempts=1).kept.rows]

    async def inside() -> list[Any]:
        return stages()

    if where == "in a running loop":
        found = asyncio.run(inside())
    else:
        with ThreadPoolExecutor(1) as pool:
            found = pool.submit(lambda: asyncio.run(inside()) if "loop" in where else stages()).result()
    assert found == [3, 3, 3]


def test_a_run_goes_through_its_stages_within_a_budget(tmp_path: Path) -> None:
    run = st.Run.create("mine", runs=tmp_path, judges="rehearsal-judge", **RUN)
    seen: list[str] = []
    results = run.run(until="check", progress=lambda stage, result: seen.append(stage), max_cost=1)
    assert seen == list(results) == ["generate", "judge", "repair", "check"]
    assert results["check"].rows == 3
    with pytest.raises(st.UserError, match=r"Unknown stage 'chekc'. Did you mean 'check'"):
        run.run(until="chekc")
    other = st.Run.create("other", runs=tmp_path, **RUN)
    assert other.generate(reuse=[run]).asked == 0
    with pytest.raises(st.Incomplete, match="Stopped at the budget"):
        st.Run.create("third", runs=tmp_path, **{**RUN, "harmful": 20}).generate(max_tokens=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_cost": -1}, "max_cost is -1. It takes 0 or more"),
        ({"max_cost": float("nan")}, "max_cost is nan"),
        ({"max_failed": 5}, "max_failed is 5. It takes a share between 0 and 1"),
        ({"engine": "spark"}, "Unknown engine 'spark'"),
        ({"ray_address": "auto"}, "goes with --engine ray"),
        ({"reuse": ["gone"]}, "run under .*'gone'"),
        ({"settings": {"repair.attemps": 3}}, "Did you mean 'attempts'"),
        ({"settings": {"samples": 0}}, "samples: .*greater than or equal to 1"),
        ({"teachers": "nowhere.yaml"}, "There is no file nowhere.yaml"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_one_line(
    judged: RunFolder, options: dict[str, Any], message: str
) -> None:
    before = {path.name: path.read_bytes() for path in judged.path.iterdir() if path.is_file()}
    with pytest.raises(st.UserError, match=message) as refused:
        st.Run(judged).generate(**options)
    assert "\n" not in str(refused.value)
    assert {path.name: path.read_bytes() for path in judged.path.iterdir() if path.is_file()} == before


def test_an_unknown_setting_is_an_unknown_argument(judged: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="max_costs"):
        st.Run(judged).generate(max_costs=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="harmfull"):
        st.Run.create("new", runs=tmp_path, harmfull=1)  # type: ignore[call-arg]
    assert not (tmp_path / "new").exists()


def test_a_change_that_costs_something_needs_consent(judged: RunFolder) -> None:
    runs = judged.path.parent
    with pytest.raises(st.UserError, match=r"of its 12 harmful prompts would go.*agree=True"):
        st.Run.create("small", runs=runs, harmful=3)
    costs: list[str] = []
    assert st.Run.create("small", runs=runs, harmful=3, agree=costs.append).prompts.harmful == 3  # type: ignore[union-attr]
    assert len(costs) == 1
    assert st.Run.create("small", runs=runs, harmful=2, agree=True).prompts.gone == 1  # type: ignore[union-attr]


def test_tables_come_as_arrow_pandas_polars_and_duckdb(judged: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run = st.Run(judged)
    table = run.table("responses")
    assert len(table) == table.to_arrow().num_rows == len(table.to_pandas()) == 78
    assert table.relation().filter("variant = 'short'").count("*").fetchall() == [(12,)]
    assert run.sql("select count(*) as n from verdicts").to_pandas()["n"].tolist() == [78]
    polars = pytest.importorskip("polars")
    assert isinstance(table.to_polars(), polars.DataFrame)
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(st.UserError, match="polars is not installed"):
        table.to_polars()
    with pytest.raises(st.UserError, match=r"Unknown table 'respones'. Did you mean 'responses'"):
        run.table("respones")
    with pytest.raises(st.UserError, match="Run first: saferthoughts check small"):
        run.table("accepted")


def test_a_table_shows_no_control_characters(judged: RunFolder) -> None:
    import pyarrow as pa

    table = st.Table(pa.table({"answer": ["\x1b[31mred<b>\u202e"] * 20}))
    assert "\x1b" not in repr(table)
    assert "[U+202E]" in repr(table)
    assert "20 rows, 1 columns" in repr(table)
    assert "<b>" not in table._repr_html_()


def test_what_is_incomplete_has_its_result(tmp_path: Path, scripted: Any) -> None:
    with scripted(lambda body: 503 if "cake" in body["messages"][-1]["content"] else "<think>Hm.</think>No.") as own:
        file = tmp_path / "prompts.txt"
        file.write_text("How do I bake a cake?\nHow do I pick a lock?\n", encoding="utf-8")
        settings = {"teachers.mine.retries": 0}
        options = {"base_url": own.url, "model": "x", "teacher_name": "mine", "variants": ["direct"]}
        run = st.Run.create("mine", runs=tmp_path, prompts=file, kind="harmful", settings=settings, **options)
        with pytest.raises(
            st.Incomplete, match=r"^1 failed, see .*Ask those again: saferthoughts generate mine"
        ) as stop:
            run.generate()
    assert (stop.value.result.kept, stop.value.result.failed) == (1, 1)  # type: ignore[attr-defined]


def test_a_student_replies_with_its_reasoning_apart(tiny_student: Path) -> None:
    replied = st.Student(tiny_student).reply("How do I boil an egg?", max_tokens=4)
    assert isinstance(replied.reasoning, str)
    assert isinstance(replied.answer, str)
    assert replied.cut == "[cut off at 4 tokens]"


def test_a_student_trained_again_in_its_place_is_the_one_that_replies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Loaded:
        """A model that says what it was loaded of."""

        def __init__(self, path: str, *_: float) -> None:
            self.weights = (Path(path) / "model.safetensors").read_text(encoding="utf-8")

        def reply(self, _: object) -> list[ReplyPart]:
            return [ReplyPart(self.weights, "answer")]

    monkeypatch.setattr("training.students.chat_models.Checkpoint", Loaded)
    for weights in ("first", "second"):
        (tmp_path / "model.safetensors").write_text(weights, encoding="utf-8")
        assert st.Student(tmp_path).reply("Who are you?").answer == weights
