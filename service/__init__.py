"""The page and the HTTP API over the runs of a folder."""
