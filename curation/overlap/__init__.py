"""Texts that overlap: near-duplicates, and contamination with evaluation sets."""
