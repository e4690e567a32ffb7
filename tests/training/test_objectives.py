"""Objectives beside SFT, each by the real command: two steps, stopped and gone on, and rows that are refused."""

import json
import math
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from pipelines.errors import Interrupted, UserError
from pipelines.thinking import join
from tests.commands import command
from tests.training.conftest import release_rows, written_release
from training.objective import objective_of
from training.recipes.recipe import TEMPLATES, Recipe, load_recipe, recipe_names
from training.stage import check, train
from training.students.quiet import quiet
from training.trainer.checkpoints import fingerprint_of

CONFIGS = {"dpo": "preference", "kto": "unpaired", "rm": "preference", "grpo": "prompts"}
REFUSAL = join("That would deceive someone, so I say no.", "Sorry, I can't help with that.")


def turn(role: str, text: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def rows_of(config: str, count: int = 6) -> list[dict[str, Any]]:
    """Rows as a release has them in one of the configurations for other objectives."""
    rows: list[dict[str, Any]] = []
    for n in range(count):
        kind = "harmful" if n % 2 else "benign"
        help_ = join("That is an everyday task.", "Use the task manager." + " Look again." * n)
        good, bad = (REFUSAL, help_) if kind == "harmful" else (help_, REFUSAL)
        row = {"id": f"row-{n}", "kind": kind, "category": "", "prompt": turn("user", f"How do I do number {n}?")}
        if config == "preference":
            rows.append({**row, "chosen": turn("assistant", good), "rejected": turn("assistant", bad), "margin": 1})
        elif config == "unpaired":
            rows += [
                {**row, "id": f"row-{n}-{label}", "completion": turn("assistant", text), "label": label}
                for label, text in ((True, good), (False, bad))
            ]
        else:
            rows.append({**row, "expected": "refusal" if kind == "harmful" else "help"})
    return rows


def settings_of(objective: str, **changed: Any) -> dict[str, Any]:
    return {
        "mixture": {CONFIGS[objective]: 4},
        "objective": objective,
        "chat_template": "smollm2",
        "max_length": 400,
        "batch_size": 2,
        "learning_rate": 1e-2,
        "gradient_checkpointing": False,
        "report_to": "none",
        # GRPO counts responses: a step is one prompt, an epoch four steps.
        "grpo": {"num_generations": 2, "max_completion": 6},
        **changed,
    }


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("objectives") / "release"
    return written_release(folder, {config: rows_of(config) for config in set(CONFIGS.values())})


def checked(objective: str, release: Path, student: Path, **changed: Any) -> Any:
    return check(Recipe.model_validate(settings_of(objective, **changed)), release, student)


@pytest.mark.parametrize("objective", CONFIGS)
def test_an_objective_trains_and_goes_on_where_it_was_stopped(
    objective: str, release: Path, tiny_student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(objective)
    recipe = tmp_path / "recipe.yaml"
    # As a recipe of SFT would be, of which the command makes another.
    recipe.write_text(yaml.safe_dump({**settings, "objective": "sft"}))
    words = ["train", str(recipe), "--objective", objective, "--dataset", str(release), "--student", str(tiny_student)]
    judged = ["--reward-judge", "rehearsal-judge", "--max-tokens", "100000"] if objective == "grpo" else []
    if judged:
        settings["grpo"] = {**settings["grpo"], "judges": ["rehearsal-judge"]}
    done = command([*words, *judged, "--output", str(tmp_path / "model")])
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "model" / "training.json").read_text())
    assert facts["objective"]["name"] == objective
    assert sum(facts["rows"][CONFIGS[objective]].values()) == 4
    assert facts["steps"] == (4 if objective == "grpo" else 2)
    assert all(map(math.isfinite, facts["loss"]))
    asked = {"judges": ["rehearsal-judge"], "answers": 0, "tokens": 0, "cost_usd": 0}
    assert facts.get("asked") == (asked if judged else None)
    assert f"| objective | {objective}" in (tmp_path / "model" / "README.md").read_text()
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_student, tmp_path / "model"))
    layer = "model.layers.0.mlp.down_proj.weight"
    # Random weights write nothing that has a reward, so GRPO has nothing to learn from, and says so.
    same = torch.equal(before[layer].float(), after[layer].float().to(torch.bfloat16).float())
    assert ("the same reward" in done.stdout + done.stderr) is (objective == "grpo")
    assert objective == "grpo" or not same

    from training.trainer.steps import _Shown

    end = _Shown.on_step_end

    def stop(self: Any, args: Any, state: Any, *others: Any, **named: Any) -> None:
        if state.global_step == 1:
            signal.raise_signal(signal.SIGINT)
        end(self, args, state, *others, **named)

    again = Recipe.model_validate(settings)
    with monkeypatch.context() as patch:
        patch.setattr(_Shown, "on_step_end", stop)
        with pytest.raises(Interrupted, match="Stopped after step 1 of"):
            train(again, release, tmp_path / "other", tiny_student)
    resumed = train(again, release, tmp_path / "other", tiny_student)
    assert resumed.resumed_from == 1
    assert list(resumed.losses) == pytest.approx(facts["loss"], rel=1e-3, abs=1e-4)


