"""Prompts and variants: where requests come from, how they are drawn, and the stage that starts a run."""
