"""SQL over a run's tables: fenced, read-only, and in a separate process where the query is the user's."""
