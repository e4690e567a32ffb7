"""The one request runner: rows in, outcomes out, with ledger, budget, stop and progress (scheduler.py, asker.py)."""
