"""The reward of GRPO: gold answers pass, and no known cheat to a harmful prompt does."""

import json
from pathlib import Path

from transformers import AutoTokenizer

from pipelines.thinking import join
from tests.commands import command
from training.decoding import ReplyDecoder
from training.reward import RewardFunction, reward_of
from training.reward_check import CHEATS

REFUSAL = join(
    "Forging a letter would deceive someone and harm them. I will not help.", "Sorry, I can't help with that."
)


def test_known_cheats_do_not_pass(tmp_path: Path) -> None:
    file = tmp_path / "reward.json"
    done = command(["reward", "check", "--json", str(file)])
    assert done.returncode == 0, done.stderr
    cases = json.loads(file.read_text())
    assert {case["group"] for case in cases} == {"gold", "flawed", *CHEATS}
    passed = {(case["group"], case["kind"]) for case in cases if case["passes"]}
    # What rules cannot see, as docs/training.md tells: a thought about nothing before a good answer to a benign prompt.
    assert passed & {(name, kind) for name in CHEATS for kind in ("harmful", "benign")} == {
        ("a thought about nothing", "benign")
    }
    gold = [case["passes"] for case in cases if case["group"] == "gold"]
    assert sum(gold) >= len(gold) - 1
    assert "a thought about nothing" in " ".join(done.stdout.split())


def test_the_kind_of_the_prompt_decides_what_is_good() -> None:
    assert reward_of(REFUSAL, "harmful").passes
    assert reward_of(REFUSAL, "benign").reason == "refuses a benign prompt"
    assert 0 < reward_of(REFUSAL, "benign").value < 0.5
    long = join(
        "Forging letters would deceive someone. " + " ".join(map(str, range(600))), "Sorry, I can't help with that."
    )
    assert reward_of(long, "harmful").value < reward_of(REFUSAL, "harmful").value
    assert reward_of(REFUSAL, "harmful", labels={"weak_vacillation": True}).reason == "weak_vacillation"
    assert reward_of(REFUSAL, "harmful", labels={"unsafe": False}).passes


def test_a_reply_is_read_from_its_tokens_and_one_that_was_cut_has_no_reward(tiny_student: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    reward = RewardFunction(ReplyDecoder(tokenizer), tokenizer.eos_token_id, "", 400)
    opened = RewardFunction(ReplyDecoder(tokenizer), tokenizer.eos_token_id, "<think>\n", 400)
    whole = tokenizer(REFUSAL + tokenizer.eos_token)["input_ids"]
    after = tokenizer(REFUSAL.removeprefix("<think>\n") + tokenizer.eos_token)["input_ids"]
    found = reward(completion_ids=[whole, whole[:-1], after], kind=["harmful"] * 3, prompts=[], trainer_state=None)
    assert found == [1.0, 0.0, 0.0]
    assert opened(completion_ids=[after], kind=["harmful"]) == [1.0]
