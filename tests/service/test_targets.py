"""What a MODEL on the command line may be, and where its results go."""

from pathlib import Path
from typing import Any

import pytest

from eval.models.inspect_models import RULES, roles
from pipelines.errors import UserError
from pipelines.runs import RunFolder
from pipelines.settings.teacher import Teacher
from saferthoughts.model_resolver import Named, place_of


def named(runs: Path, name: str | None = None, **fields: Any) -> Named:
    return Named(runs, name, **fields)


def test_endpoint_is_named_after_its_model_and_stands_beside_runs(tmp_path: Path) -> None:
    endpoint = Teacher(model="org/My Model:8b", base_url="http://127.0.0.1:1/v1")
    place = place_of(named(tmp_path, endpoint=endpoint, base="R1-Distill-Qwen-7B", variant="improved"))
    [target] = place.targets
    assert (target.label, target.kind, target.model) == ("My-Model-8b", "endpoint", "org/My Model:8b")
    assert (target.base, target.variant) == ("R1-Distill-Qwen-7B", "improved")
    assert place.output == tmp_path / "My-Model-8b" / "eval"
    RunFolder.create(tmp_path, "My-Model-8b")
    with pytest.raises(UserError, match=r"would go into the run of that name. Give --output"):
        place_of(named(tmp_path, endpoint=endpoint))
    assert place_of(named(tmp_path, endpoint=endpoint, output=tmp_path / "x")).output == tmp_path / "x"


def test_run_is_its_student_before_and_after(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path, "mine")
    (run.path / "run.yaml").write_text("{}")
    with pytest.raises(UserError, match=r"has no model yet. Train one: saferthoughts train smollm2-135m-cpu"):
        place_of(named(tmp_path, "mine"))
    (run.path / "model").mkdir()
    place = place_of(named(tmp_path, "mine", student=tmp_path / "student", base="Qwen3-14B", variant="short"))
    assert [(one.label, one.path, one.variant) for one in place.targets] == [
        ("before", tmp_path / "student", "raw"),
        ("after", run.path / "model", "short"),
    ]
    assert (place.output, place.cards) == (run.path / "eval", (run.path / "model",))


def test_folder_is_a_checkpoint_and_a_name_a_teacher(tmp_path: Path) -> None:
    (tmp_path / "some model").mkdir()
    place = place_of(named(tmp_path, str(tmp_path / "some model")))
    assert (place.targets[0].label, place.output, place.cards) == ("some-model", tmp_path / "some model" / "eval", ())
    assert place_of(named(tmp_path, "rehearsal")).targets[0].model == "rehearsal-r1"


def test_wrong_model_is_refused(tmp_path: Path) -> None:
    endpoint = Teacher(model="m", base_url="http://127.0.0.1:1/v1")
    for given, expected in (
        (named(tmp_path), "What is to be measured"),
        (named(tmp_path, "rehearsal", endpoint=endpoint), "Give either MODEL .'rehearsal'. or --base-url"),
        (named(tmp_path, "nowhere"), "'nowhere' is no run under .*Teachers: rehearsal, "),
        (named(tmp_path, "me/nothing"), "'me/nothing' is no folder here and could not be had from the Hub"),
        (named(tmp_path, "rehearsal", student=tmp_path), "--student goes with a run"),
    ):
        with pytest.raises(UserError, match=expected):
            place_of(given)


def test_roles_are_judges_or_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert roles(None, None, None).form == roles(RULES, None, None).form == "rules"
    assert roles("llama-guard-3", None, None).form == "llamaguard"
    assert roles("reasoningshield", None, None).form == "reasoningshield"
    assert roles("vllm", None, None).form == "yes-no"
    given = roles(None, "rehearsal-judge", "rehearsal").given()
    assert {name: role.teacher.model for name, role in given.items()} == {
        "judge": "rehearsal-judge",
        "attacker": "rehearsal-r1",
    }
    with pytest.raises(UserError, match=r"Unknown guard 'llama-guard'. Did you mean 'llama-guard-4'"):
        roles("llama-guard", None, None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match=r"'gpt-4o' needs its key in the environment: export OPENAI_API_KEY"):
        roles(None, "gpt-4o", None)
