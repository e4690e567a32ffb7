"""Untrusted programs in bubblewrap, and whether they pass a problem's tests."""
