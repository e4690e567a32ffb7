"""student_nll: the mean is the one that transformers' own loss has, and the draw by it takes the likeliest rows."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.judges.stage import rows_of
from pipelines.runs import RunFolder
from pipelines.thinking import join
from tests.commands import command
from training.students.loading import load_model, prompt_of
from training.trainer.building import tokenizer_of


def done(run: RunFolder, *words: str) -> Any:
    found = command(["--runs", str(run.path.parent), *words])
    assert "Traceback" not in found.stderr
    return found


def test_a_draw_takes_what_the_student_finds_likeliest(released: RunFolder, tiny_student: Path) -> None:
    import torch

    early = done(released, "select", released.name, "--by", "student_nll")
    assert early.returncode == 2
    assert f"Run first: saferthoughts student nll {released.name} --student" in " ".join(early.stderr.split())
    assert "Which student?" in done(released, "student", "nll", released.name).stderr
    measured = done(released, "student", "nll", released.name, "--student", str(tiny_student))
    assert measured.returncode == 0, measured.stderr
    table = released.read("student_nll").to_pylist()
    assert [row["response_id"] for row in table] == sorted(released.read("accepted")["response_id"].to_pylist())
    values = {row["response_id"]: row["student_nll"] for row in table}
    long = [row for row in table if row["student_nll"] is None]
    assert all("positions for 512" in row["reason"] for row in long)
    assert len(long) < len(table)
    model, tokenizer = load_model(tiny_student), tokenizer_of(tiny_student)
    some = [row for row in rows_of(released) if values.get(row.response.response_id) is not None][:3]
    for row in some:
        prompt = prompt_of(tokenizer, [{"role": "user", "content": row.query}], tokenize=True, return_dict=False)
        written = tokenizer(join(row.response.reasoning, row.response.answer), add_special_tokens=False)["input_ids"]
        ids = torch.tensor([[*prompt, *written, tokenizer.eos_token_id]])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        loss = model(input_ids=ids, labels=labels).loss.item()
        assert values[row.response.response_id] == pytest.approx(loss, rel=1e-4)
    # Measured again by the student of before, and drawn: in each configuration the likeliest of its survivors.
    again = done(released, "student", "nll", released.name)
    assert again.returncode == 0, again.stderr
    words = ("select", released.name, "--by", "student_nll", "--at-random", "--harmful", "3", "--benign", "1")
    assert "choose one (--per-variant)" in done(released, *words, "--paired").stderr
    drawn = done(released, *words, "--per-variant")
    assert drawn.returncode == 0, drawn.stderr
    config_of = {row.response.response_id: row for row in rows_of(released)}
    for config in ("improved", "benign"):
        chosen = [row["response_id"] for row in released.read("selected").to_pylist() if row["config"] == config]
        rest = [
            values[name]
            for name, row in config_of.items()
            if values.get(name) is not None
            and name not in chosen
            and (row.kind if row.kind == "benign" else row.response.variant) == config
        ]
        taken = [values[name] for name in chosen if values[name] is not None]
        assert taken
        assert max(taken) <= min(rest, default=float("inf"))
