"""Accepted rows become a release folder with a card."""
