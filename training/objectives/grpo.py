"""GRPO: the student writes several responses to a prompt, and those above their mean reward become likelier.

Reads `prompt` and `kind`: the configuration `prompts` of a release. TRL's GRPOTrainer; the reward is
`training/reward/reward.py`. Responses are written by transformers, or by vLLM on a GPU (`grpo.vllm`).
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import UserError
from pipelines.prompts.mildness import severity
from pipelines.thinking import OPEN
from training.mixtures.mixture import RowForm, TrainingRow
from training.objective import Objective, answered_row
from training.proof.supervision import Piece, SupervisionProof
from training.recipes.recipe import Recipe
from training.students.loading import prompt_of
from training.students.terminal import harmless
from training.trainer.building import arguments_of, finished, tokenizer_of, weights_of
from training.trainer.checkpoints import processes
from training.trainer.estimate import Cost

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def prompt_row(values: Mapping[str, Any], config: str) -> TrainingRow:
    """A row of a prompt and its kind.

    Raises:
        UserError: it is not one.
    """
    row = answered_row(values, config)
    if values["kind"] not in ("harmful", "benign"):
        raise UserError(
            f"Row {row.id!r} of configuration '{config}': 'kind' is {values['kind']!r}, and the reward needs to know "
            "whether harmful or benign."
        )
    return row


class Grpo(Objective):
    """Group relative policy optimization."""

    form = RowForm(("prompt", "kind"), prompt_row)

    def lengths(self, rows: Sequence[TrainingRow], serving: "PreTrainedTokenizerBase", recipe: Recipe) -> list[int]:
        """Tokens of each prompt with the longest response to it."""
        return [len(tokens) + recipe.grpo.max_completion for tokens in _prompts(rows, serving)]

    def build(
        self, recipe: Recipe, rows: Sequence[TrainingRow], checkpoint: Path, work: Path, accumulation: int
    ) -> Any:
        """The GRPOTrainer of a recipe.

        Raises:
            UserError: a step's responses are no whole prompts, or more prompts than there are; vLLM without a GPU.
        """
        from datasets import Dataset
        from trl.trainer.grpo_config import GRPOConfig
        from trl.trainer.grpo_trainer import GRPOTrainer

        from training.reward.reward import RewardFunction
        from training.students.decoding import ReplyDecoder
        from training.trainer.paced import Counted

        class Student(Counted, GRPOTrainer):  # type: ignore[misc,unused-ignore]
            pass

        own = recipe.grpo
        judges = None
        if own.judged:
            from pipelines.judges.replies import ReplyJudges
            from pipelines.runner.options import Caps

            # Several processes have a ledger each, and an equal part of the budget.
            share = processes()
            cost, tokens = (None if cap is None else cap / share for cap in (own.max_cost, own.max_tokens))
            caps = Caps(cost, None if tokens is None else int(tokens))
            judges = ReplyJudges(own.judges, Path(own.judge_config) if own.judge_config else None, caps)
        check_step(recipe, len(rows), recipe.batch_size * accumulation * processes())
        shared = arguments_of(recipe, work, accumulation)
        if own.vllm and shared["use_cpu"]:
            raise UserError(f"grpo.vllm={own.vllm} needs a GPU, and there is none. Leave it out: --set grpo.vllm=null")
        arguments = GRPOConfig(
            num_generations=own.num_generations,
            max_completion_length=own.max_completion,
            temperature=own.temperature,
            top_p=own.top_p,
            beta=own.beta,
            loss_type=own.loss,
            use_vllm=own.vllm is not None,
            vllm_mode=own.vllm or "colocate",
            **shared,
        )
        # Prompts alone are rendered, and as they are served.
        tokenizer = tokenizer_of(checkpoint)
        served = str(prompt_of(tokenizer, [dict(turn) for turn in rows[0].messages]))
        opener = f"{OPEN}\n" if served.rstrip().endswith(OPEN) else ""
        reward = RewardFunction(ReplyDecoder(tokenizer), int(tokenizer.eos_token_id), opener, own.max_words, judges)
        prompts = [{"prompt": [dict(turn) for turn in row.messages], "kind": row.kind} for row in rows]
        dataset, model = Dataset.from_list(prompts), weights_of(recipe, checkpoint)
        return finished(Student, recipe, arguments, dataset, tokenizer, model, reward_funcs=reward)

    def prove(
        self, trainer: Any, rows: Sequence[TrainingRow], serving: "PreTrainedTokenizerBase", recipe: Recipe
    ) -> SupervisionProof:
        """Every prompt reaches the student as it is served, with room for a whole response, and under its kind."""
        held = trainer.train_dataset
        if len(held) != len(rows):
            raise UserError(f"The trainer holds {len(held)} rows of the {len(rows)} it was given.")
        wanted = _prompts(rows, serving)
        for at, (row, tokens) in enumerate(zip(rows, wanted, strict=True)):
            asked: Any = prompt_of(
                trainer.processing_class,
                held[at]["prompt"],
                tokenize=True,
                return_dict=False,
                chat_template=trainer.chat_template,
            )
            if list(asked) != tokens or held[at]["kind"] != row.kind:
                raise UserError(f"Row {row.id!r} reaches the student with another prompt than it is served with.")
        mildest = min(rows, key=lambda row: severity(row.category, row.kind))
        text = str(prompt_of(serving, [dict(turn) for turn in mildest.messages]))
        lengths = [len(tokens) for tokens in wanted]
        example = (Piece(harmless(text), trained=False),)
        return SupervisionProof(len(rows), sum(lengths), 0, max(lengths), example, loss_on="written")

    def begin(self, trainer: Any, beside: Path) -> None:
        """Open the judges' folder, and ask each judge its first question."""
        judges = trainer.reward_funcs[0].judges
        if judges is not None:
            judges.open(beside, f"process-{os.environ.get('RANK', '0')}")

    def spent(self, trainer: Any) -> dict[str, Any]:
        """What the judges of this process were asked and what that cost."""
        judges = trainer.reward_funcs[0].judges
        if judges is None:
            return {}
        totals = judges.totals
        tokens = totals.input_tokens + totals.output_tokens
        names = list(judges.config.judging.judges)
        return {"judges": names, "answers": totals.answers, "tokens": tokens, "cost_usd": totals.cost}

    def cost(self, recipe: Recipe) -> Cost:
        """The responses that are written, and the reference where the loss is held to it."""
        own = recipe.grpo
        held = own.beta > 0 and recipe.lora is None
        passes = 1.0 + (own.beta > 0)
        return Cost(samples=own.num_generations, written=own.max_completion, reference=held, passes=passes)


def check_step(recipe: Recipe, prompts: int, responses: int) -> None:
    """Whether a step's responses are whole prompts, and no more than there are.

    Raises:
        UserError: they are not; with what would do.
    """
    each = recipe.grpo.num_generations
    if responses % each:
        raise UserError(
            f"A step has {responses} responses, which are no whole prompts of grpo.num_generations {each}. Choose "
            f"another batch_size (it counts responses), e.g. --set batch_size={each}"
        )
    if responses // each > prompts:
        raise UserError(
            f"A step takes {responses // each} prompts, and there are {prompts}. Draw more rows, or fewer responses a "
            f"step: --set batch_size={each}"
        )


def _prompts(rows: Sequence[TrainingRow], serving: "PreTrainedTokenizerBase") -> list[list[int]]:
    """The tokens of each prompt as it is served."""
    found: list[Any] = [
        prompt_of(serving, [dict(turn) for turn in row.messages], tokenize=True, return_dict=False) for row in rows
    ]
    return [list(tokens) for tokens in found]


OBJECTIVE = Grpo()
