"""The reward of GRPO, and the cheats that it is tried against."""
