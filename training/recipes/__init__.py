"""Recipes: what is trained and how, one file each in the folder of its student."""
