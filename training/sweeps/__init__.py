"""Sweeps: recipes with several values of some keys, trained one after another; the bundled ones are files here."""
