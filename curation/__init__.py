"""Judged rows become accepted rows; every refused row keeps its reason."""
