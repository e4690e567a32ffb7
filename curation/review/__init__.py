"""People's spot checks in Argilla: the embedded server, what is sent there, what comes back, and what it means."""
