"""Releases as the page and the API show them: own and pulled ones, their cards, their comparison."""
