"""How answers are scored: guards, refusals, attacks, mathematics."""