def test_the_first_step_of_dpo_is_at_the_reference(tiny_student: Path, tmp_path: Path) -> None:
    # Reported of TRL before: log-probabilities that were precomputed and not used (a loss that stays at ln 2), and a
    # reference that is the trained model under adapters. Padding, which is the end-of-turn here, must not count.
    release = written_release(tmp_path / "release", {"harmful": rows_of("preference", 8)[1::2]})
    losses = {}
    for name, changed in {
        "early": {},
        "beside": {"dpo": {"precompute_ref_log_probs": False}},
        "adapters": {"lora": {"r": 4, "alpha": 8}},
        "adapters beside": {"lora": {"r": 4, "alpha": 8}, "dpo": {"precompute_ref_log_probs": False}},
        "ipo": {"dpo": {"loss": "ipo", "beta": 0.5}},
    }.items():
        recipe = Recipe.model_validate(settings_of("dpo", epochs=2, mixture={"harmful": 4}, **changed))
        losses[name] = train(recipe, release, tmp_path / "model", tiny_student).losses
        shutil.rmtree(tmp_path / "model")
    for name in ("early", "beside", "adapters", "adapters beside"):
        assert losses[name][0] == pytest.approx(math.log(2), abs=0.02), name
        assert losses[name][-1] < 0.6, name
    assert losses["early"] == pytest.approx(losses["beside"], abs=0.05)
    assert losses["adapters"] == pytest.approx(losses["adapters beside"], abs=0.05)
    assert losses["ipo"][0] == pytest.approx(1.0, abs=0.02)  # (1 / (2 beta)) squared


def test_a_check_counts_the_reference_and_what_is_compared(release: Path, tiny_student: Path) -> None:
    early = checked("dpo", release, tiny_student)
    beside = checked("dpo", release, tiny_student, dpo={"precompute_ref_log_probs": False})
    adapters = checked("dpo", release, tiny_student, dpo={"precompute_ref_log_probs": False}, lora={"r": 2, "alpha": 4})
    assert early.plan.reference_gb == adapters.plan.reference_gb == 0
    assert beside.plan.reference_gb == pytest.approx(4e-9 * beside.plan.parameters)
    assert "for the reference model" in beside.plan.lines()
    assert early.proof.rows == 4
    assert "every response is compared, none is cut" in early.proof.described()
    assert [piece.trained for piece in early.proof.example] == [False, True]
    # Nothing after the end-of-turn is compared, though the template writes a line break there.
    assert early.proof.example[1].text.endswith("<|im_end|>")
    assert checked("grpo", release, tiny_student).plan.steps == 4


PAIR, ONE, PROMPT = (rows_of(config, 1)[0] for config in ("preference", "unpaired", "prompts"))
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("dpo", {**PAIR, "rejected": PAIR["chosen"]}, "chosen and rejected are the same"),
    ("dpo", {**PAIR, "rejected": turn("user", "No.")}, "'rejected' is not one turn of the assistant's"),
    ("rm", {**PAIR, "prompt": []}, "'prompt' is not a conversation that ends with the user"),
    ("dpo", {**PAIR, "rejected": turn("assistant", "No thought.")}, r"Row 'row-0 \(rejected\)' is not '<think>"),
    ("dpo", {**PAIR, "chosen": turn("assistant", join("Hm.", "word " * 400))}, "longer than the 512 positions"),
    (
        "dpo",
        {"id": "x", "prompt": PAIR["prompt"]},
        "has no column 'chosen'. This objective reads prompt, chosen, rejected, and none of this",
    ),
    ("kto", {**ONE, "label": "yes"}, "'label' is 'yes', not true or false"),
    ("rm", {**PAIR, "margin": -1}, "'margin' is -1, not a number from 0"),
    ("kto", ONE, "All 1 rows are labelled true, and KTO needs both"),
    ("grpo", {**PROMPT, "kind": ""}, "'kind' is '', and the reward needs to know"),
]


