"""A release becomes a student."""
