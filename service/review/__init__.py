"""People's review from the page: the Argilla server, votes, the gate."""
