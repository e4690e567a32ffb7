"""Third-party datasets, imported as runs."""