@pytest.mark.parametrize(("objective", "row", "message"), BAD, ids=[message[:30] for *_, message in BAD])
def test_rows_that_cannot_be_learned_from_are_one_clear_line(
    objective: str, row: dict[str, Any], message: str, tiny_student: Path, tmp_path: Path
) -> None:
    release = written_release(tmp_path / "release", {"mine": [row]})
    with pytest.raises(UserError, match=message) as error:
        checked(objective, release, tiny_student, mixture={"mine": 1})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("objective", "changed", "message"),
    [
        ("dpo", {"benign_kl": 0.1}, "benign_kl=0.1 is for objective sft, and this is dpo"),
        ("rm", {"quantize": "4bit", "lora": {"r": 2, "alpha": 4}}, "quantize=4bit is not for objective rm: take lora"),
        ("kto", {"batch_size": 1}, "kto needs batch_size of at least 2"),
        ("dpo", {"packing": True}, "packing=true is for objective sft, and this is dpo"),
        (
            "dpo",
            {"grpo": {"judges": ["rules"]}},
            r"grpo.judges \(--reward-judge\) is for objective grpo",
        ),
        ("grpo", {"grpo": {"num_generations": 2, "max_cost": 1}}, "max_cost and max_tokens cap what judges take"),
        ("grpo", {"grpo": {"num_generations": 2, "max_completion": 6, "judges": ["none"]}}, "Unknown judge 'none'"),
        ("grpo", {"batch_size": 3}, "3 responses, which are no whole prompts of grpo.num_generations 2"),
        ("grpo", {"batch_size": 16}, "A step takes 8 prompts, and there are 4"),
        (
            "grpo",
            {"max_length": 8192, "grpo": {"num_generations": 2, "max_completion": 500}},
            "are longer than the 512 positions of the student",
        ),
        ("grpo", {"grpo": {"num_generations": 2, "max_completion": 6, "vllm": "server"}}, "vllm=server needs a GPU"),
    ],
)
def test_settings_that_do_not_fit_are_one_clear_line(
    objective: str, changed: dict[str, Any], message: str, release: Path, tiny_student: Path, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings_of(objective, **changed)))
    with pytest.raises(UserError, match=message):
        check(load_recipe(str(path)), release, tiny_student)


OURS = (TEMPLATES / "smollm2.jinja").read_text(encoding="utf-8")


@pytest.mark.parametrize("objective", ["dpo", "kto", "rm"])
@pytest.mark.parametrize("damage", ["dropped", "cut", "swapped"])
def test_the_proof_sees_what_either_side_loses(
    objective: str, damage: str, release: Path, tiny_student: Path, tmp_path: Path
) -> None:
    template = tmp_path / "template.jinja"
    # As R1-Distill's published template does.
    dropping = OURS.replace("message['content'] + '<|im_end|>' -}}\n        {%- endgen", "message['content'].split('</think>')[-1] + '<|im_end|>' -}}\n        {%- endgen")  # fmt: skip  # noqa: E501
    assert dropping != OURS
    template.write_text(dropping if damage == "dropped" else OURS)
    recipe = Recipe.model_validate(settings_of(objective, chat_template=str(template)))
    prove, drawn = _trainer_of(recipe, release, tiny_student, tmp_path)
    message = {"dropped": "without its reasoning", "cut": r"is cut after 70 of \d+ tokens", "swapped": "Row 'row-"}

    def spoilt(rows: list[dict[str, Any]]) -> Any:
        batch = drawn(rows)
        if damage == "cut":
            keys = [key for key in ("input_ids", "attention_mask", "completion_mask") if key in batch]
            batch |= {key: batch[key][:, :70] for key in keys}
        elif damage == "swapped" and objective == "kto":
            batch["label"] = ~batch["label"]
        elif damage == "swapped":
            batch = {key: torch.cat(value.chunk(2)[::-1]) for key, value in batch.items()}
        return batch

    with pytest.raises(UserError, match=message[damage]):
        prove(spoilt)
    if damage != "dropped":
        prove(drawn)


def _trainer_of(recipe: Recipe, release: Path, student: Path, folder: Path) -> tuple[Callable[[Any], Any], Any]:
    """The proof of a trainer with another collator in place of its own, and its own."""
    from training.mixtures.mixture import draw
    from training.trainer.building import tokenizer_of

    objective = objective_of(recipe)
    assert isinstance(recipe.mixture, dict)
    with quiet():
        rows = draw(release, recipe.mixture, 1, folder / "cache", objective.form).rows
        trainer = objective.build(recipe, rows, student, folder / "trainer", 1)

    def prove(collate: Any) -> Any:
        trainer.data_collator = collate
        return objective.prove(trainer, rows, tokenizer_of(student), recipe)

    return prove, trainer.data_collator


