"""The settings of each objective: the sections of a recipe beside the keys that all share.

Reads nothing; writes nothing. `objective: dpo` in a recipe, or `--objective dpo`, chooses one; its section of the same
name (`dpo: {beta: 0.2}`, `--set dpo.beta=0.2`) has what is its alone. Defaults stand here and nowhere else.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

_STRICT = ConfigDict(extra="forbid", frozen=True)
_Positive = Annotated[float, Field(gt=0)]


def objective_names() -> list[str]:
    """The objectives there are: the files of training/objectives."""
    folder = Path(__file__).parents[1] / "objectives"
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


class Dpo(BaseModel):
    """Chosen against rejected, measured against the student as it was: the reference."""

    model_config = _STRICT

    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    beta: _Positive = 0.1
    """How closely the student stays to the reference: higher is closer. With ipo it is the paper's tau."""

    nll: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the chosen side's negative log-likelihood beside the loss, as SFT has it; 0 leaves it out."""

    precompute_ref_log_probs: bool = True
    """Have the reference's log-probabilities of all rows before step 1, so that no second model is held. Adapters never
    need one: without them, the student is the reference."""


class Kto(BaseModel):
    """Single responses labelled wanted or not, measured against the reference."""

    model_config = _STRICT

    beta: _Positive = 0.1
    desirable_weight: _Positive = 1.0
    undesirable_weight: _Positive = 1.0
    precompute_ref_log_probs: bool = True


class Rm(BaseModel):
    """A reward model: one number a conversation, the chosen side's above the rejected side's."""

    model_config = _STRICT

    center: Annotated[float, Field(ge=0)] = 0.0
    """Weight that keeps the numbers around 0, 0.01 in the paper that proposes it; 0 leaves it out."""

    margin: bool = False
    """Have the chosen side's number above the rejected side's by the pair's `margin`, the faults between them."""


class Grpo(BaseModel):
    """Responses that the student writes itself, rewarded by `training/reward` against others to the same prompt."""

    model_config = _STRICT

    num_generations: Annotated[int, Field(ge=2)] = 8
    """Responses a prompt. `batch_size` counts responses; a step's have to be whole prompts."""

    max_completion: PositiveInt = 512
    """Tokens a response may have; one that is cut there has no answer, hence no reward."""

    temperature: _Positive = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the divergence from the reference; above 0 without adapters, that is held as a second model."""

    loss: Literal["grpo", "dapo", "dr_grpo", "bnpo"] = "dapo"
    vllm: Literal["colocate", "server"] | None = None
    """Generate by vLLM, in this process or at a server of `trl vllm-serve`; needs a GPU and vllm. null is
    transformers."""

    max_words: PositiveInt = 400
    """Words of reasoning beyond which the reward falls."""

    judges: tuple[str, ...] = ()
    """Who judges responses in the rules' place (`--reward-judge`): names of judges.yaml, or of `judge_config`."""

    judge_config: str | None = None
    """A run.yaml, whose judges, entries of teachers and vote hold; its own judges where none is named."""

    max_cost: Annotated[float, Field(ge=0)] | None = None
    """US dollars that the judges may cost, all calls of this training together."""

    max_tokens: Annotated[int, Field(ge=0)] | None = None
    """The same in tokens."""

    @property
    def judged(self) -> bool:
        """Whether anybody is asked about responses."""
        return bool(self.judges or self.judge_config)

    @model_validator(mode="after")
    def _caps_have_judges(self) -> Self:
        if not self.judged and (self.max_cost is not None or self.max_tokens is not None):
            raise ValueError("max_cost and max_tokens cap what judges take, and none is named (--reward-judge NAME)")
        return self
