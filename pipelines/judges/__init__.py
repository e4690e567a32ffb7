"""Judges of responses: each says how a row is put to it and how its reply is read."""
