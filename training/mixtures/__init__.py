"""Rows of releases and of other datasets: what a recipe trains on, and the mixtures that have a name."""
