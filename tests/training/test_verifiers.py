"""The reward as an environment: verifiers itself loads the package, rolls it out at an endpoint and rewards it."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import UserError
from pipelines.thinking import join
from tests.pipelines.conftest import _serving
from tests.training.conftest import written_release
from tests.training.test_objectives import REFUSAL, rows_of
from tests.training.test_reward import config_at, judging

# Its openai is an earlier one than ours: it lives in an environment of its own (docs/training.md).
vf: Any = pytest.importorskip("verifiers.v1", reason="verifiers is not installed (extra rl)")

PACKAGE = Path(__file__).parents[2] / "environments" / "safe_reasoning"


@pytest.mark.filterwarnings("default")
def test_verifiers_rolls_the_environment_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(PACKAGE), *sys.path])
    monkeypatch.setenv("NO_KEY", "none")
    release = written_release(tmp_path / "release", {"prompts": rows_of("prompts", 4)})

    def policy(body: dict[str, Any]) -> str | int:
        if body["model"] == "judging":
            return judging(body)
        number = int(body["messages"][-1]["content"].rstrip("?")[-1])
        help_ = join("That is an everyday task.", "Use the task manager.")
        # Where the prompt opens the reasoning, the reply lacks the opener.
        return [help_, REFUSAL.removeprefix("<think>\n"), help_.replace("task", "plums"), "Sorry"][number]

    def rewards(judged: bool) -> dict[str, tuple[float | None, str]]:
        with _serving(policy) as endpoint:
            task = {"judge_config": config_at(endpoint.url, tmp_path), "judged": tmp_path / "judged"} if judged else {}
            taskset = {"id": "safe-reasoning", "release": release, "task": task}
            env = vf.load_environment(vf.resolve_env_config({"taskset": taskset}))
            client = vf.EvalClientConfig(base_url=endpoint.url, api_key_var="NO_KEY")
            context = vf.ModelContext(model="policy", client=client)

            async def roll_out() -> list[Any]:
                async with env.serving():
                    return await asyncio.gather(*(env.run_slot(env.slots(task)[0], context) for task in env.taskset))

            episodes = asyncio.run(roll_out())
        traces = [trace for episode in episodes for trace in episode.traces]
        return {
            trace.task.data.id: (None if trace.has_error else trace.reward, str(trace.last_error)) for trace in traces
        }

    plain = rewards(judged=False)
    assert {name: value for name, (value, _) in plain.items()} == {"row-0": 1, "row-1": 1, "row-2": 1, "row-3": 0}
    found = rewards(judged=True)
    assert {name: value for name, (value, _) in found.items()} == {
        "row-0": pytest.approx(0.7143),
        "row-1": 1,
        "row-2": None,
        "row-3": 0,
    }
    assert "The judges could not be read: mine: " in found["row-2"][1]
    bare = vf.load_environment(vf.resolve_env_config({"taskset": {"id": "safe-reasoning"}}))
    with pytest.raises(UserError, match="Which release"):
        list(bare.taskset)
