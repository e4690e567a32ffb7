"""The reward of GRPO as an environment of `verifiers`: prompts of a release, one turn each, rewarded as in training.

Reads the configuration `prompts` of a release folder; judges, where there are any, keep what they are asked in a folder
of their own. Install beside SaferThoughts (`pip install -e '.[rl]' -e environments/safe_reasoning`), then
`vf-eval safe-reasoning --env.taskset.release runs/mine/release`, or name `safe-reasoning` in a trainer's configuration.
"""

from safe_reasoning.environment import SafeReasoningEnv, SafeReasoningHarness, SafeReasoningTaskset

__all__ = ["SafeReasoningEnv", "SafeReasoningHarness", "SafeReasoningTaskset"]
