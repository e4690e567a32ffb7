"""Prompts become answered, judged rows. The ground floor: rows, run folder and configuration live here."""
