"""Configurations of a release for other objectives than supervised fine-tuning: pairs, labels, prompts, steps."""
