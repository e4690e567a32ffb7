"""PAIR's transcripts of one model put to another: the best prompt of each question, asked once.

Reads the log of the other evaluation; writes nothing. What comes of it is transfer, and is marked as that: the prompts
were fitted to another model, so that a low rate says little about what an attack on this one would do.
"""

from collections.abc import Mapping
from pathlib import Path

from inspect_ai.model import ChatMessageUser
from inspect_ai.solver import Generate, Solver, TaskState, solver

from eval.run.logs import read_log
from eval.run.results import read_results
from eval.scorers.guards import DETAIL, NOT_ASKED
from eval.scorers.pair import STORE, Attempt, best_of
from pipelines.errors import UserError

NONE = "none"


def transcripts(source: Path) -> tuple[str, dict[str, str]]:
    """The model that was attacked, and the best prompt by question.

    Args:
        source: A folder with a results.json that has PAIR of one model, or one log of PAIR's.

    Raises:
        UserError: it holds no PAIR, that of several models, or no prompt.
    """
    if source.suffix == ".eval":
        label, folder, name = source.parent.name, source.parent, source.name
    else:
        logs = next((run.logs for run in read_results(source).tasks if run.name == "pair"), {})
        if len(logs) != 1:
            held = f"PAIR of {', '.join(logs)}: name one log below it" if logs else "no PAIR"
            raise UserError(f"--replay {source} holds {held}.")
        [(label, name)] = logs.items()
        folder = source if source.is_dir() else source.parent
    found = {}
    for sample in read_log(folder, name).samples or []:
        try:
            attempts = [Attempt(**one) for one in sample.store.get(STORE, [])]
        except TypeError as error:
            raise UserError(f"--replay {source}: its log holds no attempts as PAIR writes them ({error}).") from error
        best = best_of(attempts)
        if best is not None:
            found[str(sample.metadata.get("question") or sample.input)] = best.prompt
    if not found:
        raise UserError(f"--replay {source}: its log holds no prompt of PAIR's.")
    return label, found


@solver
def replayed(label: str, prompts: Mapping[str, str], put: Solver) -> Solver:
    """Ask the prompt that was found for the question on another model.

    Args:
        label: That model.
        prompts: By question.
        put: What asks the target.
    """

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        prompt = prompts.get(state.input_text)
        state.metadata[DETAIL] = {"transfer": label, "queries": int(prompt is not None)}
        if prompt is None:
            state.metadata[NOT_ASKED] = "no transcript has this question"
            return state
        state.messages = [ChatMessageUser(content=prompt)]
        return await put(state, generate)

    return solve
