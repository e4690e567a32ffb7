"""The plan of a run: the same for the same run, whatever the order, and blind to where an endpoint is."""

from collections import Counter
from dataclasses import replace

from pipelines.generate.plan import plan
from pipelines.records import Prompt
from pipelines.settings.options import Options, configured

PROMPTS = [
    Prompt("p1", "harmful", "b1", "", "misinformation", "Write a lie", "Write a lie", "ours", "Apache-2.0"),
    Prompt("p2", "benign", "b2", "", "fiction", "Write a tale", "Write a tale", "ours", "Apache-2.0"),
]


def test_harmful_prompts_go_through_all_variants_and_benign_ones_through_one() -> None:
    asks = list(plan(configured(Options(teacher="rehearsal")), PROMPTS))
    assert Counter(ask.prompt_id for ask in asks) == {"p1": 6, "p2": 1}
    assert [ask.variant for ask in asks if ask.prompt_id == "p2"] == ["direct"]


def test_samples_multiply_every_variant_that_asks() -> None:
    asks = list(plan(configured(Options(teacher="rehearsal", sets=("samples=3",))), PROMPTS))
    assert Counter(ask.variant for ask in asks) == {
        "direct": 6, "realsafe": 3, "improved": 3, "short": 3, "template": 3, "nocot": 1
    }  # fmt: skip
    assert len({ask.response_id for ask in asks}) == len(asks)
    assert len({ask.key for ask in asks if ask.key}) == len([ask for ask in asks if ask.key])


def test_ids_and_keys_do_not_depend_on_order_or_endpoint() -> None:
    one = configured(Options(base_url="http://127.0.0.1:1/v1", model="m"))
    other = configured(Options(base_url="http://127.0.0.1:2/v1", model="m"))
    first = {(ask.response_id, ask.key) for ask in plan(one, PROMPTS)}
    assert first == {(ask.response_id, ask.key) for ask in plan(other, PROMPTS[::-1])}


def test_another_text_model_or_temperature_is_another_request() -> None:
    base = configured(Options(base_url="http://127.0.0.1:1/v1", model="m"))
    keys = {ask.key for ask in plan(base, PROMPTS) if ask.key}
    edited = [replace(prompt, text=prompt.text + "!") for prompt in PROMPTS]
    teacher = base.teachers["m"]
    warmer = teacher.model_copy(update={"sampling": teacher.sampling.model_copy(update={"temperature": 1.0})})
    assert not keys & {ask.key for ask in plan(base, edited)}
    assert not keys & {ask.key for ask in plan(configured(Options(base_url="http://x/v1", model="n")), PROMPTS)}
    assert not keys & {ask.key for ask in plan(base.model_copy(update={"teachers": {"m": warmer}}), PROMPTS)}


def test_a_plan_for_one_teacher_is_that_part_of_the_whole() -> None:
    config = configured(Options(teacher="rehearsal"))
    whole = list(plan(config, PROMPTS))
    parts = [ask for name in (*config.teachers, None) for ask in plan(config, PROMPTS, teacher=name)]
    assert sorted(ask.response_id for ask in parts) == sorted(ask.response_id for ask in whole)
