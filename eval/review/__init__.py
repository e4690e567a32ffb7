"""People's votes on answers of an evaluation, and its rates corrected by them."""
