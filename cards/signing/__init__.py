"""Signatures of releases and students: made, read and checked."""
