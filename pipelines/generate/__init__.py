"""Prompts to responses: the plan, the Distilabel pipeline, and the stage."""
