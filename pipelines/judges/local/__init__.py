"""Judges that run on this machine's CPU: a table of token vectors and linear heads, read from a folder."""
