"""A release made of a run, how it came to be, and its recipe made again with another teacher."""
