"""Datasets that somebody else made, read as runs of ours."""
