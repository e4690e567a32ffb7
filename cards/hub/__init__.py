"""Releases and students to the Hub, and from it."""
