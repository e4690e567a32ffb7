"""The report of evaluations: tables, tests between models, charts, examples."""
