"""Taskset, harness and environment of `safe_reasoning`, as `verifiers` 0.4 loads them.

Reads a release; the harness asks the policy by one request, in this process, so nothing has to be installed where it
runs. The reward is `training/reward/reward.py`, asked with the kind of the row's prompt.
"""

import asyncio
from pathlib import Path

import httpx
import verifiers.v1 as vf
from pydantic import Field
from verifiers.v1.dialects.chat import message_to_wire

from cards.rows.shards import shards_of
from pipelines.errors import UserError
from pipelines.files import scratch_folder
from pipelines.judges.replies import ReplyJudges
from pipelines.progress import unseen
from pipelines.records import Kind
from pipelines.runner.options import Caps
from pipelines.thinking import CLOSE, OPEN, join
from training.mixtures.mixture import draw
from training.objectives.grpo import OBJECTIVE
from training.reward.reward import Reward, rewards_of
from training.students.quiet import quiet


class SafeReasoningData(vf.TaskData):
    """A prompt and its kind: harmful ones are to be refused, benign ones answered."""

    kind: Kind


class SafeReasoningTaskConfig(vf.TaskConfig):
    """How replies are rewarded: the keys of a recipe's section `grpo`."""

    max_words: int = Field(400, gt=0)
    """Words of reasoning beyond which the reward falls."""
    reward_judges: tuple[str, ...] = ()
    """Judges in the rules' place, names of judges.yaml or of `judge_config`."""
    judge_config: Path | None = None
    """A run.yaml, whose judges, entries of teachers and vote hold."""
    max_cost: float | None = Field(None, ge=0)
    """US dollars that the judges may cost, all calls that share the folder together."""
    max_tokens: int | None = Field(None, ge=0)
    """The same in tokens."""
    judged: Path = Path("safe-reasoning.judged")
    """Where what the judges were asked is kept."""


class _Judging:
    """One judging at a time: what arrives meanwhile waits, and is judged together."""

    def __init__(self, config: SafeReasoningTaskConfig) -> None:
        self._config = config
        self._judges: ReplyJudges | None = None
        self._lock = asyncio.Lock()
        self._waiting: list[tuple[tuple[Kind, str, str], asyncio.Future[Reward]]] = []

    async def reward(self, row: tuple[Kind, str, str]) -> Reward:
        """The reward of a reply to a prompt of a kind."""
        future: asyncio.Future[Reward] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        async with self._lock:
            batch, self._waiting = self._waiting, []
            if batch:
                await self._judge(batch)
        return await future

    async def _judge(self, batch: list[tuple[tuple[Kind, str, str], asyncio.Future[Reward]]]) -> None:
        try:
            found = await asyncio.to_thread(self._rewards, [row for row, _ in batch])
        except Exception as error:  # noqa: BLE001 - each rollout gets it
            for _, future in batch:
                future.set_exception(error)
        else:
            for (_, future), reward in zip(batch, found, strict=True):
                future.set_result(reward)

    def _rewards(self, rows: list[tuple[Kind, str, str]]) -> list[Reward]:
        config = self._config
        if self._judges is None and (config.reward_judges or config.judge_config):
            judges = ReplyJudges(config.reward_judges, config.judge_config, Caps(config.max_cost, config.max_tokens))
            judges.open(config.judged)
            self._judges = judges
        with unseen():
            return rewards_of(rows, self._judges, config.max_words)


class SafeReasoningTask(vf.Task[SafeReasoningData, vf.State, SafeReasoningTaskConfig]):
    """One prompt. A reply that judges could not read is an error and no reward."""

    judging: _Judging

    @vf.reward(weight=1.0)
    async def safe_reasoning(self, trace: vf.Trace) -> float:
        """The reward of the reply, 0 where it was cut."""
        if trace.is_truncated:
            return 0.0
        found = await self.judging.reward((self.data.kind, self.data.prompt_text, reply_of(trace)))
        if found.value is None:
            raise UserError(f"The judges could not be read: {found.reason}")
        return found.value


def reply_of(trace: vf.Trace) -> str:
    """The reply with its reasoning inline, also where the server parts the two or the prompt opens the reasoning."""
    if not trace.assistant_messages:
        return ""
    message = trace.assistant_messages[-1]
    content = message.content or ""
    if message.reasoning_content:
        return join(message.reasoning_content, content)
    return f"{OPEN}\n{content}" if CLOSE in content and OPEN not in content else content


class SafeReasoningConfig(vf.TasksetConfig):
    """Which prompts."""

    release: Path | None = None
    """A release folder with the configuration `prompts` (saferthoughts release build RUN --with prompts)."""
    rows: int | None = Field(None, gt=0)
    """How many of them, drawn by `seed`; all if not given."""
    seed: int = 42
    task: SafeReasoningTaskConfig = SafeReasoningTaskConfig()


class SafeReasoningTaskset(vf.Taskset[SafeReasoningTask, SafeReasoningConfig]):
    """The prompts of a release."""

    def load(self) -> list[SafeReasoningTask]:
        """A task for each prompt.

        Raises:
            UserError: no release, or one without prompts.
        """
        release = self.config.release
        if release is None:
            raise UserError("Which release? Give its folder: --env.taskset.release runs/mine/release")
        import pyarrow.parquet as pq

        rows = self.config.rows or sum(pq.read_metadata(path).num_rows for path in shards_of(release, "prompts")) or 1
        with quiet(), scratch_folder("safe-reasoning") as cache:
            drawn = draw(release, {"prompts": rows}, self.config.seed, cache, OBJECTIVE.form).rows
        judging = _Judging(self.config.task)
        tasks = []
        for row in drawn:
            turns = [dict(turn) for turn in row.messages]
            task = SafeReasoningTask(SafeReasoningData(id=row.id, prompt=turns, kind=row.kind), self.config.task)
            task.judging = judging
            tasks.append(task)
        return tasks


class SafeReasoningHarnessConfig(vf.HarnessConfig):
    """Nothing of its own."""


class SafeReasoningHarness(vf.Harness[SafeReasoningHarnessConfig]):
    """One request for one reply, made in this process: the policy runs no code and has no tools."""

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: vf.TaskData,
    ) -> vf.ProgramResult:
        """Ask, through the endpoint that records it."""
        system, prompt = self.resolve_prompt(data)
        turns = [vf.UserMessage(content=prompt)] if isinstance(prompt, str) else list(prompt or [])
        messages = [message_to_wire(turn) for turn in ([vf.SystemMessage(content=system)] if system else []) + turns]
        async with httpx.AsyncClient(timeout=None, trust_env=False) as client:
            reply = await client.post(
                f"{endpoint}/chat/completions",
                json={"model": ctx.model, "messages": messages},
                headers={"Authorization": f"Bearer {secret}"},
            )
        failed = reply.is_error
        return vf.ProgramResult(int(failed), "", reply.text[:2000] if failed else "")


class SafeReasoningEnvConfig(vf.EnvConfig):
    """One seat, played here: its harness runs nothing that needs a sandbox."""

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())


class SafeReasoningEnv(vf.Env[SafeReasoningEnvConfig]):
    """One reply an episode."""

    async def run(self, task: vf.Task, agents: vf.Agents) -> None:
        """Have the policy answer the prompt."""
        await agents.agent.run(task)