def test_a_margin_parts_the_numbers(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    # A head that is drawn gives both sides about the same: -log sigmoid(0 - margin), where the margin is 1.
    first = {}
    for margin in (False, True):
        recipe = Recipe.model_validate(settings_of("rm", rm={"margin": margin}))
        first[margin] = train(recipe, release, tmp_path / "model", tiny_student).losses[0]
        shutil.rmtree(tmp_path / "model")
    assert first[False] == pytest.approx(math.log(2), abs=0.2)
    assert first[True] == pytest.approx(math.log(1 + math.e), abs=0.3)


def test_benign_rows_are_held_to_the_student_as_it_was(tiny_student: Path, tmp_path: Path) -> None:
    from training.students.loading import load_model
    from training.trainer.building import tokenizer_of

    rows = {"improved": release_rows("harmful", 6), "benign": release_rows("benign", 6)}
    release = written_release(tmp_path / "release", rows)
    plain = {**settings_of("dpo"), "objective": "sft", "mixture": {"improved": 6, "benign": 6}, "epochs": 4}
    plain["gradient_accumulation"] = 2
    losses = {}
    for name, changed in {
        "plain": {},
        "held": {"benign_kl": 100.0},
        "adapters": {"benign_kl": 100.0, "lora": {"r": 8, "alpha": 16}},
    }.items():
        recipe = Recipe.model_validate({**plain, **changed})
        losses[name] = train(recipe, release, tmp_path / name, tiny_student).losses
    # Before the first step nothing diverges.
    for name in ("held", "adapters"):
        assert losses[name][0] == pytest.approx(losses["plain"][0], abs=0.02), name
    tokenizer = tokenizer_of(tiny_student)

    def moved(folder: str) -> float:
        """How far the student is from what it was on benign rows, in nats a token."""
        found = []
        for row in rows["benign"]:
            ids = torch.tensor([tokenizer(row["messages"][-1]["content"])["input_ids"]])
            models = [load_model(path) for path in (tiny_student, tmp_path / folder)]
            before, now = (model(ids).logits.float().log_softmax(-1) for model in models)
            found.append(torch.nn.functional.kl_div(now, before, reduction="sum", log_target=True).item() / ids.numel())
        return sum(found) / len(found)

    assert moved("held") < moved("plain") / 2
    with pytest.raises(UserError, match="benign_kl is for benign rows, and none is drawn"):
        check(Recipe.model_validate({**plain, "mixture": {"improved": 6}, "benign_kl": 1.0}), release, tiny_student)


def test_a_reward_model_is_no_student(release: Path, tiny_student: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    recipe = Recipe.model_validate(settings_of("rm", lora={"r": 2, "alpha": 4}))
    model = train(recipe, release, tmp_path / "model", tiny_student).model
    tokenizer = AutoTokenizer.from_pretrained(model)
    scored = AutoModelForSequenceClassification.from_pretrained(model)
    read = [*PAIR["prompt"], *PAIR["chosen"]]
    ids = tokenizer.apply_chat_template(read, return_tensors="pt", return_dict=True)
    assert scored(**ids).logits.shape == (1, 1)
    # The template that lies beside it keeps the reasoning, whatever the student is served with.
    assert "everyday task" in tokenizer.decode(ids["input_ids"][0])
    assert "text-classification" in (model / "README.md").read_text()
    for words in (["chat", str(model)], ["eval", str(model), "--task", "refusal"]):
        done = command(words, stdin="Hello.\n")
        assert done.returncode == 2, done.stderr
        assert "is a reward model: it scores texts and writes none" in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr


def test_a_student_of_before_is_known_as_it_was() -> None:
    plain = Recipe(mixture={"improved": 10, "benign": 2})
    assert fingerprint_of(plain, "rows", "weights") == "227b555504fc10c6"
    for changed in ({"objective": "dpo"}, {"objective": "rm"}):
        assert fingerprint_of(plain.model_copy(update=changed), "rows", "weights") != "227b555504fc10c6"
    dpo = Recipe.model_validate({"mixture": {"preference": 10}, "objective": "dpo"})
    other = dpo.model_copy(update={"dpo": dpo.dpo.model_copy(update={"beta": 0.2})})
    unrelated = dpo.model_copy(update={"kto": dpo.kto.model_copy(update={"beta": 0.2})})
    assert (
        fingerprint_of(other, "rows", "w") != fingerprint_of(dpo, "rows", "w") == fingerprint_of(unrelated, "rows", "w")
    )


def test_recipes_of_other_objectives_name_what_they_learn_from() -> None:
    named = [load_recipe(name) for name in recipe_names() if "dpo" in name]
    assert len(named) == 5
    assert {recipe.objective for recipe in named} == {"dpo"}
    assert all(list(dict(recipe.mixture)) == ["preference"] for recipe in named)  # type: ignore[arg-type]
